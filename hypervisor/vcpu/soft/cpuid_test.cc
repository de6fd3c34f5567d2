#include <string>

#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

class Cpuid : public ::testing::Test {
 protected:
  SystemBench b;
  CpuidResult leaf(u32 n, u32 sub = 0) { return cpuid(b.cpu, n, sub); }
};

TEST_F(Cpuid, TheVendorIsAmdInBothRanges) {
  for (const u32 n : {0u, 0x8000'0000u}) {
    const CpuidResult r = leaf(n);
    const u32 name[3] = {r.ebx, r.edx, r.ecx};
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(name), 12), "AuthenticAMD");
  }
}

TEST_F(Cpuid, TheBrandIsOurs) {
  std::string brand;
  for (u32 n = 0x8000'0002; n <= 0x8000'0004; ++n) {
    const CpuidResult r = leaf(n);
    brand.append(reinterpret_cast<const char*>(&r), 16);
  }
  EXPECT_EQ(std::string(brand.c_str()), "Transom Virtual CPU");
}

TEST_F(Cpuid, WhatLinuxRequiresIsThere) {
  const CpuidResult r = leaf(1), x = leaf(0x8000'0001);
  for (const unsigned bit : {0, 4, 5, 6, 8, 9, 13, 15, 24, 25, 26}) EXPECT_TRUE(r.edx >> bit & 1) << bit;
  for (const unsigned bit : {11, 20, 29}) EXPECT_TRUE(x.edx >> bit & 1) << bit;
  EXPECT_EQ(x.edx & 0x0183'f3ff, r.edx & 0x0183'f3ff) << "the repeated bits agree";
}

TEST_F(Cpuid, WhatIsNotImplementedIsNotShown) {
  for (const char* name : {"base", "v2", "host"}) {
    b.cpu.model = find_model(name);
    ASSERT_NE(b.cpu.model, nullptr) << name;
    const CpuidResult r = leaf(1);
    for (const unsigned bit : {3, 5, 6, 12, 17, 21, 24, 26, 27, 28, 30}) // MWAIT VMX SMX FMA PCID x2APIC … AVX RDRAND
      EXPECT_FALSE(r.ecx >> bit & 1) << name << ' ' << bit;
    for (const unsigned bit : {1, 7, 14}) EXPECT_FALSE(r.edx >> bit & 1) << name << ' ' << bit; // VME MCE MCA
    EXPECT_FALSE(leaf(0x8000'0001).ecx >> 2 & 1) << "SVM";
    EXPECT_EQ(leaf(7).ebx, 1u << 9);
    EXPECT_EQ(leaf(0xd).eax, 0u);
  }
}

TEST_F(Cpuid, V2AddsExactlyTheX8664V2Bits) {
  b.cpu.model = find_model("base");
  const u32 base = leaf(1).ecx;
  b.cpu.model = find_model("v2");
  EXPECT_EQ(leaf(1).ecx & ~base, 0x0098'0200u);
  b.cpu.model = find_model("host");
  EXPECT_EQ(leaf(1).ecx & ~(base | 0x0098'0200u), 0u);
}

TEST_F(Cpuid, UnknownModelsAreRefused) { EXPECT_EQ(find_model("486"), nullptr); }

TEST_F(Cpuid, TheHypervisorBitComesWithASignature) {
  EXPECT_TRUE(leaf(1).ecx >> 31 & 1);
  const CpuidResult r = leaf(0x4000'0000);
  const u32 name[3] = {r.ebx, r.ecx, r.edx};
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(name), 12), "TransomTrnsm");
  EXPECT_EQ(leaf(0x4000'0100).ebx, 0u);
}

TEST_F(Cpuid, LeavesBeyondTheLastAreZero) {
  EXPECT_EQ(leaf(8).eax, 0u);
  EXPECT_EQ(leaf(0x8000'0022).eax, 0u);
}

TEST_F(Cpuid, TheInstructionClearsUpperHalves) {
  b.long_mode_64(3);
  b.cpu.gpr[RAX] = 0xffff'ffff'8000'0008;
  b.cpu.gpr[RBX] = b.cpu.gpr[RCX] = b.cpu.gpr[RDX] = ~u64{0};
  b.code({0x0f, 0xa2});
  b.step();
  EXPECT_EQ(b.cpu.gpr[RAX], PHYSICAL_BITS | 48u << 8);
  EXPECT_EQ(b.cpu.gpr[RBX], 4u);
  EXPECT_EQ(b.cpu.gpr[RDX], 0u);
}

} // namespace
} // namespace transom::soft
