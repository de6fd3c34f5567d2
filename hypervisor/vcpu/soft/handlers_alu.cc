// ADD OR ADC SBB AND SUB XOR CMP, TEST, INC DEC NEG NOT.
#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

namespace {

enum class Kind : u8 { to_rm, to_reg, immediate };

template <Alu O, class T, Form F, Kind K, bool Flags>
const Insn* alu_op(Cpu& cpu, const Insn* i) {
  const u16 old = cpu.flags;
  u16 flags = 0;
  const T b = K == Kind::to_rm       ? reg<T>(cpu, i->reg)
              : K == Kind::immediate ? static_cast<T>(i->imm)
                                     : read_rm<T, F>(cpu, i);
  if constexpr (F == Form::reg || K == Kind::to_reg || O == Alu::cmp) {
    const T a = K == Kind::to_reg ? reg<T>(cpu, i->reg) : read_rm<T, F>(cpu, i);
    const T result = Flags ? alu<O, T>(a, b, old, flags) : alu_plain<O, T>(a, b, old);
    if constexpr (O != Alu::cmp) set_reg<T>(cpu, K == Kind::to_reg ? i->reg : i->rm, result);
  } else {
    flags = rmw_rm<T, F>(cpu, i, [=](T* p) {
      u16 f;
      *p = alu<O, T>(*p, b, old, f);
      return f;
    });
  }
  if constexpr (Flags) cpu.flags = flags;
  return next(cpu, i);
}

template <Alu O, class T, Form F, Kind K>
const Insn* alu_lock(Cpu& cpu, const Insn* i) {
  const u16 old = cpu.flags;
  const T b = K == Kind::to_rm ? reg<T>(cpu, i->reg) : static_cast<T>(i->imm);
  cpu.flags = rmw_rm<T, F>(cpu, i, [=](T* p) {
    u16 f;
    alu_locked<O, T>(p, b, old, f);
    return f;
  });
  return next(cpu, i);
}

template <class T, Form F, bool Immediate>
const Insn* test_op(Cpu& cpu, const Insn* i) {
  const T a = read_rm<T, F>(cpu, i);
  cpu.flags = test_flags<T>(a, Immediate ? static_cast<T>(i->imm) : reg<T>(cpu, i->reg));
  return next(cpu, i);
}

template <Unary O, class T, Form F>
const Insn* unary_op(Cpu& cpu, const Insn* i) {
  u16 flags = cpu.flags;
  if constexpr (F == Form::reg) {
    set_reg<T>(cpu, i->rm, unary<O, T>(reg<T>(cpu, i->rm), flags));
  } else {
    flags = rmw_rm<T, F>(cpu, i, [flags](T* p) {
      u16 f = flags;
      *p = unary<O, T>(*p, f);
      return f;
    });
  }
  cpu.flags = flags;
  return next(cpu, i);
}

// Locked forms by compare-and-exchange: flags come from the value that went in.
template <Unary O, class T, Form F>
const Insn* unary_lock(Cpu& cpu, const Insn* i) {
  const u16 flags = cpu.flags;
  cpu.flags = rmw_rm<T, F>(cpu, i, [flags](T* p) {
    T seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    for (;;) {
      u16 f = flags;
      const T result = unary<O, T>(seen, f);
      if (__atomic_compare_exchange_n(p, &seen, result, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) return f;
    }
  });
  return next(cpu, i);
}

template <Alu O, class T, Form F>
Selection pick_alu(const Decoded& d, Kind kind) {
  Selection s;
  const auto both = [&]<Kind K>() {
    s.handler = alu_op<O, T, F, K, true>;
    if constexpr (F == Form::reg) s.no_flags = alu_op<O, T, F, K, false>;
  };
  if (d.lock) {
    if constexpr (O == Alu::cmp || F == Form::reg)
      return {};
    else {
      if (kind == Kind::to_reg) return {};
      s.handler = kind == Kind::to_rm ? alu_lock<O, T, F, Kind::to_rm> : alu_lock<O, T, F, Kind::immediate>;
      return s;
    }
  }
  if (kind == Kind::to_rm) both.template operator()<Kind::to_rm>();
  if (kind == Kind::to_reg) both.template operator()<Kind::to_reg>();
  if (kind == Kind::immediate) both.template operator()<Kind::immediate>();
  s.writes = SET_ALL;
  s.reads = F != Form::reg ? SET_ALL : O == Alu::adc || O == Alu::sbb ? SET_CF : 0;
  return s;
}

} // namespace

Selection select_alu(const Decoded& d, unsigned op, unsigned size, bool to_reg, bool immediate) {
  const Kind kind = immediate ? Kind::immediate : to_reg ? Kind::to_reg : Kind::to_rm;
  return by_number<8>(op, [&]<unsigned O>() {
    return by_size(size, [&]<class T>() {
      return by_form(d.form(), [&]<Form F>() { return pick_alu<static_cast<Alu>(O), T, F>(d, kind); });
    });
  });
}

Selection select_test(const Decoded& d, unsigned size, bool immediate) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_size(size, [&]<class T>() {
    return by_form(d.form(),
                   [&]<Form F>() -> Handler { return immediate ? test_op<T, F, true> : test_op<T, F, false>; });
  });
  s.writes = SET_ALL;
  s.reads = d.memory() ? SET_ALL : 0;
  return s;
}

Selection select_unary(const Decoded& d, unsigned which, unsigned size) {
  if (d.lock && !d.memory()) return {};
  Selection s;
  s.handler = by_number<4>(which, [&]<unsigned O>() {
    return by_size(size, [&]<class T>() {
      return by_form(d.form(), [&]<Form F>() -> Handler {
        if constexpr (F != Form::reg)
          if (d.lock) return unary_lock<static_cast<Unary>(O), T, F>;
        return unary_op<static_cast<Unary>(O), T, F>;
      });
    });
  });
  s.writes = which == 3 ? 0 : which == 2 ? SET_ALL : SET_ALL & ~SET_CF;
  // INC and DEC start from the old flags only for CF, which liveness keeps by not listing it as written.
  s.reads = d.memory() ? SET_ALL : 0;
  return s;
}

} // namespace transom::soft
