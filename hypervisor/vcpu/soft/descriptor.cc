// Descriptors, the segments made of them, and stacks under construction.
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {

bool find_descriptor(Cpu& cpu, u16 selector, Descriptor& d) {
  const bool local = selector & 4;
  if (local && !cpu.ldtr.present()) return false;
  const u64 base = local ? cpu.ldtr.base : cpu.gdtr.base;
  const u32 limit = local ? cpu.ldtr.limit : cpu.gdtr.limit;
  const u32 offset = selector & 0xfff8;
  if (offset + 7 > limit) return false;
  d.address = table_address(cpu, base + offset);
  d.raw = read_system<u64>(cpu, d.address);
  d.high = 0;
  return true;
}

Descriptor fetch_descriptor(Cpu& cpu, u16 selector, u8 vector) {
  Descriptor d;
  if (!find_descriptor(cpu, selector, d)) raise_selector(cpu, vector, selector);
  return d;
}

// LDT, TSS and call gates take 16 bytes in long mode; the type field of the upper half must be 0 (SDM 3A 5.8.3.1).
void fetch_upper_half(Cpu& cpu, u16 selector, Descriptor& d, u8 vector) {
  if (!long_mode(cpu)) return;
  const u32 limit = selector & 4 ? cpu.ldtr.limit : cpu.gdtr.limit;
  if ((selector & 0xfff8u) + 15 > limit) raise_selector(cpu, vector, selector);
  const u64 high = read_system<u64>(cpu, d.address + 8);
  if (high >> 40 & 0x1f) raise_selector(cpu, vector, selector);
  d.high = high & 0xffff'ffff;
}

void mark_accessed(Cpu& cpu, Descriptor& d) {
  if (d.raw >> 40 & 1) return;
  d.raw |= u64{1} << 40;
  write_system<u8>(cpu, table_address(cpu, d.address + 5), static_cast<u8>(d.raw >> 40));
}

Segment make_segment(const Descriptor& d, u16 selector) {
  Segment s;
  s.base = d.base();
  s.limit = d.limit();
  s.attr = d.attr();
  s.selector = selector;
  s.refresh();
  return s;
}

Segment flat_segment(u16 selector, u16 attr) {
  const bool code = attr & 8; // what refresh() would find
  Segment s;
  s.limit = s.last = 0xffff'ffff;
  s.attr = attr;
  s.selector = selector;
  s.readable = s.flat = true;
  s.writable = !code;
  return s;
}

Segment null_segment(u16 selector) {
  Segment s;
  s.limit = 0;
  s.attr = 0;
  s.selector = selector;
  s.refresh();
  return s;
}

Segment vm86_segment(u16 selector) {
  Segment s;
  s.base = u64{selector} << 4;
  s.limit = 0xffff;
  s.attr = 0xf3; // present, DPL 3, read/write data, accessed (SDM 3A 20.2.1)
  s.selector = selector;
  s.refresh();
  return s;
}

// Real mode: limit and granularity stay what they were, which is what "big real" and "unreal" mode live on.
Segment real_segment(const Cpu& cpu, unsigned index, u16 selector) {
  if (vm86(cpu)) return vm86_segment(selector);
  Segment s = cpu.segment[index];
  if (!s.present()) { // left null by protected mode
    s.limit = 0xffff;
    s.attr = 0;
  }
  s.base = u64{selector} << 4;
  s.attr = static_cast<u16>((s.attr & 0xff00) | 0x93);
  s.selector = selector;
  s.refresh();
  return s;
}

// SDM 2, MOV: loading a segment register in protected mode.
Segment checked_segment(Cpu& cpu, unsigned index, u16 selector) {
  if (!protected_mode(cpu)) return real_segment(cpu, index, selector);
  const unsigned rpl = selector & 3;
  if (index == SS) {
    if (!null_selector(selector)) return stack_segment(cpu, selector, cpu.cpl, GP);
    if (!code64(cpu) || cpu.cpl == 3 || rpl != cpu.cpl) raise(cpu, GP, ext(cpu));
    return null_segment(selector);
  }
  if (null_selector(selector)) return null_segment(selector);
  Descriptor d = fetch_descriptor(cpu, selector);
  if (!d.readable()) raise_selector(cpu, GP, selector);
  if (!d.conforming() && (rpl > d.dpl() || cpu.cpl > d.dpl())) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  mark_accessed(cpu, d);
  return make_segment(d, selector);
}

Segment stack_segment(Cpu& cpu, u16 selector, unsigned cpl, u8 invalid) {
  if (null_selector(selector)) raise(cpu, invalid, ext(cpu));
  Descriptor d = fetch_descriptor(cpu, selector, invalid);
  if ((selector & 3u) != cpl || !d.writable_data() || d.dpl() != cpl) raise_selector(cpu, invalid, selector);
  if (!d.present()) raise_selector(cpu, SS_FAULT, selector);
  mark_accessed(cpu, d);
  return make_segment(d, selector);
}

// A null selector may have a base from an MSR: it is left alone.
void drop_inner_segments(Cpu& cpu) {
  for (const unsigned index : {ES, DS, FS, GS}) {
    const Segment& s = cpu.segment[index];
    const bool conforming = (s.attr & 0x1c) == 0x1c;
    if (!null_selector(s.selector) && !conforming && s.dpl() < cpu.cpl) set_segment(cpu, index, null_segment(0));
  }
}

void check_code_offset(Cpu& cpu, const Descriptor& d, u64 rip) {
  if (long_mode(cpu) && d.wide_code() ? !canonical(rip) : rip > d.limit()) raise(cpu, GP, ext(cpu));
}

void commit_code(Cpu& cpu, const Descriptor& d, u16 selector, unsigned cpl, u64 rip) {
  set_segment(cpu, CS, make_segment(d, static_cast<u16>((selector & 0xfffc) | cpl)));
  cpu.cpl = static_cast<u8>(cpl);
  cpu.rip = rip;
  update_mode(cpu);
}

// --- stacks

void Stack::push(Cpu& cpu, u64 value, unsigned size) {
  const u64 top = (rsp - size) & mask;
  u64 linear = top;
  if (wide) {
    if (!canonical(top) || !canonical(top + size - 1)) raise(cpu, SS_FAULT, error);
  } else {
    const u64 end = top + size - 1;
    if (!ss.writable || top < ss.first || end > ss.last) raise(cpu, SS_FAULT, error);
    linear = static_cast<u32>(ss.base + top);
  }
  if (size == 2)
    write_as<u16>(cpu, linear, static_cast<u16>(value), cpl);
  else if (size == 4)
    write_as<u32>(cpu, linear, static_cast<u32>(value), cpl);
  else
    write_as<u64>(cpu, linear, value, cpl);
  rsp = top;
}

Stack current_stack(const Cpu& cpu) {
  Stack s;
  s.ss = cpu.segment[SS];
  s.mask = stack_mask(cpu);
  s.rsp = cpu.gpr[RSP] & s.mask;
  s.cpl = cpu.cpl;
  s.wide = code64(cpu);
  s.error = ext(cpu);
  return s;
}

Stack flat_stack(const Cpu& cpu, u64 rsp, unsigned cpl) {
  Stack s;
  s.ss = cpl == cpu.cpl ? cpu.segment[SS] : null_segment(static_cast<u16>(cpl));
  s.rsp = rsp;
  s.cpl = cpl;
  s.wide = true;
  s.error = ext(cpu);
  return s;
}

u64 tss64_stack(Cpu& cpu, unsigned offset) {
  if (offset + 7 > cpu.tr.limit) raise_selector(cpu, TS, cpu.tr.selector);
  const u64 rsp = read_system<u64>(cpu, cpu.tr.base + offset);
  if (!canonical(rsp)) raise(cpu, SS_FAULT, ext(cpu));
  return rsp;
}

// SDM 3A figures 7-2, 7-10, 7-11: where SSn:ESPn lie.
Stack inner_stack(Cpu& cpu, unsigned cpl) {
  if (long_mode(cpu)) return flat_stack(cpu, tss64_stack(cpu, 4 + 8 * cpl), cpl);
  const bool tss32 = cpu.tr.attr & 8;
  const u32 offset = tss32 ? 4 + 8 * cpl : 2 + 4 * cpl;
  if (offset + (tss32 ? 5 : 3) > cpu.tr.limit) raise_selector(cpu, TS, cpu.tr.selector);
  const u64 at = table_address(cpu, cpu.tr.base + offset);
  Stack s;
  s.rsp = tss32 ? read_system<u32>(cpu, at) : read_system<u16>(cpu, at);
  const u16 selector = read_system<u16>(cpu, table_address(cpu, at + (tss32 ? 4 : 2)));
  s.ss = stack_segment(cpu, selector, cpl, TS);
  s.mask = s.ss.attr & ATTR_DB ? 0xffff'ffff : 0xffff;
  s.rsp &= s.mask;
  s.cpl = cpl;
  s.error = selector_error(cpu, selector);
  return s;
}

void commit_stack(Cpu& cpu, const Stack& stack) {
  set_segment(cpu, SS, stack.ss);
  update_mode(cpu);
  set_stack_pointer(cpu, stack.rsp);
}

u64 peek_sized(Cpu& cpu, u64 displacement, unsigned size) {
  return size == 2   ? peek<u16>(cpu, displacement)
         : size == 4 ? peek<u32>(cpu, displacement)
                     : peek<u64>(cpu, displacement);
}

void load_flags(Cpu& cpu, u64 rflags) {
  const u64 before = cpu.rflags;
  set_flags(cpu, rflags);
  if (((rflags & ~before & FLAG_IF) && !cpu.quiet) || (rflags & (FLAG_TF | FLAG_RF))) cpu.leave = LEAVE_ASKED;
  update_mode(cpu);
}

} // namespace transom::soft
