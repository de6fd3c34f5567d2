// MMX and SSE instructions of the form "register = op(register, register or memory)", all executed by the host.
#include <array>
#include <initializer_list>
#include <utility>

#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

namespace {

enum class Kind : u8 { integer, floating, integer_imm, floating_imm, mmx };

struct Row {
  Op op;
  Kind kind;
  u8 width;    // of a memory operand
  u8 imm_mask; // bits of imm8 that matter
  Isa isa;
};

struct Rows {
  std::array<Row, 320> row{};
  std::size_t count = 0;

  constexpr void add(Op op, Kind kind, u8 width, Isa isa, u8 imm_mask = 0) {
    row[count++] = {op, kind, width, imm_mask, isa};
  }
  // PS, PD, SS, SD
  constexpr void add_float(u8 opcode, Kind kind = Kind::floating, u8 imm_mask = 0) {
    add({1, 0, opcode}, kind, 16, Isa::sse2, imm_mask);
    add({1, 0x66, opcode}, kind, 16, Isa::sse2, imm_mask);
    add({1, 0xf3, opcode}, kind, 4, Isa::sse2, imm_mask);
    add({1, 0xf2, opcode}, kind, 8, Isa::sse2, imm_mask);
  }
  // MMX without a prefix, XMM with 66
  constexpr void add_integer(u8 map, u8 opcode, Isa isa, u8 mmx_width = 8) {
    add({map, 0, opcode}, Kind::mmx, mmx_width, isa);
    add({map, 0x66, opcode}, Kind::integer, 16, isa);
  }
  constexpr void add_integer_range(u8 map, u8 first, u8 last, Isa isa) {
    for (unsigned o = first; o <= last; ++o) add_integer(map, static_cast<u8>(o), isa);
  }
};

// SDM 2D tables
constexpr Rows make_rows() {
  Rows r;
  // SSE, SSE2, SSE3 floating point
  for (u8 o : {0x51, 0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f}) r.add_float(o); // SQRT ADD MUL SUB MIN DIV MAX
  r.add_float(0xc2, Kind::floating_imm, 7);                               // CMP
  for (u8 o : {0x52, 0x53}) {                                             // RSQRT RCP
    r.add({1, 0, o}, Kind::floating, 16, Isa::sse2);
    r.add({1, 0xf3, o}, Kind::floating, 4, Isa::sse2);
  }
  r.add({1, 0, 0x5a}, Kind::floating, 8, Isa::sse2);                               // CVTPS2PD
  r.add({1, 0x66, 0x5a}, Kind::floating, 16, Isa::sse2);                           // CVTPD2PS
  r.add({1, 0xf3, 0x5a}, Kind::floating, 4, Isa::sse2);                            // CVTSS2SD
  r.add({1, 0xf2, 0x5a}, Kind::floating, 8, Isa::sse2);                            // CVTSD2SS
  for (u8 p : {0, 0x66, 0xf3}) r.add({1, p, 0x5b}, Kind::floating, 16, Isa::sse2); // CVTDQ2PS CVT(T)PS2DQ
  r.add({1, 0xf3, 0xe6}, Kind::floating, 8, Isa::sse2);                            // CVTDQ2PD
  for (u8 p : {0x66, 0xf2}) r.add({1, p, 0xe6}, Kind::floating, 16, Isa::sse2);    // CVT(T)PD2DQ
  for (u8 o : {0x7c, 0x7d, 0xd0})                                                  // HADD HSUB ADDSUB
    for (u8 p : {0x66, 0xf2}) r.add({1, p, o}, Kind::floating, 16, Isa::sse3);

  // logic and interleaving on whole registers
  for (u8 o : {0x14, 0x15, 0x54, 0x55, 0x56, 0x57}) // UNPCKL UNPCKH AND ANDN OR XOR
    for (u8 p : {0, 0x66}) r.add({1, p, o}, Kind::integer, 16, Isa::sse2);
  r.add({1, 0xf3, 0x12}, Kind::integer, 16, Isa::sse3); // MOVSLDUP
  r.add({1, 0xf3, 0x16}, Kind::integer, 16, Isa::sse3); // MOVSHDUP
  r.add({1, 0xf2, 0x12}, Kind::integer, 8, Isa::sse3);  // MOVDDUP

  // packed integers
  for (u8 o : {0x60, 0x61, 0x62}) r.add_integer(1, o, Isa::sse2, 4); // PUNPCKL
  r.add_integer_range(1, 0x63, 0x6b, Isa::sse2);
  for (u8 o : {0x6c, 0x6d}) r.add({1, 0x66, o}, Kind::integer, 16, Isa::sse2); // PUNPCKLQDQ PUNPCKHQDQ
  r.add_integer_range(1, 0x74, 0x76, Isa::sse2);
  r.add_integer_range(1, 0xd1, 0xd5, Isa::sse2);
  r.add_integer_range(1, 0xd8, 0xe5, Isa::sse2);
  r.add_integer_range(1, 0xe8, 0xef, Isa::sse2);
  r.add_integer_range(1, 0xf1, 0xf6, Isa::sse2);
  r.add_integer_range(1, 0xf8, 0xfe, Isa::sse2);

  // SSSE3
  r.add_integer_range(2, 0x00, 0x0b, Isa::ssse3);
  r.add_integer_range(2, 0x1c, 0x1e, Isa::ssse3);

  // SSE4.1, SSE4.2
  constexpr u8 EXTEND_WIDTH[6] = {8, 4, 2, 8, 4, 8};
  for (u8 n = 0; n < 6; ++n) {
    r.add({2, 0x66, static_cast<u8>(0x20 + n)}, Kind::integer, EXTEND_WIDTH[n], Isa::sse41); // PMOVSX
    r.add({2, 0x66, static_cast<u8>(0x30 + n)}, Kind::integer, EXTEND_WIDTH[n], Isa::sse41); // PMOVZX
  }
  for (u8 o : {0x28, 0x29, 0x2b, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x40, 0x41})
    r.add({2, 0x66, o}, Kind::integer, 16, Isa::sse41);
  r.add({2, 0x66, 0x37}, Kind::integer, 16, Isa::sse42);            // PCMPGTQ
  r.add({3, 0x66, 0x08}, Kind::floating_imm, 16, Isa::sse41, 0x0f); // ROUNDPS
  r.add({3, 0x66, 0x09}, Kind::floating_imm, 16, Isa::sse41, 0x0f); // ROUNDPD
  r.add({3, 0x66, 0x0a}, Kind::floating_imm, 4, Isa::sse41, 0x0f);  // ROUNDSS
  r.add({3, 0x66, 0x0b}, Kind::floating_imm, 8, Isa::sse41, 0x0f);  // ROUNDSD
  r.add({3, 0x66, 0x40}, Kind::floating_imm, 16, Isa::sse41, 0xff); // DPPS
  r.add({3, 0x66, 0x41}, Kind::floating_imm, 16, Isa::sse41, 0x33); // DPPD
  r.add({3, 0x66, 0x42}, Kind::integer_imm, 16, Isa::sse41, 0x07);  // MPSADBW
  return r;
}
constexpr Rows ROWS = make_rows();

// --- handlers
template <Row R>
void integer(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const __m128i b = xmm_operand<R.width>(cpu, i);
  set_xmm(cpu, i.reg, native<R.op>(xmm(cpu, i.reg), b));
}
template <Row R, bool Memory>
[[gnu::always_inline]] inline bool integer_fast(Cpu& cpu, const Insn& i) {
  __m128i b;
  if (!cpu.sse_allowed || !fast_operand<R.width, Memory>(cpu, i, b)) return false;
  set_xmm(cpu, i.reg, native<R.op>(xmm(cpu, i.reg), b));
  return true;
}
template <Row R>
void floating(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const __m128i b = xmm_operand<R.width>(cpu, i);
  const auto operation = [](__m128i x, __m128i y) { return native_float<R.op>(x, y); };
  set_xmm(cpu, i.reg, arithmetic(cpu, operation, xmm(cpu, i.reg), b));
}
template <Row R, bool Memory>
[[gnu::always_inline]] inline bool floating_fast(Cpu& cpu, const Insn& i) {
  __m128i b;
  if (!(cpu.fp_loaded & LOADED_MXCSR) || !fast_operand<R.width, Memory>(cpu, i, b)) return false;
  set_xmm(cpu, i.reg, native_float<R.op>(xmm(cpu, i.reg), b));
  return true;
}

using WithImm = __m128i (*)(__m128i, __m128i);
template <std::size_t Size>
struct ImmTable {
  WithImm at[Size];
};
template <Row R, std::size_t... N>
constexpr ImmTable<sizeof...(N)> integer_imm_table(std::index_sequence<N...>) {
  return {{native_imm<R.op, N & R.imm_mask>...}};
}
template <Row R, std::size_t... N>
constexpr ImmTable<sizeof...(N)> floating_imm_table(std::index_sequence<N...>) {
  return {{native_float_imm<R.op, N & R.imm_mask>...}};
}
template <Row R>
void integer_imm(Cpu& cpu, const Insn& i) {
  static constexpr auto TABLE = integer_imm_table<R>(std::make_index_sequence<R.imm_mask + 1>());
  check_sse(cpu);
  const __m128i b = xmm_operand<R.width>(cpu, i);
  set_xmm(cpu, i.reg, TABLE.at[i.imm & R.imm_mask](xmm(cpu, i.reg), b));
}
template <Row R>
void floating_imm(Cpu& cpu, const Insn& i) {
  static constexpr auto TABLE = floating_imm_table<R>(std::make_index_sequence<R.imm_mask + 1>());
  check_sse(cpu);
  const __m128i a = xmm(cpu, i.reg), b = xmm_operand<R.width>(cpu, i);
  set_xmm(cpu, i.reg, arithmetic(cpu, TABLE.at[i.imm & R.imm_mask], a, b));
}
template <Row R>
void mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  u64 b = 0;
  if (i.form == Form::reg)
    b = mm(cpu.fx, i.rm);
  else if constexpr (R.width == 4)
    b = load<u32>(cpu, i);
  else
    b = load<u64>(cpu, i);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, native_mmx<R.op>(mm(cpu.fx, i.reg), b));
}

