// Hardware task switching with 16- and 32-bit TSSs (SDM 3A 7.3). Long mode has none.
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

// Where things lie (SDM 3A figures 7-2 and 7-10). Segment selectors: ES CS SS DS, in the wide TSS also FS GS, then LDT.
struct Layout {
  unsigned size;  // bytes that must be within the limit
  unsigned width; // of a register slot
  unsigned ip, flags, registers, segments, segment_count, ldt;
};
constexpr Layout TSS16{0x2c, 2, 0x0e, 0x10, 0x12, 0x22, 4, 0x2a};
constexpr Layout TSS32{0x68, 4, 0x20, 0x24, 0x28, 0x48, 6, 0x60};
constexpr unsigned TSS32_CR3 = 0x1c, TSS32_TRAP = 0x64;

struct Tss {
  const Layout& layout;
  u64 base;

  u32 read(Cpu& cpu, unsigned offset) const {
    const u64 at = static_cast<u32>(base + offset);
    return layout.width == 4 ? read_system<u32>(cpu, at) : read_system<u16>(cpu, at);
  }
  void write(Cpu& cpu, unsigned offset, u64 value) const {
    const u64 at = static_cast<u32>(base + offset);
    if (layout.width == 4)
      write_system<u32>(cpu, at, static_cast<u32>(value));
    else
      write_system<u16>(cpu, at, static_cast<u16>(value));
  }
};

const Layout& layout_of(unsigned type) { return type & 8 ? TSS32 : TSS16; }

struct TaskState {
  u32 cr3 = 0, ip = 0, flags = 0, gpr[8] = {};
  u16 segments[SEGMENTS] = {}, ldt = 0;
  bool trap = false;
};

TaskState read_state(Cpu& cpu, const Tss& tss) {
  const Layout& at = tss.layout;
  TaskState s;
  s.ip = tss.read(cpu, at.ip);
  s.flags = tss.read(cpu, at.flags);
  for (unsigned n = 0; n < 8; ++n) s.gpr[n] = tss.read(cpu, at.registers + n * at.width);
  for (unsigned n = 0; n < at.segment_count; ++n)
    s.segments[n] = static_cast<u16>(tss.read(cpu, at.segments + n * at.width));
  s.ldt = static_cast<u16>(tss.read(cpu, at.ldt));
  if (at.width == 4) {
    s.cr3 = tss.read(cpu, TSS32_CR3);
    s.trap = tss.read(cpu, TSS32_TRAP) & 1;
  } else { // the upper halves read as ones on an 80386 and later (SDM 3B, 22.27): only the low ones matter
    for (u32& r : s.gpr) r |= 0xffff'0000;
  }
  return s;
}

void save_state(Cpu& cpu, const Tss& tss, u64 flags) {
  const Layout& at = tss.layout;
  tss.write(cpu, at.ip, cpu.rip);
  tss.write(cpu, at.flags, flags);
  for (unsigned n = 0; n < 8; ++n) tss.write(cpu, at.registers + n * at.width, cpu.gpr[n]);
  for (unsigned n = 0; n < at.segment_count; ++n)
    write_system<u16>(cpu, static_cast<u32>(tss.base + at.segments + n * at.width), cpu.segment[n].selector);
}

void set_busy(Cpu& cpu, u16 selector, bool busy) {
  const u64 at = static_cast<u32>(cpu.gdtr.base + (selector & 0xfff8u) + 5);
  const u8 access = read_system<u8>(cpu, at);
  write_system<u8>(cpu, at, static_cast<u8>(busy ? access | 2 : access & ~2));
}

// --- the new task's segments; faults belong to the new task

void load_ldt(Cpu& cpu, u16 selector) {
  if (null_selector(selector)) return;
  if (selector & 4) raise_selector(cpu, TS, selector);
  const Descriptor d = fetch_descriptor(cpu, selector, TS);
  if (!d.system() || d.type() != TYPE_LDT || !d.present()) raise_selector(cpu, TS, selector);
  cpu.ldtr = make_segment(d, selector);
}

