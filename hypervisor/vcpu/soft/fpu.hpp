// Shared by the x87, MMX and SSE handlers: who may use the unit now, and the registers in the FXSAVE image.
//
// FIP, FDP and FOP hold the guest's last non-control x87 instruction, its operand and its opcode: offsets in protected
// and long mode, linear addresses in real and virtual-8086 mode (that is what FNSTENV shows there). They are recorded
// and saved whether or not an exception is pending. FCS and FDS read as zero (SDM 1 8.1.8, "deprecates FPU CS and FPU
// DS").
#pragma once

#include <emmintrin.h>

#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

// x87 status word, SDM 1 figure 8-4
inline constexpr u16 FSW_EXCEPTIONS = 0x3f, FSW_SF = 0x40, FSW_ES = 0x80, FSW_C1 = 0x200, FSW_TOP = 0x3800,
                     FSW_B = 0x8000;
inline constexpr u16 FCW_MASKS = 0x3f;
// MXCSR, SDM 1 figure 10-3
inline constexpr u32 MXCSR_FLAGS = 0x3f, MXCSR_MASKS = 0x1f80, MXCSR_FTZ = 0x8000, MXCSR_DEFINED = 0xffff;
inline constexpr u32 MXCSR_IE = 1, MXCSR_DE = 2, MXCSR_ZE = 4, MXCSR_OE = 8, MXCSR_UE = 16, MXCSR_PE = 32;

// --- who may use the unit (SDM 3A tables 2-3 and 13-1)
inline void check_x87(Cpu& cpu) {
  if (cpu.cr0 & (CR0_EM | CR0_TS)) [[unlikely]]
    raise(cpu, NM);
}
// An unmasked exception waits in FSW.ES. Without CR0.NE it would go out on FERR#; here IGNNE# is held asserted.
inline void check_pending_x87(Cpu& cpu) {
  if ((cpu.fx.fsw & FSW_ES) && (cpu.cr0 & CR0_NE)) [[unlikely]]
    raise(cpu, MF);
}
inline void check_mmx(Cpu& cpu) {
  if (cpu.cr0 & CR0_EM) [[unlikely]]
    raise(cpu, UD);
  if (cpu.cr0 & CR0_TS) [[unlikely]]
    raise(cpu, NM);
  check_pending_x87(cpu);
}
inline void check_sse(Cpu& cpu) {
  if (!cpu.sse_allowed) [[unlikely]]
    raise(cpu, (cpu.cr0 & CR0_EM) || !(cpu.cr4 & CR4_OSFXSR) ? UD : NM);
}

// --- the guest's control words in the host. Loading and restoring them around each instruction would cost more than
// the instruction. So they stay from the first computation on until anyone else may care: the run loop, the platform,
// an instruction that reads or writes them (unload_fp). Only words that mask every exception are loaded; others have
// paths of their own. The code of the CPU itself computes with integers alone.
inline constexpr u32 HOST_MXCSR = 0x1f80;
inline constexpr u16 HOST_FCW = 0x037f;
inline void set_host_mxcsr(u32 value) { asm volatile("ldmxcsr %0" : : "m"(value) : "memory"); }
inline u32 host_mxcsr() {
  u32 value;
  asm volatile("stmxcsr %0" : "=m"(value) : : "memory");
  return value;
}
inline void load_mxcsr(Cpu& cpu) {
  set_host_mxcsr(cpu.fx.mxcsr);
  cpu.fp_loaded |= LOADED_MXCSR;
}
inline void load_fcw(Cpu& cpu) {
  asm volatile("fnclex\n\tfldcw %0" : : "m"(cpu.fx.fcw) : "memory");
  cpu.fp_loaded |= LOADED_FCW;
}

// ES and B follow from the flags and the control word.
inline void update_fsw_summary(Fx& fx) {
  const bool pending = (fx.fsw & ~fx.fcw & FSW_EXCEPTIONS) != 0;
  fx.fsw = static_cast<u16>((fx.fsw & ~(FSW_ES | FSW_B)) | (pending ? FSW_ES | FSW_B : 0));
}
inline unsigned fsw_top(const Fx& fx) { return (fx.fsw >> 11) & 7; }

// --- x87 registers: ST(n) in Cpu::fx
inline void set_top(Fx& fx, unsigned top) { fx.fsw = static_cast<u16>((fx.fsw & ~FSW_TOP) | (top & 7) << 11); }
inline u8* st(Fx& fx, unsigned n) { return fx.st[(fsw_top(fx) + n) & 7]; }
inline const u8* st(const Fx& fx, unsigned n) { return fx.st[(fsw_top(fx) + n) & 7]; }
Fx fxsave_image(const Cpu& cpu);
void set_fxsave_image(Cpu& cpu, const Fx& image);

// --- MMX registers are the physical x87 registers. Every MMX instruction makes TOP 0 and all registers valid (SDM 1
// 9.5.1); call this once nothing can fault any more.
inline void enter_mmx(Fx& fx) {
  set_top(fx, 0);
  fx.ftw = 0xff;
}
inline u64 mm(const Fx& fx, unsigned n) {
  u64 value;
  std::memcpy(&value, fx.st[n & 7], 8);
  return value;
}
inline void set_mm(Fx& fx, unsigned n, u64 value) {
  std::memcpy(fx.st[n & 7], &value, 8);
  std::memset(fx.st[n & 7] + 8, 0xff, 2);
}

