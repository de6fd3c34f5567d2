// Far RET and IRET in every mode (SDM 2 RET, IRET; APM 3 RET (Far), IRET).
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

// Where a return goes, checked: shared by RET and IRET.
struct Return {
  u64 rip = 0;
  u16 selector = 0;
  Descriptor code;
  bool outer = false;
  bool pops_stack = false;
  Stack stack;
};

Descriptor return_code(Cpu& cpu, u16 selector) {
  if (null_selector(selector)) raise(cpu, GP, 0);
  const unsigned rpl = selector & 3;
  Descriptor d = fetch_descriptor(cpu, selector);
  const bool allowed = d.code() && rpl >= cpu.cpl && (d.conforming() ? d.dpl() <= rpl : d.dpl() == rpl);
  if (!allowed || (long_mode(cpu) && d.wide_code() && d.big())) raise_selector(cpu, GP, selector);
  if (!d.present()) raise_selector(cpu, NP, selector);
  return d;
}

// SS:RSP at `displacement`, RSP first.
Stack return_stack(Cpu& cpu, const Return& r, u64 displacement, unsigned size) {
  const unsigned rpl = r.selector & 3;
  const bool to64 = long_mode(cpu) && r.code.wide_code();
  Stack s;
  s.rsp = peek_sized(cpu, displacement, size);
  const u16 selector = static_cast<u16>(peek_sized(cpu, displacement + size, size));
  if (null_selector(selector) && to64 && rpl != 3) {
    if ((selector & 3u) != rpl) raise_selector(cpu, GP, selector);
    s.ss = null_segment(selector);
  } else {
    s.ss = stack_segment(cpu, selector, rpl, GP);
  }
  return s;
}

// Return address at `displacement` (IP, CS); SS:SP after `gap` more bytes when they are popped.
Return checked_return(Cpu& cpu, unsigned size, u64 gap, bool always_stack) {
  Return r;
  r.rip = peek_sized(cpu, 0, size);
  r.selector = static_cast<u16>(peek_sized(cpu, size, size));
  r.code = return_code(cpu, r.selector);
  r.outer = (r.selector & 3) > cpu.cpl;
  r.pops_stack = r.outer || always_stack;
  if (r.pops_stack) r.stack = return_stack(cpu, r, 2 * size + gap, size);
  check_code_offset(cpu, r.code, r.rip);
  mark_accessed(cpu, r.code);
  return r;
}

// CS:RIP and the stack; `same_rsp` is the stack pointer after a return that pops none.
void commit_return(Cpu& cpu, const Return& r, u64 same_rsp) {
  if (!r.pops_stack) set_stack_pointer(cpu, same_rsp);
  commit_code(cpu, r.code, r.selector, r.selector & 3, r.rip);
  if (r.pops_stack) commit_stack(cpu, r.stack);
  if (r.outer) drop_inner_segments(cpu);
}

// --- IRET

// What IRET may change (SDM 2 IRET; IF by IOPL, IOPL at CPL 0). VM never is: it has a path of its own.
u64 iret_mask(const Cpu& cpu, unsigned size) {
  u64 mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
  if (size > 2) mask |= FLAG_RF | FLAG_AC | FLAG_ID;
  if (cpu.cpl <= iopl(cpu)) mask |= FLAG_IF;
  if (cpu.cpl == 0) mask |= FLAG_IOPL | (size > 2 ? FLAG_VIF | FLAG_VIP : 0);
  return mask;
}

void real_iret(Cpu& cpu, unsigned size) {
  if (vm86(cpu) && iopl(cpu) < 3) raise(cpu, GP, 0);
  const u64 rip = peek_sized(cpu, 0, size);
  const Segment cs = real_segment(cpu, CS, static_cast<u16>(peek_sized(cpu, size, size)));
  const u64 image = peek_sized(cpu, 2 * size, size);
  if (rip > cs.limit) raise(cpu, GP, 0);
  u64 mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_NT;
  if (size > 2) mask |= FLAG_RF | FLAG_AC | FLAG_ID;
  if (!vm86(cpu)) mask |= FLAG_IOPL;
  set_stack_pointer(cpu, cpu.gpr[RSP] + 3 * size);
  set_segment(cpu, CS, cs);
  cpu.rip = rip;
  load_flags(cpu, (get_flags(cpu) & ~mask) | (image & mask));
}

// SDM 3A 20.2.3: nine doublewords, all segments as 8086 ones, CPL 3.
void return_to_vm86(Cpu& cpu, u64 flags) {
  const u64 rip = peek<u32>(cpu, 0);
  if (rip > 0xffff) raise(cpu, GP, 0);
  u16 selectors[SEGMENTS];
  selectors[CS] = static_cast<u16>(peek<u32>(cpu, 4));
  const u32 esp = peek<u32>(cpu, 12);
  u64 at = 16;
  for (const unsigned index : {SS, ES, DS, FS, GS}) {
    selectors[index] = static_cast<u16>(peek<u32>(cpu, at));
    at += 4;
  }
  for (unsigned index = 0; index < SEGMENTS; ++index) set_segment(cpu, index, vm86_segment(selectors[index]));
  cpu.gpr[RSP] = esp;
  cpu.rip = rip;
  cpu.cpl = 3;
  load_flags(cpu, flags | FLAG_VM);
}

void protected_iret(Cpu& cpu, unsigned size) {
  if (cpu.rflags & FLAG_NT) {
    if (long_mode(cpu)) raise(cpu, GP, 0);
    return return_to_task(cpu);
  }
  const u64 image = peek_sized(cpu, 2 * size, size);
  if ((image & FLAG_VM) && size == 4 && cpu.cpl == 0 && !long_mode(cpu)) return return_to_vm86(cpu, image);
  const Return r = checked_return(cpu, size, size, code64(cpu));
  const u64 mask = iret_mask(cpu, size);
  commit_return(cpu, r, cpu.gpr[RSP] + 3 * size);
  load_flags(cpu, (get_flags(cpu) & ~mask) | (image & mask));
}

} // namespace

namespace op {

void ret_far(Cpu& cpu, const Insn& i) {
  const unsigned size = i.osz;
  const u64 release = i.opcode == 0xca ? i.imm & 0xffff : 0;
  const u64 after = cpu.gpr[RSP] + 2 * size + release;
  if (protected_mode(cpu)) {
    Return r = checked_return(cpu, size, release, false);
    if (r.outer) r.stack.rsp += release;
    return commit_return(cpu, r, after);
  }
  const u64 rip = peek_sized(cpu, 0, size);
  const Segment cs = real_segment(cpu, CS, static_cast<u16>(peek_sized(cpu, size, size)));
  if (rip > cs.limit) raise(cpu, GP, 0);
  set_stack_pointer(cpu, after);
  set_segment(cpu, CS, cs);
  cpu.rip = rip;
  update_mode(cpu);
}

void iret(Cpu& cpu, const Insn& i) {
  if (protected_mode(cpu))
    protected_iret(cpu, i.osz);
  else
    real_iret(cpu, i.osz);
  cpu.leave |= cpu.nmi_blocked; // the next one may be waiting
  cpu.nmi_blocked = false;
}

} // namespace op

} // namespace transom::soft
