// What a debugger asks of the software CPU: breakpoints, single steps, and looking through page tables.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 CODE = TestMachine::CODE, DATA = TestMachine::DATA;

u64 rip(TestMachine& m) { return m.vcpu.registers().rip; }

// 0: inc rax; 3: dec rcx; 6: jnz 0; 8: hlt
void count_down(TestMachine& m, u64 turns) {
  m.code({0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4});
  m.start_64();
  m.set_gpr(RCX, turns);
}

// An IDT at DATA, and a GDT with the code segment that the gate names.
void set_gate(TestMachine& m, unsigned vector, u64 to) {
  m.put<u64>(DATA + 16 * vector, (to & 0xffff) | u64{0x10} << 16 | u64{0x8e} << 40 | (to >> 16 & 0xffff) << 48);
  m.put<u64>(DATA + 16 * vector + 8, to >> 32);
  m.put<u64>(0x5010, u64{0x00af'9b00} << 32 | 0xffff);
  VcpuRegisters r = m.vcpu.registers();
  r.idtr = {DATA, 0xfff};
  r.gdtr = {0x5000, 0xff};
  m.vcpu.set_registers(r);
}

TEST(Breakpoint, StopsBeforeItsInstructionEveryTimeAndOnlyOnceATime) {
  for (const u64 offset : {0, 3, 6}) {
    TestMachine m;
    count_down(m, 5);
    const std::vector<u8> before(m.at(CODE), m.at(CODE) + 16);
    m.vcpu.set_debug({{CODE + offset}, false});
    for (u64 turn = 0; turn < 5; ++turn) {
      ASSERT_EQ(m.vcpu.run(), RunResult::debug) << offset;
      EXPECT_EQ(rip(m), CODE + offset);
      EXPECT_EQ(m.gpr(RAX), turn + (offset >= 3));
      EXPECT_EQ(m.gpr(RCX), 5 - turn - (offset >= 6));
    }
    EXPECT_TRUE(m.run());
    EXPECT_EQ(m.gpr(RAX), 5u);
    EXPECT_EQ(std::vector<u8>(m.at(CODE), m.at(CODE) + 16), before);
    EXPECT_EQ(instructions_executed(m.vcpu.cpu()), 16u);
  }
}

TEST(Breakpoint, ThatIsNeverReachedDoesNotStop) {
  TestMachine m;
  count_down(m, 5);
  m.vcpu.set_debug({{CODE + 1, CODE + 9, DATA}, false}); // inside an instruction, behind the end, elsewhere
  EXPECT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 5u);
}

TEST(Breakpoint, OnAnotherPageAtTheSameOffsetDoesNotStop) {
  TestMachine m;
  count_down(m, 1000);
  m.vcpu.set_debug({{CODE + 0x1003, CODE - 0xffd}, false});
  EXPECT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 1000u);
}

TEST(Breakpoint, IsOneOfALinearAddressWhateverElseMapsThePage) {
  TestMachine m;
  count_down(m, 2);
  const u64 alias = 0x3'0000;
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (alias >> 12), CODE | 7);
  m.vcpu.set_debug({{alias + 3}, false});
  ASSERT_TRUE(m.run()); // decoded by the other address
  m.start_64(alias);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (alias >> 12), CODE | 7);
  m.set_gpr(RCX, 2);
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), alias + 3);
}

