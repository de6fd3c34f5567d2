// What the FPU/SIMD half of the core provides. A null handler is #UD.
//
// State lives in cpu.fx. #NM (CR0.TS, CR0.EM), CR4.OSFXSR and #XM/#MF are these handlers' own business. Memory operands
// come by load<T>/store<T>/modify (memory.hpp): T = u8…u64, Bytes10, Bytes16; larger images by linear address after
// probe(). Instruction fields: reg = ModRM.reg with REX.R, rm = ModRM.rm with REX.B (numbers, mask with 7 for MMX), imm
// = imm8, flags & INSN_REX_W, form == Form::reg for register operands, osz/asz as usual.
#pragma once

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"

namespace transom::soft {

// D8–DF and 9B (WAIT; modrm 0).
Choice x87_handler(u8 opcode, u8 modrm);

// map 1 (0F):   10–17 28–2F 50–7F (with 77 EMMS) AE (all: FXSAVE FXRSTOR LDMXCSR STMXCSR fences CLFLUSH) C2–C6 D0–FE;
// B8 and others not map 2 (0F38): everything but F0/F1 without F2 (MOVBE);  F2 0F38 F0/F1 = CRC32 comes here: for F0
// the source is a byte:
//               a byte register operand has rm as a byte offset into cpu.gpr (use reg<u8>)
// map 3 (0F3A): everything, imm8 in Insn::imm
struct SimdOpcode {
  u8 map;
  u8 opcode;
  u8 prefix; // mandatory prefix: 0, 0x66, 0xF3, 0xF2 (the last of F2/F3 wins over 66)
  u8 modrm;
  bool rex_w;
  bool code64;
};
Choice simd_handler(const SimdOpcode& op);

} // namespace transom::soft
