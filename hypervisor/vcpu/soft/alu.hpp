// Arithmetic on the host's own ALU: the result and all six flags are exactly what the host gives, undefined ones
// included.
//
// Flags travel as LAHF; SETO AL leave them in AX (Cpu::flags). Going back is ADD AL, 7Fh (overflows iff AL is 1); SAHF.
#pragma once

#include <type_traits>

#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::soft {

enum class Alu : u8 { add, or_, adc, sbb, and_, sub, xor_, cmp }; // by ModRM.reg of 80–83
enum class Unary : u8 { inc, dec, neg, not_ };
enum class Shift : u8 { rol, ror, rcl, rcr, shl, shr, sal, sar }; // by ModRM.reg of C0–D3

inline constexpr u16 LAHF_CF = 0x100, LAHF_PF = 0x400, LAHF_AF = 0x1000, LAHF_ZF = 0x4000, LAHF_SF = 0x8000,
                     LAHF_OF = 1;

#define TRANSOM_GET_FLAGS "lahf\n\tseto %%al"
#define TRANSOM_PUT_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define TRANSOM_CARRY_IN  "btl $8, %k[carry]\n\t"

// Two operands into the first. adc and sbb take the carry from `old`.
template <Alu O, class T>
[[gnu::always_inline]] inline T alu(T a, T b, u16 old, u16& flags) {
  u16 f;
  if constexpr (O == Alu::add)
    asm("add %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : [b] "q"(b) : "cc");
  else if constexpr (O == Alu::sub || O == Alu::cmp)
    asm("sub %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : [b] "q"(b) : "cc");
  else if constexpr (O == Alu::and_)
    asm("and %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : [b] "q"(b) : "cc");
  else if constexpr (O == Alu::or_)
    asm("or %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : [b] "q"(b) : "cc");
  else if constexpr (O == Alu::xor_)
    asm("xor %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : [b] "q"(b) : "cc");
  else if constexpr (O == Alu::adc)
    asm(TRANSOM_CARRY_IN "adc %[b], %[a]\n\t" TRANSOM_GET_FLAGS
        : [a] "+&q"(a), "=a"(f)
        : [b] "q"(b), [carry] "r"(u32{old})
        : "cc");
  else
    asm(TRANSOM_CARRY_IN "sbb %[b], %[a]\n\t" TRANSOM_GET_FLAGS
        : [a] "+&q"(a), "=a"(f)
        : [b] "q"(b), [carry] "r"(u32{old})
        : "cc");
  flags = f;
  return a;
}
// The same without flags.
template <Alu O, class T>
[[gnu::always_inline]] inline T alu_plain(T a, T b, u16 old) {
  const T carry = (old >> 8) & 1;
  switch (O) {
    case Alu::add: return static_cast<T>(a + b);
    case Alu::or_: return static_cast<T>(a | b);
    case Alu::adc: return static_cast<T>(a + b + carry);
    case Alu::sbb: return static_cast<T>(a - b - carry);
    case Alu::and_: return static_cast<T>(a & b);
    case Alu::xor_: return static_cast<T>(a ^ b);
    default: return static_cast<T>(a - b);
  }
}
// On memory, as one locked instruction.
template <Alu O, class T>
[[gnu::always_inline]] inline void alu_locked(T* p, T b, u16 old, u16& flags) {
  u16 f;
  if constexpr (O == Alu::add)
    asm volatile("lock add %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+m"(*p), "=a"(f) : [b] "q"(b) : "cc", "memory");
  else if constexpr (O == Alu::sub)
    asm volatile("lock sub %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+m"(*p), "=a"(f) : [b] "q"(b) : "cc", "memory");
  else if constexpr (O == Alu::and_)
    asm volatile("lock and %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+m"(*p), "=a"(f) : [b] "q"(b) : "cc", "memory");
  else if constexpr (O == Alu::or_)
    asm volatile("lock or %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+m"(*p), "=a"(f) : [b] "q"(b) : "cc", "memory");
  else if constexpr (O == Alu::xor_)
    asm volatile("lock xor %[b], %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+m"(*p), "=a"(f) : [b] "q"(b) : "cc", "memory");
  else if constexpr (O == Alu::adc)
    asm volatile(TRANSOM_CARRY_IN "lock adc %[b], %[a]\n\t" TRANSOM_GET_FLAGS
                 : [a] "+m"(*p), "=a"(f)
                 : [b] "q"(b), [carry] "r"(u32{old})
                 : "cc", "memory");
  else
    asm volatile(TRANSOM_CARRY_IN "lock sbb %[b], %[a]\n\t" TRANSOM_GET_FLAGS
                 : [a] "+m"(*p), "=a"(f)
                 : [b] "q"(b), [carry] "r"(u32{old})
                 : "cc", "memory");
  flags = f;
}

template <class T>
[[gnu::always_inline]] inline u16 test_flags(T a, T b) {
  u16 f;
  asm("test %[b], %[a]\n\t" TRANSOM_GET_FLAGS : "=a"(f) : [a] "q"(a), [b] "q"(b) : "cc");
  return f;
}

// INC and DEC keep CF (merged in afterwards: it keeps the chain through memory short), NOT keeps everything.
template <Unary O, class T>
[[gnu::always_inline]] inline T unary(T a, u16& flags) {
  u16 f;
  if constexpr (O == Unary::inc)
    asm("inc %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : : "cc");
  else if constexpr (O == Unary::dec)
    asm("dec %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : : "cc");
  else if constexpr (O == Unary::neg)
    asm("neg %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : : "cc");
  else
    return static_cast<T>(~a);
  if constexpr (O != Unary::neg) f = static_cast<u16>((f & ~LAHF_CF) | (flags & LAHF_CF));
  flags = f;
  return a;
}

// Shifts and rotates start from the guest's flags: a count of 0 keeps them, rotates change only CF and OF.
template <Shift O, class T>
[[gnu::always_inline]] inline T shift(T a, u8 count, u16& flags) {
  u16 f = flags;
  if constexpr (O == Shift::rol)
    asm(TRANSOM_PUT_FLAGS "rol %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::ror)
    asm(TRANSOM_PUT_FLAGS "ror %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::rcl)
    asm(TRANSOM_PUT_FLAGS "rcl %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::rcr)
    asm(TRANSOM_PUT_FLAGS "rcr %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::shr)
    asm(TRANSOM_PUT_FLAGS "shr %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::sar)
    asm(TRANSOM_PUT_FLAGS "sar %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  else
    asm(TRANSOM_PUT_FLAGS "shl %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "+&a"(f) : "c"(count) : "cc");
  flags = f;
  return a;
}

// SHL, SHR, SAR by a count known not to be zero: no flag of before survives.
template <Shift O, class T>
[[gnu::always_inline]] inline T shift_fresh(T a, u8 count, u16& flags) {
  u16 f;
  if constexpr (O == Shift::shr)
    asm("shr %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : "c"(count) : "cc");
  else if constexpr (O == Shift::sar)
    asm("sar %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : "c"(count) : "cc");
  else
    asm("shl %%cl, %[a]\n\t" TRANSOM_GET_FLAGS : [a] "+&q"(a), "=a"(f) : "c"(count) : "cc");
  flags = f;
  return a;
}
template <Shift O, class T>
[[gnu::always_inline]] inline T shift_plain(T a, u8 count) { // registers of 32 and 64 bits
  count &= 8 * sizeof(T) - 1;
  if constexpr (O == Shift::shr) return static_cast<T>(a >> count);
  if constexpr (O == Shift::sar) return static_cast<T>(static_cast<std::make_signed_t<T>>(a) >> count);
  return static_cast<T>(a << count);
}

// Condition codes by their encoding: O NO B NB Z NZ BE NBE S NS P NP L NL LE NLE.
[[gnu::always_inline]] inline bool condition(u8 cc, u16 f) {
  bool yes;
  switch (cc >> 1) {
    case 0: yes = f & LAHF_OF; break;
    case 1: yes = f & LAHF_CF; break;
    case 2: yes = f & LAHF_ZF; break;
    case 3: yes = f & (LAHF_CF | LAHF_ZF); break;
    case 4: yes = f & LAHF_SF; break;
    case 5: yes = f & LAHF_PF; break;
    case 6: yes = ((f >> 15) ^ f) & 1; break;
    default: yes = (((f >> 15) ^ f) & 1) | (f & LAHF_ZF); break;
  }
  return yes != (cc & 1);
}

} // namespace transom::soft
