// What MOVS STOS LODS CMPS SCAS INS OUTS share: counters, addresses, and runs that stay within a page.
#pragma once

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

inline u64 address_mask(const Insn* i) { return i->asz == 2 ? ~u64{0} : i->asz == 1 ? 0xffff'ffff : 0xffff; }

// Adds to rSI, rDI or rCX at the address size.
inline void advance(Cpu& cpu, const Insn* i, unsigned n, u64 by) {
  const u64 value = cpu.gpr[n] + by;
  if (i->asz == 2)
    cpu.gpr[n] = value;
  else if (i->asz == 1)
    cpu.gpr[n] = static_cast<u32>(value);
  else
    set_reg<u16>(cpu, n, static_cast<u16>(value));
}

inline bool backward(const Cpu& cpu) { return (cpu.rflags & FLAG_DF) != 0; }
inline u64 step(const Cpu& cpu, unsigned width) { return backward(cpu) ? ~u64{width} + 1 : width; }

// Elements from segment:offset that lie in one page, within the segment and without wrapping, going the way of DF; and
// their linear address. 0: none, take the single-element path, which faults or crosses as it must.
struct Run {
  u64 linear = 0;
  u64 count = 0;
};
inline Run page_run(const Cpu& cpu, const Insn* i, unsigned segment, u64 offset, unsigned width, u64 count,
                    bool write) {
  const Segment& s = cpu.segment[segment];
  if (!code64(cpu) && !(write ? s.writable : s.readable)) return {};
  u64 linear = offset;
  if (code64(cpu))
    linear += segment >= FS ? s.base : 0;
  else
    linear = static_cast<u32>(linear + s.base);
  const u64 in_page = linear % PAGE_SIZE;
  if (in_page + width > PAGE_SIZE) return {};
  u64 fits = backward(cpu) ? in_page / width + 1 : (PAGE_SIZE - in_page) / width;
  // The whole page on either side must be inside the segment and the address space, else go one by one.
  const u64 low = backward(cpu) ? offset - (fits - 1) * width : offset, high = low + fits * width - 1;
  if (low > high || high > address_mask(i)) return {};
  if (!code64(cpu) && !s.flat && (low < s.first || high > s.last)) return {};
  if (fits > count) fits = count;
  return {linear, fits};
}

// Where a run lies in the host; null: a device, or a page with code. Faults as the first element of the run would. Two
// pages of the same index put each other out of the table, so what counts is the answer of the walk.
inline u8* direct_read(Cpu& cpu, u64 linear) {
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.read < PAGE_SIZE) return reinterpret_cast<u8*>(linear + e.addend);
  u8* const page = resolve(cpu, linear, Access::read, user_mode(cpu)).host_read;
  return page != nullptr ? page + linear % PAGE_SIZE : nullptr;
}
inline u8* direct_write(Cpu& cpu, u64 linear) {
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.write < PAGE_SIZE) return reinterpret_cast<u8*>(linear + e.addend);
  const TlbInfo& info = resolve(cpu, linear, Access::write, user_mode(cpu));
  if (info.host_write == nullptr || info.host_write != info.host_read || cpu.blocks->has_code(info.ram_page))
    return nullptr;
  return info.host_write + linear % PAGE_SIZE;
}

// Between two runs of a repeated instruction: somebody wants the CPU, or TF traps every iteration.
inline bool interrupted(const Cpu& cpu) {
  return cpu.exit_flag->load(std::memory_order_relaxed) != 0 || (cpu.rflags & FLAG_TF) != 0 || cpu.pending_debug != 0 ||
         cpu.blocks->flush_pending();
}
// Leaves the block with the instruction still to be finished.
inline const Insn* resume_later(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 rip = insn_rip(cpu);
  cpu.instructions += i->ordinal - 1u;
  return enter_slow(cpu, rip);
}

} // namespace transom::soft
