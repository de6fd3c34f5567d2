#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;

class Delivery : public ::testing::Test {
 protected:
  Bench b;
  // What the run loop does with an interrupt or NMI.
  void inject(EventKind kind, u8 vector) {
    b.cpu.event = {kind, vector, false, 0};
    if (setjmp(b.cpu.fault_env) != 0) FAIL() << "delivery raised vector " << int{b.cpu.event.vector};
    deliver(b.cpu);
  }
};

// --- real mode

TEST_F(Delivery, RealModeIntPushesFlagsCsIpAndClearsIfAndTf) {
  b.real_mode();
  set_flags(b.cpu, 2 | FLAG_IF | FLAG_CF);
  b.code({0xcd, 0x21});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x21));
  EXPECT_EQ(b.slot(0, 2), 2u);
  EXPECT_EQ(b.slot(1, 2), Bench::CODE >> 4);
  EXPECT_EQ(b.slot(2, 2), FLAG_IF | FLAG_CF | 2);
  EXPECT_FALSE(b.cpu.rflags & FLAG_IF);
}

TEST_F(Delivery, RealModeIretRestoresEverything) {
  b.real_mode();
  set_flags(b.cpu, 2 | FLAG_IF | FLAG_CF);
  b.code({0xcd, 0x21, 0xf4});
  b.put8(Bench::handler(0x21), 0xf8);     // clc
  b.put8(Bench::handler(0x21) + 1, 0xcf); // iret
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, 3u);
  EXPECT_EQ(b.cpu.segment[CS].selector, Bench::CODE >> 4);
  EXPECT_EQ(get_flags(b.cpu), FLAG_IF | FLAG_CF | 2);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK);
}

TEST_F(Delivery, RealModeExceptionsPushNoErrorCode) {
  b.real_mode();
  b.code({0xa1, 0xff, 0xff}); // mov ax,[0xffff]: beyond the limit
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 2), 0u);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 6);
}

TEST_F(Delivery, RealModeVectorBeyondTheTableEndsInShutdownWhenNoHandlerFits) {
  b.real_mode();
  b.cpu.idtr.limit = 0;
  b.code({0xcd, 0x21});
  EXPECT_EQ(b.vcpu.run_instructions(5), RunResult::shutdown);
  EXPECT_TRUE(b.cpu.shutdown);
}

// --- protected mode

TEST_F(Delivery, SameLevelInterruptKeepsTheStack) {
  b.protected_mode_32();
  set_flags(b.cpu, 2 | FLAG_IF);
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x80));
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 12);
  EXPECT_EQ(b.slot(0, 4), Bench::CODE + 2);
  EXPECT_EQ(b.slot(1, 4), CODE32);
  EXPECT_EQ(b.slot(2, 4), FLAG_IF | 2);
}

TEST_F(Delivery, TrapGatesLeaveInterruptsOn) {
  b.protected_mode_32();
  set_flags(b.cpu, 2 | FLAG_IF);
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0x8f));
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.cpu.rflags & FLAG_IF);
  b.protected_mode_32();
  set_flags(b.cpu, 2 | FLAG_IF);
  ASSERT_TRUE(b.run());
  EXPECT_FALSE(b.cpu.rflags & FLAG_IF) << "interrupt gate";
}

TEST_F(Delivery, InterruptFromUserModeSwitchesToTheTssStackAndIretComesBack) {
  b.protected_mode_32(3);
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0xee)); // DPL 3
  b.code({0xcd, 0x80, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x80));
  EXPECT_EQ(b.cpu.cpl, 0);
  EXPECT_EQ(b.cpu.segment[SS].selector, DATA32);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK0 - 20);
  EXPECT_EQ(b.slot(1, 4), USER_CODE32);
  EXPECT_EQ(b.slot(3, 4), Bench::USER_STACK);
  EXPECT_EQ(b.slot(4, 4), USER_DATA32);

  b.cpu.halted = false;
  b.code({0xcf}, Bench::handler(0x80) + 1); // iret, behind the hlt
  b.step();
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
  EXPECT_EQ(b.cpu.segment[SS].selector, USER_DATA32);
}

TEST_F(Delivery, IretToUserModeDropsSupervisorDataSegments) {
  b.protected_mode_32(3);
  set_segment(b.cpu, ES, b.make(USER_DATA32));
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0xee));
  b.code({0xcd, 0x80});
  b.code({0x66, 0xb8, DATA32, 0, 0x8e, 0xd8, 0xcf}, Bench::handler(0x80)); // mov ds,DATA32; iret
  b.step(4);
  ASSERT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.segment[DS].selector, 0);
  EXPECT_EQ(b.cpu.segment[ES].selector, USER_DATA32);
  b.put8(Bench::handler(0x80), 0xf4);
}