template <Row R>
constexpr SimdEntry entry() {
  if constexpr (R.kind == Kind::integer)
    return two_forms<integer<R>, integer_fast<R, false>, integer_fast<R, true>>(R.op, R.isa);
  if constexpr (R.kind == Kind::floating)
    return two_forms<floating<R>, floating_fast<R, false>, floating_fast<R, true>>(R.op, R.isa);
  if constexpr (R.kind == Kind::integer_imm) return either_form<integer_imm<R>>(R.op, R.isa);
  if constexpr (R.kind == Kind::floating_imm) return either_form<floating_imm<R>>(R.op, R.isa);
  if constexpr (R.kind == Kind::mmx) return either_form<mmx<R>>(R.op, R.isa);
}
template <std::size_t... N>
constexpr std::array<SimdEntry, sizeof...(N)> make_entries(std::index_sequence<N...>) {
  return {entry<ROWS.row[N]>()...};
}
constexpr auto ENTRIES = make_entries(std::make_index_sequence<ROWS.count>());

// --- shifts by an immediate, the same opcodes as shifts by a register: 71 → D1/E1/F1 (words), 72 → D2…, 73 → D3…
template <Op ByRegister>
void shift_xmm(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  set_xmm(cpu, i.rm, native<ByRegister>(xmm(cpu, i.rm), _mm_cvtsi32_si128(static_cast<u8>(i.imm))));
}
template <Op ByRegister>
void shift_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.rm & 7, native_mmx<ByRegister>(mm(cpu.fx, i.rm), i.imm & 0xff));
}
template <u8 Opcode>
constexpr Choice shift(u8 prefix) {
  return prefix == 0x66 ? simple_choice<shift_xmm<Op{1, 0x66, Opcode}>>()
                        : simple_choice<shift_mmx<Op{1, 0, Opcode}>>();
}
template <bool Left>
void shift_bytes(Cpu& cpu, const Insn& i) { // PSLLDQ, PSRLDQ
  check_sse(cpu);
  alignas(16) u8 window[48] = {};
  std::memcpy(window + 16, cpu.fx.xmm[i.rm & 15], 16);
  const unsigned count = (i.imm & 0xff) < 16 ? i.imm & 0xff : 16;
  std::memcpy(cpu.fx.xmm[i.rm & 15], window + 16 + (Left ? -static_cast<int>(count) : static_cast<int>(count)), 16);
}

} // namespace

SimdTable simd_computations() { return {ENTRIES.data(), ENTRIES.size()}; }

Choice simd_shift_group(const Op& op, u8 modrm) {
  if (modrm < 0xc0 || (op.prefix != 0 && op.prefix != 0x66)) return {};
  switch (op.opcode << 4 | ((modrm >> 3) & 7)) {
    case 0x712: return shift<0xd1>(op.prefix);
    case 0x714: return shift<0xe1>(op.prefix);
    case 0x716: return shift<0xf1>(op.prefix);
    case 0x722: return shift<0xd2>(op.prefix);
    case 0x724: return shift<0xe2>(op.prefix);
    case 0x726: return shift<0xf2>(op.prefix);
    case 0x732: return shift<0xd3>(op.prefix);
    case 0x736: return shift<0xf3>(op.prefix);
    case 0x733: return op.prefix == 0x66 ? simple_choice<shift_bytes<false>>() : Choice{};
    case 0x737: return op.prefix == 0x66 ? simple_choice<shift_bytes<true>>() : Choice{};
    default: return {};
  }
}

} // namespace transom::soft
