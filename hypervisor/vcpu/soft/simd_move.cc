// MMX and SSE moves: between registers and memory, between register files, masked and non-temporal ones.
#include <array>

#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

namespace {

// --- whole XMM registers
template <Align A>
void load_xmm(Cpu& cpu, const Insn& i) { // MOVAPS MOVUPS MOVDQA MOVDQU LDDQU MOVNTDQA
  check_sse(cpu);
  set_xmm(cpu, i.reg, xmm_operand<16, A>(cpu, i));
}
template <Align A>
void store_xmm(Cpu& cpu, const Insn& i) { // and MOVNTPS MOVNTPD MOVNTDQ
  check_sse(cpu);
  if (i.form == Form::reg)
    set_xmm(cpu, i.rm, xmm(cpu, i.reg));
  else
    store_vector<A>(cpu, i, xmm(cpu, i.reg));
}

template <Align A, bool Memory>
[[gnu::always_inline]] inline bool load_xmm_fast(Cpu& cpu, const Insn& i) {
  __m128i value;
  if (!cpu.sse_allowed || !fast_operand<16, Memory, A>(cpu, i, value)) return false;
  set_xmm(cpu, i.reg, value);
  return true;
}
template <Align A, bool Memory>
[[gnu::always_inline]] inline bool store_xmm_fast(Cpu& cpu, const Insn& i) {
  if (!cpu.sse_allowed) return false;
  if constexpr (Memory) {
    u8* const p = direct_operand<16, true, A>(cpu, i);
    if (p == nullptr) return false;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), xmm(cpu, i.reg));
  } else {
    set_xmm(cpu, i.rm, xmm(cpu, i.reg));
  }
  return true;
}

// --- scalars: MOVSS, MOVSD. Between registers the rest of the destination stays; from memory it becomes zero.
template <class T>
void merge_low(Cpu& cpu, unsigned to, unsigned from) {
  std::memcpy(cpu.fx.xmm[to & 15], cpu.fx.xmm[from & 15], sizeof(T));
}
template <class T>
void load_scalar(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  if (i.form == Form::reg)
    merge_low<T>(cpu, i.reg, i.rm);
  else
    set_xmm(cpu, i.reg, load_operand<sizeof(T)>(cpu, i));
}
template <class T>
void store_scalar(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  if (i.form == Form::reg)
    merge_low<T>(cpu, i.rm, i.reg);
  else
    store<T>(cpu, i, static_cast<T>(low_half(xmm(cpu, i.reg))));
}

template <class T, bool Memory>
[[gnu::always_inline]] inline bool load_scalar_fast(Cpu& cpu, const Insn& i) {
  if (!cpu.sse_allowed) return false;
  if constexpr (Memory) {
    __m128i value;
    if (!fast_operand<sizeof(T), true>(cpu, i, value)) return false;
    set_xmm(cpu, i.reg, value);
  } else {
    merge_low<T>(cpu, i.reg, i.rm);
  }
  return true;
}
template <class T, bool Memory>
[[gnu::always_inline]] inline bool store_scalar_fast(Cpu& cpu, const Insn& i) {
  if (!cpu.sse_allowed) return false;
  if constexpr (Memory) {
    u8* const p = direct_operand<sizeof(T), true>(cpu, i);
    if (p == nullptr) return false;
    std::memcpy(p, cpu.fx.xmm[i.reg % 16], sizeof(T));
  } else {
    merge_low<T>(cpu, i.rm, i.reg);
  }
  return true;
}

// --- halves. Half 0: low, 1: high.
u64 half(const Cpu& cpu, unsigned n, unsigned which) {
  u64 value;
  std::memcpy(&value, cpu.fx.xmm[n & 15] + 8 * which, 8);
  return value;
}
void set_half(Cpu& cpu, unsigned n, unsigned which, u64 value) {
  std::memcpy(cpu.fx.xmm[n & 15] + 8 * which, &value, 8);
}

