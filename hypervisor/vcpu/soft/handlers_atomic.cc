// XCHG CMPXCHG CMPXCHG8B/16B XADD. Other processes share guest RAM, so what is locked uses the host's lock.
#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

namespace {

// XCHG with memory is always locked.
template <class T, Form F>
const Insn* xchg(Cpu& cpu, const Insn* i) {
  const T mine = reg<T>(cpu, i->reg);
  if constexpr (F == Form::reg) {
    const T theirs = reg<T>(cpu, i->rm);
    set_reg<T>(cpu, i->rm, mine);
    set_reg<T>(cpu, i->reg, theirs);
  } else {
    set_reg<T>(cpu, i->reg, rmw_rm<T, F>(cpu, i, [=](T* p) { return __atomic_exchange_n(p, mine, __ATOMIC_SEQ_CST); }));
  }
  return next(cpu, i);
}

// The old value is compared with the accumulator; memory is always written, with the old value if it differs.
template <class T, Form F, bool Locked>
const Insn* cmpxchg(Cpu& cpu, const Insn* i) {
  const T expected = reg<T>(cpu, RAX), desired = reg<T>(cpu, i->reg);
  T old;
  if constexpr (F == Form::reg) {
    old = reg<T>(cpu, i->rm);
    if (old == expected) set_reg<T>(cpu, i->rm, desired); // otherwise not even zero-extended
  } else {
    old = rmw_rm<T, F>(cpu, i, [=](T* p) {
      T seen = expected;
      if constexpr (Locked) {
        __atomic_compare_exchange_n(p, &seen, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      } else {
        seen = *p;
        *p = seen == expected ? desired : seen;
      }
      return seen;
    });
  }
  u16 flags;
  alu<Alu::cmp, T>(expected, old, 0, flags);
  if (old != expected) set_reg<T>(cpu, RAX, old);
  cpu.flags = flags;
  return next(cpu, i);
}

template <class T, Form F, bool Locked>
const Insn* xadd(Cpu& cpu, const Insn* i) {
  const T mine = reg<T>(cpu, i->reg);
  T old;
  u16 flags;
  if constexpr (F == Form::reg) {
    old = reg<T>(cpu, i->rm);
    const T sum = alu<Alu::add, T>(old, mine, 0, flags);
    set_reg<T>(cpu, i->reg, old);
    set_reg<T>(cpu, i->rm, sum); // last: with both operands alike the sum stays
  } else {
    old = rmw_rm<T, F>(cpu, i, [=](T* p) {
      if constexpr (Locked) return __atomic_fetch_add(p, mine, __ATOMIC_SEQ_CST);
      const T seen = *p;
      *p = static_cast<T>(seen + mine);
      return seen;
    });
    alu<Alu::add, T>(old, mine, 0, flags);
    set_reg<T>(cpu, i->reg, old);
  }
  cpu.flags = flags;
  return next(cpu, i);
}

void set_zero_flag(Cpu& cpu, bool equal) {
  cpu.flags = static_cast<u16>((cpu.flags & ~LAHF_ZF) | (equal ? LAHF_ZF : 0));
}

void cmpxchg8b(Cpu& cpu, const Insn& i) {
  const u64 expected = u64{reg<u32>(cpu, RDX)} << 32 | reg<u32>(cpu, RAX);
  const u64 desired = u64{reg<u32>(cpu, RCX)} << 32 | reg<u32>(cpu, RBX);
  const u64 old = modify<u64>(cpu, i, [=](u64* p) {
    u64 seen = expected;
    __atomic_compare_exchange_n(p, &seen, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return seen;
  });
  if (old != expected) {
    set_reg<u32>(cpu, RAX, static_cast<u32>(old));
    set_reg<u32>(cpu, RDX, static_cast<u32>(old >> 32));
  }
  set_zero_flag(cpu, old == expected);
}

void cmpxchg16b(Cpu& cpu, const Insn& i) {
  const u64 linear = operand_address(cpu, i, 16, true);
  if (linear % 16 != 0) raise(cpu, GP, 0);
  const Bytes16 desired{cpu.gpr[RBX], cpu.gpr[RCX]}, expected{cpu.gpr[RAX], cpu.gpr[RDX]};
  const Bytes16 old = rmw_linear<Bytes16>(cpu, linear, [=](Bytes16* p) {
    Bytes16 seen = expected;
    asm volatile("lock cmpxchg16b %[p]"
                 : [p] "+m"(*p), "+a"(seen.low), "+d"(seen.high)
                 : "b"(desired.low), "c"(desired.high)
                 : "cc", "memory");
    return seen;
  });
  const bool equal = old.low == expected.low && old.high == expected.high;
  if (!equal) {
    cpu.gpr[RAX] = old.low;
    cpu.gpr[RDX] = old.high;
  }
  set_zero_flag(cpu, equal);
}

} // namespace

Selection select_xchg(const Decoded& d, unsigned size) {
  if (d.lock && !d.memory()) return {};
  Selection s;
  s.handler =
      by_size(size, [&]<class T>() { return by_form(d.form(), [&]<Form F>() -> Handler { return xchg<T, F>; }); });
  if (!d.memory()) s.reads = 0;
  return s;
}

Selection select_xchg_rax(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_wide_size(d.osz, []<class T>() -> Handler { return xchg<T, Form::reg>; });
  s.reads = 0;
  return s;
}

Selection select_cmpxchg(const Decoded& d, unsigned size) {
  if (d.lock && !d.memory()) return {};
  Selection s;
  s.handler = by_size(size, [&]<class T>() {
    return by_form(d.form(), [&]<Form F>() -> Handler { return d.lock ? cmpxchg<T, F, true> : cmpxchg<T, F, false>; });
  });
  s.writes = SET_ALL;
  return s;
}

Selection select_xadd(const Decoded& d, unsigned size) {
  if (d.lock && !d.memory()) return {};
  Selection s;
  s.handler = by_size(size, [&]<class T>() {
    return by_form(d.form(), [&]<Form F>() -> Handler { return d.lock ? xadd<T, F, true> : xadd<T, F, false>; });
  });
  s.writes = SET_ALL;
  return s;
}

Selection select_cmpxchg_wide(const Decoded& d) {
  Selection s;
  if (d.memory()) s.handler = d.osz == 8 ? simple<cmpxchg16b> : simple<cmpxchg8b>;
  return s;
}

} // namespace transom::soft
