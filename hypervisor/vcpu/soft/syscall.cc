// SYSCALL/SYSRET, SYSENTER/SYSEXIT as AMD defines them (APM 2 6.1, APM 3), SWAPGS, hypercalls.
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

// Attributes of the flat segments these instructions load.
constexpr u16 CODE64 = ATTR_G | ATTR_L | 0x9b, CODE32 = ATTR_G | ATTR_DB | 0x9b, DATA = ATTR_G | ATTR_DB | 0x93;
constexpr u16 DPL3 = 0x60;

void enter_flat(Cpu& cpu, u16 cs, u16 ss, u16 code, unsigned cpl, u64 rip) {
  const u16 level = cpl == 3 ? DPL3 : 0;
  set_segment(cpu, CS, flat_segment(static_cast<u16>((cs & ~3) | cpl), code | level));
  set_segment(cpu, SS, flat_segment(static_cast<u16>((ss & ~3) | cpl), DATA | level));
  cpu.cpl = static_cast<u8>(cpl);
  cpu.rip = rip;
}

u16 star_selector(const Cpu& cpu, unsigned shift) { return cpu.star >> shift & 0xffff; }

} // namespace

namespace op {

void syscall(Cpu& cpu, const Insn&) {
  if (!(cpu.efer & EFER_SCE) || real_mode(cpu)) raise(cpu, UD);
  const u16 cs = star_selector(cpu, 32) & 0xfffc;
  const u64 flags = get_flags(cpu);
  if (long_mode(cpu)) {
    cpu.gpr[RCX] = cpu.rip;
    cpu.gpr[11] = flags & ~FLAG_RF;
    const u64 target = code64(cpu) ? cpu.lstar : cpu.cstar;
    enter_flat(cpu, cs, cs + 8, CODE64, 0, target);
    load_flags(cpu, flags & ~(cpu.sfmask | FLAG_RF));
  } else {
    cpu.gpr[RCX] = static_cast<u32>(cpu.rip);
    enter_flat(cpu, cs, cs + 8, CODE32, 0, static_cast<u32>(cpu.star));
    load_flags(cpu, flags & ~(FLAG_VM | FLAG_IF | FLAG_RF));
  }
}

void sysret(Cpu& cpu, const Insn& i) {
  if (!(cpu.efer & EFER_SCE)) raise(cpu, UD);
  if (!protected_mode(cpu) || cpu.cpl != 0) raise(cpu, GP, 0);
  const u16 cs = star_selector(cpu, 48);
  const u64 r11 = cpu.gpr[11], rcx = cpu.gpr[RCX];
  if (i.osz == 8) {
    if (!canonical(rcx)) raise(cpu, GP, 0);
    enter_flat(cpu, cs + 16, cs + 8, CODE64, 3, rcx);
  } else {
    enter_flat(cpu, cs, cs + 8, CODE32, 3, static_cast<u32>(rcx));
  }
  load_flags(cpu, long_mode(cpu) ? r11 & ~(FLAG_RF | FLAG_VM) : get_flags(cpu) | FLAG_IF);
}

void sysenter(Cpu& cpu, const Insn&) {
  if (long_mode(cpu)) raise(cpu, UD);
  if (real_mode(cpu) || (cpu.sysenter_cs & 0xfffc) == 0) raise(cpu, GP, 0);
  const u16 cs = cpu.sysenter_cs & 0xfffc;
  enter_flat(cpu, cs, cs + 8, CODE32, 0, static_cast<u32>(cpu.sysenter_eip));
  cpu.gpr[RSP] = static_cast<u32>(cpu.sysenter_esp);
  load_flags(cpu, get_flags(cpu) & ~(FLAG_VM | FLAG_IF | FLAG_RF));
}

void sysexit(Cpu& cpu, const Insn&) {
  if (long_mode(cpu)) raise(cpu, UD);
  if (!protected_mode(cpu) || cpu.cpl != 0 || (cpu.sysenter_cs & 0xfffc) == 0) raise(cpu, GP, 0);
  const u16 cs = cpu.sysenter_cs & 0xfffc;
  enter_flat(cpu, cs + 16, cs + 24, CODE32, 3, static_cast<u32>(cpu.gpr[RDX]));
  cpu.gpr[RSP] = static_cast<u32>(cpu.gpr[RCX]);
  update_mode(cpu);
}

void swapgs(Cpu& cpu, const Insn&) {
  if (!code64(cpu)) raise(cpu, UD);
  require_cpl0(cpu);
  const u64 base = cpu.segment[GS].base;
  cpu.segment[GS].base = cpu.kernel_gs_base;
  cpu.segment[GS].refresh();
  cpu.kernel_gs_base = base;
}

// VMCALL and VMMCALL are the same hypercall. Xen's answer to anybody but the guest's kernel is -EPERM.
void hypercall(Cpu& cpu, const Insn&) {
  const bool wide = code64(cpu);
  u64 result = static_cast<u64>(-1);
  if (protected_mode(cpu) && cpu.cpl == 0) {
    const u64* const r = cpu.gpr;
    const u64 args64[6] = {r[RDI], r[RSI], r[RDX], r[10], r[8], r[9]};
    const u64 args32[6] = {static_cast<u32>(r[RBX]), static_cast<u32>(r[RCX]), static_cast<u32>(r[RDX]),
                           static_cast<u32>(r[RSI]), static_cast<u32>(r[RDI]), static_cast<u32>(r[RBP])};
    result = cpu.platform->hypercall(wide ? r[RAX] : static_cast<u32>(r[RAX]), wide ? args64 : args32, wide);
  }
  cpu.gpr[RAX] = wide ? result : static_cast<u32>(result);
}

} // namespace op

} // namespace transom::soft
