#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;
constexpr u32 TARGET = 0x1'4000;

class Transfers : public ::testing::Test {
 protected:
  Bench b;
  Transfers() { b.put8(TARGET, 0xf4); }
  // A far JMP (EA) or CALL (9A) of 32-bit code.
  void far32(u8 opcode, u16 selector, u32 offset = TARGET) {
    b.code({opcode, static_cast<u8>(offset), static_cast<u8>(offset >> 8), static_cast<u8>(offset >> 16),
            static_cast<u8>(offset >> 24), static_cast<u8>(selector), static_cast<u8>(selector >> 8)});
  }
  void expect_fault(u8 vector, u32 error, u64 rip = Bench::CODE) {
    EXPECT_TRUE(b.in_handler(vector));
    EXPECT_EQ(b.slot(0, 4), error);
    EXPECT_EQ(b.slot(1, 4), rip);
  }
};

TEST_F(Transfers, RealModeFarCallAndReturn) {
  b.real_mode();
  b.code({0x9a, 0x00, 0x00, 0x00, 0x14, 0xf4}); // call 1400:0000
  b.code({0xcb}, TARGET);                       // retf
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, 6u);
  EXPECT_EQ(b.cpu.segment[CS].selector, Bench::CODE >> 4);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK);
}

TEST_F(Transfers, RealModeIndirectJump) {
  b.real_mode();
  b.put32(0x5000, 0x1400 << 16);
  b.code({0xff, 0x2e, 0x00, 0x50}); // jmp far [0x5000]
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.segment[CS].base + b.cpu.rip, TARGET + 1);
}

TEST_F(Transfers, FromRealToProtectedModeByFarJump) {
  b.real_mode();
  b.cpu.gdtr = {Bench::GDT, 0xfff};
  b.code({0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0,     // CR0.PE = 1
          0x66, 0xea, 0x00, 0x40, 0x01, 0x00, CODE32, 0x00}); // jmp dword CODE32:TARGET
  b.code({0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4}, TARGET);       // mov eax,0x12345678: 32-bit code
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RAX], 0x1234'5678u);
  EXPECT_EQ(b.cpu.segment[CS].selector, CODE32);
  EXPECT_EQ(b.get8(Bench::GDT + CODE32 + 5), 0x9b) << "accessed";
}

TEST_F(Transfers, ProtectedFarCallPushesCsAndReturns) {
  b.protected_mode_32();
  far32(0x9a, CODE32);
  b.put8(Bench::CODE + 7, 0xf4);
  b.put8(TARGET, 0xcb);
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 8);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK);
}

TEST_F(Transfers, FarJumpChecksTypePrivilegePresenceAndLimit) {
  b.protected_mode_32();
  far32(0xea, 0);
  ASSERT_TRUE(b.run());
  expect_fault(GP, 0);

  b.protected_mode_32();
  far32(0xea, DATA32);
  ASSERT_TRUE(b.run());
  expect_fault(GP, DATA32);

  b.protected_mode_32();
  far32(0xea, USER_CODE32); // DPL 3 from CPL 0, not conforming
  ASSERT_TRUE(b.run());
  expect_fault(GP, USER_CODE32 & ~3);

  b.protected_mode_32();
  b.put64(Bench::GDT + FREE, descriptor(0, 0xf'ffff, 0x1a, 0xc));
  far32(0xea, FREE);
  ASSERT_TRUE(b.run());
  expect_fault(NP, FREE);

  b.protected_mode_32();
  b.put64(Bench::GDT + FREE, descriptor(0, TARGET - 1, 0x9a, 0x4));
  far32(0xea, FREE);
  ASSERT_TRUE(b.run());
  expect_fault(GP, 0);
}

TEST_F(Transfers, ConformingCodeKeepsTheCallersPrivilege) {
  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, descriptor(0, 0xf'ffff, 0x9e, 0xc));
  far32(0xea, FREE);
  b.step();
  EXPECT_EQ(b.cpu.rip, TARGET);
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.segment[CS].selector, FREE | 3);
}

TEST_F(Transfers, CallGateToAnInnerLevelCopiesParametersAndRetfReleasesThem) {
  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, gate(CODE32, TARGET, 0xec, 2)); // DPL 3, two parameters
  b.code({0x68, 0x11, 0x11, 0, 0, 0x68, 0x22, 0x22, 0, 0});  // push 0x1111; push 0x2222
  b.code({0x9a, 0, 0, 0, 0, FREE, 0}, Bench::CODE + 10);     // call FREE:0
  ASSERT_TRUE(b.run());
  ASSERT_EQ(b.cpu.rip, TARGET + 1);
  EXPECT_EQ(b.cpu.cpl, 0);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK0 - 24);
  EXPECT_EQ(b.slot(0, 4), Bench::CODE + 17);
  EXPECT_EQ(b.slot(1, 4), USER_CODE32);
  EXPECT_EQ(b.slot(2, 4), 0x2222u);
  EXPECT_EQ(b.slot(3, 4), 0x1111u);
  EXPECT_EQ(b.slot(4, 4), Bench::USER_STACK - 8);
  EXPECT_EQ(b.slot(5, 4), USER_DATA32);

  b.cpu.halted = false;
  b.code({0xca, 8, 0}, TARGET + 1); // retf 8
  b.step();
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 17);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK) << "parameters released on both stacks";
}

