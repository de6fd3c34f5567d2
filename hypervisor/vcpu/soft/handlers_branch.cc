// Near branches.
//
// Two kinds of direct branch. Linked: the target lies in the same page and RIP needs no check; Insn::disp is the
// distance from the block's first byte to the target, and Insn::link remembers the block there. General: Insn::disp is
// the plain displacement from the following instruction; the target is looked up by linear address.
#include <type_traits>

#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/stack.hpp"

namespace transom::soft {

namespace {

const Insn* link_slow(Cpu& cpu, const Insn* i) {
  const u64 rip = mask_rip(cpu, cpu.gpr[REG_RIP]);
  cpu.current = nullptr;
  cpu.rip = rip;
  if (cpu.exit_flag->load(std::memory_order_relaxed) != 0 || cpu.leave) return nullptr;
  const u64 flushes = cpu.blocks->flushes();
  Block* const b = cpu.blocks->find_and_remember(cpu);
  // A page-crossing block depends on two translations: it is looked up each time. A flush has taken `i` with it.
  if (b->second == ~u64{0} && cpu.blocks->flushes() == flushes) const_cast<Insn*>(i)->link = b;
  cpu.gpr[REG_RIP] = rip;
  return go(cpu, b->insns());
}

[[gnu::always_inline]] inline const Insn* take_linked(Cpu& cpu, const Insn* i) {
  cpu.gpr[REG_RIP] += static_cast<u64>(static_cast<i64>(i->disp));
  cpu.instructions += i->ordinal;
  Block* const b = i->link;
  if (cpu.exit_flag->load(std::memory_order_relaxed) != 0 || b == nullptr) [[unlikely]]
    return link_slow(cpu, i);
  return go(cpu, b->insns());
}

template <class T>
[[gnu::always_inline]] inline u64 branch_target(const Cpu& cpu, const Insn* i) {
  return static_cast<T>(cpu.gpr[REG_RIP] + i->offset + i->length + static_cast<u64>(static_cast<i64>(i->disp)));
}

// CS limit and canonical form are checked before anything is committed, so the branch itself faults. T is the operand
// size; eight bytes exist in 64-bit code alone.
template <class T>
[[gnu::always_inline]] inline void check_target(Cpu& cpu, u64 rip) {
  if (sizeof(T) == 8 || code64(cpu) ? !canonical(rip) : rip > cpu.code_limit) [[unlikely]]
    raise(cpu, GP, 0);
}
template <class T>
[[gnu::always_inline]] inline const Insn* go_to(Cpu& cpu, const Insn* i, u64 rip) {
  cpu.instructions += i->ordinal;
  return enter_at<sizeof(T) == 8>(cpu, rip);
}

template <class T>
[[gnu::always_inline]] inline const Insn* take_general(Cpu& cpu, const Insn* i) {
  const u64 rip = branch_target<T>(cpu, i);
  cpu.current = i;
  check_target<T>(cpu, rip);
  return go_to<T>(cpu, i, rip);
}

template <class T>
const Insn* jmp(Cpu& cpu, const Insn* i) {
  return take_general<T>(cpu, i);
}
const Insn* jmp_linked(Cpu& cpu, const Insn* i) { return take_linked(cpu, i); }

template <class T, unsigned CC>
const Insn* jcc(Cpu& cpu, const Insn* i) {
  return condition(CC, cpu.flags) ? take_general<T>(cpu, i) : next(cpu, i);
}
template <unsigned CC>
const Insn* jcc_linked(Cpu& cpu, const Insn* i) {
  return condition(CC, cpu.flags) ? take_linked(cpu, i) : next(cpu, i);
}

template <class T, bool Long>
const Insn* call(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 rip = branch_target<T>(cpu, i);
  check_target<T>(cpu, rip);
  stack_push<T, Long>(cpu, static_cast<T>(cpu.gpr[REG_RIP] + i->offset + i->length));
  return go_to<T>(cpu, i, rip);
}
template <class T, bool Long>
const Insn* call_linked(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  stack_push<T, Long>(cpu, static_cast<T>(cpu.gpr[REG_RIP] + i->offset + i->length));
  return take_linked(cpu, i);
}

template <class T, bool Long, Form F>
const Insn* call_indirect(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 rip = read_rm<T, F>(cpu, i);
  check_target<T>(cpu, rip);
  if constexpr (Long && F != Form::reg) check_stack_canonical(cpu, cpu.gpr[RSP] - sizeof(T));
  stack_push<T, Long>(cpu, static_cast<T>(cpu.gpr[REG_RIP] + i->offset + i->length));
  return go_to<T>(cpu, i, rip);
}
template <class T, Form F>
const Insn* jmp_indirect(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 rip = read_rm<T, F>(cpu, i);
  check_target<T>(cpu, rip);
  return go_to<T>(cpu, i, rip);
}

template <class T, bool Long>
const Insn* ret(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u64 rip = Long ? read_linear<T>(cpu, cpu.gpr[RSP]) : peek<T>(cpu, 0);
  check_target<T>(cpu, rip);
  if constexpr (Long)
    cpu.gpr[RSP] += sizeof(T) + i->imm;
  else
    set_stack_pointer(cpu, cpu.gpr[RSP] + sizeof(T) + i->imm);
  return go_to<T>(cpu, i, rip);
}

// LOOPNE LOOPE LOOP JCXZ: the counter has the address size.
template <unsigned Op>
bool loop_condition(Cpu& cpu, const Insn* i, u64& count) {
  const u64 mask = i->asz == 2 ? ~u64{0} : i->asz == 1 ? 0xffff'ffff : 0xffff;
  const bool zero = cpu.flags & LAHF_ZF;
  if constexpr (Op == 3) {
    count = cpu.gpr[RCX];
    return (cpu.gpr[RCX] & mask) == 0;
  }
  const u64 left = (cpu.gpr[RCX] - 1) & mask;
  count = i->asz == 0 ? (cpu.gpr[RCX] & ~mask) | left : left;
  return left != 0 && (Op == 2 || zero == (Op == 1));
}
template <class T, unsigned Op>
const Insn* loop(Cpu& cpu, const Insn* i) {
  u64 count;
  const bool taken = loop_condition<Op>(cpu, i, count);
  if (taken) {
    cpu.current = i;
    check_target<T>(cpu, branch_target<T>(cpu, i));
  }
  cpu.gpr[RCX] = count;
  return taken ? take_general<T>(cpu, i) : next(cpu, i);
}
template <unsigned Op>
const Insn* loop_linked(Cpu& cpu, const Insn* i) {
  u64 count;
  const bool taken = loop_condition<Op>(cpu, i, count);
  cpu.gpr[RCX] = count;
  return taken ? take_linked(cpu, i) : next(cpu, i);
}

// --- CMP or TEST on registers with the conditional branch behind it: two records, one dispatch.
enum class Compare : u8 { cmp_reg, cmp_imm, test_reg };

template <Compare C, class T, unsigned CC, bool Linked>
const Insn* fused(Cpu& cpu, const Insn* i) {
  const T a = reg<T>(cpu, i->rm), b = C == Compare::cmp_imm ? static_cast<T>(i->imm) : reg<T>(cpu, i->reg);
  u16 flags;
  if constexpr (C == Compare::test_reg)
    flags = test_flags<T>(a, b);
  else
    alu<Alu::cmp, T>(a, b, 0, flags);
  cpu.flags = flags;
  if (!condition(CC, flags)) return next(cpu, i + 1);
  if constexpr (Linked)
    return take_linked(cpu, i + 1);
  else
    return take_general<u64>(cpu, i + 1);
}

template <class T, bool Linked>
Handler pick_fused(Compare c, unsigned cc) {
  return by_number<16>(cc, [&]<unsigned CC>() -> Handler {
    switch (c) {
      case Compare::cmp_reg: return fused<Compare::cmp_reg, T, CC, Linked>;
      case Compare::cmp_imm: return fused<Compare::cmp_imm, T, CC, Linked>;
      default: return fused<Compare::test_reg, T, CC, Linked>;
    }
  });
}

template <class F>
auto by_branch_size(const Decoded& d, F&& f) {
  return by_wide_size(d.osz, static_cast<F&&>(f));
}

} // namespace

const Insn* enter(Cpu& cpu) { return enter_at<false>(cpu, cpu.rip); }

const Insn* enter_slow(Cpu& cpu, u64 rip) {
  cpu.rip = rip;
  cpu.current = nullptr;
  if (cpu.exit_flag->load(std::memory_order_relaxed) != 0 || cpu.leave || (cpu.mode & MODE_STEP)) return nullptr;
  Block* const b = cpu.blocks->find_and_remember(cpu);
  cpu.gpr[REG_RIP] = rip;
  return go(cpu, b->insns());
}

const Insn* breakpoint(Cpu& cpu, const Insn*) {
  cpu.rip = mask_rip(cpu, cpu.gpr[REG_RIP]);
  cpu.current = nullptr;
  cpu.at_breakpoint = true;
  return nullptr;
}
const Insn* stale(Cpu& cpu, const Insn* i) {
  cpu.instructions += i->ordinal - 1u;
  return enter_slow(cpu, mask_rip(cpu, cpu.gpr[REG_RIP] + i->offset));
}
const Insn* fall_through(Cpu& cpu, const Insn* i) {
  cpu.instructions += i->ordinal - 1u;
  return enter_at<false>(cpu, mask_rip(cpu, cpu.gpr[REG_RIP] + i->offset));
}
const Insn* fall_linked(Cpu& cpu, const Insn* i) {
  --cpu.instructions; // the record stands for no instruction
  return take_linked(cpu, i);
}

Selection select_jump(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  s.ends = true;
  if (d.has_modrm) {
    s.handler = by_branch_size(
        d, [&]<class T>() { return by_form(d.form(), [&]<Form F>() -> Handler { return jmp_indirect<T, F>; }); });
    return s;
  }
  s.handler = by_branch_size(d, []<class T>() -> Handler { return jmp<T>; });
  s.linked = jmp_linked;
  return s;
}

Selection select_call(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  s.ends = true;
  if (d.has_modrm) {
    s.handler = by_stack(d, [&]<class T, bool Long>() {
      return by_form(d.form(), [&]<Form F>() -> Handler { return call_indirect<T, Long, F>; });
    });
    return s;
  }
  s.handler = by_stack(d, []<class T, bool Long>() -> Handler { return call<T, Long>; });
  s.linked = by_stack(d, []<class T, bool Long>() -> Handler { return call_linked<T, Long>; });
  return s;
}

Selection select_return(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  s.ends = true;
  s.handler = by_stack(d, []<class T, bool Long>() -> Handler { return ret<T, Long>; });
  return s;
}

Selection select_jcc(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  by_number<16>(d.opcode & 15, [&]<unsigned CC>() {
    s.handler = by_branch_size(d, []<class T>() -> Handler { return jcc<T, CC>; });
    s.linked = jcc_linked<CC>;
  });
  return s;
}

Selection select_loop(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  by_number<4>(d.opcode & 3, [&]<unsigned Op>() {
    s.handler = by_branch_size(d, []<class T>() -> Handler { return loop<T, Op>; });
    s.linked = loop_linked<Op>;
  });
  return s;
}

// `first` is CMP or TEST with register operands, chosen by its opcode; general branches fuse in 64-bit code only.
Handler select_fused(const Insn& first, const Insn& branch, bool linked) {
  if (first.form != Form::reg || (first.flags & INSN_LOCK) || (!linked && branch.osz != 8)) return nullptr;
  Compare compare;
  switch (first.opcode) {
    case 0x38:
    case 0x39: compare = Compare::cmp_reg; break;
    case 0x80:
    case 0x81:
    case 0x83:
      if ((first.reg & 7) != 7) return nullptr;
      compare = Compare::cmp_imm;
      break;
    case 0x3c:
    case 0x3d: compare = Compare::cmp_imm; break;
    case 0x84:
    case 0x85: compare = Compare::test_reg; break;
    default: return nullptr;
  }
  const bool byte = first.opcode != 0x83 && !(first.opcode & 1);
  return by_size(byte ? 1 : first.osz, [&]<class T>() {
    return linked ? pick_fused<T, true>(compare, branch.opcode & 15u)
                  : pick_fused<T, false>(compare, branch.opcode & 15u);
  });
}

} // namespace transom::soft
