// MUL IMUL DIV IDIV and the decimal adjustments.
#include <limits>
#include <type_traits>

#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

namespace {

__extension__ using u128 = unsigned __int128;
__extension__ using i128 = __int128;

template <class T>
struct Wide;
template <>
struct Wide<u8> {
  using type = u16;
};
template <>
struct Wide<u16> {
  using type = u32;
};
template <>
struct Wide<u32> {
  using type = u64;
};
template <>
struct Wide<u64> {
  using type = u128;
};

// Multiplication defines CF and OF, alike; the others stay as they were.
u16 product_flags(u16 old, bool overflow) {
  return static_cast<u16>((old & ~(LAHF_CF | LAHF_OF)) | (overflow ? LAHF_CF | LAHF_OF : 0));
}

template <class T, bool Signed>
auto widen(T value) {
  using W = typename Wide<T>::type;
  if constexpr (!Signed)
    return static_cast<W>(value);
  else if constexpr (sizeof(T) == 8)
    return static_cast<u128>(static_cast<i128>(static_cast<i64>(value)));
  else
    return static_cast<W>(static_cast<i64>(static_cast<std::make_signed_t<T>>(value)));
}

// rDX:rAX = rAX * source; the byte form leaves the product in AX.
template <class T, Form F, bool Signed>
const Insn* multiply(Cpu& cpu, const Insn* i) {
  using W = typename Wide<T>::type;
  const T source = read_rm<T, F>(cpu, i);
  using Product = std::conditional_t<(sizeof(W) < sizeof(u32)), u32, W>; // u16 would be multiplied as int
  const W product = static_cast<W>(Product{widen<T, Signed>(reg<T>(cpu, RAX))} * Product{widen<T, Signed>(source)});
  const T low = static_cast<T>(product), high = static_cast<T>(product >> (8 * sizeof(T)));
  if constexpr (sizeof(T) == 1) {
    set_reg<u16>(cpu, RAX, static_cast<u16>(product));
  } else {
    set_reg<T>(cpu, RAX, low);
    set_reg<T>(cpu, RDX, high);
  }
  cpu.flags = product_flags(cpu.flags, Signed ? product != static_cast<W>(widen<T, Signed>(low)) : high != 0);
  return next(cpu, i);
}

// reg = r/m * reg, or r/m * imm
template <class T, Form F, bool Immediate>
const Insn* imul(Cpu& cpu, const Insn* i) {
  using S = std::make_signed_t<T>;
  const S a = static_cast<S>(read_rm<T, F>(cpu, i));
  const S b = static_cast<S>(Immediate ? static_cast<T>(i->imm) : reg<T>(cpu, i->reg));
  S product;
  const bool overflow = __builtin_mul_overflow(a, b, &product);
  set_reg<T>(cpu, i->reg, static_cast<T>(product));
  cpu.flags = product_flags(cpu.flags, overflow);
  return next(cpu, i);
}

template <class T>
[[gnu::always_inline]] inline void set_quotient(Cpu& cpu, T quotient, T remainder) {
  if constexpr (sizeof(T) == 1)
    set_reg<u16>(cpu, RAX, static_cast<u16>(quotient | remainder << 8));
  else {
    set_reg<T>(cpu, RAX, quotient);
    set_reg<T>(cpu, RDX, remainder);
  }
}

template <class T>
[[gnu::always_inline]] inline typename Wide<T>::type dividend(const Cpu& cpu) {
  using W = typename Wide<T>::type;
  if constexpr (sizeof(T) == 1)
    return reg<u16>(cpu, RAX);
  else
    return static_cast<W>(static_cast<W>(reg<T>(cpu, RDX)) << (8 * sizeof(T)) | reg<T>(cpu, RAX));
}

template <class T, Form F>
const Insn* divide(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const T divisor = read_rm<T, F>(cpu, i);
  const auto whole = dividend<T>(cpu);
  const T high = static_cast<T>(whole >> (8 * sizeof(T)));
  if (high >= divisor) raise(cpu, DE); // also division by zero
  if constexpr (sizeof(T) == 8) {
    u64 quotient = static_cast<u64>(whole), remainder = high;
    asm("divq %[d]" : "+a"(quotient), "+d"(remainder) : [d] "r"(divisor) : "cc");
    set_quotient<T>(cpu, quotient, remainder);
  } else {
    set_quotient<T>(cpu, static_cast<T>(whole / divisor), static_cast<T>(whole % divisor));
  }
  return next(cpu, i);
}

template <class T, Form F>
const Insn* divide_signed(Cpu& cpu, const Insn* i) {
  using S = std::make_signed_t<T>;
  using W = std::conditional_t<sizeof(T) == 8, i128, i64>;
  using U = std::conditional_t<sizeof(T) == 8, u128, u64>;
  cpu.current = i;
  const W divisor = static_cast<S>(read_rm<T, F>(cpu, i));
  if (divisor == 0) raise(cpu, DE);
  W whole;
  if constexpr (sizeof(T) == 8)
    whole = static_cast<i128>(dividend<T>(cpu));
  else
    whole = static_cast<i64>(static_cast<u64>(dividend<T>(cpu)) << (64 - 16 * sizeof(T))) >> (64 - 16 * sizeof(T));
  W quotient, remainder;
  if (divisor == -1) { // the one divisor whose quotient may not even fit the wide type
    quotient = static_cast<W>(-static_cast<U>(whole));
    remainder = 0;
    if (whole < 0 && quotient < 0) raise(cpu, DE);
  } else if (sizeof(T) == 8 && whole == static_cast<i64>(whole)) {
    quotient = static_cast<i64>(whole) / static_cast<i64>(divisor);
    remainder = static_cast<i64>(whole) % static_cast<i64>(divisor);
  } else {
    quotient = whole / divisor;
    remainder = whole % divisor;
  }
  if (quotient < std::numeric_limits<S>::min() || quotient > std::numeric_limits<S>::max()) raise(cpu, DE);
  set_quotient<T>(cpu, static_cast<T>(quotient), static_cast<T>(remainder));
  return next(cpu, i);
}

// The adjustments' flags: those of the addition or subtraction they come down to, with CF and AF as the manual decides.
u16 adjusted_flags(u16 flags, bool carry, bool adjust) {
  return static_cast<u16>((flags & ~(LAHF_CF | LAHF_AF)) | (carry ? LAHF_CF : 0) | (adjust ? LAHF_AF : 0));
}

// SDM volume 2, DAA and DAS.
template <bool Subtract>
const Insn* decimal_adjust(Cpu& cpu, const Insn* i) {
  const u8 old = static_cast<u8>(cpu.gpr[RAX]);
  const bool old_carry = cpu.flags & LAHF_CF;
  u8 correction = 0;
  bool carry = false, adjust = false;
  if ((old & 15) > 9 || (cpu.flags & LAHF_AF)) {
    carry = old_carry || (Subtract ? old < 6 : old > 0xf9);
    correction = 6;
    adjust = true;
  }
  if (old > 0x99 || old_carry) {
    correction += 0x60;
    carry = true;
  }
  u16 flags;
  set_reg<u8>(cpu, 0, alu < Subtract ? Alu::sub : Alu::add, u8 > (old, correction, 0, flags));
  cpu.flags = adjusted_flags(flags, carry, adjust);
  return next(cpu, i);
}

// SDM volume 2, AAA and AAS.
template <bool Subtract>
const Insn* ascii_adjust(Cpu& cpu, const Insn* i) {
  const u16 old = reg<u16>(cpu, RAX);
  const bool adjust = (old & 15) > 9 || (cpu.flags & LAHF_AF);
  u16 flags;
  const u16 ax = alu < Subtract ? Alu::sub : Alu::add, u16 > (old, adjust ? 0x106 : 0, 0, flags);
  set_reg<u16>(cpu, RAX, ax & 0xff0f);
  cpu.flags = adjusted_flags(flags, adjust, adjust);
  return next(cpu, i);
}

const Insn* aam(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u8 base = static_cast<u8>(i->imm), al = static_cast<u8>(cpu.gpr[RAX]);
  if (base == 0) raise(cpu, DE);
  const u8 low = al % base;
  set_reg<u16>(cpu, RAX, static_cast<u16>(al / base << 8 | low));
  cpu.flags = test_flags<u8>(low, low);
  return next(cpu, i);
}

const Insn* aad(Cpu& cpu, const Insn* i) {
  const u16 ax = reg<u16>(cpu, RAX);
  u16 flags;
  const u8 product = static_cast<u8>((ax >> 8) * static_cast<u8>(i->imm));
  set_reg<u16>(cpu, RAX, alu<Alu::add, u8>(static_cast<u8>(ax), product, 0, flags));
  cpu.flags = flags;
  return next(cpu, i);
}

} // namespace

Selection select_muldiv(const Decoded& d, unsigned size) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_number<4>(d.modrm >> 3 & 3, [&]<unsigned N>() {
    return by_size(size, [&]<class T>() {
      return by_form(d.form(), [&]<Form F>() -> Handler {
        return N == 0   ? multiply<T, F, false>
               : N == 1 ? multiply<T, F, true>
               : N == 2 ? divide<T, F>
                        : divide_signed<T, F>;
      });
    });
  });
  return s;
}

Selection select_imul(const Decoded& d, bool immediate) {
  if (d.lock) return {};
  Selection s;
  s.handler = by_wide_size(d.osz, [&]<class T>() {
    return by_form(d.form(), [&]<Form F>() -> Handler { return immediate ? imul<T, F, true> : imul<T, F, false>; });
  });
  return s;
}

Selection select_adjust(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  switch (d.opcode) {
    case 0x27: s.handler = decimal_adjust<false>; break;
    case 0x2f: s.handler = decimal_adjust<true>; break;
    case 0x37: s.handler = ascii_adjust<false>; break;
    case 0x3f: s.handler = ascii_adjust<true>; break;
    case 0xd4: s.handler = aam; break;
    default: s.handler = aad; break;
  }
  return s;
}

} // namespace transom::soft
