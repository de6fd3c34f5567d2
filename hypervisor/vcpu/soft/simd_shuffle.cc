// Shuffles, blends, inserts and extracts: lanes chosen by an immediate or by the sign bits of XMM0. No arithmetic, so
// plain loops over lanes.
#include <array>

#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

namespace {

// A register as lanes of T.
template <class T>
struct Lanes {
  static constexpr unsigned COUNT = 16 / sizeof(T);
  T lane[COUNT];

  explicit Lanes(__m128i v) { std::memcpy(lane, &v, 16); }
  __m128i vector() const { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(lane)); }
  T operator[](unsigned n) const { return lane[n]; }
  T& operator[](unsigned n) { return lane[n]; }
};
template <class T>
Lanes<T> register_lanes(const Cpu& cpu, unsigned n) {
  return Lanes<T>(xmm(cpu, n));
}
u8 imm8(const Insn& i) { return static_cast<u8>(i.imm); }

// --- PSHUFD, PSHUFLW, PSHUFHW, PSHUFW, SHUFPS, SHUFPD
void pshufd(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const Lanes<u32> source(xmm_operand<16>(cpu, i));
  Lanes<u32> result = source;
  for (unsigned n = 0; n < 4; ++n) result[n] = source[imm8(i) >> 2 * n & 3];
  set_xmm(cpu, i.reg, result.vector());
}
template <unsigned First>
void pshuf_words(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const Lanes<u16> source(xmm_operand<16>(cpu, i));
  Lanes<u16> result = source;
  for (unsigned n = 0; n < 4; ++n) result[First + n] = source[First + (imm8(i) >> 2 * n & 3)];
  set_xmm(cpu, i.reg, result.vector());
}
void pshufw(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 source = i.form == Form::reg ? mm(cpu.fx, i.rm) : load<u64>(cpu, i);
  u64 result = 0;
  for (unsigned n = 0; n < 4; ++n) result |= (source >> 16 * (imm8(i) >> 2 * n & 3) & 0xffff) << 16 * n;
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, result);
}
void shufps(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const Lanes<u32> b(xmm_operand<16>(cpu, i)), a = register_lanes<u32>(cpu, i.reg);
  Lanes<u32> result = a;
  for (unsigned n = 0; n < 4; ++n) result[n] = (n < 2 ? a : b)[imm8(i) >> 2 * n & 3];
  set_xmm(cpu, i.reg, result.vector());
}
void shufpd(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const Lanes<u64> b(xmm_operand<16>(cpu, i)), a = register_lanes<u64>(cpu, i.reg);
  Lanes<u64> result = a;
  result[0] = a[imm8(i) & 1];
  result[1] = b[imm8(i) >> 1 & 1];
  set_xmm(cpu, i.reg, result.vector());
}

// --- blends
template <class T, class Select>
void blend(Cpu& cpu, const Insn& i, Select select) {
  check_sse(cpu);
  const Lanes<T> b(xmm_operand<16>(cpu, i));
  Lanes<T> result = register_lanes<T>(cpu, i.reg);
  for (unsigned n = 0; n < Lanes<T>::COUNT; ++n)
    if (select(n)) result[n] = b[n];
  set_xmm(cpu, i.reg, result.vector());
}
template <class T>
void blend_imm(Cpu& cpu, const Insn& i) {
  blend<T>(cpu, i, [&](unsigned n) { return (imm8(i) >> n & 1) != 0; });
}
template <class T>
void blend_variable(Cpu& cpu, const Insn& i) {
  const Lanes<T> mask = register_lanes<T>(cpu, 0);
  blend<T>(cpu, i, [&](unsigned n) { return mask[n] >> (8 * sizeof(T) - 1) != 0; });
}

// --- PALIGNR: bytes imm8 and up of destination:source
void palignr(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  u8 window[16 + 16 + 256] = {};
  const __m128i low = xmm_operand<16>(cpu, i), high = xmm(cpu, i.reg);
  std::memcpy(window, &low, 16);
  std::memcpy(window + 16, &high, 16);
  std::memcpy(cpu.fx.xmm[i.reg & 15], window + imm8(i), 16);
}
void palignr_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  u8 window[8 + 8 + 256] = {};
  const u64 low = i.form == Form::reg ? mm(cpu.fx, i.rm) : load<u64>(cpu, i), high = mm(cpu.fx, i.reg);
  std::memcpy(window, &low, 8);
  std::memcpy(window + 8, &high, 8);
  u64 result;
  std::memcpy(&result, window + imm8(i), 8);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, result);
}

