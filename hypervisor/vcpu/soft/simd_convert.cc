// Instructions that connect XMM registers with MMX registers, general registers and flags: conversions, comparisons,
// string comparison; and CRC32.
#include <array>
#include <utility>

#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

namespace {

bool rex_w(const Insn& i) { return (i.flags & INSN_REX_W) != 0; }

// --- CVTSI2SS, CVTSI2SD
template <Op O, bool W>
__m128i from_general(__m128i a, u64 b) {
  register __m128i x0 __asm__("xmm0") = a;
  asm volatile(TRANSOM_NATIVE : "+x"(x0) : "c"(b), TRANSOM_NATIVE_OP(O, W));
  return x0;
}
template <Op O, bool W>
void general_to_float_at(Cpu& cpu, const Insn& i) {
  using T = std::conditional_t<W, u64, u32>;
  const u64 b = i.form == Form::reg ? reg<T>(cpu, i.rm) : load<T>(cpu, i);
  set_xmm(cpu, i.reg, arithmetic(cpu, from_general<O, W>, xmm(cpu, i.reg), b));
}
template <Op O>
void general_to_float(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  rex_w(i) ? general_to_float_at<O, true>(cpu, i) : general_to_float_at<O, false>(cpu, i);
}

// --- CVT(T)SS2SI, CVT(T)SD2SI
template <Op O, bool W>
u64 to_general(__m128i b) {
  register __m128i x1 __asm__("xmm1") = b;
  u64 result;
  asm volatile(TRANSOM_NATIVE : "=&a"(result) : "x"(x1), TRANSOM_NATIVE_OP(O, W));
  return result;
}
template <Op O, unsigned Width>
void float_to_general(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const __m128i b = xmm_operand<Width>(cpu, i);
  set_reg<u64>(cpu, i.reg, arithmetic(cpu, rex_w(i) ? to_general<O, true> : to_general<O, false>, b));
}

// --- (U)COMISS, (U)COMISD: flags as LAHF and SETO read them
template <Op O>
u16 compared_flags(__m128i a, __m128i b) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  u32 ax = 0;
  asm volatile(TRANSOM_NATIVE "lahf\n\tseto %%al\n\t"
               : "+a"(ax)
               : "x"(x0), "x"(x1), TRANSOM_NATIVE_OP(O, false)
               : "cc");
  return static_cast<u16>(ax);
}
template <Op O, unsigned Width>
void compare(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const __m128i a = xmm(cpu, i.reg), b = xmm_operand<Width>(cpu, i);
  cpu.flags = arithmetic(
      cpu, [](__m128i x, __m128i y) { return compared_flags<O>(x, y); }, a, b);
}

// --- CVTPI2PS, CVTPI2PD
template <Op O>
__m128i from_mmx(__m128i a, u64 b) {
  register __m128i x0 __asm__("xmm0") = a;
  asm volatile("movq %[b], %%mm1\n\t" TRANSOM_NATIVE "emms\n\t"
               : "+x"(x0)
               : [b] "m"(b), TRANSOM_NATIVE_OP(O, false)
               : TRANSOM_MMX_CLOBBERS);
  return x0;
}
template <Op O>
void mmx_to_float(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  // From memory, the x87 state is left alone (SDM 2A, CVTPI2PD; AMD does so for CVTPI2PS as well).
  const bool uses_mmx = i.form == Form::reg;
  if (uses_mmx) check_pending_x87(cpu);
  const u64 b = i.form == Form::reg ? mm(cpu.fx, i.rm) : load<u64>(cpu, i);
  if (uses_mmx) enter_mmx(cpu.fx); // also if the conversion raises #XM
  set_xmm(cpu, i.reg, arithmetic(cpu, from_mmx<O>, xmm(cpu, i.reg), b));
}

