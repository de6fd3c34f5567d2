#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;
constexpr u32 TARGET = 0x1'4000;

class Syscalls : public ::testing::Test {
 protected:
  Bench b;
  // SYSCALL: CS 08h (SS 10h); SYSRET: 40h → 32-bit CS 43h, SS 4Bh, 64-bit CS 53h.
  void set_star() {
    b.cpu.star = u64{0x40} << 48 | u64{0x08} << 32;
    b.cpu.lstar = TARGET;
    b.cpu.cstar = TARGET + 0x100;
    b.cpu.sfmask = FLAG_IF | FLAG_DF;
  }
};

TEST_F(Syscalls, SyscallAndSysretGoRound) {
  b.long_mode_64(3);
  set_star();
  set_flags(b.cpu, 2 | FLAG_IF | FLAG_CF | FLAG_DF | FLAG_RF);
  b.code({0x0f, 0x05});
  b.code({0x48, 0x0f, 0x07}, TARGET);
  b.step();
  EXPECT_EQ(b.cpu.rip, TARGET);
  EXPECT_EQ(b.cpu.cpl, 0);
  EXPECT_EQ(b.cpu.segment[CS].selector, 0x08);
  EXPECT_EQ(b.cpu.segment[SS].selector, 0x10);
  EXPECT_EQ(b.cpu.gpr[RCX], Bench::CODE + 2);
  EXPECT_EQ(b.cpu.gpr[11], FLAG_IF | FLAG_CF | FLAG_DF | 2);
  EXPECT_EQ(get_flags(b.cpu), FLAG_CF | 2);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK) << "the kernel switches stacks itself";
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.segment[CS].selector, 0x53);
  EXPECT_EQ(b.cpu.segment[SS].selector, 0x4b);
  EXPECT_EQ(get_flags(b.cpu), FLAG_IF | FLAG_CF | FLAG_DF | 2);
  EXPECT_TRUE(code64(b.cpu));
}

TEST_F(Syscalls, CompatibilityModeEntersThroughCstarAndReturnsWithSysretl) {
  b.long_mode_64(3);
  set_star();
  set_segment(b.cpu, CS, b.make(USER_CODE32));
  update_mode(b.cpu);
  b.code({0x0f, 0x05});
  b.code({0x0f, 0x07}, TARGET + 0x100);
  b.step();
  EXPECT_EQ(b.cpu.rip, TARGET + 0x100);
  EXPECT_TRUE(code64(b.cpu));
  b.step();
  EXPECT_EQ(b.cpu.segment[CS].selector, 0x43);
  EXPECT_FALSE(code64(b.cpu));
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
}

TEST_F(Syscalls, SyscallIsUndefinedWithoutSce) {
  b.long_mode_64(3);
  b.cpu.efer &= ~EFER_SCE;
  b.code({0x0f, 0x05});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD));
}

TEST_F(Syscalls, SysretToANonCanonicalAddressIsGpInTheKernel) {
  b.long_mode_64();
  set_star();
  b.cpu.gpr[RCX] = u64{1} << 47;
  b.code({0x48, 0x0f, 0x07});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 48) << "on the kernel's stack";
}

TEST_F(Syscalls, LegacySyscallTakesEipFromStar) {
  b.protected_mode_32(3);
  b.cpu.efer = EFER_SCE;
  b.cpu.star = u64{0x18} << 48 | u64{0x08} << 32 | TARGET;
  set_flags(b.cpu, 2 | FLAG_IF);
  b.code({0x0f, 0x05});
  b.code({0x0f, 0x07}, TARGET);
  b.step();
  EXPECT_EQ(b.cpu.rip, TARGET);
  EXPECT_FALSE(b.cpu.rflags & FLAG_IF);
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.segment[CS].selector, USER_CODE32);
  EXPECT_EQ(b.cpu.segment[SS].selector, USER_DATA32);
  EXPECT_TRUE(b.cpu.rflags & FLAG_IF);
}

TEST_F(Syscalls, SysenterAndSysexitInLegacyMode) {
  b.protected_mode_32(3);
  b.cpu.sysenter_cs = CODE32;
  b.cpu.sysenter_esp = 0x6000;
  b.cpu.sysenter_eip = TARGET;
  b.code({0x0f, 0x34});
  b.code({0x0f, 0x35}, TARGET);
  b.step();
  EXPECT_EQ(b.cpu.rip, TARGET);
  EXPECT_EQ(b.cpu.cpl, 0);
  EXPECT_EQ(b.cpu.gpr[RSP], 0x6000u);
  b.cpu.gpr[RCX] = Bench::USER_STACK;
  b.cpu.gpr[RDX] = Bench::CODE + 2;
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.segment[CS].selector, USER_CODE32);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
}

TEST_F(Syscalls, SysenterWithoutATargetIsGpAndInLongModeUndefined) {
  b.protected_mode_32(3);
  b.code({0x0f, 0x34});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  b.long_mode_64(3);
  b.cpu.sysenter_cs = CODE32;
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD)) << "AMD";
}

TEST_F(Syscalls, SwapgsSwapsAndExistsIn64BitModeOnly) {
  b.long_mode_64();
  b.cpu.segment[GS].base = 0x1111;
  b.cpu.kernel_gs_base = 0x2222;
  b.code({0x0f, 0x01, 0xf8});
  b.step();
  EXPECT_EQ(b.cpu.segment[GS].base, 0x2222u);
  EXPECT_EQ(b.cpu.kernel_gs_base, 0x1111u);
  b.protected_mode_32();
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD));
}

TEST_F(Syscalls, BothHypercallInstructionsPassXensArguments) {
  for (const u8 modrm : {0xc1, 0xd9}) {
    b.long_mode_64();
    b.cpu.gpr[RAX] = 17;
    b.cpu.gpr[RDI] = 1;
    b.cpu.gpr[RSI] = 2;
    b.cpu.gpr[9] = 6;
    b.code({0x0f, 0x01, modrm});
    b.step();
    EXPECT_EQ(b.last_hypercall.number, 17u);
    EXPECT_EQ(b.last_hypercall.first, 1u);
    EXPECT_EQ(b.last_hypercall.second, 2u);
    EXPECT_EQ(b.last_hypercall.sixth, 6u);
    EXPECT_TRUE(b.last_hypercall.wide);
    EXPECT_EQ(b.cpu.gpr[RAX], static_cast<u64>(-38));
  }
  b.protected_mode_32();
  b.cpu.gpr[RBX] = 3;
  b.cpu.gpr[RBP] = 8;
  b.code({0x0f, 0x01, 0xc1});
  b.step();
  EXPECT_EQ(b.last_hypercall.first, 3u);
  EXPECT_EQ(b.last_hypercall.sixth, 8u);
  EXPECT_EQ(b.cpu.gpr[RAX], static_cast<u32>(-38));
}

TEST_F(Syscalls, UserModeHypercallsAreRefusedWithoutReachingThePlatform) {
  b.long_mode_64(3);
  b.cpu.gpr[RAX] = 17;
  b.code({0x0f, 0x01, 0xd9});
  b.step();
  EXPECT_EQ(b.cpu.gpr[RAX], ~u64{0}) << "-EPERM";
  EXPECT_EQ(b.last_hypercall.number, 0u);
}

} // namespace
} // namespace transom::soft
