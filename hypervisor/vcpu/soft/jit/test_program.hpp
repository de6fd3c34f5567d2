// Random guest programs with everything in them that translated code has to notice: branches of all kinds over many
// pages, code that changes itself, code pages that are mapped elsewhere, faults, modes. They always come to their end:
// loops count in memory, functions call later ones only, and whatever is overwritten stays an instruction.
#pragma once

#include <asmjit/x86.h>
#include <random>
#include <vector>

#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {

// Where everything is, guest-physical and, but for what says so, linear too.
namespace place {
inline constexpr u64 GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, VARIABLES = 0x4000, HANDLERS = 0x5000, LOG = 0x6000,
                     LOG_END = 0x7f00, CODE = 0x1'0000, CODE_END = 0x2'0000, DATA = 0x2'0000, DATA_END = 0x2'4000,
                     VARIANTS = 0x3'0000 /* and behind it, one a page */, STACK0 = 0x7'8000, STACK = 0x8'0000,
                     USER_STACK = 0x9'0000, TABLES = 0x10'0000, OTHER_TABLES = 0x11'0000;
inline constexpr u64 WINDOW = 0x1c'0000;                         // linear: one of the variants
inline constexpr u64 NOTHING = 0x1e'0000, READ_ONLY = 0x1e'1000; // linear
inline constexpr u64 ALIAS = 0x20'0000, BIG = 0x40'0000;         // linear: all of it once more; in large pages
inline constexpr u64 BIG_WINDOW = 0x60'0000;                     // linear: a large page that is mapped elsewhere
// Variables
inline constexpr u64 RESUME = VARIABLES, LOG_AT = VARIABLES + 8, DEPTH = VARIABLES + 16, KERNEL_STACK = VARIABLES + 24,
                     INTERRUPTS = VARIABLES + 32, MXCSR = VARIABLES + 40, TARGET = VARIABLES + 0x40,
                     COUNTERS = VARIABLES + 0x100;
} // namespace place

enum Selectors : u16 {
  SEL_CODE32 = 0x08,
  SEL_DATA = 0x10,
  SEL_CODE64 = 0x18,
  SEL_USER_DATA = 0x23,
  SEL_USER_CODE64 = 0x2b,
  SEL_USER_CODE32 = 0x33,
  SEL_TSS = 0x38
};

struct Program {
  struct Chunk {
    u64 at;
    std::vector<u8> bytes;
  };
  bool long_mode = true;
  u64 entry = 0;
  std::vector<Chunk> code;
  std::vector<u64> immediates;     // four bytes each, of instructions that may get any others
  std::vector<u64> functions;      // entries
  void load(TestMachine& m) const; // RAM, tables, registers
};

class ProgramBuilder {
 public:
  ProgramBuilder(bool long_mode, u64 seed) : long_(long_mode), random_(seed * 2 + long_mode) {}
  Program build();

 private:
  using Gp = asmjit::x86::Gp;
  using Mem = asmjit::x86::Mem;
  using Label = asmjit::Label;
  using Operand = asmjit::Operand;

  u64 below(u64 n) { return random_() % n; }
  bool percent(unsigned n) { return below(100) < n; }
  unsigned word() const { return long_ ? 8 : 4; }

  // test_program.cc: the whole
  template <class F>
  void assemble(u64 at, F&& body);
  void handlers();
  void stub(unsigned vector, bool error);
  void variant(u64 at);
  void swapper();
  void function(unsigned n);
  void recursive_function(u64 at);
  void main_function(u64 at);
  void initialise();

  // test_items.cc: instructions
  unsigned free_register();
  Gp reg(unsigned n, unsigned size) const;
  Gp random_reg(unsigned size);
  Mem memory(unsigned size);
  Mem variable(u64 at, unsigned size) const; // not relative to RIP
  Operand register_or_memory(unsigned size);
  unsigned random_size() { return 1u << below(long_ ? 4 : 3); }
  void binary();
  void unary();
  void shift();
  void multiply();
  void bits();
  void moves();
  void exchanges();
  void conditional();
  void stack();
  void strings();
  void sse();
  void x87();
  void plain();

  // test_events.cc: what a translator has to notice
  void items(unsigned count);
  void item();
  void skip();
  void loop();
  void calls();
  void call_to(u64 target);
  void bad_returns();
  void middle();
  void patch();
  u64 alias(u64 at);
  void store_code(u64 at);
  void patchable();
  void remap();
  void remap_large();
  void address_spaces();
  void fault();
  void floating_fault();
  void flags_and_traps();
  void user();
  void modes();
  void set_resume(const Label& to);
  void reload_cr3(u64 tables);
  bool long_;
  std::mt19937_64 random_;
  Program program_;
  asmjit::x86::Assembler* a_ = nullptr;
  u64 at_ = 0; // of what is being assembled
  struct Function {
    u64 at;
    u64 cost;
  };
  std::vector<Function> functions_; // the last one first
  u64 recursive_ = 0;
  u64 cost_ = 0, times_ = 1; // instructions so far, roughly; how often the present one runs
  unsigned counters_ = 0, nesting_ = 0;
  bool kernel_ = true; // code that is being made runs at CPL 0, in the program's own mode
};

} // namespace transom::soft
