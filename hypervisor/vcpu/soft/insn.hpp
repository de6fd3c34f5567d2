// The decoded instruction: one 32-byte record, its handler, and how handlers chain.
#pragma once

#include "core/types.hpp"

namespace transom::soft {

struct Cpu;
struct Insn;
struct Block;

// Executes `i` and everything after it up to the end of dispatch (chained) or returns the record to run next (loop).
// nullptr leaves the dispatcher.
using Handler = const Insn* (*)(Cpu&, const Insn*);

// Segment registers by their encoding in MOV Sreg.
enum SegmentIndex : u8 { ES, CS, SS, DS, FS, GS, SEGMENTS };

// Values of Insn::base/index beyond the sixteen general registers; both are slots of Cpu::gpr.
inline constexpr u8 REG_ZERO = 16; // always 0
inline constexpr u8 REG_RIP = 17;  // RIP of the first instruction of the running block

// How the memory operand is reached.
enum class Form : u8 {
  reg,    // no memory operand: Insn::rm is a register
  flat,   // 64-bit mode, 64-bit address, base 0: gpr[base] + disp
  full,   // 64-bit mode, anything: + (gpr[index] << scale), FS/GS base, 32-bit address size
  legacy, // 16/32-bit code: offset masked to the address size, then checked against the segment
};

enum InsnFlags : u8 {
  INSN_LOCK = 1,
  INSN_REP = 2,   // F3
  INSN_REPNE = 4, // F2
  INSN_REX_W = 8,
  INSN_END = 16, // last record of its block that stands for an instruction
};

struct Insn {
  Handler handler;
  union {
    u64 imm; // immediate, sign-extended to 64 bits where the instruction does so; far pointers: offset | selector << 32
    Block* link; // direct branches within the page: the block at the target, once known
  };
  i32 disp; // displacement; RIP-relative ones already include offset + length. Direct branches: see handlers_branch.cc
  u16 offset;   // first byte of this instruction, counted from the block's first byte
  u8 length;    // in bytes
  u8 ordinal;   // instructions of the block up to and including this one
  u8 reg;       // ModRM.reg with REX.R, or the register in the opcode. Byte registers: a byte offset into Cpu::gpr
  u8 rm;        // ModRM.rm with REX.B when it names a register. Byte registers: a byte offset into Cpu::gpr
  u8 base;      // 0–15, REG_ZERO or REG_RIP
  u8 index;     // 0–15 or REG_ZERO
  u8 scale : 2; // log2
  u8 segment : 3;
  u8 asz : 2; // address size: log2(bytes) − 1, thus 0: 16, 1: 32, 2: 64 bits
  u8 : 1;
  u8 flags; // InsnFlags
  Form form : 4;
  u8 osz : 4; // operand size in bytes as prefixes and mode say: 2, 4 or 8
  u8 opcode;  // last opcode byte
};
static_assert(sizeof(Insn) == 32);

#if TRANSOM_CHAIN_HANDLERS
inline constexpr bool CHAINED = true;
#else
inline constexpr bool CHAINED = false;
#endif

// The tail of every handler: `return go(cpu, record)`.
[[gnu::always_inline]] inline const Insn* go(Cpu& cpu, const Insn* i) {
  if constexpr (CHAINED) return i->handler(cpu, i);
  return i;
}
[[gnu::always_inline]] inline const Insn* next(Cpu& cpu, const Insn* i) { return go(cpu, i + 1); }

} // namespace transom::soft