// --- XMM registers, by numbers that the decoder made: 0 to 15
inline __m128i xmm(const Cpu& cpu, u8 n) { return _mm_load_si128(reinterpret_cast<const __m128i*>(cpu.fx.xmm[n])); }
inline void set_xmm(Cpu& cpu, u8 n, __m128i value) {
  _mm_store_si128(reinterpret_cast<__m128i*>(cpu.fx.xmm[n]), value);
}
inline __m128i to_vector(Bytes16 b) {
  return _mm_set_epi64x(static_cast<long long>(b.high), static_cast<long long>(b.low));
}
inline u64 low_half(__m128i v) { return static_cast<u64>(_mm_cvtsi128_si64(v)); }
inline u64 high_half(__m128i v) { return static_cast<u64>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(v, v))); }

// --- memory operands as vectors. The 16-byte paths go around Bytes16, so that a vector is one host load or store.
enum class Align : u8 { none, natural };

// Misalignment is found before the segment limit: #GP(0) also on the stack.
template <Align A>
inline u64 vector_address(Cpu& cpu, const Insn& i, bool write, unsigned width = 16) {
  if constexpr (A == Align::natural) {
    const u64 linear = i.form == Form::legacy ? cpu.segment[i.segment].base + effective_offset(cpu, i)
                                              : operand_address(cpu, i, width, write);
    if (linear & 15) [[unlikely]]
      raise(cpu, GP, 0);
    if (i.form != Form::legacy) return linear;
  }
  return operand_address(cpu, i, width, write);
}
template <Align A>
inline __m128i load_vector(Cpu& cpu, const Insn& i) {
  const u64 linear = vector_address<A>(cpu, i, false);
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.read <= PAGE_SIZE - 16) [[likely]]
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(linear + e.addend));
  return to_vector(read_linear<Bytes16>(cpu, linear));
}
template <Align A>
inline void store_vector(Cpu& cpu, const Insn& i, __m128i value) {
  const u64 linear = vector_address<A>(cpu, i, true);
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.write <= PAGE_SIZE - 16) [[likely]]
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(linear + e.addend), value);
  write_linear<Bytes16>(cpu, linear, {low_half(value), high_half(value)});
}
// `Width` bytes, zero-extended. 16-byte operands have to be aligned.
template <unsigned Width, Align A = Align::natural>
inline __m128i load_operand(Cpu& cpu, const Insn& i) {
  if constexpr (Width == 16)
    return load_vector<A>(cpu, i);
  else if constexpr (Width == 8)
    return _mm_cvtsi64_si128(static_cast<long long>(load<u64>(cpu, i)));
  else if constexpr (Width == 4)
    return _mm_cvtsi32_si128(static_cast<int>(load<u32>(cpu, i)));
  else
    return _mm_cvtsi32_si128(load<u16>(cpu, i));
}
// The r/m operand of an instruction with XMM registers.
template <unsigned Width, Align A = Align::natural>
inline __m128i xmm_operand(Cpu& cpu, const Insn& i) {
  return i.form == Form::reg ? xmm(cpu, i.rm) : load_operand<Width, A>(cpu, i);
}

// --- the fast half of a handler. It may give up (false) before it has changed anything; then the whole handler runs.
template <void (*Whole)(Cpu&, const Insn&)>
[[gnu::noinline]] const Insn* whole(Cpu& cpu, const Insn* i) { // so that the fast half needs no frame
  return simple<Whole>(cpu, i);
}
template <bool (*Fast)(Cpu&, const Insn&), void (*Whole)(Cpu&, const Insn&)>
const Insn* fast_or_whole(Cpu& cpu, const Insn* i) {
  if (Fast(cpu, *i)) [[likely]]
    return next(cpu, i);
  return whole<Whole>(cpu, i);
}
// Where the memory operand lies in the host, if nothing stands in the way: 64-bit code, one page of RAM, aligned.
template <unsigned Width, bool Write, Align A = Align::natural>
[[gnu::always_inline]] inline u8* direct_operand(Cpu& cpu, const Insn& i) {
  if (i.form == Form::legacy) return nullptr;
  const u64 linear = operand_address<Form::full>(cpu, i, Width, Write);
  if (A == Align::natural && Width == 16 && (linear & 15)) return nullptr;
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - (Write ? e.write : e.read) > PAGE_SIZE - Width) return nullptr;
  return reinterpret_cast<u8*>(linear + e.addend);
}
// `Width` bytes, zero-extended.
template <unsigned Width>
[[gnu::always_inline]] inline __m128i vector_at(const u8* p) {
  if constexpr (Width == 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  u64 value = 0;
  std::memcpy(&value, p, Width < 8 ? Width : 8);
  return _mm_cvtsi64_si128(static_cast<long long>(value));
}
// The r/m operand of a fast half; false: give up.
template <unsigned Width, bool Memory, Align A = Align::natural>
[[gnu::always_inline]] inline bool fast_operand(Cpu& cpu, const Insn& i, __m128i& value) {
  if constexpr (Memory) {
    const u8* const p = direct_operand<Width, false, A>(cpu, i);
    if (p == nullptr) [[unlikely]]
      return false;
    value = vector_at<Width>(p);
  } else {
    value = xmm(cpu, i.rm);
  }
  return true;
}

// --- state images, an even number of bytes. All of it is checked before the first byte is written.
void read_image(Cpu& cpu, u64 linear, u8* image, unsigned bytes);
void write_image(Cpu& cpu, u64 linear, const u8* image, unsigned bytes);

// --- which opcodes the host can execute; the others are #UD in the guest
enum class Isa : u8 { sse2, sse3, ssse3, sse41, sse42 };
bool host_has(Isa isa);

} // namespace transom::soft