TEST_F(Delivery, IntFromUserModeNeedsGateDplThreeButHardwareDoesNot) {
  b.protected_mode_32(3);
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 4), 0x80u * 8 + 2);
  EXPECT_EQ(b.slot(1, 4), Bench::CODE) << "RIP of the INT";
  b.protected_mode_32(3);
  inject(EventKind::external, 0x80);
  EXPECT_EQ(b.cpu.rip, Bench::handler(0x80));
  EXPECT_EQ(b.slot(0, 4), Bench::CODE);
}

TEST_F(Delivery, NotPresentGateIsNpWithExtOnlyForHardwareEvents) {
  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0x0e));
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(NP));
  EXPECT_EQ(b.slot(0, 4), 0x80u * 8 + 2);

  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * UD, gate(CODE32, Bench::handler(UD), 0x0e));
  b.code({0x0f, 0x0b}); // ud2
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(NP));
  EXPECT_EQ(b.slot(0, 4), UD * 8u + 2 + 1);
}

TEST_F(Delivery, SixteenBitGatesPushWords) {
  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, 0x9000, 0x86));
  b.put8(0x9000, 0xf4);
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, 0x9001u);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 6);
  EXPECT_EQ(b.slot(1, 2), CODE32);
}

TEST_F(Delivery, FaultsPushRfSetAndSoftwareInterruptsDoNot) {
  b.protected_mode_32();
  b.code({0x0f, 0x0b});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.slot(2, 4) & FLAG_RF);
  EXPECT_FALSE(b.cpu.rflags & FLAG_RF);
  b.protected_mode_32();
  b.code({0xcc});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(BP));
  EXPECT_FALSE(b.slot(2, 4) & FLAG_RF);
}

TEST_F(Delivery, IntoTrapsOnOverflowOnly) {
  b.protected_mode_32();
  b.code({0xce, 0xb0, 0x7f, 0x04, 0x01, 0xce}); // into; mov al,127; add al,1; into
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(OF));
  EXPECT_EQ(b.slot(0, 4), Bench::CODE + 6);
}

TEST_F(Delivery, BoundRaisesBrOutsideTheBounds) {
  b.protected_mode_32();
  b.put32(0x5000, static_cast<u32>(-2));
  b.put32(0x5004, 5);
  b.code({0xb8, 0xfe, 0xff, 0xff, 0xff, 0x62, 0x05, 0, 0x50, 0, 0, 0xb8, 6, 0, 0, 0, 0x62, 0x05, 0, 0x50, 0, 0});
  ASSERT_TRUE(b.run()); // mov eax,-2; bound eax,[0x5000]; mov eax,6; bound
  EXPECT_TRUE(b.in_handler(BR));
  EXPECT_EQ(b.slot(0, 4), Bench::CODE + 16);
}

TEST_F(Delivery, IcebpReachesADplZeroGateFromUserMode) {
  b.protected_mode_32(3);
  b.code({0xf1});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DB));
  EXPECT_EQ(b.slot(0, 4), Bench::CODE + 1);
}

// --- bad stacks in the TSS (SDM 3A 6.12.1.1)

TEST_F(Delivery, ANullStackInTheTssIsTsZero) {
  b.protected_mode_32(3);
  b.put16(Bench::TSS + 8, 0);
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0xee));
  b.put64(Bench::IDT + 8 * TS, gate(USER_CODE32 & ~3, Bench::handler(TS), 0xee)); // a handler that needs no switch
  b.code({0xcd, 0x80});
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::handler(TS));
  EXPECT_EQ(b.slot(0, 4), 0u);
  EXPECT_EQ(b.slot(1, 4), Bench::CODE);
}

TEST_F(Delivery, AStackThatIsTooSmallIsSsWithItsSelector) {
  b.protected_mode_32(3);
  b.put64(Bench::GDT + FREE, descriptor(0, 0x7000 - 12, 0x92, 0x4));
  b.put16(Bench::TSS + 8, FREE);
  b.put64(Bench::IDT + 8 * 0x80, gate(CODE32, Bench::handler(0x80), 0xee));
  b.put64(Bench::IDT + 8 * SS_FAULT, gate(USER_CODE32 & ~3, Bench::handler(SS_FAULT), 0xee));
  b.code({0xcd, 0x80});
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::handler(SS_FAULT));
  EXPECT_EQ(b.slot(0, 4), FREE);
}