template <unsigned Half>
void load_half(Cpu& cpu, const Insn& i) { // MOVLPS MOVLPD MOVHPS MOVHPD; MOVHLPS and MOVLHPS between registers
  check_sse(cpu);
  set_half(cpu, i.reg, Half, i.form == Form::reg ? half(cpu, i.rm, 1 - Half) : load<u64>(cpu, i));
}
template <unsigned Half>
void store_half(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  store<u64>(cpu, i, half(cpu, i.reg, Half));
}
void load_quad(Cpu& cpu, const Insn& i) { // MOVQ xmm, xmm/m64
  check_sse(cpu);
  set_xmm(cpu, i.reg, _mm_move_epi64(xmm_operand<8>(cpu, i)));
}
void store_quad(Cpu& cpu, const Insn& i) { // MOVQ xmm/m64, xmm
  check_sse(cpu);
  if (i.form == Form::reg)
    set_xmm(cpu, i.rm, _mm_move_epi64(xmm(cpu, i.reg)));
  else
    store<u64>(cpu, i, half(cpu, i.reg, 0));
}

// --- general registers: MOVD, MOVQ
u64 general_operand(Cpu& cpu, const Insn& i) {
  if (i.flags & INSN_REX_W) return i.form == Form::reg ? reg<u64>(cpu, i.rm) : load<u64>(cpu, i);
  return i.form == Form::reg ? reg<u32>(cpu, i.rm) : load<u32>(cpu, i);
}
void set_general_operand(Cpu& cpu, const Insn& i, u64 value) {
  if (i.flags & INSN_REX_W)
    i.form == Form::reg ? set_reg<u64>(cpu, i.rm, value) : store<u64>(cpu, i, value);
  else
    i.form == Form::reg ? set_reg<u32>(cpu, i.rm, static_cast<u32>(value))
                        : store<u32>(cpu, i, static_cast<u32>(value));
}
void general_to_xmm(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  set_xmm(cpu, i.reg, _mm_cvtsi64_si128(static_cast<long long>(general_operand(cpu, i))));
}
void xmm_to_general(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  set_general_operand(cpu, i, half(cpu, i.reg, 0));
}
void general_to_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 value = general_operand(cpu, i);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, value);
}
void mmx_to_general(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  set_general_operand(cpu, i, mm(cpu.fx, i.reg));
  enter_mmx(cpu.fx);
}
void store_general(Cpu& cpu, const Insn& i) { // MOVNTI: touches neither x87 nor SSE state
  if (i.flags & INSN_REX_W)
    store<u64>(cpu, i, reg<u64>(cpu, i.reg));
  else
    store<u32>(cpu, i, reg<u32>(cpu, i.reg));
}

// --- MMX registers
void load_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 value = i.form == Form::reg ? mm(cpu.fx, i.rm) : load<u64>(cpu, i);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, value);
}
void store_mmx(Cpu& cpu, const Insn& i) { // MOVQ, MOVNTQ
  check_mmx(cpu);
  const u64 value = mm(cpu.fx, i.reg);
  if (i.form != Form::reg) store<u64>(cpu, i, value);
  enter_mmx(cpu.fx);
  if (i.form == Form::reg) set_mm(cpu.fx, i.rm & 7, value);
}
void mmx_to_xmm(Cpu& cpu, const Insn& i) { // MOVQ2DQ
  check_sse(cpu);
  check_pending_x87(cpu);
  const u64 value = mm(cpu.fx, i.rm);
  enter_mmx(cpu.fx);
  set_xmm(cpu, i.reg, _mm_cvtsi64_si128(static_cast<long long>(value)));
}
void xmm_to_mmx(Cpu& cpu, const Insn& i) { // MOVDQ2Q
  check_sse(cpu);
  check_pending_x87(cpu);
  enter_mmx(cpu.fx);
  set_mm(cpu.fx, i.reg & 7, half(cpu, i.rm, 0));
}