// --- CVT(T)PS2PI, CVT(T)PD2PI
template <Op O>
u64 to_mmx(__m128i b) {
  register __m128i x1 __asm__("xmm1") = b;
  u64 result;
  asm volatile(TRANSOM_NATIVE "movq %%mm0, %[result]\n\temms\n\t"
               : [result] "=&m"(result)
               : "x"(x1), TRANSOM_NATIVE_OP(O, false)
               : TRANSOM_MMX_CLOBBERS);
  return result;
}
template <Op O, unsigned Width>
void float_to_mmx(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  check_pending_x87(cpu);
  const __m128i b = xmm_operand<Width>(cpu, i);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, arithmetic(cpu, to_mmx<O>, b));
}

// --- PTEST
void ptest(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const __m128i b = xmm_operand<16>(cpu, i), a = xmm(cpu, i.reg);
  const auto zero = [](__m128i v) { return (low_half(v) | high_half(v)) == 0; };
  set_arithmetic_flags(cpu, (zero(_mm_and_si128(a, b)) ? FLAG_ZF : 0) | (zero(_mm_andnot_si128(a, b)) ? FLAG_CF : 0));
}

// --- PCMPESTRM 60, PCMPESTRI 61, PCMPISTRM 62, PCMPISTRI 63
struct StringResult {
  __m128i mask;
  u64 index;
  u16 flags;
};
// With REX.W the lengths are RAX and RDX, to which 32-bit lengths can be sign-extended.
template <u8 Opcode, u8 Imm>
void compare_strings(__m128i a, __m128i b, u64 a_length, u64 b_length, StringResult& result) {
  register __m128i x0 __asm__("xmm0") = a;
  register __m128i x1 __asm__("xmm1") = b;
  asm(TRANSOM_NATIVE_IMM8 "lahf\n\tseto %%al\n\t"
      : "+x"(x0), "=&c"(result.index), "+a"(a_length)
      : "x"(x1), "d"(b_length), TRANSOM_NATIVE_OP((Op{3, 0x66, Opcode}), true), [imm] "i"(int{Imm})
      : "cc");
  result.mask = x0;
  result.flags = static_cast<u16>(a_length);
}
using CompareStrings = void (*)(__m128i, __m128i, u64, u64, StringResult&);
struct CompareStringsTable {
  CompareStrings at[128]; // bit 7 of imm8 is ignored
};
template <u8 Opcode, std::size_t... N>
constexpr CompareStringsTable compare_strings_table(std::index_sequence<N...>) {
  return {{compare_strings<Opcode, N>...}};
}
template <u8 Opcode>
void pcmpstr(Cpu& cpu, const Insn& i) {
  static constexpr auto TABLE = compare_strings_table<Opcode>(std::make_index_sequence<128>());
  check_sse(cpu);
  const __m128i b = xmm_operand<16, Align::none>(cpu, i);
  const auto length = [&](unsigned n) {
    return rex_w(i) ? cpu.gpr[n] : static_cast<u64>(static_cast<i64>(static_cast<i32>(cpu.gpr[n])));
  };
  StringResult result;
  TABLE.at[i.imm & 0x7f](xmm(cpu, i.reg), b, length(RAX), length(RDX), result);
  if constexpr (Opcode & 1)
    set_reg<u32>(cpu, RCX, static_cast<u32>(result.index));
  else
    set_xmm(cpu, 0, result.mask);
  cpu.flags = result.flags;
}