// --- double and triple faults

TEST_F(Delivery, ContributoryFaultsDouble) {
  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * GP, 0);
  b.put64(Bench::IDT + 8 * NP, 0);
  b.code({0x66, 0xb8, 0x00, 0x20, 0x8e, 0xd8}); // mov ds,0x2000
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DF));
  EXPECT_EQ(b.slot(0, 4), 0u);
  EXPECT_EQ(b.slot(1, 4), Bench::CODE + 4);
}

TEST_F(Delivery, BenignThenContributoryIsServedInTurn) {
  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * UD, 0);
  b.code({0x0f, 0x0b});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 4), UD * 8u + 3);
}

TEST_F(Delivery, AFaultInADoubleFaultIsShutdown) {
  b.protected_mode_32();
  b.put64(Bench::IDT + 8 * GP, 0);
  b.put64(Bench::IDT + 8 * DF, 0);
  b.code({0x66, 0xb8, 0x00, 0x20, 0x8e, 0xd8});
  EXPECT_EQ(b.vcpu.run_instructions(10), RunResult::shutdown);
}

TEST_F(Delivery, AlignmentFaultsOfAMisalignedUserHandlerStackDoNotGoOnForEver) {
  b.protected_mode_32(3);
  b.put64(Bench::IDT + 8 * AC, gate(USER_CODE32 & ~3, Bench::handler(AC), 0xee));
  b.cpu.cr0 |= CR0_AM;
  set_flags(b.cpu, 2 | FLAG_AC);
  b.cpu.gpr[RSP] = Bench::USER_STACK + 1;
  update_mode(b.cpu);
  flush_tlb(b.cpu);
  b.code({0x50}); // push eax
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DF));
}

TEST_F(Delivery, PageFaultDuringPageFaultIsADoubleFault) {
  b.long_mode_64();
  b.put64(Bench::IDT + 16 * PF, gate(CODE64, 0x7000'0000, 0x8e));
  b.put64(Bench::TSS + 0x24, 0x3f0'0000); // IST1: not mapped
  b.put64(Bench::IDT + 16 * PF, gate(CODE64, Bench::handler(PF), 0x8e, 1));
  b.code({0x48, 0xa1, 0, 0, 0, 0x40, 0, 0, 0, 0}); // mov rax,[0x40000000]
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DF));
  EXPECT_EQ(b.slot(1, 8), Bench::CODE);
  EXPECT_EQ(b.cpu.cr2, 0x3f0'0000u - 8);
}

// --- virtual 8086 mode

TEST_F(Delivery, Vm86IntNeedsIoplThree) {
  b.vm86_mode(0);
  b.put64(Bench::IDT + 8 * 0x21, gate(CODE32, Bench::handler(0x21), 0xee));
  b.code({0xcd, 0x21});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 4), 0u);
}

TEST_F(Delivery, Vm86IntPushesAllSegmentsAndIretGoesBack) {
  b.vm86_mode(3);
  set_segment(b.cpu, GS, vm86_segment(0x1234));
  b.put64(Bench::IDT + 8 * 0x21, gate(CODE32, Bench::handler(0x21), 0xee));
  b.code({0xcd, 0x21});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x21));
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK0 - 36);
  EXPECT_EQ(b.slot(0, 4), 2u);
  EXPECT_EQ(b.slot(1, 4), Bench::CODE >> 4);
  EXPECT_TRUE(b.slot(2, 4) & FLAG_VM);
  EXPECT_EQ(b.slot(3, 4), Bench::USER_STACK);
  EXPECT_EQ(b.slot(8, 4), 0x1234u);
  EXPECT_EQ(b.cpu.segment[GS].selector, 0);
  EXPECT_FALSE(vm86(b.cpu));

  b.cpu.halted = false;
  b.code({0xcf}, Bench::handler(0x21) + 1);
  b.step();
  EXPECT_TRUE(vm86(b.cpu));
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, 2u);
  EXPECT_EQ(b.cpu.segment[CS].base, Bench::CODE);
  EXPECT_EQ(b.cpu.segment[GS].base, 0x1'2340u);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
}

// --- long mode

TEST_F(Delivery, LongModeAlwaysPushesTheStackAndAlignsIt) {
  b.long_mode_64();
  b.cpu.gpr[RSP] = Bench::STACK - 3;
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x80));
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK - 16 - 40);
  EXPECT_EQ(b.slot(0, 8), Bench::CODE + 2);
  EXPECT_EQ(b.slot(3, 8), Bench::STACK - 3);
  EXPECT_EQ(b.slot(4, 8), DATA32);
}