void load_code(Cpu& cpu, u16 selector, u64 ip) {
  if (null_selector(selector)) raise_selector(cpu, TS, selector);
  Descriptor d = fetch_descriptor(cpu, selector, TS);
  if (!d.code() || (d.conforming() ? d.dpl() > cpu.cpl : d.dpl() != cpu.cpl)) raise_selector(cpu, TS, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  mark_accessed(cpu, d);
  commit_code(cpu, d, selector, cpu.cpl, ip);
}

void load_data(Cpu& cpu, unsigned index, u16 selector) {
  if (null_selector(selector)) return;
  Descriptor d = fetch_descriptor(cpu, selector, TS);
  const bool allowed = d.conforming() || (d.dpl() >= cpu.cpl && d.dpl() >= (selector & 3));
  if (!d.readable() || !allowed) raise_selector(cpu, TS, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  mark_accessed(cpu, d);
  set_segment(cpu, index, make_segment(d, selector));
}

void load_segments(Cpu& cpu, const TaskState& s) {
  load_ldt(cpu, s.ldt);
  if (s.flags & FLAG_VM) {
    for (unsigned index = 0; index < SEGMENTS; ++index) set_segment(cpu, index, vm86_segment(s.segments[index]));
  } else {
    load_code(cpu, s.segments[CS], s.ip);
    const Segment ss = stack_segment(cpu, s.segments[SS], cpu.cpl, TS);
    set_segment(cpu, SS, ss);
    for (const unsigned index : {ES, DS, FS, GS}) load_data(cpu, index, s.segments[index]);
  }
  update_mode(cpu);
  if (s.ip > cpu.segment[CS].limit) raise(cpu, GP, ext(cpu));
}

// The point of no return: everything that cannot fault.
void commit_state(Cpu& cpu, const TaskState& s, bool wide) {
  cpu.current = nullptr; // from here on faults push the new task's EIP
  cpu.cr0 |= CR0_TS;
  for (unsigned n = 0; n < 8; ++n) cpu.gpr[n] = s.gpr[n];
  for (unsigned index = 0; index < SEGMENTS; ++index) set_segment(cpu, index, null_segment(s.segments[index]));
  cpu.ldtr = null_segment(s.ldt);
  cpu.rip = s.ip;
  cpu.cpl = s.flags & FLAG_VM ? 3 : s.segments[CS] & 3;
  cpu.dr[7] &= ~u64{0x155}; // L0–L3, LE
  load_flags(cpu, s.flags);
  if (s.trap) {
    cpu.pending_debug |= 0x8000; // DR6.BT
    cpu.leave = LEAVE_ASKED;
  }
  if (wide && (cpu.cr0 & CR0_PG)) {
    if (cpu.cr4 & CR4_PAE) load_pdptrs(cpu, s.cr3);
    cpu.cr3 = s.cr3;
    flush_tlb_local(cpu);
  }
}

} // namespace

void switch_task(Cpu& cpu, u16 selector, Descriptor tss, TaskSource source) {
  const Tss from{layout_of(cpu.tr.attr), cpu.tr.base}, to{layout_of(tss.type()), tss.base()};
  if (tss.limit() + 1u < to.layout.size && tss.limit() != ~u32{0}) raise_selector(cpu, TS, selector);
  if (!cpu.tr.present() || cpu.tr.limit < from.layout.size - 1) raise_selector(cpu, TS, cpu.tr.selector);
  const bool nests = source == TaskSource::call || source == TaskSource::event;

  TaskState s = read_state(cpu, to);
  u64 flags = get_flags(cpu);
  const Event& e = cpu.delivering;
  if (source == TaskSource::event && e.kind == EventKind::fault && e.vector != DB) flags |= FLAG_RF; // as it is pushed
  save_state(cpu, from, source == TaskSource::iret ? flags & ~FLAG_NT : flags);
  if (nests) {
    write_system<u16>(cpu, static_cast<u32>(to.base), cpu.tr.selector);
    s.flags |= FLAG_NT;
  }
  if (!nests) set_busy(cpu, cpu.tr.selector, false);
  set_busy(cpu, selector, true);
  tss.raw |= u64{2} << 40;
  cpu.tr = make_segment(tss, selector);
  commit_state(cpu, s, to.layout.width == 4);
  load_segments(cpu, s);
}

void enter_task_gate(Cpu& cpu, const Descriptor& gate, TaskSource source) {
  const u16 selector = gate.gate_selector();
  if (null_selector(selector) || (selector & 4)) raise_selector(cpu, GP, selector);
  const Descriptor tss = fetch_descriptor(cpu, selector);
  if (!tss.system() || (tss.type() != TYPE_TSS && tss.type() != TYPE_TSS16)) raise_selector(cpu, GP, selector);
  if (!tss.present()) raise_selector(cpu, NP, selector);
  switch_task(cpu, selector, tss, source);
}

void return_to_task(Cpu& cpu) {
  const u16 selector = read_system<u16>(cpu, static_cast<u32>(cpu.tr.base));
  if (null_selector(selector) || (selector & 4)) raise_selector(cpu, TS, selector);
  const Descriptor tss = fetch_descriptor(cpu, selector, TS);
  if (!tss.system() || (tss.type() != TYPE_TSS_BUSY && tss.type() != TYPE_TSS16_BUSY))
    raise_selector(cpu, TS, selector);
  if (!tss.present()) raise_selector(cpu, NP, selector);
  switch_task(cpu, selector, tss, TaskSource::iret);
}

} // namespace transom::soft
