// Compiles one block. An instance lives for one compilation.
//
// Rules that every template keeps:
// - An instruction's slow path is its handler, which runs the whole of it. So nothing of the guest's may have changed
//   before the last check of the fast path.
// - rax and rcx are free at the beginning of an instruction. address() leaves rcx as the host's address.
// - Host flags hold the guest's as long as `flags_.host` says so. prepare() has saved them, if anyone needs them,
//   before an instruction with a memory operand begins.
#pragma once

#include <asmjit/x86.h>
#include <optional>

#include "hypervisor/vcpu/soft/decode.hpp"
#include "hypervisor/vcpu/soft/jit/registers.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"

namespace transom::soft {

// How the guest's arithmetic flags can be had. Whatever is true of these at a point in the code.
// `again` says how to make them from registers that have not changed since; inc and dec take CF from Cpu::flags, which
// holds the flags of before.
struct FlagState {
  enum class Again : u8 { no, known, compare, test, logic, add, sub, inc, dec };
  static constexpr u16 ZERO =
      0x4600;         // as in Cpu::flags: ZF and PF alone, what a difference or a logical result of 0 gives
  bool host = false;  // in the host's RFLAGS
  bool memory = true; // in Cpu::flags
  Again again = Again::no;
  u8 size = 0;            // bytes
  u8 a = 0;               // guest register; of add and sub: the result
  std::optional<i64> imm; // or
  u8 b = 0;               // guest register
  bool zero = false;      // ZF = 1 would mean that they are ZERO
  bool uses(unsigned reg) const {
    if (again <= Again::known) return false;
    const bool two = !imm && again != Again::logic && again < Again::inc;
    return a == reg || (two && b == reg);
  }
};

// Which guest XMM registers are in the host's of the same number.
struct XmmState {
  u16 valid = 0, dirty = 0;
};

// What an instruction does, as far as the ones around it care.
struct Effects {
  enum class Kind : u8 {
    none,  // no template: its handler runs
    leave, // no template, and it ends the block
    nop,
    mov,
    extend,
    lea,
    alu,
    test,
    inc_dec,
    neg,
    not_,
    shift,
    double_shift,
    imul,
    mul,
    bit,
    scan,
    popcnt,
    bswap,
    xchg,
    cmpxchg,
    xadd,
    cmov,
    setcc,
    widen,
    widen_pair,
    push,
    pop,
    leave_frame,
    call,
    jump,
    jcc,
    ret,
    carry,
    cli,
    sti,
    pushf,
    popf,
    repeat_string,
    sse,
  };
  Kind kind = Kind::none;
  bool memory = false; // checks an address, or something else that may take the slow path; the host's flags are lost
  u8 reads = 0;        // FlagSet
  u8 writes = 0;       // FlagSet; whatever is not in it stays as it was
  u32 registers = 0;   // guest registers written, as bits
};

class BlockCompiler {
 public:
  static constexpr u64 MOST_BYTES = u64{96} << 10; // of either part of the arena, for a block of 64 instructions

  BlockCompiler(Cpu& cpu, Translator& translator, Translation& translation);
  bool compile(); // false: not worth it, or it cannot be done; nothing has happened

 private:
  using Gp = asmjit::x86::Gp;
  using Mem = asmjit::x86::Mem;
  using Label = asmjit::Label;

  struct SlowPath {
    Label entry, back;
    FlagState before, after;
    XmmState xmm_before, xmm_after;
    unsigned index;
    bool fp;
    bool borrowed;
  };
  struct ExitPath {
    Label entry;
    FlagState flags;
    XmmState xmm;
    u64 rip;
    unsigned executed;  // instructions
    bool bare;          // a return site: all else is done, but whoever comes may come from anywhere
    unsigned index;     // of the branch
    bool plain = false; // to a translation without groups
    bool borrowed = false;
  };
  // A host register that holds another guest register than usual, because the block does not use its own.
  struct Borrow {
    u8 guest, owner, host;
  };
  // A memory operand's part in a group (groups.cc).
  struct Access {
    i8 slot = -1; // none
    bool opens = false;
    bool write = false; // someone in the group does
    i32 low = 0;        // the range's first byte, from the present value of the register
    u16 range = 0;      // bytes
  };
  static constexpr unsigned GROUPS = 8;

  class Errors : public asmjit::ErrorHandler {
   public:
    void handleError(asmjit::Error, const char*, asmjit::BaseEmitter*) override { failed = true; }
    bool failed = false;
  };

  // compiler.cc
  bool decode_all();
  void analyse();
  void prepare(unsigned k);
  bool instruction(unsigned k); // false: it left the block
  void check_second_page();
  void finish_slow_paths();
  void finish_exits();
  bool place();
  u32 step_site(unsigned k, bool fp);
  unsigned call_handlers(unsigned k); // how many
  void leave_to(unsigned k);          // the interpreter goes on with record k

  // borrow.cc
  void find_borrows();
  void borrow();                    // emits it
  void borrow_again();              // after a handler has run
  void give_back();                 // emits it; borrowed registers are where everybody expects them
  void use_borrowed(bool borrowed); // how code from here on finds registers
  bool pinned(unsigned guest) const { return host_[guest] != NOT_PINNED; }

  // flags.cc
  void save_flags(const FlagState& s); // to Cpu::flags; eats rax
  void make_flags(const FlagState& s); // again, in the host's
  void need_host_flags();              // eats rax
  void need_carry();
  void set_flags_zero() { // no more is known than FlagState::zero
    set_flags();
    flags_.zero = true;
  }
  void set_flags(FlagState::Again again = FlagState::Again::no, u8 size = 0, u8 a = 0, u8 b = 0,
                 std::optional<i64> imm = {});

