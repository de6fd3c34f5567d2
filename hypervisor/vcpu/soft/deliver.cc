// Event delivery (SDM 3A chapter 6 and 20.3, APM 2 chapter 8), and the instructions that are events.
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

bool software(const Event& e) { return e.kind == EventKind::soft_int || e.kind == EventKind::soft_exception; }

// Error code of a fault that is about an IDT entry.
u32 idt_error(const Cpu& cpu, u8 vector) { return vector * 8u + 2 + ext(cpu); }

// RFLAGS to push. RF makes the instruction restart without meeting its own breakpoint again (SDM 3B 17.3.1.1).
u64 pushed_flags(const Cpu& cpu, const Event& e) {
  const u64 flags = get_flags(cpu);
  return e.kind == EventKind::fault && e.vector != DB ? flags | FLAG_RF : flags;
}

void real_interrupt(Cpu& cpu, const Event& e) {
  if (e.vector * 4u + 3 > cpu.idtr.limit) raise(cpu, GP, 0);
  const u32 entry = read_system<u32>(cpu, static_cast<u32>(cpu.idtr.base + e.vector * 4u));
  const Segment cs = real_segment(cpu, CS, static_cast<u16>(entry >> 16));
  Stack stack = current_stack(cpu);
  stack.push(cpu, pushed_flags(cpu, e), 2);
  stack.push(cpu, cpu.segment[CS].selector, 2);
  stack.push(cpu, cpu.rip, 2);
  if ((entry & 0xffff) > cs.limit) raise(cpu, GP, 0);
  set_segment(cpu, CS, cs);
  set_stack_pointer(cpu, stack.rsp);
  cpu.rip = entry & 0xffff;
  load_flags(cpu, get_flags(cpu) & ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF));
}

// The gate, checked as far as it is about the gate itself.
Descriptor fetch_gate(Cpu& cpu, const Event& e) {
  const u32 size = long_mode(cpu) ? 16 : 8, offset = e.vector * size;
  const u32 error = idt_error(cpu, e.vector);
  if (offset + size - 1 > cpu.idtr.limit) raise(cpu, GP, error);
  Descriptor gate;
  gate.address = table_address(cpu, cpu.idtr.base + offset);
  gate.raw = read_system<u64>(cpu, gate.address);
  if (long_mode(cpu)) gate.high = read_system<u64>(cpu, gate.address + 8) & 0xffff'ffff;
  // Interrupt and trap gates, 16-bit ones and task gates outside long mode only.
  const u16 allowed = long_mode(cpu) ? 0xc000 : 0xc0e0;
  if (!gate.system() || !(allowed >> gate.type() & 1)) raise(cpu, GP, error);
  if (software(e) && gate.dpl() < cpu.cpl) raise(cpu, GP, error);
  if (!gate.present()) raise(cpu, NP, error);
  return gate;
}

Descriptor fetch_handler(Cpu& cpu, u16 selector) {
  if (null_selector(selector)) raise(cpu, GP, ext(cpu));
  Descriptor code = fetch_descriptor(cpu, selector);
  if (!code.code() || code.dpl() > cpu.cpl) raise_selector(cpu, GP, selector);
  if (long_mode(cpu) && (!code.wide_code() || code.big())) raise_selector(cpu, GP, selector);
  if (!code.present()) raise_selector(cpu, NP, selector);
  return code;
}

// The handler's stack. Long mode: IST or RSPn, aligned to 16 bytes (SDM 3A 6.14.2).
Stack handler_stack(Cpu& cpu, const Descriptor& gate, unsigned cpl) {
  if (!long_mode(cpu)) return cpl < cpu.cpl ? inner_stack(cpu, cpl) : current_stack(cpu);
  const unsigned ist = gate.gate_ist();
  u64 rsp = cpu.gpr[RSP];
  if (ist != 0)
    rsp = tss64_stack(cpu, 0x1c + 8 * ist);
  else if (cpl < cpu.cpl)
    rsp = tss64_stack(cpu, 4 + 8 * cpl);
  return flat_stack(cpu, rsp & ~u64{15}, cpl);
}

void gate_interrupt(Cpu& cpu, const Event& e, const Descriptor& gate) {
  Descriptor code = fetch_handler(cpu, gate.gate_selector());
  const unsigned cpl = code.conforming() ? cpu.cpl : code.dpl();
  if (vm86(cpu) && cpl != 0) raise_selector(cpu, GP, gate.gate_selector());

  const unsigned size = long_mode(cpu) ? 8 : gate.gate16() ? 2 : 4;
  Stack stack = handler_stack(cpu, gate, cpl);
  if (vm86(cpu))
    for (const unsigned index : {GS, FS, DS, ES}) stack.push(cpu, cpu.segment[index].selector, size);
  if (size == 8 || cpl < cpu.cpl) {
    stack.push(cpu, cpu.segment[SS].selector, size);
    stack.push(cpu, cpu.gpr[RSP], size);
  }
  stack.push(cpu, pushed_flags(cpu, e), size);
  stack.push(cpu, cpu.segment[CS].selector, size);
  stack.push(cpu, cpu.rip, size);
  if (e.has_error) stack.push(cpu, e.error, size);
  const u64 offset = size == 2 ? gate.gate_offset() & 0xffff : gate.gate_offset();
  check_code_offset(cpu, code, offset);
  mark_accessed(cpu, code);

  if (vm86(cpu))
    for (const unsigned index : {GS, FS, DS, ES}) set_segment(cpu, index, null_segment(0));
  u64 flags = get_flags(cpu) & ~(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM);
  if (!(gate.type() & 1)) flags &= ~FLAG_IF; // interrupt gate
  set_flags(cpu, flags);
  commit_code(cpu, code, gate.gate_selector(), cpl, offset);
  commit_stack(cpu, stack);
}