TEST_F(Delivery, LongModeInnerInterruptLoadsANullStackSelectorAndIretqRestores) {
  b.long_mode_64(3);
  b.put64(Bench::IDT + 16 * 0x80, gate(CODE64, Bench::handler(0x80), 0xee));
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(0x80));
  EXPECT_EQ(b.cpu.segment[SS].selector, 0);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::STACK0 - 40);
  b.cpu.halted = false;
  b.code({0x48, 0xcf}, Bench::handler(0x80) + 1);
  b.step();
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 2);
  EXPECT_EQ(b.cpu.gpr[RSP], Bench::USER_STACK);
  EXPECT_EQ(b.cpu.segment[SS].selector, USER_DATA32);
}

TEST_F(Delivery, InterruptStackTableWorksAtTheSameLevelToo) {
  b.long_mode_64();
  b.put64(Bench::TSS + 0x24 + 8, 0x6000); // IST2
  b.put64(Bench::IDT + 16 * 0x80, gate(CODE64, Bench::handler(0x80), 0x8e, 2));
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RSP], 0x6000u - 40);
  EXPECT_EQ(b.cpu.segment[SS].selector, DATA32);
}

TEST_F(Delivery, ErrorCodesTakeEightBytesInLongMode) {
  b.long_mode_64();
  b.code({0x66, 0xb8, 0x00, 0x20, 0x8e, 0xd8});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), 0x2000u);
  EXPECT_EQ(b.slot(1, 8), Bench::CODE + 4);
}

TEST_F(Delivery, ANonCanonicalKernelStackIsSsWithExt) {
  b.long_mode_64(3);
  b.put64(Bench::TSS + 4, u64{1} << 60);
  b.put64(Bench::TSS + 0x24, Bench::STACK0);
  b.put64(Bench::IDT + 16 * SS_FAULT, gate(CODE64, Bench::handler(SS_FAULT), 0x8e, 1));
  b.code({0x0f, 0x0b});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(SS_FAULT));
  EXPECT_EQ(b.slot(0, 8), 1u);
}

TEST_F(Delivery, LongModeRefusesSixteenBitAndTaskGatesAndCompatibilityHandlers) {
  for (const u8 access : {0x86, 0x85}) {
    b.long_mode_64();
    b.put64(Bench::IDT + 16 * 0x80, gate(CODE64, Bench::handler(0x80), access));
    b.code({0xcd, 0x80});
    ASSERT_TRUE(b.run());
    EXPECT_TRUE(b.in_handler(GP)) << int{access};
    EXPECT_EQ(b.slot(0, 8), 0x80u * 8 + 2);
  }
  b.long_mode_64();
  b.put64(Bench::IDT + 16 * 0x80, gate(CODE32, Bench::handler(0x80), 0x8e));
  b.code({0xcd, 0x80});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), CODE32);
}

TEST_F(Delivery, NmiBlocksFurtherNmisUntilIret) {
  b.long_mode_64();
  inject(EventKind::nmi, NMI);
  EXPECT_EQ(b.cpu.rip, Bench::handler(NMI));
  EXPECT_TRUE(b.cpu.nmi_blocked);
  b.code({0x48, 0xcf}, Bench::handler(NMI));
  b.step();
  EXPECT_EQ(b.cpu.rip, Bench::CODE);
  EXPECT_FALSE(b.cpu.nmi_blocked);
  b.put8(Bench::handler(NMI), 0xf4);
}

TEST_F(Delivery, AnNmiWhoseGateIsAbsentBlocksNmisAllTheSame) {
  b.long_mode_64();
  b.put64(Bench::IDT + 16 * NMI, 0);
  b.cpu.event = {EventKind::nmi, NMI, false, 0};
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), NMI * 8u + 2 + 1) << "EXT: nobody asked for it";
  EXPECT_TRUE(b.cpu.nmi_blocked);
}

TEST_F(Delivery, DebugTrapSetsDr6AndClearsGeneralDetect) {
  b.protected_mode_32();
  b.cpu.dr[7] |= 0x2000;
  b.code({0x0f, 0x21, 0xc0}); // mov eax,dr0
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DB));
  EXPECT_EQ(b.slot(0, 4), Bench::CODE) << "a fault";
  EXPECT_TRUE(b.cpu.dr[6] & 0x2000);
  EXPECT_FALSE(b.cpu.dr[7] & 0x2000);
}

} // namespace
} // namespace transom::soft
