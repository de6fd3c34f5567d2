// Shifts, rotates, double shifts, bit tests, bit scans, POPCNT.
#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

namespace {

template <Shift O, class T, Form F, bool ByCl>
const Insn* shift_op(Cpu& cpu, const Insn* i) {
  const u8 count = ByCl ? static_cast<u8>(cpu.gpr[RCX]) : static_cast<u8>(i->imm);
  u16 flags = cpu.flags;
  if constexpr (F == Form::reg) {
    set_reg<T>(cpu, i->rm, shift<O, T>(reg<T>(cpu, i->rm), count, flags));
  } else {
    flags = rmw_rm<T, F>(cpu, i, [=](T* p) {
      u16 f = flags;
      *p = shift<O, T>(*p, count, f);
      return f;
    });
  }
  cpu.flags = flags;
  return next(cpu, i);
}

template <Shift O, class T, Form F>
const Insn* shift_imm(Cpu& cpu, const Insn* i) {
  const u8 count = static_cast<u8>(i->imm);
  u16 flags;
  if constexpr (F == Form::reg) {
    set_reg<T>(cpu, i->rm, shift_fresh<O, T>(reg<T>(cpu, i->rm), count, flags));
  } else {
    flags = rmw_rm<T, F>(cpu, i, [=](T* p) {
      u16 f;
      *p = shift_fresh<O, T>(*p, count, f);
      return f;
    });
  }
  cpu.flags = flags;
  return next(cpu, i);
}
template <Shift O, class T>
const Insn* shift_dead(Cpu& cpu, const Insn* i) {
  set_reg<T>(cpu, i->rm, shift_plain<O, T>(reg<T>(cpu, i->rm), static_cast<u8>(i->imm)));
  return next(cpu, i);
}

template <class T, bool Left>
[[gnu::always_inline]] inline T double_shift(T a, T b, u8 count, u16& flags) {
  u16 f = flags;
  if constexpr (Left)
    asm(TRANSOM_PUT_FLAGS "shld %%cl, %[b], %[a]\n\t" TRANSOM_GET_FLAGS
        : [a] "+&q"(a), "+&a"(f)
        : [b] "q"(b), "c"(count)
        : "cc");
  else
    asm(TRANSOM_PUT_FLAGS "shrd %%cl, %[b], %[a]\n\t" TRANSOM_GET_FLAGS
        : [a] "+&q"(a), "+&a"(f)
        : [b] "q"(b), "c"(count)
        : "cc");
  flags = f;
  return a;
}

template <class T, Form F, bool Left, bool ByCl>
const Insn* double_shift_op(Cpu& cpu, const Insn* i) {
  const u8 count = ByCl ? static_cast<u8>(cpu.gpr[RCX]) : static_cast<u8>(i->imm);
  const T b = reg<T>(cpu, i->reg);
  u16 flags = cpu.flags;
  if constexpr (F == Form::reg) {
    set_reg<T>(cpu, i->rm, double_shift<T, Left>(reg<T>(cpu, i->rm), b, count, flags));
  } else {
    flags = rmw_rm<T, F>(cpu, i, [=](T* p) {
      u16 f = flags;
      *p = double_shift<T, Left>(*p, b, count, f);
      return f;
    });
  }
  cpu.flags = flags;
  return next(cpu, i);
}

enum class Bit : u8 { bt, bts, btr, btc };

template <Bit O, class T>
[[gnu::always_inline]] inline T bit_op(T a, T bit, u16& flags) {
  u16 f = flags;
  if constexpr (O == Bit::bt)
    asm(TRANSOM_PUT_FLAGS "bt %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : [b] "q"(bit) : "cc");
  else if constexpr (O == Bit::bts)
    asm(TRANSOM_PUT_FLAGS "bts %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : [b] "q"(bit) : "cc");
  else if constexpr (O == Bit::btr)
    asm(TRANSOM_PUT_FLAGS "btr %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : [b] "q"(bit) : "cc");
  else
    asm(TRANSOM_PUT_FLAGS "btc %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : [b] "q"(bit) : "cc");
  flags = f;
  return a;
}

// With a register index the memory forms reach beyond the operand: the address moves by whole operands.
template <class T, Form F, bool Immediate>
[[gnu::always_inline]] inline u64 bit_address(Cpu& cpu, const Insn* i, T index, bool write) {
  cpu.current = i;
  if constexpr (Immediate) return operand_address<F>(cpu, *i, sizeof(T), write);
  const i64 whole = static_cast<i64>(static_cast<std::make_signed_t<T>>(index)) >> (sizeof(T) == 8   ? 6
                                                                                    : sizeof(T) == 4 ? 5
                                                                                                     : 4);
  const u64 offset = effective_offset(cpu, *i) + static_cast<u64>(whole * static_cast<i64>(sizeof(T)));
  const u64 masked = i->asz == 2 ? offset : i->asz == 1 ? static_cast<u32>(offset) : static_cast<u16>(offset);
  return segment_address(cpu, i->segment, masked, sizeof(T), write);
}

template <Bit O, class T, Form F, bool Immediate>
const Insn* bit_test(Cpu& cpu, const Insn* i) {
  const T index = Immediate ? static_cast<T>(i->imm) : reg<T>(cpu, i->reg);
  const T bit = index & (8 * sizeof(T) - 1);
  u16 flags = cpu.flags;
  if constexpr (F == Form::reg) {
    const T result = bit_op<O, T>(reg<T>(cpu, i->rm), bit, flags);
    if constexpr (O != Bit::bt) set_reg<T>(cpu, i->rm, result);
  } else if constexpr (O == Bit::bt) {
    bit_op<O, T>(read_linear<T>(cpu, bit_address<T, F, Immediate>(cpu, i, index, false)), bit, flags);
  } else {
    flags = rmw_linear<T>(cpu, bit_address<T, F, Immediate>(cpu, i, index, true), [=](T* p) {
      u16 f = flags;
      *p = bit_op<O, T>(*p, bit, f);
      return f;
    });
  }
  cpu.flags = flags;
  return next(cpu, i);
}

template <Bit O, class T, Form F, bool Immediate>
const Insn* bit_lock(Cpu& cpu, const Insn* i) {
  const T index = Immediate ? static_cast<T>(i->imm) : reg<T>(cpu, i->reg);
  const T bit = index & (8 * sizeof(T) - 1);
  const u16 flags = cpu.flags;
  cpu.flags = rmw_linear<T>(cpu, bit_address<T, F, Immediate>(cpu, i, index, true), [=](T* p) {
    T seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    for (;;) {
      u16 f = flags;
      const T result = bit_op<O, T>(seen, bit, f);
      if (__atomic_compare_exchange_n(p, &seen, result, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) return f;
    }
  });
  return next(cpu, i);
}

template <class T, Form F, bool Reverse>
const Insn* bit_scan(Cpu& cpu, const Insn* i) {
  const T source = read_rm<T, F>(cpu, i);
  T result = reg<T>(cpu, i->reg); // kept when the source is zero, as processors do
  u16 f = cpu.flags;
  if constexpr (Reverse)
    asm(TRANSOM_PUT_FLAGS "bsr %[s], %[r]\n\t" TRANSOM_GET_FLAGS
        : [r] "+&q"(result), "+&a"(f)
        : [s] "q"(source)
        : "cc");
  else
    asm(TRANSOM_PUT_FLAGS "bsf %[s], %[r]\n\t" TRANSOM_GET_FLAGS
        : [r] "+&q"(result), "+&a"(f)
        : [s] "q"(source)
        : "cc");
  // A 32-bit scan of zero leaves the whole destination alone.
  if (sizeof(T) != 4 || source != 0) set_reg<T>(cpu, i->reg, result);
  cpu.flags = f;
  return next(cpu, i);
}

template <class T, Form F>
const Insn* popcnt(Cpu& cpu, const Insn* i) {
  const T source = read_rm<T, F>(cpu, i);
  set_reg<T>(cpu, i->reg, static_cast<T>(__builtin_popcountll(source)));
  cpu.flags = source == 0 ? LAHF_ZF | 0x200 : 0x200;
  return next(cpu, i);
}

template <Shift O, class T, Form F>
Selection pick_shift(const Decoded& d, bool by_cl) {
  constexpr bool rotates = O == Shift::rol || O == Shift::ror || O == Shift::rcl || O == Shift::rcr;
  Selection s;
  s.handler = by_cl ? shift_op<O, T, F, true> : shift_op<O, T, F, false>;
  if constexpr (!rotates) {
    if (by_cl || (d.imm & (sizeof(T) == 8 ? 63 : 31)) == 0) return s;
    s.handler = shift_imm<O, T, F>;
    s.writes = SET_ALL;
    if constexpr (F == Form::reg) {
      s.reads = 0;
      if constexpr (sizeof(T) >= 4) s.no_flags = shift_dead<O, T>;
    }
  }
  return s;
}

} // namespace

Selection select_shift(const Decoded& d, unsigned size, bool by_cl, bool) {
  if (d.lock) return {};
  return by_number<8>(d.modrm >> 3 & 7, [&]<unsigned O>() {
    constexpr Shift op = static_cast<Shift>(O) == Shift::sal ? Shift::shl : static_cast<Shift>(O);
    return by_size(
        size, [&]<class T>() { return by_form(d.form(), [&]<Form F>() { return pick_shift<op, T, F>(d, by_cl); }); });
  });
}

Selection select_double_shift(const Decoded& d, bool left, bool by_cl) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_wide_size(d.osz, [&]<class T>() {
    return by_form(d.form(), [&]<Form F>() -> Handler {
      if (left) return by_cl ? double_shift_op<T, F, true, true> : double_shift_op<T, F, true, false>;
      return by_cl ? double_shift_op<T, F, false, true> : double_shift_op<T, F, false, false>;
    });
  });
  return s;
}

Selection select_bit(const Decoded& d, unsigned op, bool immediate) {
  if (d.lock && (op == 0 || !d.memory())) return {};
  Selection s;
  s.handler = by_number<4>(op, [&]<unsigned N>() {
    constexpr Bit O = static_cast<Bit>(N);
    return by_wide_size(d.osz, [&]<class T>() {
      return by_form(d.form(), [&]<Form F>() -> Handler {
        if constexpr (F != Form::reg && O != Bit::bt)
          if (d.lock) return immediate ? bit_lock<O, T, F, true> : bit_lock<O, T, F, false>;
        return immediate ? bit_test<O, T, F, true> : bit_test<O, T, F, false>;
      });
    });
  });
  return s;
}

Selection select_scan(const Decoded& d, bool reverse) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_wide_size(d.osz, [&]<class T>() {
    return by_form(d.form(),
                   [&]<Form F>() -> Handler { return reverse ? bit_scan<T, F, true> : bit_scan<T, F, false>; });
  });
  return s;
}

Selection select_popcnt(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_wide_size(
      d.osz, [&]<class T>() { return by_form(d.form(), [&]<Form F>() -> Handler { return popcnt<T, F>; }); });
  s.writes = SET_ALL;
  return s;
}

} // namespace transom::soft