// --- MASKMOVDQU, MASKMOVQ: bytes whose mask byte has bit 7 set go to DS:rDI
void store_masked(Cpu& cpu, const Insn& i, const u8* bytes, u32 select, unsigned count) {
  const u64 offset = i.asz == 2   ? cpu.gpr[RDI]
                     : i.asz == 1 ? static_cast<u32>(cpu.gpr[RDI])
                                  : static_cast<u16>(cpu.gpr[RDI]);
  const u64 linear = segment_address(cpu, i.segment, offset, count, true);
  // Hardware may fault for bytes that are not selected (SDM 2B, MASKMOVDQU); checking all of them keeps it precise.
  probe(cpu, linear, count, Access::write, user_mode(cpu));
  for (unsigned n = 0; n < count; ++n)
    if (select >> n & 1) write_linear<u8>(cpu, linear + n, bytes[n]);
}
void mask_store_xmm(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  store_masked(cpu, i, cpu.fx.xmm[i.reg & 15], static_cast<u32>(_mm_movemask_epi8(xmm(cpu, i.rm))), 16);
}
void mask_store_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const u64 value = mm(cpu.fx, i.reg), mask = mm(cpu.fx, i.rm);
  const __m128i wide = _mm_cvtsi64_si128(static_cast<long long>(mask));
  u8 bytes[8];
  std::memcpy(bytes, &value, 8);
  enter_mmx(cpu.fx); // before the store can fault, as hardware does
  store_masked(cpu, i, bytes, static_cast<u32>(_mm_movemask_epi8(wide)), 8);
}

// --- sign masks to a general register: MOVMSKPS MOVMSKPD PMOVMSKB
template <class F>
void sign_mask(Cpu& cpu, const Insn& i, F mask) {
  check_sse(cpu);
  set_reg<u32>(cpu, i.reg, static_cast<u32>(mask(xmm(cpu, i.rm))));
}
void movmskps(Cpu& cpu, const Insn& i) {
  sign_mask(cpu, i, [](__m128i v) { return _mm_movemask_ps(_mm_castsi128_ps(v)); });
}
void movmskpd(Cpu& cpu, const Insn& i) {
  sign_mask(cpu, i, [](__m128i v) { return _mm_movemask_pd(_mm_castsi128_pd(v)); });
}
void pmovmskb(Cpu& cpu, const Insn& i) {
  sign_mask(cpu, i, [](__m128i v) { return _mm_movemask_epi8(v); });
}
void pmovmskb_mmx(Cpu& cpu, const Insn& i) {
  check_mmx(cpu);
  const __m128i v = _mm_cvtsi64_si128(static_cast<long long>(mm(cpu.fx, i.rm)));
  enter_mmx(cpu.fx);
  set_reg<u32>(cpu, i.reg, static_cast<u32>(_mm_movemask_epi8(v)));
}

void emms(Cpu& cpu, const Insn&) {
  check_mmx(cpu);
  set_top(cpu.fx, 0);
  cpu.fx.ftw = 0;
}

constexpr auto ALIGNED = Align::natural;
constexpr auto ANY = Align::none;

template <Align A>
constexpr SimdEntry loads(Op op) {
  return two_forms<load_xmm<A>, load_xmm_fast<A, false>, load_xmm_fast<A, true>>(op, Isa::sse2);
}
template <Align A>
constexpr SimdEntry stores(Op op) {
  return two_forms<store_xmm<A>, store_xmm_fast<A, false>, store_xmm_fast<A, true>>(op, Isa::sse2);
}
template <class T>
constexpr SimdEntry scalar_loads(Op op) {
  return two_forms<load_scalar<T>, load_scalar_fast<T, false>, load_scalar_fast<T, true>>(op, Isa::sse2);
}
template <class T>
constexpr SimdEntry scalar_stores(Op op) {
  return two_forms<store_scalar<T>, store_scalar_fast<T, false>, store_scalar_fast<T, true>>(op, Isa::sse2);
}

