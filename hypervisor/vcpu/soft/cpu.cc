#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::soft {

void Segment::refresh() {
  const bool code = attr & 8, usable = (attr & ATTR_P) && (attr & ATTR_S);
  readable = usable && (!code || (attr & 2));
  writable = usable && !code && (attr & 2);
  first = 0;
  last = limit;
  if (!code && (attr & 4)) { // expand-down: everything above the limit
    first = limit + 1;
    last = attr & ATTR_DB ? 0xffff'ffff : 0xffff;
    if (limit == 0xffff'ffff) {
      first = 1;
      last = 0;
    }
  }
  flat = base == 0 && first == 0 && last == 0xffff'ffff;
}

void update_flat(Cpu& cpu) {
  const auto everything = [&cpu](SegmentIndex n) {
    const Segment& s = cpu.segment[n];
    return s.flat && s.readable && s.writable;
  };
  constexpr unsigned WIDE = MODE_PE | MODE_CODE32 | MODE_STACK32 | MODE_FLAT_CS;
  const bool flat = (cpu.mode & (WIDE | MODE_64 | MODE_VM)) == WIDE && cpu.segment[CS].base == 0 && everything(SS) &&
                    everything(DS) && everything(ES);
  cpu.mode = static_cast<u16>((cpu.mode & ~MODE_FLAT) | (flat ? MODE_FLAT : 0));
}

void update_mode(Cpu& cpu) {
  const Segment &cs = cpu.segment[CS], &ss = cpu.segment[SS];
  const bool protection = cpu.cr0 & CR0_PE, lma = cpu.efer & EFER_LMA;
  const bool sixty_four = lma && (cs.attr & ATTR_L);
  const bool watching_data = (cpu.dr[7] & 0xff) != 0;
  unsigned mode = 0;
  if (lma) mode |= MODE_LONG;
  if (sixty_four) mode |= MODE_64;
  if (!sixty_four && (cs.attr & ATTR_DB)) mode |= MODE_CODE32;
  if (ss.attr & ATTR_DB) mode |= MODE_STACK32;
  if (cpu.cpl == 3) mode |= MODE_USER;
  if (protection) mode |= MODE_PE;
  if (protection && !lma && (cpu.rflags & FLAG_VM)) mode |= MODE_VM;
  if (sixty_four || cs.limit == 0xffff'ffff) mode |= MODE_FLAT_CS;
  if ((cpu.rflags & FLAG_TF) || watching_data) mode |= MODE_STEP;
  const bool alignment = cpu.cpl == 3 && (cpu.cr0 & CR0_AM) && (cpu.rflags & FLAG_AC);
  if (alignment) mode |= MODE_ALIGN;
  cpu.mode = static_cast<u16>(mode);
  update_flat(cpu);
  cpu.sse_allowed = !(cpu.cr0 & (CR0_EM | CR0_TS)) && (cpu.cr4 & CR4_OSFXSR);
  unload_fp(cpu); // loaded control words mean that the unit may be used
  cpu.code_base = sixty_four ? 0 : cs.base;
  cpu.code_limit = sixty_four ? ~u64{0} : cs.limit;
  cpu.tlb = alignment || watching_data ? cpu.slow_tlb : cpu.tlbs[cpu.cpl == 3].entry;
}

} // namespace transom::soft