  // operands.cc
  static Mem slot(unsigned guest, unsigned size = 8);
  static Gp sized(unsigned host, unsigned size);
  Gp source(unsigned guest, unsigned size, const Gp& scratch); // the register, or a copy in `scratch`
  asmjit::Operand operand(unsigned guest, unsigned size);      // the register, or its slot
  void load64(const Gp& to, unsigned guest);
  void store64(unsigned guest, const Gp& from);
  asmjit::Operand byte_source(unsigned offset, const Gp& scratch);      // Decoded's byte registers
  void store_byte(unsigned offset, const Gp& value, const Gp& scratch); // value: al or cl
  Mem address(const Decoded& d, unsigned size, bool write, bool aligned = false);
  Mem stack_address(i32 displacement, unsigned size, bool write);
  void effective(const Decoded& d, const Gp& to, const Gp& scratch, unsigned rip_after);
  Mem checked(unsigned size, bool write, bool aligned); // rcx: linear
  Mem constant_address(u64 linear, unsigned size, bool write, bool aligned);
  Mem noted(const Mem& m, unsigned size, bool write); // for the checker
  Label slow();                                       // of the current instruction
  void immediate64(const Gp& to, u64 value);

  // groups.cc
  void find_groups();
  void only_members(unsigned k);
  Mem grouped(const Access& access, unsigned reg, i32 disp, unsigned size);
  Label plain_exit();

  // integer.cc
  asmjit::Operand read_operand(const Decoded& d);
  void mov(const Decoded& d);
  void extend(const Decoded& d);
  void lea(const Decoded& d);
  void alu(const Decoded& d);
  void test(const Decoded& d);
  void unary(const Decoded& d);
  void shift(const Decoded& d);
  void double_shift(const Decoded& d);
  void imul(const Decoded& d);
  void mul(const Decoded& d);
  void bit(const Decoded& d);
  void scan(const Decoded& d);
  void bswap(const Decoded& d);
  void xchg(const Decoded& d);
  void cmpxchg(const Decoded& d);
  void xadd(const Decoded& d);
  void cmov(const Decoded& d);
  void setcc(const Decoded& d);
  void widen(const Decoded& d);
  void carry(const Decoded& d);
  template <class Op>
  void to_register(unsigned guest, unsigned size, bool read, Op&& op); // op(register) computes into it

  // strings.cc
  void string_address(unsigned reg, bool write);
  void repeat_string(const Decoded& d);

  // system.cc
  void cli(const Decoded& d);
  void sti(const Decoded& d);
  void pushf(const Decoded& d);
  void popf(const Decoded& d);

  // branches.cc
  void push(const Decoded& d);
  void pop(const Decoded& d);
  void leave_frame(const Decoded& d);
  void jcc(const Decoded& d);
  void jump(const Decoded& d);
  void call(const Decoded& d);
  void ret(const Decoded& d);
  void move_stack(i32 by);
  void settle();
  void load_target(const Decoded& d);
  void check_canonical();
  void push_return(u64 rip);
  void count(unsigned executed);
  void go_to(u64 rip, unsigned executed, bool bare); // emits the exit right here
  void exit_code(const ExitPath& e);
  Label exit_to(u64 rip, unsigned executed, bool bare = false);
  u64 target(const Decoded& d) const;

  // sse.cc
  void sse(const Decoded& d);
  void xmm_load(unsigned n);
  void xmm_write_back(const XmmState& s);
  void xmm_reload(const XmmState& s);
  void sse_check(bool floating);
  void emit_sse(const Decoded& d, unsigned reg, std::optional<Mem> memory, unsigned rm, bool imm);

  Cpu& cpu_;
  Translator& translator_;
  Translation& translation_;
  Block& block_;
  const bool long_; // 64-bit code
  const bool user_;
  unsigned count_ = 0;
  Decoded d_[BLOCK_INSNS];
  Effects e_[BLOCK_INSNS];
  std::vector<Borrow> borrows_;
  bool borrowed_ = false; // now
  u8 host_[16] = {};      // NOT_PINNED: in its slot
  Access operand_[BLOCK_INSNS], stack_[BLOCK_INSNS];
  u16 offset_[BLOCK_INSNS + 1];
  u8 counted_[BLOCK_INSNS + 1]; // of the instructions before, those that translated code executes
  bool needed_[BLOCK_INSNS];    // someone may look at the flags after this instruction before they are all set anew
  bool read_[BLOCK_INSNS];      // and an instruction of the block does

  Errors errors_;
  asmjit::CodeHolder code_;
  asmjit::x86::Assembler a;
  asmjit::Section* cold_ = nullptr;
  unsigned k_ = 0; // current instruction
  FlagState flags_;
  XmmState xmm_;
  FlagState slow_flags_;   // of a slow path behind settle()
  bool flags_set_ = false; // by the current instruction
  bool sse_checked_ = false, mxcsr_loaded_ = false;
  std::optional<Label> slow_, plain_exit_; // of the current instruction
  std::vector<SlowPath> slow_paths_;
  std::vector<ExitPath> exit_paths_;
  struct Patch {
    std::size_t at; // offset in the hot section
    u32 exit;       // site
    bool tag;       // an imm64 rather than a rel32
  };
  std::vector<Patch> patches_;
};

// effects.cc
Effects effects_of(const Decoded& d);
// sse.cc: what kind of SSE instruction it is, if there is a template
struct SseForm {
  enum class Shape : u8 { none, compute, load, store, from_general, to_general, mask, shift_group, compare, index };
  Shape shape = Shape::none;
  u8 width = 16;        // of the memory operand
  bool aligned = false; // it has to be
  bool floating = false;
  bool imm = false;
  bool merges = true; // the destination's old value matters
};
SseForm sse_form(const Decoded& d);

} // namespace transom::soft