// --- inserts
template <class T>
T insert_source(Cpu& cpu, const Insn& i) {
  return i.form == Form::reg ? static_cast<T>(cpu.gpr[i.rm & 15]) : load<T>(cpu, i);
}
template <class T>
void insert(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const T value = insert_source<T>(cpu, i);
  Lanes<T> result = register_lanes<T>(cpu, i.reg);
  result[imm8(i) % Lanes<T>::COUNT] = value;
  set_xmm(cpu, i.reg, result.vector());
}
void insert_dword(Cpu& cpu, const Insn& i) { i.flags& INSN_REX_W ? insert<u64>(cpu, i) : insert<u32>(cpu, i); }
void pinsrw_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 value = insert_source<u16>(cpu, i);
  const unsigned shift = 16 * (imm8(i) & 3u);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, (mm(cpu.fx, i.reg) & ~(u64{0xffff} << shift)) | value << shift);
}
void insertps(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const u32 value = i.form == Form::reg ? register_lanes<u32>(cpu, i.rm)[imm8(i) >> 6] : load<u32>(cpu, i);
  Lanes<u32> result = register_lanes<u32>(cpu, i.reg);
  result[imm8(i) >> 4 & 3] = value;
  for (unsigned n = 0; n < 4; ++n)
    if (imm8(i) >> n & 1) result[n] = 0;
  set_xmm(cpu, i.reg, result.vector());
}

// --- extracts: to memory at the lane's width, to a register zero-extended
template <class T>
void extract(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const T value = register_lanes<T>(cpu, i.reg)[imm8(i) % Lanes<T>::COUNT];
  i.form == Form::reg ? set_reg<u64>(cpu, i.rm & 15, value) : store<T>(cpu, i, value);
}
void extract_dword(Cpu& cpu, const Insn& i) { i.flags& INSN_REX_W ? extract<u64>(cpu, i) : extract<u32>(cpu, i); }
void pextrw(Cpu& cpu, const Insn& i) { // 0F C5: the register operands are the other way round
  check_sse(cpu);
  set_reg<u32>(cpu, i.reg, register_lanes<u16>(cpu, i.rm)[imm8(i) & 7]);
}
void pextrw_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 source = mm(cpu.fx, i.rm);
  enter_mmx(cpu.fx);
  set_reg<u32>(cpu, i.reg, static_cast<u16>(source >> 16 * (imm8(i) & 3)));
}

constexpr std::array ENTRIES = {
    either_form<pshufw>({1, 0, 0x70}, Isa::sse2),
    either_form<pshufd>({1, 0x66, 0x70}, Isa::sse2),
    either_form<pshuf_words<4>>({1, 0xf3, 0x70}, Isa::sse2),
    either_form<pshuf_words<0>>({1, 0xf2, 0x70}, Isa::sse2),
    either_form<shufps>({1, 0, 0xc6}, Isa::sse2),
    either_form<shufpd>({1, 0x66, 0xc6}, Isa::sse2),
    either_form<pinsrw_mmx>({1, 0, 0xc4}, Isa::sse2),
    either_form<insert<u16>>({1, 0x66, 0xc4}, Isa::sse2),
    register_form<pextrw_mmx>({1, 0, 0xc5}, Isa::sse2),
    register_form<pextrw>({1, 0x66, 0xc5}, Isa::sse2),
    either_form<blend_variable<u8>>({2, 0x66, 0x10}, Isa::sse41),
    either_form<blend_variable<u32>>({2, 0x66, 0x14}, Isa::sse41),
    either_form<blend_variable<u64>>({2, 0x66, 0x15}, Isa::sse41),
    either_form<blend_imm<u32>>({3, 0x66, 0x0c}, Isa::sse41),
    either_form<blend_imm<u64>>({3, 0x66, 0x0d}, Isa::sse41),
    either_form<blend_imm<u16>>({3, 0x66, 0x0e}, Isa::sse41),
    either_form<palignr_mmx>({3, 0, 0x0f}, Isa::ssse3),
    either_form<palignr>({3, 0x66, 0x0f}, Isa::ssse3),
    either_form<extract<u8>>({3, 0x66, 0x14}, Isa::sse41),
    either_form<extract<u16>>({3, 0x66, 0x15}, Isa::sse41),
    either_form<extract_dword>({3, 0x66, 0x16}, Isa::sse41),
    either_form<extract<u32>>({3, 0x66, 0x17}, Isa::sse41), // EXTRACTPS
    either_form<insert<u8>>({3, 0x66, 0x20}, Isa::sse41),
    either_form<insertps>({3, 0x66, 0x21}, Isa::sse41),
    either_form<insert_dword>({3, 0x66, 0x22}, Isa::sse41),
};

} // namespace

SimdTable simd_shuffles() { return {ENTRIES.data(), ENTRIES.size()}; }

} // namespace transom::soft