void task_gate_interrupt(Cpu& cpu, const Event& e, const Descriptor& gate) {
  enter_task_gate(cpu, gate, TaskSource::event);
  if (!e.has_error) return;
  Stack stack = current_stack(cpu);
  stack.push(cpu, e.error, cpu.tr.attr & 8 ? 4 : 2);
  set_stack_pointer(cpu, stack.rsp);
}

// The double-fault matrix (SDM 3A table 6-5), but for #AC: the manual calls it benign, and processors hang for ever on
// a CPL 3 handler whose stack is misaligned. As a contributory one it ends in a double fault.
enum class Class : u8 { benign, contributory, page_fault, double_fault };
Class class_of(const Event& e) {
  if (e.kind != EventKind::fault) return Class::benign;
  switch (e.vector) {
    case DE:
    case TS:
    case NP:
    case SS_FAULT:
    case GP:
    case AC: return Class::contributory;
    case PF: return Class::page_fault;
    case DF: return Class::double_fault;
    default: return Class::benign;
  }
}

// What has to be delivered when `second` came up while `first` was being delivered; none: shutdown.
Event combine(const Event& first, const Event& second) {
  const Class a = class_of(first), b = class_of(second);
  if (a == Class::double_fault) return {};
  const bool doubled = (a == Class::contributory && b == Class::contributory) ||
                       (a == Class::page_fault && (b == Class::contributory || b == Class::page_fault));
  return doubled ? Event{EventKind::fault, DF, true, 0} : second;
}

// A software interrupt is its instruction: a fault on the way is one of that instruction, with its RIP.
void software_interrupt(Cpu& cpu, EventKind kind, u8 vector) {
  cpu.delivering = {kind, vector, false, 0};
  interrupt(cpu, cpu.delivering);
  cpu.delivering = {};
}

} // namespace

void interrupt(Cpu& cpu, const Event& event) {
  const Event e = event;
  if (real_mode(cpu)) return real_interrupt(cpu, e);
  if (vm86(cpu) && e.kind == EventKind::soft_int && iopl(cpu) < 3) raise(cpu, GP, 0);
  const Descriptor gate = fetch_gate(cpu, e);
  if (gate.type() == TYPE_TASK_GATE) return task_gate_interrupt(cpu, e, gate);
  gate_interrupt(cpu, e, gate);
}

void deliver(Cpu& cpu) {
  Event e = cpu.event;
  cpu.event = {};
  if (cpu.delivering.kind != EventKind::none) {
    e = combine(cpu.delivering, e);
    if (e.kind == EventKind::none) {
      cpu.delivering = {};
      cpu.shutdown = true;
      cpu.leave = LEAVE_ASKED;
      return;
    }
  }
  if (e.vector == DB && (e.kind == EventKind::fault || e.kind == EventKind::trap)) {
    cpu.dr[6] |= cpu.pending_debug;
    cpu.dr[7] &= ~u64{0x2000}; // GD: the handler may use the debug registers (SDM 3B 17.2.4)
    cpu.pending_debug = 0;
  } else if (e.kind == EventKind::fault) {
    cpu.pending_debug = 0; // data breakpoints of an instruction that did not complete
  }
  cpu.delivering = e;
  cpu.interrupt_shadow = false;
  if (e.kind == EventKind::nmi) cpu.nmi_blocked = true; // even if the way to its handler faults (SDM 3A 6.7.1)
  interrupt(cpu, e);
  cpu.delivering = {};
}

namespace op {

void int3(Cpu& cpu, const Insn&) { software_interrupt(cpu, EventKind::soft_exception, BP); }
void int_n(Cpu& cpu, const Insn& i) { software_interrupt(cpu, EventKind::soft_int, static_cast<u8>(i.imm)); }
void int1(Cpu& cpu, const Insn&) { software_interrupt(cpu, EventKind::icebp, DB); }
void into(Cpu& cpu, const Insn&) {
  if (get_flags(cpu) & FLAG_OF) software_interrupt(cpu, EventKind::soft_exception, OF);
}

void bound(Cpu& cpu, const Insn& i) {
  if (i.form == Form::reg) raise(cpu, UD);
  // Two accesses, each with its own checks, as processors make them.
  const u64 offset = effective_offset(cpu, i);
  i32 index, lower, upper;
  if (i.osz == 2) {
    index = static_cast<i16>(reg<u16>(cpu, i.reg));
    lower = static_cast<i16>(read<u16>(cpu, i.segment, offset));
    upper = static_cast<i16>(read<u16>(cpu, i.segment, offset + 2));
  } else {
    index = static_cast<i32>(reg<u32>(cpu, i.reg));
    lower = static_cast<i32>(read<u32>(cpu, i.segment, offset));
    upper = static_cast<i32>(read<u32>(cpu, i.segment, offset + 4));
  }
  if (index < lower || index > upper) raise(cpu, BR);
}

} // namespace op

} // namespace transom::soft
