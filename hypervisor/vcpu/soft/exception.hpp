// Raising exceptions, and the wrappers that turn a plain function into a handler.
//
// A function that raises never returns: raise() records the event and jumps to the run loop, which calls deliver().
// Nothing may have been committed when it is called, and no C++ object with a destructor may be alive in any frame
// between the run loop and the raise.
#pragma once

#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::soft {

enum Vector : u8 {
  DE = 0,
  DB = 1,
  NMI = 2,
  BP = 3,
  OF = 4,
  BR = 5,
  UD = 6,
  NM = 7,
  DF = 8,
  TS = 10,
  NP = 11,
  SS_FAULT = 12,
  GP = 13,
  PF = 14,
  MF = 16,
  AC = 17,
  MC = 18,
  XM = 19,
};

// RIP of the instruction being executed (cpu.current), and of the one after it.
inline u64 mask_rip(const Cpu& cpu, u64 rip) { return code64(cpu) ? rip : static_cast<u32>(rip); }
inline u64 insn_rip(const Cpu& cpu) { return mask_rip(cpu, cpu.gpr[REG_RIP] + cpu.current->offset); }
inline u64 next_rip(const Cpu& cpu) {
  return mask_rip(cpu, cpu.gpr[REG_RIP] + cpu.current->offset + cpu.current->length);
}

// Faults: cpu.rip becomes the RIP of the current instruction (or stays, between instructions).
[[noreturn]] void raise(Cpu& cpu, u8 vector);                        // without an error code
[[noreturn]] void raise(Cpu& cpu, u8 vector, u32 error);             // with one
[[noreturn]] void raise_page_fault(Cpu& cpu, u64 linear, u32 error); // sets CR2
// Any other event, cpu.rip as the caller left it: it is the address that is pushed.
[[noreturn]] void raise_event(Cpu& cpu, const Event& event);

// --- handlers made of plain functions. `F(cpu, insn)` runs with cpu.current set.

// An instruction after which the block goes on. It must not change rip, modes, segments or translations.
template <void (*F)(Cpu&, const Insn&)>
const Insn* simple(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  F(cpu, *i);
  return next(cpu, i);
}

// Looks up the block at cpu.rip under the current modes and runs it; returns to the run loop instead when asked to.
const Insn* enter(Cpu& cpu);

// Counts what the block has executed up to the current instruction; between instructions afterwards.
inline void retire(Cpu& cpu, const Insn* i) {
  cpu.instructions += i->ordinal;
  cpu.current = nullptr;
}

// An instruction that ends its block: transfers control, changes modes, segments, translations, or must be the last
// one before interrupts are looked at. On entry of F, cpu.rip is already the RIP of the following instruction; F sets
// another one to transfer control, and calls update_mode() itself if it changed anything listed there. F sets cpu.leave
// when the run loop has to look at the CPU before the next instruction (interrupt_shadow, IF became 1, HLT, shutdown,
// TF).
template <void (*F)(Cpu&, const Insn&)>
const Insn* ends(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  cpu.rip = next_rip(cpu);
  F(cpu, *i);
  retire(cpu, i);
  return enter(cpu);
}
// The decoder has to know which handlers end a block: those of this kind are returned as Choice{handler, true}.
struct Choice {
  Handler handler = nullptr; // null: #UD
  bool ends_block = false;
};
template <void (*F)(Cpu&, const Insn&)>
constexpr Choice simple_choice() {
  return {simple<F>, false};
}
template <void (*F)(Cpu&, const Insn&)>
constexpr Choice ends_choice() {
  return {ends<F>, true};
}

} // namespace transom::soft