// --- CRC32, polynomial 11EDC6F41h
constexpr Op CRC_BYTE{2, 0xf2, 0xf0}, CRC_WIDE{2, 0xf2, 0xf1};
template <Op O, bool W>
u64 crc(u64 value, u64 data) {
  asm(TRANSOM_NATIVE : "+a"(value) : "c"(data), TRANSOM_NATIVE_OP(O, W));
  return value;
}
void crc32_byte(Cpu& cpu, const Insn& i) {
  const u8 data = i.form == Form::reg ? reg<u8>(cpu, i.rm) : load<u8>(cpu, i);
  set_reg<u64>(cpu, i.reg, crc<CRC_BYTE, false>(reg<u32>(cpu, i.reg), data));
}
template <class T>
u64 crc_source(Cpu& cpu, const Insn& i) {
  return i.form == Form::reg ? reg<T>(cpu, i.rm) : load<T>(cpu, i);
}
void crc32_wide(Cpu& cpu, const Insn& i) {
  u64 value = reg<u32>(cpu, i.reg);
  if (i.osz == 8) {
    value = crc<CRC_WIDE, true>(value, crc_source<u64>(cpu, i));
  } else if (i.osz == 4) {
    value = crc<CRC_WIDE, false>(value, crc_source<u32>(cpu, i));
  } else {
    const u64 data = crc_source<u16>(cpu, i);
    value = crc<CRC_BYTE, false>(crc<CRC_BYTE, false>(value, data & 0xff), data >> 8);
  }
  set_reg<u64>(cpu, i.reg, value);
}

template <u8 Prefix, u8 Opcode>
constexpr Op op{1, Prefix, Opcode};

constexpr std::array ENTRIES = {
    either_form<mmx_to_float<op<0, 0x2a>>>(op<0, 0x2a>, Isa::sse2),
    either_form<mmx_to_float<op<0x66, 0x2a>>>(op<0x66, 0x2a>, Isa::sse2),
    either_form<general_to_float<op<0xf3, 0x2a>>>(op<0xf3, 0x2a>, Isa::sse2),
    either_form<general_to_float<op<0xf2, 0x2a>>>(op<0xf2, 0x2a>, Isa::sse2),
    either_form<float_to_mmx<op<0, 0x2c>, 8>>(op<0, 0x2c>, Isa::sse2),
    either_form<float_to_mmx<op<0x66, 0x2c>, 16>>(op<0x66, 0x2c>, Isa::sse2),
    either_form<float_to_general<op<0xf3, 0x2c>, 4>>(op<0xf3, 0x2c>, Isa::sse2),
    either_form<float_to_general<op<0xf2, 0x2c>, 8>>(op<0xf2, 0x2c>, Isa::sse2),
    either_form<float_to_mmx<op<0, 0x2d>, 8>>(op<0, 0x2d>, Isa::sse2),
    either_form<float_to_mmx<op<0x66, 0x2d>, 16>>(op<0x66, 0x2d>, Isa::sse2),
    either_form<float_to_general<op<0xf3, 0x2d>, 4>>(op<0xf3, 0x2d>, Isa::sse2),
    either_form<float_to_general<op<0xf2, 0x2d>, 8>>(op<0xf2, 0x2d>, Isa::sse2),
    either_form<compare<op<0, 0x2e>, 4>>(op<0, 0x2e>, Isa::sse2),
    either_form<compare<op<0x66, 0x2e>, 8>>(op<0x66, 0x2e>, Isa::sse2),
    either_form<compare<op<0, 0x2f>, 4>>(op<0, 0x2f>, Isa::sse2),
    either_form<compare<op<0x66, 0x2f>, 8>>(op<0x66, 0x2f>, Isa::sse2),
    either_form<ptest>({2, 0x66, 0x17}, Isa::sse41),
    either_form<crc32_byte>(CRC_BYTE, Isa::sse42),
    either_form<crc32_wide>(CRC_WIDE, Isa::sse42),
    either_form<pcmpstr<0x60>>({3, 0x66, 0x60}, Isa::sse42),
    either_form<pcmpstr<0x61>>({3, 0x66, 0x61}, Isa::sse42),
    either_form<pcmpstr<0x62>>({3, 0x66, 0x62}, Isa::sse42),
    either_form<pcmpstr<0x63>>({3, 0x66, 0x63}, Isa::sse42),
};

} // namespace

SimdTable simd_conversions() { return {ENTRIES.data(), ENTRIES.size()}; }

} // namespace transom::soft
