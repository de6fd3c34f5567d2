// Far JMP and CALL: to code segments, through call gates, to tasks (SDM 2 JMP/CALL, SDM 3A 5.8; APM 2 4.9).
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

enum class Kind : u8 { jump, call };

void real_transfer(Cpu& cpu, u16 selector, u64 offset, unsigned size, Kind kind) {
  const Segment cs = real_segment(cpu, CS, selector);
  if (offset > cs.limit) raise(cpu, GP, 0);
  if (kind == Kind::call) {
    Stack stack = current_stack(cpu);
    stack.push(cpu, cpu.segment[CS].selector, size);
    stack.push(cpu, cpu.rip, size);
    set_stack_pointer(cpu, stack.rsp);
  }
  set_segment(cpu, CS, cs);
  cpu.rip = offset;
  update_mode(cpu);
}

// A code segment in long mode is 64-bit or 32-bit, never both (SDM 3A 5.2.1).
void check_code_width(Cpu& cpu, const Descriptor& d, u16 selector) {
  if (long_mode(cpu) && d.wide_code() && d.big()) raise_selector(cpu, GP, selector);
}

void direct(Cpu& cpu, Descriptor d, u16 selector, u64 offset, unsigned size, Kind kind) {
  const unsigned rpl = selector & 3;
  const bool allowed = d.conforming() ? d.dpl() <= cpu.cpl : rpl <= cpu.cpl && d.dpl() == cpu.cpl;
  if (!allowed) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  check_code_width(cpu, d, selector);
  if (kind == Kind::call) {
    Stack stack = current_stack(cpu);
    stack.push(cpu, cpu.segment[CS].selector, size);
    stack.push(cpu, cpu.rip, size);
    check_code_offset(cpu, d, offset);
    mark_accessed(cpu, d);
    set_stack_pointer(cpu, stack.rsp);
  } else {
    check_code_offset(cpu, d, offset);
    mark_accessed(cpu, d);
  }
  commit_code(cpu, d, selector, cpu.cpl, offset);
}

// The callee's stack at an inner level: old SS:ESP, parameters copied from the old stack, return address.
void call_inner(Cpu& cpu, const Descriptor& gate, Descriptor& code, u16 selector, u64 offset, unsigned size) {
  const unsigned cpl = code.dpl();
  Stack stack = inner_stack(cpu, cpl);
  const u64 old_rsp = cpu.gpr[RSP];
  stack.push(cpu, cpu.segment[SS].selector, size);
  stack.push(cpu, old_rsp, size);
  if (!stack.wide)
    for (unsigned n = gate.gate_parameters(); n-- > 0;) stack.push(cpu, peek_sized(cpu, u64{n} * size, size), size);
  stack.push(cpu, cpu.segment[CS].selector, size);
  stack.push(cpu, cpu.rip, size);
  check_code_offset(cpu, code, offset);
  mark_accessed(cpu, code);
  commit_code(cpu, code, selector, cpl, offset);
  commit_stack(cpu, stack);
}

void call_same_level(Cpu& cpu, Descriptor& code, u16 selector, u64 offset, unsigned size) {
  Stack stack = current_stack(cpu);
  if (size == 8 && !stack.wide) stack = flat_stack(cpu, stack.rsp, cpu.cpl); // from compatibility mode
  stack.push(cpu, cpu.segment[CS].selector, size);
  stack.push(cpu, cpu.rip, size);
  check_code_offset(cpu, code, offset);
  mark_accessed(cpu, code);
  commit_code(cpu, code, selector, cpu.cpl, offset);
  commit_stack(cpu, stack);
}

void call_gate(Cpu& cpu, Descriptor gate, u16 gate_selector, Kind kind) {
  fetch_upper_half(cpu, gate_selector, gate);
  const u16 selector = gate.gate_selector();
  if (null_selector(selector)) raise(cpu, GP, 0);
  Descriptor code = fetch_descriptor(cpu, selector);
  if (!code.code() || code.dpl() > cpu.cpl) raise_selector(cpu, GP, selector);
  if (kind == Kind::jump && !code.conforming() && code.dpl() != cpu.cpl) raise_selector(cpu, GP, selector);
  if (long_mode(cpu) && (!code.wide_code() || code.big())) raise_selector(cpu, GP, selector);
  if (!code.present()) raise_selector(cpu, NP, selector);

  const unsigned size = long_mode(cpu) ? 8 : gate.gate16() ? 2 : 4;
  const u64 offset = size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset();
  if (kind == Kind::call && !code.conforming() && code.dpl() < cpu.cpl)
    return call_inner(cpu, gate, code, selector, offset, size);
  if (kind == Kind::call) return call_same_level(cpu, code, selector, offset, size);
  check_code_offset(cpu, code, offset);
  mark_accessed(cpu, code);
  commit_code(cpu, code, selector, cpu.cpl, offset);
}

void system_transfer(Cpu& cpu, const Descriptor& d, u16 selector, Kind kind) {
  const u8 type = d.type();
  const bool gate = type == TYPE_CALL || (!long_mode(cpu) && (type == TYPE_CALL16 || type == TYPE_TASK_GATE));
  const bool tss = !long_mode(cpu) && (type == TYPE_TSS16 || type == TYPE_TSS);
  if (!gate && !tss) raise_selector(cpu, GP, selector);
  if (d.dpl() < cpu.cpl || d.dpl() < (selector & 3)) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  const TaskSource source = kind == Kind::call ? TaskSource::call : TaskSource::jump;
  if (tss) return switch_task(cpu, selector, d, source);
  if (type == TYPE_TASK_GATE) return enter_task_gate(cpu, d, source);
  call_gate(cpu, d, selector, kind);
}

void transfer(Cpu& cpu, u16 selector, u64 offset, unsigned size, Kind kind) {
  if (!protected_mode(cpu)) return real_transfer(cpu, selector, offset, size, kind);
  if (null_selector(selector)) raise(cpu, GP, 0);
  const Descriptor d = fetch_descriptor(cpu, selector);
  if (d.system()) return system_transfer(cpu, d, selector, kind);
  if (!d.code()) raise_selector(cpu, GP, selector);
  direct(cpu, d, selector, offset, size, kind);
}

void immediate(Cpu& cpu, const Insn& i, Kind kind) {
  const u64 offset = i.osz == 2 ? i.imm & 0xffff : i.imm & 0xffff'ffff;
  transfer(cpu, static_cast<u16>(i.imm >> 32), offset, i.osz, kind);
}

void indirect(Cpu& cpu, const Insn& i, Kind kind) {
  if (i.form == Form::reg) raise(cpu, UD);
  const FarPointer p = load_far_pointer(cpu, i);
  transfer(cpu, p.selector, p.offset, i.osz, kind);
}

} // namespace

namespace op {
void jmp_far(Cpu& cpu, const Insn& i) { immediate(cpu, i, Kind::jump); }
void call_far(Cpu& cpu, const Insn& i) { immediate(cpu, i, Kind::call); }
void jmp_far_indirect(Cpu& cpu, const Insn& i) { indirect(cpu, i, Kind::jump); }
void call_far_indirect(Cpu& cpu, const Insn& i) { indirect(cpu, i, Kind::call); }
} // namespace op

} // namespace transom::soft
