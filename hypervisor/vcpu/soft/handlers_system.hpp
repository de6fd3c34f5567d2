// What the "system" half of the core provides: segments, far transfers, event delivery, control registers, MSRs, CPUID.
//
// The decoder asks system_handler() for every opcode listed below and takes a null handler for #UD. Immediates are in
// Insn::imm (far pointers ptr16:16/32: offset | selector << 32; ENTER is not here), operand size in Insn::osz, ModRM
// fields in reg, rm, form (Form::reg = register operand; reg and rm are register numbers). LOCK was already refused for
// all of these (except MOV CR, where the AMD "LOCK MOV CR0 = CR8" form is passed on).
//
// map 0 (one byte)  06 07 0E 16 17 1E 1F  PUSH/POP ES CS SS DS (not in 64-bit mode)
//                   62 BOUND, 63 ARPL (both not in 64-bit mode), 8C 8E MOV Sreg, 9A CALL far, C4 LES, C5 LDS, CA CB RET
//                   far, CC INT3, CD INT n, CE INTO, CF IRET, EA JMP far, F1 INT1, FF/3 CALL far mem, FF/5 JMP far mem
// map 1 (0F)        00 01 (all: incl. VMCALL 0F01C1 and VMMCALL 0F01D9 → platform->hypercall, SWAPGS, RDTSCP, INVLPG,
// SMSW,
//                   LMSW, SGDT…), 02 LAR, 03 LSL, 05 SYSCALL, 06 CLTS, 07 SYSRET, 08 INVD, 09 WBINVD, 20–23 MOV CR/DR,
//                   30 WRMSR, 31 RDTSC, 32 RDMSR, 33 RDPMC, 34 SYSENTER, 35 SYSEXIT, A0 A1 A8 A9 PUSH/POP FS GS, A2
//                   CPUID, AA RSM, B2 LSS, B4 LFS, B5 LGS, C7 /6 /7 in register form and /1 excluded (RDRAND, RDSEED,
//                   RDPID)
#pragma once

#include <string_view>

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"

namespace transom::soft {

struct SystemOpcode {
  u8 map; // 0: one byte, 1: 0F
  u8 opcode;
  u8 modrm; // 0 if the opcode has none
  u8 osz;   // 2, 4, 8
  bool code64;
  u8 prefix; // 0, 0x66, 0xF3, 0xF2: mandatory-prefix view (the last of F2/F3 wins over 66)
};
Choice system_handler(const SystemOpcode& op);

// Delivers cpu.event (then clears it) in any mode: real, VM86, protected, long; IST, stack switch, task gates. cpu.rip
// is the address to push for every kind. While it works, cpu.delivering holds the event; a nested raise() comes back
// through the run loop, which calls deliver() again with the new cpu.event and cpu.delivering still set: that call
// applies the double-fault matrix (and sets cpu.shutdown on a triple fault). Sets RF in pushed flags for faults,
// DR6/DR7.GD for #DB, nmi_blocked for NMIs. Ends with cpu.delivering.kind == none and update_mode() done.
void deliver(Cpu& cpu);

// IN/OUT/INS/OUTS: CPL/IOPL and the I/O permission bitmap; raises #GP(0).
void check_io_permission(Cpu& cpu, u16 port, unsigned width);
void watch_port(Cpu& cpu, u16 port, unsigned width); // DR0-DR3; if any is enabled

// Power-on state of everything in Cpu that is architectural (SDM 3A table 9-1), platform wiring untouched. Also
// cpu.model stays.
void reset_state(Cpu& cpu); // power-on
void init_state(Cpu& cpu);  // INIT#

// "base", "v2", "host"; null for another name.
const Model* find_model(std::string_view name);

} // namespace transom::soft
