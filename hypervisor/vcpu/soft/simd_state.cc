// 0F AE: FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, CLFLUSH and the fences.
#include <cstddef>

#include "hypervisor/vcpu/soft/native.hpp"
#include "hypervisor/vcpu/soft/x87_state.hpp"

namespace transom::soft {

namespace {

// Outside 64-bit mode XMM8–XMM15 are neither saved nor restored, and their bytes stay as they are.
unsigned image_bytes(const Cpu& cpu) { return offsetof(Fx, xmm) + 16 * (code64(cpu) ? 16 : 8); }

u64 image_address(Cpu& cpu, const Insn& i, Access access) {
  const u64 linear = vector_address<Align::natural>(cpu, i, access == Access::write, sizeof(Fx));
  probe(cpu, linear, sizeof(Fx), access, user_mode(cpu));
  return linear;
}

void fxsave(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  const u64 linear = image_address(cpu, i, Access::write);
  unload_fp(cpu);
  Fx image = fxsave_image(cpu);
  image.reserved0 = 0;
  image.mxcsr_mask = MXCSR_DEFINED;
  if (!(i.flags & INSN_REX_W)) { // offset and selector instead of a 64-bit pointer
    image.fip = static_cast<u32>(image.fip);
    image.fdp = static_cast<u32>(image.fdp);
  }
  write_image(cpu, linear, reinterpret_cast<const u8*>(&image), image_bytes(cpu));
}

void fxrstor(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  unload_fp(cpu);
  Fx image = cpu.fx;
  read_image(cpu, image_address(cpu, i, Access::read), reinterpret_cast<u8*>(&image), image_bytes(cpu));
  if (image.mxcsr & ~MXCSR_DEFINED) raise(cpu, GP, 0);
  image.reserved0 = 0;
  image.mxcsr_mask = MXCSR_DEFINED;
  image.fop &= 0x7ff;
  if (!(i.flags & INSN_REX_W)) {
    image.fip = static_cast<u32>(image.fip);
    image.fdp = static_cast<u32>(image.fdp);
  }
  for (u8(&value)[16] : image.st) std::memset(value + 10, 0, 6);
  set_fcw(image, image.fcw);
  set_fxsave_image(cpu, image);
}

void ldmxcsr(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  const u32 value = load<u32>(cpu, i);
  if (value & ~MXCSR_DEFINED) raise(cpu, GP, 0);
  unload_fp(cpu);
  cpu.fx.mxcsr = value;
}
void stmxcsr(Cpu& cpu, const Insn& i) {
  check_sse(cpu);
  unload_fp(cpu);
  store<u32>(cpu, i, cpu.fx.mxcsr);
}

// Caches are the host's business; what is left is that the address has to be readable.
void clflush(Cpu& cpu, const Insn& i) {
  probe(cpu, operand_address(cpu, i, 1, false), 1, Access::read, user_mode(cpu));
}
// Other processes see guest memory, so the fences are real.
void mfence(Cpu&, const Insn&) { asm volatile("mfence" ::: "memory"); }
void lfence(Cpu&, const Insn&) { asm volatile("lfence" ::: "memory"); }
void sfence(Cpu&, const Insn&) { asm volatile("sfence" ::: "memory"); }

} // namespace

Choice simd_state_group(u8 prefix, u8 modrm) {
  if (prefix != 0) return {};
  const bool memory = modrm < 0xc0;
  switch ((modrm >> 3) & 7) {
    case 0: return memory ? simple_choice<fxsave>() : Choice{};
    case 1: return memory ? simple_choice<fxrstor>() : Choice{};
    case 2: return memory ? simple_choice<ldmxcsr>() : Choice{};
    case 3: return memory ? simple_choice<stmxcsr>() : Choice{};
    case 5: return memory ? Choice{} : simple_choice<lfence>();
    case 6: return memory ? Choice{} : simple_choice<mfence>();
    case 7: return memory ? simple_choice<clflush>() : simple_choice<sfence>();
    default: return {};
  }
}

} // namespace transom::soft
