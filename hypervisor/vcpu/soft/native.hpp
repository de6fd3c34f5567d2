// Executes one MMX or SSE instruction of the guest on the host: the same opcode, encoded from its table entry, on fixed
// registers. Needs no -m flags: which opcodes may be used is host_has()'s business.
#pragma once

#include "hypervisor/vcpu/soft/fpu.hpp"

namespace transom::soft {

struct Op {
  u8 map;    // 1: 0F, 2: 0F38, 3: 0F3A
  u8 prefix; // mandatory: 0, 66, F3, F2
  u8 opcode;
};

// [prefix] [REX.W] 0F [38|3A] opcode C1: reg = register 0 (XMM0, MM0, RAX), r/m = register 1 (XMM1, MM1, RCX). A macro
// because an asm template has to be a literal.
#define TRANSOM_NATIVE                               \
  ".if %c[prefix]\n\t.byte %c[prefix]\n\t.endif\n\t" \
  ".if %c[rexw]\n\t.byte 0x48\n\t.endif\n\t"         \
  ".byte 0x0f\n\t"                                   \
  ".if %c[escape]\n\t.byte %c[escape]\n\t.endif\n\t" \
  ".byte %c[opcode], 0xc1\n\t"
#define TRANSOM_NATIVE_IMM8 TRANSOM_NATIVE ".byte %c[imm]\n\t"
#define TRANSOM_NATIVE_OP(O, W)                    \
  [prefix] "i"(int{O.prefix}), [rexw] "i"(int{W}), \
      [escape] "i"(O.map == 2   ? 0x38             \
                   : O.map == 3 ? 0x3a             \
                                : 0),              \
      [opcode] "i"(int{O.opcode})

// --- XMM0 = op(XMM0, XMM1)
template <Op O>
inline __m128i native(__m128i a, __m128i b) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  asm(TRANSOM_NATIVE : "+x"(x0) : "x"(x1), TRANSOM_NATIVE_OP(O, false));
  return x0;
}
template <Op O, u8 Imm>
inline __m128i native_imm(__m128i a, __m128i b) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  asm(TRANSOM_NATIVE_IMM8 : "+x"(x0) : "x"(x1), TRANSOM_NATIVE_OP(O, false), [imm] "i"(int{Imm}));
  return x0;
}
// The same for operations that read and set MXCSR: to be called within arithmetic().
template <Op O>
inline __m128i native_float(__m128i a, __m128i b) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  asm volatile(TRANSOM_NATIVE : "+x"(x0) : "x"(x1), TRANSOM_NATIVE_OP(O, false));
  return x0;
}
template <Op O, u8 Imm>
inline __m128i native_float_imm(__m128i a, __m128i b) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  asm volatile(TRANSOM_NATIVE_IMM8 : "+x"(x0) : "x"(x1), TRANSOM_NATIVE_OP(O, false), [imm] "i"(int{Imm}));
  return x0;
}

// --- MM0 = op(MM0, MM1). EMMS leaves the host's x87 unit as the calling convention wants it.
#define TRANSOM_MMX_CLOBBERS "mm0", "mm1", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)"
template <Op O>
inline u64 native_mmx(u64 a, u64 b) {
  asm volatile("movq %[a], %%mm0\n\tmovq %[b], %%mm1\n\t" TRANSOM_NATIVE "movq %%mm0, %[a]\n\temms\n\t"
               : [a] "+m"(a)
               : [b] "m"(b), TRANSOM_NATIVE_OP(O, false)
               : TRANSOM_MMX_CLOBBERS);
  return a;
}

// --- rounding and SIMD floating-point exceptions. `operation(operands...)` executes under the guest's MXCSR; it may be
// called twice. Its result is returned, for the caller to commit.
void raise_simd_exception [[noreturn]] (Cpu& cpu);

// The hardware's order with unmasked exceptions (SDM 1 11.5.2 and E.4): invalid, denormal and divide-by-zero of any
// element come before anything is computed; an unmasked underflow is any tiny result, exact or not, which is what UE
// reports when such results are flushed to zero. One difference stays: hardware sets PE of such a result only if it
// would be inexact with an unbounded exponent, this one whenever it is inexact as a denormal.
template <class F, class... Operands>
auto arithmetic_unmasked(Cpu& cpu, F operation, Operands... operands) {
  const u32 unmasked = ~cpu.fx.mxcsr >> 7 & MXCSR_FLAGS;
  u32 csr = (cpu.fx.mxcsr | MXCSR_MASKS) & ~MXCSR_FLAGS;
  u32 tiny = 0;
  if (unmasked & MXCSR_UE) {
    set_host_mxcsr(csr | MXCSR_FTZ);
    operation(operands...);
    tiny = host_mxcsr();
    csr &= ~MXCSR_FTZ;
  }
  set_host_mxcsr(csr);
  const auto result = operation(operands...);
  u32 raised = (host_mxcsr() & MXCSR_FLAGS) | (tiny & MXCSR_UE);
  set_host_mxcsr(HOST_MXCSR);
  const u32 early = raised & (MXCSR_IE | MXCSR_DE | MXCSR_ZE);
  if (early & unmasked) raised = early;
  cpu.fx.mxcsr |= raised;
  if (raised & unmasked) raise_simd_exception(cpu);
  return result;
}
template <class F, class... Operands>
[[gnu::noinline, gnu::cold]] auto arithmetic_unloaded(Cpu& cpu, F operation, Operands... operands) {
  if ((cpu.fx.mxcsr & MXCSR_MASKS) != MXCSR_MASKS) return arithmetic_unmasked(cpu, operation, operands...);
  load_mxcsr(cpu);
  return operation(operands...);
}
template <class F, class... Operands>
[[gnu::always_inline]] inline auto arithmetic(Cpu& cpu, F operation, Operands... operands) {
  if (cpu.fp_loaded & LOADED_MXCSR) [[likely]]
    return operation(operands...);
  return arithmetic_unloaded(cpu, operation, operands...);
}

// --- opcode tables
struct SimdEntry {
  Op op;
  Isa isa;
  Choice reg, mem; // by form of the r/m operand; null: #UD
};
struct SimdTable {
  const SimdEntry* entry;
  std::size_t count;
};
SimdTable simd_computations();                   // simd_compute.cc
SimdTable simd_moves();                          // simd_move.cc
SimdTable simd_shuffles();                       // simd_shuffle.cc
SimdTable simd_conversions();                    // simd_convert.cc: between XMM, MMX, general registers and flags
Choice simd_shift_group(const Op& op, u8 modrm); // 0F 71–73
Choice simd_state_group(u8 prefix, u8 modrm);    // 0F AE

template <void (*F)(Cpu&, const Insn&)>
constexpr SimdEntry either_form(Op op, Isa isa) {
  return {op, isa, simple_choice<F>(), simple_choice<F>()};
}
// With a fast half for each form.
template <void (*Whole)(Cpu&, const Insn&), bool (*Register)(Cpu&, const Insn&), bool (*Memory)(Cpu&, const Insn&)>
constexpr SimdEntry two_forms(Op op, Isa isa) {
  return {op, isa, {fast_or_whole<Register, Whole>, false}, {fast_or_whole<Memory, Whole>, false}};
}
template <void (*F)(Cpu&, const Insn&)>
constexpr SimdEntry register_form(Op op, Isa isa) {
  return {op, isa, simple_choice<F>(), {}};
}
template <void (*F)(Cpu&, const Insn&)>
constexpr SimdEntry memory_form(Op op, Isa isa) {
  return {op, isa, {}, simple_choice<F>()};
}

} // namespace transom::soft
