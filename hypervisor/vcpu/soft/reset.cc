// State after power-on and INIT (SDM 3A table 9-1, APM 2 table 14-1).
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

Segment reset_segment(u16 selector, u64 base, u16 attr) {
  Segment s;
  s.base = base;
  s.limit = 0xffff;
  s.selector = selector;
  s.attr = attr;
  s.refresh();
  return s;
}

void reset_msrs(Cpu& cpu) {
  cpu.star = cpu.lstar = cpu.cstar = cpu.sfmask = cpu.kernel_gs_base = cpu.tsc_aux = 0;
  cpu.sysenter_cs = cpu.sysenter_esp = cpu.sysenter_eip = 0;
  cpu.pat = 0x0007'0406'0007'0406;
  cpu.mtrr_def_type = 0;
  for (u64& m : cpu.mtrr_fixed) m = 0;
  for (u64& m : cpu.mtrr_variable) m = 0;
}

} // namespace

// What RESET and INIT have in common.
void init_state(Cpu& cpu) {
  for (u64& r : cpu.gpr) r = 0;
  cpu.gpr[RDX] = cpuid(cpu, 1, 0).eax;
  cpu.current = nullptr;
  set_flags(cpu, 2);
  cpu.rip = 0xfff0;
  cpu.cpl = 0;
  cpu.interrupt_shadow = cpu.nmi_blocked = cpu.halted = cpu.shutdown = false;
  for (Segment& s : cpu.segment) s = reset_segment(0, 0, 0x93);
  cpu.segment[CS] = reset_segment(0xf000, 0xffff'0000, 0x93);
  cpu.ldtr = reset_segment(0, 0, 0x82);
  cpu.tr = reset_segment(0, 0, 0x8b);
  cpu.gdtr = cpu.idtr = {0, 0xffff};
  cpu.cr0 = CR0_ET | (cpu.cr0 & (CR0_NW | CR0_CD)); // INIT leaves the cache bits alone
  cpu.cr2 = cpu.cr3 = cpu.cr4 = 0;
  for (u64& p : cpu.pdptr) p = 0;
  cpu.efer = 0;
  for (u64& d : cpu.dr) d = 0;
  cpu.dr[6] = 0xffff'0ff0;
  cpu.dr[7] = 0x400;
  cpu.event = cpu.delivering = Event{};
  cpu.pending_debug = 0;
  flush_tlb(cpu);
  update_mode(cpu);
}

void reset_state(Cpu& cpu) {
  cpu.cr0 = CR0_NW | CR0_CD;
  reset_msrs(cpu);
  cpu.fx = Fx{};
  init_state(cpu);
}

} // namespace transom::soft
