#include "hypervisor/vcpu/soft/fpu.hpp"

namespace transom::soft {

Fx fxsave_image(const Cpu& cpu) {
  Fx image = cpu.fx;
  for (unsigned n = 0; n < 8; ++n) std::memcpy(image.st[n], st(cpu.fx, n), 16);
  return image;
}
void set_fxsave_image(Cpu& cpu, const Fx& image) {
  cpu.fx = image;
  for (unsigned n = 0; n < 8; ++n) std::memcpy(st(cpu.fx, n), image.st[n], 16);
}

void unload_fp_now(Cpu& cpu) {
  if (cpu.fp_loaded & LOADED_MXCSR) {
    cpu.fx.mxcsr = host_mxcsr();
    set_host_mxcsr(HOST_MXCSR);
  }
  if (cpu.fp_loaded & LOADED_FCW) asm volatile("fldcw %0" : : "m"(HOST_FCW));
  cpu.fp_loaded = 0;
}

namespace {
// Addresses wrap at 4 GiB outside 64-bit mode.
u64 image_address(const Cpu& cpu, u64 linear) { return code64(cpu) ? linear : static_cast<u32>(linear); }

template <class F>
void for_each_chunk(unsigned bytes, F&& f) {
  unsigned at = 0;
  for (; at + 8 <= bytes; at += 8) f(at, u64{});
  for (; at + 2 <= bytes; at += 2) f(at, u16{});
}
} // namespace

void read_image(Cpu& cpu, u64 linear, u8* image, unsigned bytes) {
  for_each_chunk(bytes, [&](unsigned at, auto chunk) {
    chunk = read_linear<decltype(chunk)>(cpu, image_address(cpu, linear + at));
    std::memcpy(image + at, &chunk, sizeof chunk);
  });
}

void write_image(Cpu& cpu, u64 linear, const u8* image, unsigned bytes) {
  probe(cpu, linear, bytes, Access::write, user_mode(cpu));
  for_each_chunk(bytes, [&](unsigned at, auto chunk) {
    std::memcpy(&chunk, image + at, sizeof chunk);
    write_linear<decltype(chunk)>(cpu, image_address(cpu, linear + at), chunk);
  });
}

bool host_has(Isa isa) {
  switch (isa) {
    case Isa::sse2: return true; // part of x86-64
    case Isa::sse3: return __builtin_cpu_supports("sse3") != 0;
    case Isa::ssse3: return __builtin_cpu_supports("ssse3") != 0;
    case Isa::sse41: return __builtin_cpu_supports("sse4.1") != 0;
    case Isa::sse42: return __builtin_cpu_supports("sse4.2") != 0;
  }
  return false;
}

} // namespace transom::soft
