// Instructions on segment registers, selectors and LDTR/TR (SDM 2, APM 3).
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

void set_zf(Cpu& cpu, bool on) { set_arithmetic_flags(cpu, (get_flags(cpu) & ~FLAG_ZF) | (on ? FLAG_ZF : 0)); }

u16 selector_operand(Cpu& cpu, const Insn& i) { return i.form == Form::reg ? reg<u16>(cpu, i.rm) : load<u16>(cpu, i); }

void set_sized(Cpu& cpu, unsigned n, u64 value, unsigned size) {
  if (size == 2)
    set_reg<u16>(cpu, n, static_cast<u16>(value));
  else
    set_reg<u64>(cpu, n, size == 4 ? static_cast<u32>(value) : value);
}

// Selectors go to memory as 16 bits, to registers at the operand size, zero-extended.
void store_selector(Cpu& cpu, const Insn& i, u16 selector) {
  if (i.form == Form::reg)
    set_sized(cpu, i.rm, selector, i.osz);
  else
    store<u16>(cpu, i, selector);
}

// Shadow: a stack switch in two instructions is not to be interrupted between them (SDM 3A 6.8.3).
void commit_segment(Cpu& cpu, unsigned index, const Segment& s) {
  set_segment(cpu, index, s);
  if (index != SS) return;
  cpu.interrupt_shadow = cpu.debug_shadow = true;
  cpu.leave = LEAVE_ASKED;
  update_mode(cpu);
}

// 06 0E 16 1E 07 17 1F; 0F A0 A1 A8 A9
unsigned sreg_in_opcode(const Insn& i) { return i.opcode >> 3 & 7; }
unsigned push_size(const Cpu& cpu, const Insn& i) { return i.osz == 2 ? 2 : code64(cpu) ? 8 : 4; }

} // namespace

