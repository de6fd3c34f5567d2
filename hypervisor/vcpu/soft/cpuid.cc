// CPUID (SDM 2 CPUID, APM 3 appendix E): named models. A bit that is not implemented is never shown.
//
// The KVM backend shows the same models. All are an AMD family 15 processor: AMD, so that kernels need no page-table
// isolation; family 15 model 2Fh, because later families make kernels work around retbleed and SRSO and this one needs
// neither those nor the C1E quirk.
#include <bit>
#include <cpuid.h>
#include <string_view>

#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/model.hpp"
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

constexpr u32 bits(std::initializer_list<unsigned> list) {
  u32 result = 0;
  for (const unsigned n : list) result |= u32{1} << n;
  return result;
}

// Leaf 1 EDX: fpu de pse tsc msr pae cx8 apic sep mtrr pge cmov pat clflush mmx fxsr sse sse2
constexpr u32 BASE_1_EDX = bits({0, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 19, 23, 24, 25, 26});
// Leaf 1 ECX: sse3 cx16 hypervisor; v2: ssse3 sse4.1 sse4.2 popcnt
constexpr u32 BASE_1_ECX = bits({0, 13, 31});
constexpr u32 V2_1_ECX = bits({9, 19, 20, 23});
// Leaf 8000_0001h EDX repeats some of leaf 1; own: syscall nx mmxext rdtscp lm
constexpr u32 REPEATED_EDX = 0x0183'f3ff;
constexpr u32 BASE_EXT_EDX = bits({11, 20, 22, 27, 29});
// ECX: lahf_lm, MOV CR8 outside 64-bit mode
constexpr u32 BASE_EXT_ECX = bits({0, 4});

constexpr u32 SIGNATURE = 0x0002'0ff2;
constexpr char BRAND[49] = "Transom Virtual CPU";
constexpr u32 MAX_BASIC = 7, MAX_EXTENDED = 0x8000'0021, HYPERVISOR = 0x4000'0000;

constexpr Model BASE{"base", BASE_1_ECX, BASE_1_EDX, BASE_EXT_ECX, BASE_EXT_EDX};
constexpr Model V2{"v2", BASE_1_ECX | V2_1_ECX, BASE_1_EDX, BASE_EXT_ECX, BASE_EXT_EDX};

// Everything implemented that the host has too. SIMD handlers run on the host's own units; the rest of `base` is
// emulated and needs nothing of the host.
const Model& host_model() {
  static const Model model = [] {
    Model m = V2;
    m.name = "host";
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    m.ecx = BASE_1_ECX | (V2_1_ECX & ecx);
    return m;
  }();
  return model;
}

CpuidResult text(const char* s) {
  CpuidResult r;
  __builtin_memcpy(&r, s, 16);
  return r;
}

CpuidResult basic(const Model& m, VcpuPlatform& platform, u32 leaf, u32 subleaf) {
  switch (leaf) {
    case 0: return {MAX_BASIC, 0x6874'7541, 0x444d'4163, 0x6974'6e65}; // AuthenticAMD, in the order EBX EDX ECX
    case 1: {                                                          // CLFLUSH of 64 bytes
      const u32 cores = platform.processors();
      return {SIGNATURE, 0x0000'0800 | cores << 16 | u32{platform.apic_id()} << 24,
              m.ecx | (platform.apic_features() & bits({21, 24})), m.edx | (cores > 1 ? bits({28}) : 0)};
    }
    case 6:
      return {4, 0, 0, 0}; // the APIC timer never stops
    // ERMS, FSRM: REP MOVSB/STOSB of any length go a page at a time.
    case 7: return subleaf == 0 ? CpuidResult{0, bits({9}), 0, bits({4})} : CpuidResult{};
    default: return {};
  }
}

CpuidResult extended(const Model& m, VcpuPlatform& platform, u32 leaf) {
  const u32 cores = platform.processors();
  switch (leaf) {
    case 0x8000'0000: return {MAX_EXTENDED, 0x6874'7541, 0x444d'4163, 0x6974'6e65};
    case 0x8000'0001: // CMP_LEGACY: what leaf 1 counts are cores, not threads
      return {SIGNATURE, 0, m.ext_ecx | (cores > 1 ? bits({1}) : 0), m.ext_edx | (m.edx & REPEATED_EDX)};
    case 0x8000'0002:
    case 0x8000'0003:
    case 0x8000'0004: return text(BRAND + 16 * (leaf - 0x8000'0002));
    // 64 KiB 2-way L1 caches with 64-byte lines, 512 KiB 16-way L2; TLBs of 32 and 512 entries.
    case 0x8000'0005: return {0xff08'ff08, 0xff20'ff20, 0x4002'0140, 0x4002'0140};
    case 0x8000'0006: return {0, 0x4200'4200, 0x0200'8140, 0};
    case 0x8000'0007: return {0, 0, 0, bits({8})}; // the TSC runs at one rate in every state
    case 0x8000'0008:
      // FXSAVE always saves the error pointers. Cores, and how many bits of the APIC ID number them.
      return {PHYSICAL_BITS | 48 << 8, bits({2}), (cores - 1) | static_cast<u32>(std::bit_width(cores - 1)) << 12, 0};
    // LFENCE serializes; null selectors clear the base; automatic IBRS: guest code trains no predictor that steers
    // what another guest privilege level executes, so its setting is only kept.
    case 0x8000'0021: return {bits({2, 6, 8}), 0, 0, 0};
    default: return {};
  }
}

} // namespace

CpuidResult cpuid(const Model& m, VcpuPlatform& platform, u32 leaf, u32 subleaf) {
  if (leaf >= HYPERVISOR && leaf < HYPERVISOR + 0x1'0000) {
    CpuidResult r;
    if (platform.hypervisor_cpuid(leaf, subleaf, r)) return r;
    if (leaf == HYPERVISOR) { // "TransomTrnsm" in EBX ECX EDX
      r.eax = HYPERVISOR;
      __builtin_memcpy(&r.ebx, "TransomTrnsm", 12);
    }
    return r;
  }
  return leaf >= 0x8000'0000 ? extended(m, platform, leaf) : basic(m, platform, leaf, subleaf);
}

CpuidResult cpuid(const Cpu& cpu, u32 leaf, u32 subleaf) {
  return cpuid(cpu.model != nullptr ? *cpu.model : BASE, *cpu.platform.operator->(), leaf, subleaf);
}

u64 cr4_mask(const Cpu&) {
  return CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT;
}

u64 efer_mask(const Cpu&) {
  constexpr u64 AUTOMATIC_IBRS = 1 << 21;
  return EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | AUTOMATIC_IBRS;
}

const Model* find_model(std::string_view name) {
  if (name == "base") return &BASE;
  if (name == "v2") return &V2;
  if (name == "host") return &host_model();
  return nullptr;
}

namespace op {

void cpuid(Cpu& cpu, const Insn&) {
  const CpuidResult r = soft::cpuid(cpu, static_cast<u32>(cpu.gpr[RAX]), static_cast<u32>(cpu.gpr[RCX]));
  cpu.gpr[RAX] = r.eax;
  cpu.gpr[RBX] = r.ebx;
  cpu.gpr[RCX] = r.ecx;
  cpu.gpr[RDX] = r.edx;
}

} // namespace op

} // namespace transom::soft
