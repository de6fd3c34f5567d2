#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;
constexpr u32 TARGET = 0x1'4000, TASK = 0x4000, TASK_STACK = 0x6000;

class Tasks : public ::testing::Test {
 protected:
  Bench b;
  Tasks() { b.put8(TARGET, 0xf4); }
  void make_task32() {
    for (u32 n = 0; n < 0x68; n += 4) b.put32(TASK + n, 0);
    b.put32(TASK + 0x20, TARGET);
    b.put32(TASK + 0x24, 2);
    b.put32(TASK + 0x28, 0xaaaa'0001); // EAX
    b.put32(TASK + 0x38, TASK_STACK);
    for (const u32 at : {0x48u, 0x50u, 0x54u, 0x58u, 0x5cu}) b.put32(TASK + at, DATA32);
    b.put32(TASK + 0x4c, CODE32);
    b.put64(Bench::GDT + FREE, descriptor(TASK, 0x67, 0x89, 0));
  }
  void far(u8 opcode, u16 selector) {
    b.code({opcode, 0, 0, 0, 0, static_cast<u8>(selector), static_cast<u8>(selector >> 8)});
  }
  u8 access(u16 selector) { return b.get8(Bench::GDT + selector + 5); }
};

TEST_F(Tasks, JumpToATssSavesOneTaskAndLoadsTheOther) {
  b.protected_mode_32();
  make_task32();
  b.cpu.gpr[RBX] = 0x1234;
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, TARGET + 1);
  EXPECT_EQ(b.cpu.gpr[RAX], 0xaaaa'0001u);
  EXPECT_EQ(b.cpu.gpr[RSP], TASK_STACK);
  EXPECT_EQ(b.cpu.tr.selector, FREE);
  EXPECT_EQ(access(FREE), 0x8b);
  EXPECT_EQ(access(TSS_SELECTOR), 0x89);
  EXPECT_TRUE(b.cpu.cr0 & CR0_TS);
  EXPECT_FALSE(b.cpu.rflags & FLAG_NT);
  EXPECT_EQ(b.get32(Bench::TSS + 0x20), Bench::CODE + 7);
  EXPECT_EQ(b.get32(Bench::TSS + 0x34), 0x1234u);
  EXPECT_EQ(b.get16(Bench::TSS + 0x4c), CODE32);
}

TEST_F(Tasks, CallNestsAndIretReturns) {
  b.protected_mode_32();
  make_task32();
  b.put8(TARGET, 0xcf); // iret
  far(0x9a, FREE);
  b.put8(Bench::CODE + 7, 0xf4);
  b.step();
  EXPECT_TRUE(b.cpu.rflags & FLAG_NT);
  EXPECT_EQ(b.get16(TASK), TSS_SELECTOR);
  EXPECT_EQ(access(TSS_SELECTOR), 0x8b) << "the caller stays busy";
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, Bench::CODE + 8);
  EXPECT_EQ(b.cpu.tr.selector, TSS_SELECTOR);
  EXPECT_FALSE(b.cpu.rflags & FLAG_NT);
  EXPECT_EQ(access(FREE), 0x89);
}

TEST_F(Tasks, InterruptThroughATaskGatePushesTheErrorCodeOnTheNewStack) {
  b.protected_mode_32();
  make_task32();
  b.put64(Bench::IDT + 8 * GP, gate(FREE, 0, 0x85));
  b.code({0x66, 0xb8, 0x00, 0x20, 0x8e, 0xd8}); // mov ds,0x2000
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, TARGET + 1);
  EXPECT_EQ(b.cpu.gpr[RSP], TASK_STACK - 4);
  EXPECT_EQ(b.slot(0, 4), 0x2000u);
  EXPECT_EQ(b.get32(Bench::TSS + 0x20), Bench::CODE + 4) << "the faulting instruction";
  EXPECT_TRUE(b.cpu.rflags & FLAG_NT);
}

TEST_F(Tasks, TaskGateInTheGdt) {
  b.protected_mode_32();
  make_task32();
  b.put64(Bench::GDT + FREE + 8, gate(FREE, 0, 0x85));
  far(0xea, FREE + 8);
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, TARGET + 1);
}

TEST_F(Tasks, BusyShortAndAbsentTssAreRefused) {
  b.protected_mode_32();
  far(0xea, TSS_SELECTOR);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 4), TSS_SELECTOR);

  b.protected_mode_32();
  make_task32();
  b.put64(Bench::GDT + FREE, descriptor(TASK, 0x66, 0x89, 0));
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(TS));
  EXPECT_EQ(b.slot(0, 4), FREE);
  EXPECT_EQ(b.cpu.tr.selector, TSS_SELECTOR);

  b.protected_mode_32();
  b.put64(Bench::GDT + FREE, descriptor(TASK, 0x67, 0x09, 0));
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(NP));
}

TEST_F(Tasks, FaultsAfterTheSwitchBelongToTheNewTask) {
  b.protected_mode_32();
  make_task32();
  b.put32(TASK + 0x54, 0x2000); // DS
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(TS));
  EXPECT_EQ(b.slot(0, 4), 0x2000u);
  EXPECT_EQ(b.slot(1, 4), TARGET);
  EXPECT_EQ(b.cpu.tr.selector, FREE);
  EXPECT_EQ(b.cpu.gpr[RSP], TASK_STACK - 16);
}

TEST_F(Tasks, SixteenBitTasksKeepSixteenBitRegisters) {
  b.protected_mode_32();
  for (u32 n = 0; n < 0x2c; n += 2) b.put16(TASK + n, 0);
  b.put16(TASK + 0x0e, 0x5000);
  b.put16(TASK + 0x10, 2);
  b.put16(TASK + 0x12, 0x1234);
  b.put16(TASK + 0x1a, 0x6000);
  b.put16(TASK + 0x22, DATA16);
  b.put16(TASK + 0x24, CODE16);
  b.put16(TASK + 0x26, DATA16);
  b.put16(TASK + 0x28, DATA16);
  b.put64(Bench::GDT + FREE, descriptor(TASK, 0x2b, 0x81, 0));
  b.put8(0x5000, 0xf4);
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, 0x5001u);
  EXPECT_EQ(b.cpu.gpr[RAX] & 0xffff, 0x1234u);
  EXPECT_EQ(b.cpu.segment[CS].selector, CODE16);
  EXPECT_EQ(b.cpu.segment[SS].limit, 0xffffu);
}

TEST_F(Tasks, ATaskMayBeVirtual8086) {
  b.protected_mode_32();
  make_task32();
  b.put32(TASK + 0x24, 2 | static_cast<u32>(FLAG_VM));
  b.put32(TASK + 0x20, 0);
  b.put32(TASK + 0x4c, TARGET >> 4);
  far(0xea, FREE);
  b.step();
  EXPECT_TRUE(vm86(b.cpu));
  EXPECT_EQ(b.cpu.cpl, 3);
  EXPECT_EQ(b.cpu.segment[CS].base, TARGET);
}

TEST_F(Tasks, TheTrapBitRaisesADebugTrapInTheNewTask) {
  b.protected_mode_32();
  make_task32();
  b.put16(TASK + 0x64, 1);
  far(0xea, FREE);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(DB));
  EXPECT_EQ(b.slot(0, 4), TARGET);
  EXPECT_TRUE(b.cpu.dr[6] & 0x8000);
}

} // namespace
} // namespace transom::soft
