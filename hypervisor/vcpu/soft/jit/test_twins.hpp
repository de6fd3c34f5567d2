// Two machines with the same guest: one interprets, the other runs translated code. Whatever a guest can see has to be
// the same in both.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {

inline SoftOptions interpreting() { return {}; }
inline SoftOptions translating(u32 threshold = 0, u64 code_bytes = u64{48} << 20) {
  SoftOptions o;
  o.engine = translating_engine();
  o.threshold = threshold;
  o.code_bytes = code_bytes;
  return o;
}

struct Twins {
  explicit Twins(const SoftOptions& options = translating()) : plain(interpreting()), fast(options) {}

  template <class F>
  void both(F&& f) {
    f(plain);
    f(fast);
  }
  // Empty if nothing differs. RAM is compared up to `ram`.
  std::string difference(u64 ram = TestMachine::RAM);

  TestMachine plain, fast;
};

namespace detail {

class Differences {
 public:
  template <class T>
  void compare(const char* name, T plain, T fast) {
    if (plain == fast) return;
    char line[160];
    std::snprintf(line, sizeof line, "  %s: interpreted %llx, translated %llx\n", name,
                  static_cast<unsigned long long>(plain), static_cast<unsigned long long>(fast));
    text += line;
  }
  void bytes(const char* name, const u8* plain, const u8* fast, u64 size) {
    if (std::memcmp(plain, fast, size) == 0) return;
    u64 shown = 0;
    for (u64 n = 0; n < size && shown < 8; ++n)
      if (plain[n] != fast[n]) {
        char place[64];
        std::snprintf(place, sizeof place, "%s[%llx]", name, static_cast<unsigned long long>(n));
        compare(place, plain[n], fast[n]);
        ++shown;
      }
  }
  void segment(const char* name, const SegmentRegister& a, const SegmentRegister& b) {
    compare(name, a.selector | u64{a.attr} << 16, b.selector | u64{b.attr} << 16);
    compare(name, a.base, b.base);
    compare(name, a.limit, b.limit);
  }
  std::string text;
};

} // namespace detail

inline std::string Twins::difference(u64 ram) {
  detail::Differences d;
  const VcpuRegisters a = plain.vcpu.registers(), b = fast.vcpu.registers();
  static constexpr const char* NAME[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  for (unsigned n = 0; n < 16; ++n) d.compare(NAME[n], a.gpr[n], b.gpr[n]);
  d.compare("rip", a.rip, b.rip);
  d.compare("rflags", a.rflags, b.rflags);
  d.compare("cr0", a.cr0, b.cr0);
  d.compare("cr2", a.cr2, b.cr2);
  d.compare("cr3", a.cr3, b.cr3);
  d.compare("cr4", a.cr4, b.cr4);
  d.compare("efer", a.efer, b.efer);
  d.compare("dr6", a.dr[6], b.dr[6]);
  d.segment("cs", a.cs, b.cs);
  d.segment("ss", a.ss, b.ss);
  d.segment("ds", a.ds, b.ds);
  d.segment("es", a.es, b.es);
  d.segment("fs", a.fs, b.fs);
  d.segment("gs", a.gs, b.gs);
  const Cpu &p = plain.vcpu.cpu(), &f = fast.vcpu.cpu();
  d.compare("instructions", instructions_executed(p), instructions_executed(f));
  d.compare("halted", p.halted, f.halted);
  d.compare("interrupt shadow", p.interrupt_shadow, f.interrupt_shadow);
  d.compare("REG_ZERO", p.gpr[REG_ZERO], f.gpr[REG_ZERO]);
  u8 plain_image[512], fast_image[512];
  plain.vcpu.fpu_state(plain_image);
  fast.vcpu.fpu_state(fast_image);
  d.bytes("fxsave", plain_image, fast_image, sizeof plain_image);
  d.bytes("ram", plain.at(0), fast.at(0), ram);
  return d.text;
}

} // namespace transom::soft