namespace op {

void mov_from_sreg(Cpu& cpu, const Insn& i) {
  const unsigned index = i.reg & 7;
  if (index >= SEGMENTS) raise(cpu, UD);
  store_selector(cpu, i, cpu.segment[index].selector);
}

void mov_to_sreg(Cpu& cpu, const Insn& i) {
  const unsigned index = i.reg & 7;
  if (index >= SEGMENTS || index == CS) raise(cpu, UD);
  commit_segment(cpu, index, checked_segment(cpu, index, selector_operand(cpu, i)));
}

void push_sreg(Cpu& cpu, const Insn& i) {
  const u16 selector = cpu.segment[sreg_in_opcode(i)].selector;
  switch (push_size(cpu, i)) {
    case 2: return push<u16>(cpu, selector);
    case 4: return push<u32>(cpu, selector);
    default: return push<u64>(cpu, selector);
  }
}

void pop_sreg(Cpu& cpu, const Insn& i) {
  const unsigned size = push_size(cpu, i), index = sreg_in_opcode(i);
  const Segment s = checked_segment(cpu, index, static_cast<u16>(peek_sized(cpu, 0, size)));
  set_stack_pointer(cpu, cpu.gpr[RSP] + size);
  commit_segment(cpu, index, s);
}

void load_far(Cpu& cpu, const Insn& i) {
  if (i.form == Form::reg) raise(cpu, UD);
  const unsigned index = i.opcode == 0xc4   ? ES
                         : i.opcode == 0xc5 ? DS
                         : i.opcode == 0xb2 ? SS
                         : i.opcode == 0xb4 ? FS
                                            : GS;
  const FarPointer p = load_far_pointer(cpu, i);
  const Segment s = checked_segment(cpu, index, p.selector);
  set_sized(cpu, i.reg, p.offset, i.osz);
  set_segment(cpu, index, s);
  update_mode(cpu);
}

// --- LAR, LSL, VERR, VERW: never fault on the selector, they answer in ZF.

// The descriptor if it is visible at CPL and RPL.
static bool visible(Cpu& cpu, u16 selector, Descriptor& d) {
  if (null_selector(selector) || !find_descriptor(cpu, selector, d)) return false;
  return d.conforming() || (d.dpl() >= cpu.cpl && d.dpl() >= (selector & 3));
}

void lar(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  const u16 selector = selector_operand(cpu, i);
  Descriptor d;
  // System types 1–5, 9, B, C; in long mode 2, 9, B, C (SDM 2, LAR, table 3-51).
  const u16 allowed = long_mode(cpu) ? 0x1a04 : 0x1a3e;
  const bool ok = visible(cpu, selector, d) && (!d.system() || (allowed >> d.type() & 1));
  if (ok) set_sized(cpu, i.reg, d.raw >> 32 & (i.osz == 2 ? 0xff00 : 0xff'ff00), i.osz);
  set_zf(cpu, ok);
}

void lsl(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  const u16 selector = selector_operand(cpu, i);
  Descriptor d;
  const u16 allowed = long_mode(cpu) ? 0x0a04 : 0x0a0e; // 1–3, 9, B; in long mode 2, 9, B
  const bool ok = visible(cpu, selector, d) && (!d.system() || (allowed >> d.type() & 1));
  if (ok) set_sized(cpu, i.reg, d.limit(), i.osz);
  set_zf(cpu, ok);
}

void verr(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  const u16 selector = selector_operand(cpu, i);
  Descriptor d;
  set_zf(cpu, visible(cpu, selector, d) && d.readable());
}

void verw(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  const u16 selector = selector_operand(cpu, i);
  Descriptor d;
  set_zf(cpu, visible(cpu, selector, d) && d.writable_data());
}

void arpl(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  const u16 rpl = cpu.gpr[i.reg] & 3;
  const u16 selector = selector_operand(cpu, i);
  const bool raised = (selector & 3) < rpl;
  if (raised) {
    const u16 result = static_cast<u16>((selector & ~3) | rpl);
    if (i.form == Form::reg)
      set_reg<u16>(cpu, i.rm, result);
    else
      store<u16>(cpu, i, result);
  }
  set_zf(cpu, raised);
}

// --- LDTR and TR

void sldt(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  store_selector(cpu, i, cpu.ldtr.selector);
}

void str(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  store_selector(cpu, i, cpu.tr.selector);
}

void lldt(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  require_cpl0(cpu);
  const u16 selector = selector_operand(cpu, i);
  if (null_selector(selector)) {
    cpu.ldtr = null_segment(selector);
    return;
  }
  if (selector & 4) raise_selector(cpu, GP, selector);
  Descriptor d = fetch_descriptor(cpu, selector);
  if (!d.system() || d.type() != TYPE_LDT) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  fetch_upper_half(cpu, selector, d);
  if (!canonical(d.base())) raise_selector(cpu, GP, selector);
  cpu.ldtr = make_segment(d, selector);
}

void ltr(Cpu& cpu, const Insn& i) {
  require_protected(cpu);
  require_cpl0(cpu);
  const u16 selector = selector_operand(cpu, i);
  if (null_selector(selector)) raise(cpu, GP, 0);
  if (selector & 4) raise_selector(cpu, GP, selector);
  Descriptor d = fetch_descriptor(cpu, selector);
  const bool available = d.type() == TYPE_TSS || (d.type() == TYPE_TSS16 && !long_mode(cpu));
  if (!d.system() || !available) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  fetch_upper_half(cpu, selector, d);
  if (!canonical(d.base())) raise_selector(cpu, GP, selector);
  d.raw |= u64{2} << 40; // busy
  write_system<u8>(cpu, table_address(cpu, d.address + 5), static_cast<u8>(d.raw >> 40));
  cpu.tr = make_segment(d, selector);
}

} // namespace op

FarPointer load_far_pointer(Cpu& cpu, const Insn& i) {
  u64 offset_at = operand_address(cpu, i, i.osz, false), selector_at = offset_at + i.osz;
  if (i.form == Form::legacy) {
    const u64 mask = i.asz == 0 ? 0xffff : 0xffff'ffff;
    selector_at = segment_address(cpu, i.segment, (effective_offset(cpu, i) + i.osz) & mask, 2, false);
  }
  FarPointer p;
  p.offset = i.osz == 2   ? read_linear<u16>(cpu, offset_at)
             : i.osz == 4 ? read_linear<u32>(cpu, offset_at)
                          : read_linear<u64>(cpu, offset_at);
  p.selector = read_linear<u16>(cpu, selector_at);
  return p;
}

} // namespace transom::soft