TEST(Breakpoint, WorksWhereTheCodeIsAlreadyDecodedAndLinked) {
  TestMachine m;
  count_down(m, 100);
  ASSERT_TRUE(m.run());
  count_down(m, 100);
  m.vcpu.set_debug({{CODE + 3}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  m.vcpu.set_debug({});
  EXPECT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 100u);
}

TEST(Breakpoint, OnTheSecondPageOfARunStops) {
  TestMachine m;
  m.code({0x90, 0x90, 0x90, 0x90, 0xf4}, CODE + 0xffe);
  m.start_64(CODE + 0xffe);
  m.vcpu.set_debug({{CODE + 0x1000}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE + 0x1000);
  EXPECT_TRUE(m.run());
}

TEST(Breakpoint, StopsIn32BitAnd16BitCodeByItsLinearAddress) {
  TestMachine m;
  m.code({0x40, 0x40, 0x40, 0xf4}); // inc eax three times
  m.start_32();
  m.vcpu.set_debug({{CODE + 2}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(m.gpr(RAX), 2u);
  EXPECT_TRUE(m.run());
  m.start_16(); // CS = 1000h
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), 2u);
  EXPECT_TRUE(m.run());
  m.start_16();
  m.vcpu.set_debug({{2}, false}); // an offset is no linear address
  EXPECT_TRUE(m.run());
}

TEST(Breakpoint, StopsUnderTheGuestsOwnTrapFlag) {
  TestMachine m;
  // pushfq; or qword [rsp], 100h; popfq; nop; nop; hlt
  m.code({0x9c, 0x48, 0x81, 0x0c, 0x24, 0x00, 0x01, 0, 0, 0x9d, 0x90, 0x90, 0xf4});
  m.start_64();
  m.vcpu.set_debug({{CODE + 10}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE + 10);
}

TEST(Breakpoint, IsPassedWithoutAnInterruptInBetween) {
  TestMachine m;
  m.code({0xfb, 0x90, 0x90, 0x90, 0xf4}); // sti; nop; nop; nop; hlt
  m.start_64();
  m.vcpu.set_debug({{CODE + 2}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  m.platform.interrupts.push_back(0x40);
  m.vcpu.set_debug({{CODE + 2, CODE + 3}, false});
  // There is no IDT: taking the interrupt ends in a triple fault, behind the instruction that was stopped at.
  EXPECT_EQ(m.vcpu.run(), RunResult::shutdown);
  EXPECT_EQ(rip(m), CODE + 3);
}

TEST(Breakpoint, IsHitAgainByWhoComesBackToIt) {
  TestMachine m;
  m.code({0xeb, 0xfe}); // jmp $
  m.start_64();
  m.vcpu.set_debug({{CODE}, false});
  for (int n = 0; n < 3; ++n) ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(instructions_executed(m.vcpu.cpu()), 2u);
}

TEST(Breakpoint, IsNotForgottenWhenTheRunIsLeftFirst) {
  TestMachine m;
  count_down(m, 3);
  m.vcpu.set_debug({{CODE}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  m.vcpu.exit_flag() = Vcpu::LEAVE;
  ASSERT_EQ(m.vcpu.run(), RunResult::exited); // nothing was executed
  EXPECT_EQ(m.gpr(RAX), 0u);
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(m.gpr(RAX), 1u);
}

TEST(Step, IsOneInstruction) {
  TestMachine m;
  count_down(m, 2);
  m.vcpu.set_debug({{}, true});
  for (const u64 at : {3, 6, 0, 3, 6, 8}) {
    ASSERT_EQ(m.vcpu.run(), RunResult::debug);
    EXPECT_EQ(rip(m), CODE + at);
  }
  ASSERT_EQ(m.vcpu.run(), RunResult::debug); // HLT is one too
  EXPECT_EQ(rip(m), CODE + 9);
  EXPECT_EQ(m.vcpu.run(), RunResult::halted); // and then it waits
}

TEST(Step, LeavesABreakpointBehind) {
  TestMachine m;
  count_down(m, 2);
  m.vcpu.set_debug({{CODE, CODE + 3}, true});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE + 3);
  m.vcpu.set_debug({{CODE, CODE + 3}, false});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE); // not CODE + 3 again: that is where it was
}

TEST(Step, HoldsInterruptsOffButDeliversThemToAHaltedProcessor) {
  TestMachine m;
  m.code({0xfb, 0x90, 0x90, 0xf4}); // sti; nop; nop; hlt
  m.code({0x90, 0xf4}, CODE + 0x100);
  m.start_64();
  set_gate(m, 0x40, CODE + 0x100);
  m.platform.interrupts.push_back(0x40);
  m.vcpu.set_debug({{}, true});
  for (const u64 at : {1, 2, 3, 4}) {
    ASSERT_EQ(m.vcpu.run(), RunResult::debug);
    EXPECT_EQ(rip(m), CODE + at);
  }
  ASSERT_EQ(m.vcpu.run(), RunResult::debug); // halted: the interrupt is its only way on
  EXPECT_EQ(rip(m), CODE + 0x100);
}

TEST(Step, EndsAtTheHandlerOfAnException) {
  TestMachine m;
  m.code({0x0f, 0x0b}); // ud2
  m.code({0xf4}, CODE + 0x100);
  m.start_64();
  set_gate(m, UD, CODE + 0x100);
  m.vcpu.set_debug({{}, true});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE + 0x100);
}

TEST(Step, OfARepeatedStringInstructionIsAllOfIt) {
  TestMachine m;
  m.code({0xf3, 0xaa, 0xf4}); // rep stosb
  m.start_64();
  m.set_gpr(RDI, DATA + 0xff0);
  m.set_gpr(RCX, 100);
  m.set_gpr(RAX, 0x77);
  m.vcpu.set_debug({{}, true});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(rip(m), CODE + 2);
  EXPECT_EQ(m.gpr(RCX), 0u);
  EXPECT_EQ(*m.at(DATA + 0xff0 + 99), 0x77);
}

TEST(Step, IsNotSeenByTheGuest) {
  TestMachine m;
  m.code({0x9c, 0x58, 0xf4}); // pushfq; pop rax
  m.start_64();
  m.vcpu.set_debug({{}, true});
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  ASSERT_EQ(m.vcpu.run(), RunResult::debug);
  EXPECT_EQ(m.gpr(RAX) & FLAG_TF, 0u);
}

TEST(Physical, FollowsEveryPagingModeAndLeavesNoTrace) {
  TestMachine m;
  m.start_64();
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * 0x21, 0x12'3000 | 1);
  EXPECT_EQ(m.vcpu.physical(0x2'1234), 0x12'3234u);
  EXPECT_EQ(m.get<u64>(TestMachine::PTE_OF_0 + 8 * 0x21), 0x12'3001u); // neither accessed nor dirty
  EXPECT_EQ(m.get<u64>(TestMachine::TABLES) & 0x20, 0u);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * 0x21, 0x12'3000);
  EXPECT_EQ(m.vcpu.physical(0x2'1234), std::nullopt);
  EXPECT_EQ(m.vcpu.physical(u64{1} << 47), std::nullopt);     // not canonical
  m.put<u64>(TestMachine::TABLES + 0x2000, 0x40'0000 | 0x83); // a page of 2 MiB
  EXPECT_EQ(m.vcpu.physical(0x2'1234), 0x42'1234u);

  m.start_32();
  EXPECT_EQ(m.vcpu.physical(0x1'2345'6789), 0x2345'6789u);
  VcpuRegisters r = m.vcpu.registers();
  r.cr0 |= CR0_PG;
  r.cr3 = 0x20'0000;
  r.cr4 |= CR4_PSE;
  m.put<u32>(0x20'0004, 0x20'1007);
  m.put<u32>(0x20'1008, 0x55'5007);
  m.put<u32>(0x20'0008, 0x0080'0087);
  m.vcpu.set_registers(r);
  EXPECT_EQ(m.vcpu.physical(0x40'2abc), 0x55'5abcu);
  EXPECT_EQ(m.vcpu.physical(0xa0'1234), 0xa0'1234u);
  EXPECT_EQ(m.vcpu.physical(0xc0'0000), std::nullopt);

  r.cr3 = 0x20'2000; // PAE
  r.cr4 |= CR4_PAE;
  m.put<u64>(0x20'2000, 0x20'3001);
  m.put<u64>(0x20'3008, 0x20'4007);
  m.put<u64>(0x20'4008, 0x66'6007);
  m.vcpu.set_registers(r);
  EXPECT_EQ(m.vcpu.physical(0x20'1fff), 0x66'6fffu);
  EXPECT_EQ(m.vcpu.physical(0x4000'0000), std::nullopt);
}

} // namespace
} // namespace transom::soft