TEST_F(Transfers, CallGateChecksItsOwnDplPresenceAndTarget) {
  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, gate(CODE32, TARGET, 0x8c)); // DPL 0
  far32(0x9a, FREE | 3);
  ASSERT_TRUE(b.run());
  expect_fault(GP, FREE);

  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, gate(CODE32, TARGET, 0x6c));
  far32(0x9a, FREE | 3);
  ASSERT_TRUE(b.run());
  expect_fault(NP, FREE);

  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, gate(DATA32, TARGET, 0xec));
  far32(0x9a, FREE | 3);
  ASSERT_TRUE(b.run());
  expect_fault(GP, DATA32);

  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, gate(CODE32, TARGET, 0xec));
  far32(0xea, FREE | 3); // a JMP may not go inwards
  ASSERT_TRUE(b.run());
  expect_fault(GP, CODE32);
}

TEST_F(Transfers, SixteenBitCallGatesPushWords) {
  b.protected_mode_32();
  b.put64(Bench::GDT + FREE, gate(CODE32, 0x5000, 0x84));
  b.put8(0x5000, 0xf4);
  far32(0x9a, FREE, 0);
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, 0x5001u);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 4);
}

TEST_F(Transfers, RetfToUserModeTakesTheStackFromTheStack) {
  b.protected_mode_32();
  b.put32(Bench::STACK - 16, TARGET);
  b.put32(Bench::STACK - 12, USER_CODE32);
  b.put32(Bench::STACK - 8, Bench::USER_STACK);
  b.put32(Bench::STACK - 4, USER_DATA32);
  b.cpu.gpr[RSP] = Bench::STACK - 16;
  b.code({0xcb});
  b.step();
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, TARGET);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
}

TEST_F(Transfers, RetfMayNotGoInwards) {
  b.protected_mode_32(3);
  b.put32(Bench::USER_STACK, TARGET);
  b.put32(Bench::USER_STACK + 4, CODE32);
  b.code({0xcb});
  ASSERT_TRUE(b.run());
  expect_fault(GP, CODE32);
  EXPECT_EQ(b.slot(4, 4), Bench::USER_STACK) << "nothing was popped";
}

TEST_F(Transfers, UserIretChangesNeitherIfNorIopl) {
  b.protected_mode_32(3);
  b.cpu.gpr[RSP] = Bench::USER_STACK - 12;
  b.put32(Bench::USER_STACK - 12, TARGET);
  b.put32(Bench::USER_STACK - 8, USER_CODE32);
  b.put32(Bench::USER_STACK - 4, 2 | static_cast<u32>(FLAG_IF | FLAG_IOPL | FLAG_CF | FLAG_AC));
  b.code({0xcf});
  b.step();
  ASSERT_EQ(b.cpu.rip, TARGET);
  EXPECT_EQ(get_flags(b.cpu), 2 | FLAG_CF | FLAG_AC);
}

// --- long mode

TEST_F(Transfers, CallGate64PushesQuadwordsAndSwitchesTheStack) {
  b.long_mode_64(3);
  b.put64(Bench::GDT + FREE, gate(CODE64, TARGET, 0xec));
  b.put64(Bench::GDT + FREE + 8, 0);
  b.put32(0x5000, 0);
  b.put16(0x5004, FREE | 3);
  b.code({0xff, 0x1c, 0x25, 0, 0x50, 0, 0}); // call far dword [0x5000]
  ASSERT_TRUE(b.run());
  ASSERT_EQ(b.cpu.rip, TARGET + 1);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK0 - 32);
  EXPECT_EQ(b.slot(0, 8), Bench::CODE + 7);
  EXPECT_EQ(b.slot(3, 8), USER_DATA32);
  EXPECT_EQ(b.cpu.segment[SS].selector, 0);
  b.cpu.halted = false;
  b.code({0x48, 0xcb}, TARGET + 1); // retfq
  b.step();
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
}