constexpr std::array ENTRIES = {
    loads<ANY>({1, 0, 0x10}),
    loads<ANY>({1, 0x66, 0x10}),
    scalar_loads<u32>({1, 0xf3, 0x10}),
    scalar_loads<u64>({1, 0xf2, 0x10}),
    stores<ANY>({1, 0, 0x11}),
    stores<ANY>({1, 0x66, 0x11}),
    scalar_stores<u32>({1, 0xf3, 0x11}),
    scalar_stores<u64>({1, 0xf2, 0x11}),
    either_form<load_half<0>>({1, 0, 0x12}, Isa::sse2),
    memory_form<load_half<0>>({1, 0x66, 0x12}, Isa::sse2),
    memory_form<store_half<0>>({1, 0, 0x13}, Isa::sse2),
    memory_form<store_half<0>>({1, 0x66, 0x13}, Isa::sse2),
    either_form<load_half<1>>({1, 0, 0x16}, Isa::sse2),
    memory_form<load_half<1>>({1, 0x66, 0x16}, Isa::sse2),
    memory_form<store_half<1>>({1, 0, 0x17}, Isa::sse2),
    memory_form<store_half<1>>({1, 0x66, 0x17}, Isa::sse2),
    loads<ALIGNED>({1, 0, 0x28}),
    loads<ALIGNED>({1, 0x66, 0x28}),
    stores<ALIGNED>({1, 0, 0x29}),
    stores<ALIGNED>({1, 0x66, 0x29}),
    memory_form<store_xmm<ALIGNED>>({1, 0, 0x2b}, Isa::sse2),
    memory_form<store_xmm<ALIGNED>>({1, 0x66, 0x2b}, Isa::sse2),
    register_form<movmskps>({1, 0, 0x50}, Isa::sse2),
    register_form<movmskpd>({1, 0x66, 0x50}, Isa::sse2),
    either_form<general_to_mmx>({1, 0, 0x6e}, Isa::sse2),
    either_form<general_to_xmm>({1, 0x66, 0x6e}, Isa::sse2),
    either_form<load_mmx>({1, 0, 0x6f}, Isa::sse2),
    loads<ALIGNED>({1, 0x66, 0x6f}),
    loads<ANY>({1, 0xf3, 0x6f}),
    either_form<emms>({1, 0, 0x77}, Isa::sse2),
    either_form<mmx_to_general>({1, 0, 0x7e}, Isa::sse2),
    either_form<xmm_to_general>({1, 0x66, 0x7e}, Isa::sse2),
    either_form<load_quad>({1, 0xf3, 0x7e}, Isa::sse2),
    either_form<store_mmx>({1, 0, 0x7f}, Isa::sse2),
    stores<ALIGNED>({1, 0x66, 0x7f}),
    stores<ANY>({1, 0xf3, 0x7f}),
    memory_form<store_general>({1, 0, 0xc3}, Isa::sse2),
    either_form<store_quad>({1, 0x66, 0xd6}, Isa::sse2),
    register_form<mmx_to_xmm>({1, 0xf3, 0xd6}, Isa::sse2),
    register_form<xmm_to_mmx>({1, 0xf2, 0xd6}, Isa::sse2),
    register_form<pmovmskb_mmx>({1, 0, 0xd7}, Isa::sse2),
    register_form<pmovmskb>({1, 0x66, 0xd7}, Isa::sse2),
    memory_form<store_mmx>({1, 0, 0xe7}, Isa::sse2),
    memory_form<store_xmm<ALIGNED>>({1, 0x66, 0xe7}, Isa::sse2),
    memory_form<load_xmm<ANY>>({1, 0xf2, 0xf0}, Isa::sse3),
    register_form<mask_store_mmx>({1, 0, 0xf7}, Isa::sse2),
    register_form<mask_store_xmm>({1, 0x66, 0xf7}, Isa::sse2),
    memory_form<load_xmm<ALIGNED>>({2, 0x66, 0x2a}, Isa::sse41),
};

} // namespace

SimdTable simd_moves() { return {ENTRIES.data(), ENTRIES.size()}; }

} // namespace transom::soft
