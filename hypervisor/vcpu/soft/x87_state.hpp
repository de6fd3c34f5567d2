// x87 control instructions, and the pointers to the last instruction.
#pragma once

#include "hypervisor/vcpu/soft/fpu.hpp"

namespace transom::soft {

// FWAIT, FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FLDENV, FNSTENV, FRSTOR, FNSAVE; null for everything else.
Choice x87_control_handler(u8 opcode, u8 modrm);

// The instructions that compute, load or store a value: with the whole state loaded, always right (x87.cc); and with
// nothing but operands, where that is enough (x87_direct.cc), else null.
Choice x87_whole_handler(u8 opcode, u8 modrm);
Choice x87_direct_handler(u8 opcode, u8 modrm);

void set_fcw(Fx& fx, u16 value); // and what follows from the masks: ES, B

// What FIP and FDP become for this instruction (fpu.hpp says what they hold).
inline bool real_pointers(const Cpu& cpu) { return real_mode(cpu) || vm86(cpu); }
inline u64 x87_code_pointer(const Cpu& cpu) {
  const u64 rip = insn_rip(cpu);
  return real_pointers(cpu) ? static_cast<u32>(cpu.segment[CS].base + rip) : rip;
}
inline u64 x87_data_pointer(const Cpu& cpu, const Insn& i) {
  const u64 offset = effective_offset(cpu, i);
  return real_pointers(cpu) ? static_cast<u32>(cpu.segment[i.segment].base + offset) : offset;
}

} // namespace transom::soft
