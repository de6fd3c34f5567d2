// PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE.
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/stack.hpp"

namespace transom::soft {

namespace {

template <class T, bool Long>
const Insn* push_reg(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  stack_push<T, Long>(cpu, reg<T>(cpu, i->rm));
  return next(cpu, i);
}
template <class T, bool Long>
const Insn* push_imm(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  stack_push<T, Long>(cpu, static_cast<T>(i->imm));
  return next(cpu, i);
}
template <class T, bool Long>
const Insn* push_memory(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const T value = load<T>(cpu, *i);
  if constexpr (Long) check_stack_canonical(cpu, cpu.gpr[RSP] - sizeof(T));
  stack_push<T, Long>(cpu, value);
  return next(cpu, i);
}
template <class T, bool Long>
const Insn* pop_reg(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const T value = stack_pop<T, Long>(cpu); // POP RSP: the value wins over the increment
  set_reg<T>(cpu, i->rm, value);
  return next(cpu, i);
}
// An address that uses RSP sees it already incremented; a fault on the store takes the increment back.
template <class T, bool Long>
const Insn* pop_memory(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 old = cpu.gpr[RSP];
  const T value = peek<T>(cpu, 0);
  set_stack_pointer(cpu, old + sizeof(T));
  const u64 offset = effective_offset(cpu, *i);
  cpu.gpr[RSP] = old;
  write<T>(cpu, i->segment, offset, value);
  set_stack_pointer(cpu, old + sizeof(T));
  return next(cpu, i);
}

template <class T>
const Insn* pusha(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 mask = stack_mask(cpu), top = cpu.gpr[RSP];
  // A fault on any of them leaves at most rewritten stack below the pointer, as on a processor.
  for (unsigned n = 0; n < 8; ++n) write<T>(cpu, SS, (top - (n + 1) * sizeof(T)) & mask, reg<T>(cpu, n));
  set_stack_pointer(cpu, top - 8 * sizeof(T));
  return next(cpu, i);
}
template <class T>
const Insn* popa(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  T values[8];
  for (unsigned n = 0; n < 8; ++n) values[n] = peek<T>(cpu, n * sizeof(T));
  for (unsigned n = 0; n < 8; ++n)
    if (7 - n != RSP) set_reg<T>(cpu, 7 - n, values[n]);
  set_stack_pointer(cpu, cpu.gpr[RSP] + 8 * sizeof(T));
  return next(cpu, i);
}

template <class T>
void pushf(Cpu& cpu, const Insn&) {
  if (vm86(cpu) && (cpu.rflags & FLAG_IOPL) != FLAG_IOPL) raise(cpu, GP, 0);
  push<T>(cpu, static_cast<T>(get_flags(cpu) & ~(FLAG_VM | FLAG_RF)));
}
// SDM volume 2, POPF: what may change depends on CPL and IOPL.
template <class T>
void popf(Cpu& cpu, const Insn&) {
  const unsigned iopl = cpu.rflags >> 12 & 3;
  if (vm86(cpu) && iopl != 3) raise(cpu, GP, 0);
  u64 may = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
  if (!protected_mode(cpu) && !vm86(cpu)) may |= FLAG_IOPL | FLAG_IF;
  if (vm86(cpu)) may |= FLAG_IF;
  if (protected_mode(cpu) && cpu.cpl == 0) may |= FLAG_IOPL;
  if (protected_mode(cpu) && cpu.cpl <= iopl) may |= FLAG_IF;
  if (sizeof(T) == 2) may &= 0xffff;
  const u64 old = get_flags(cpu);
  const u64 given = pop<T>(cpu);
  const u64 now = (old & ~may & ~FLAG_RF) | (given & may);
  set_flags(cpu, now);
  if ((old ^ now) & (FLAG_TF | FLAG_AC)) update_mode(cpu);
  if ((now & ~old & FLAG_IF) && !cpu.quiet)
    cpu.leave = LEAVE_ASKED; // TF is part of the mode, and blocks of single steps are not remembered
}

template <class T>
void enter_frame(Cpu& cpu, const Insn& i) {
  const u64 size = i.imm & 0xffff, mask = stack_mask(cpu), top = cpu.gpr[RSP];
  const unsigned level = i.imm >> 16 & 31;
  u64 sp = top - sizeof(T);
  write<T>(cpu, SS, sp & mask, reg<T>(cpu, RBP));
  const u64 frame = sp;
  if (level > 0) {
    u64 bp = cpu.gpr[RBP];
    for (unsigned n = 1; n < level; ++n) {
      bp -= sizeof(T);
      sp -= sizeof(T);
      write<T>(cpu, SS, sp & mask, read<T>(cpu, SS, bp & mask));
    }
    sp -= sizeof(T);
    write<T>(cpu, SS, sp & mask, static_cast<T>(frame));
  }
  sp -= size;
  probe(cpu, segment_address(cpu, SS, sp & mask, sizeof(T), true), sizeof(T), Access::write, user_mode(cpu));
  set_reg<T>(cpu, RBP, static_cast<T>(frame & mask));
  set_stack_pointer(cpu, sp);
}
template <class T, bool Long>
const Insn* leave(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 bp = cpu.gpr[RBP];
  const T value = Long ? read_linear<T>(cpu, bp) : read<T>(cpu, SS, bp & stack_mask(cpu));
  set_stack_pointer(cpu, bp + sizeof(T));
  set_reg<T>(cpu, RBP, value);
  return next(cpu, i);
}

} // namespace

Selection select_push(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  const bool immediate = d.opcode == 0x68 || d.opcode == 0x6a, memory = d.memory();
  s.handler = by_stack(d, [&]<class T, bool Long>() -> Handler {
    return immediate ? push_imm<T, Long> : memory ? push_memory<T, Long> : push_reg<T, Long>;
  });
  return s;
}

Selection select_pop(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  const bool memory = d.memory();
  s.handler =
      by_stack(d, [&]<class T, bool Long>() -> Handler { return memory ? pop_memory<T, Long> : pop_reg<T, Long>; });
  return s;
}

Selection select_stack_misc(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  switch (d.opcode) {
    case 0x60: s.handler = d.osz == 2 ? pusha<u16> : pusha<u32>; break;
    case 0x61: s.handler = d.osz == 2 ? popa<u16> : popa<u32>; break;
    case 0x9c: s.handler = by_stack(d, []<class T, bool>() -> Handler { return simple<pushf<T>>; }); break;
    case 0x9d:
      s.handler = by_stack(d, []<class T, bool>() -> Handler { return ends<popf<T>>; });
      s.ends = true;
      break;
    case 0xc8: s.handler = by_stack(d, []<class T, bool>() -> Handler { return simple<enter_frame<T>>; }); break;
    case 0xc9: s.handler = by_stack(d, []<class T, bool Long>() -> Handler { return leave<T, Long>; }); break;
    default: break;
  }
  return s;
}

} // namespace transom::soft