TEST_F(Transfers, RetfqToCompatibilityMode) {
  b.long_mode_64();
  b.put64(Bench::STACK - 16, TARGET);
  b.put64(Bench::STACK - 8, CODE32);
  b.cpu.gpr[RSP] = Bench::STACK - 16;
  b.code({0x48, 0xcb});
  b.code({0x40, 0xf4}, TARGET); // inc eax; hlt — a REX prefix in 64-bit code
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RAX], 1u);
  EXPECT_TRUE(long_mode(b.cpu));
  EXPECT_FALSE(code64(b.cpu));
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK);
}

TEST_F(Transfers, ACodeSegmentThatIsBoth64And32BitIsRefused) {
  b.long_mode_64();
  b.put64(Bench::GDT + FREE, descriptor(0, 0xf'ffff, 0x9a, 0xe));
  b.put64(Bench::STACK, TARGET);
  b.put64(Bench::STACK + 8, FREE);
  b.code({0x48, 0xcb});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), FREE);
}

TEST_F(Transfers, IretqPopsANullStackSelectorForTheKernel) {
  b.long_mode_64();
  b.cpu.gpr[RSP] = Bench::STACK - 40;
  b.put64(Bench::STACK - 40, TARGET);
  b.put64(Bench::STACK - 32, CODE64);
  b.put64(Bench::STACK - 24, 2);
  b.put64(Bench::STACK - 16, 0x6000);
  b.put64(Bench::STACK - 8, 0);
  b.code({0x48, 0xcf});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, TARGET + 1);
  EXPECT_EQ(b.cpu.gpr[RSP], 0x6000u);
  EXPECT_EQ(b.cpu.segment[SS].selector, 0);
}

// With IOPL 3, virtual-8086 code reads and writes its flags: all but IOPL, and VM does not show (SDM 2B, PUSHF and
// POPF).
TEST_F(Transfers, PushfdInVirtual8086ModeDoesNotShowVm) {
  b.vm86_mode(3);
  b.code({0x66, 0x9c, 0xf4});
  b.step();
  EXPECT_EQ(b.get32(Bench::USER_STACK - 4), 0x3002u);
  EXPECT_TRUE(b.cpu.rflags & FLAG_VM);
}
TEST_F(Transfers, PopfInVirtual8086ModeSetsIfAndNotIopl) {
  b.vm86_mode(3);
  b.put16(Bench::USER_STACK, 0x0202);
  b.code({0x9d, 0xf4});
  b.step();
  EXPECT_EQ(get_flags(b.cpu) & 0xffff, 0x3202u);
}

TEST_F(Transfers, ACallOnANonCanonicalStackIsSs) {
  for (const u8 modrm : {0x16, 0xd7}) { // call [rsi]; call rdi
    b.long_mode_64(3);
    b.cpu.gpr[RSP] = (u64{1} << 47) + 0x1000;
    b.cpu.gpr[RSI] = 0x5000;
    b.cpu.gpr[RDI] = TARGET;
    b.put64(0x5000, TARGET);
    b.code({0xff, modrm});
    ASSERT_TRUE(b.run());
    EXPECT_TRUE(b.in_handler(SS_FAULT)) << int{modrm};
    EXPECT_EQ(b.slot(0, 8), 0u);
    EXPECT_EQ(b.slot(1, 8), Bench::CODE);
  }
}

TEST_F(Transfers, IretqWithANonCanonicalAddressIsGp) {
  b.long_mode_64();
  b.cpu.gpr[RSP] = Bench::STACK - 40;
  b.put64(Bench::STACK - 40, u64{1} << 47);
  b.put64(Bench::STACK - 32, CODE64);
  b.put64(Bench::STACK - 24, 2);
  b.put64(Bench::STACK - 16, 0x6000);
  b.put64(Bench::STACK - 8, 0);
  b.code({0x48, 0xcf});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), 0u);
  EXPECT_EQ(b.slot(1, 8), Bench::CODE);
}

TEST_F(Transfers, IretWithNestedTaskInLongModeIsGp) {
  b.long_mode_64();
  set_flags(b.cpu, 2 | FLAG_NT);
  b.code({0x48, 0xcf});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
}

} // namespace
} // namespace transom::soft
