// Decoded code: self-modification, foreign writers, page borders, links, and leaving on request.
#include <gtest/gtest.h>
#include <thread>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 CODE = TestMachine::CODE;

TEST(Blocks, AStoreIntoTheNextInstructionIsSeenAtOnce) {
  TestMachine m;
  // mov byte [rip+1], 7 (patches the immediate of the next instruction); mov al,1; hlt
  m.code({0xc6, 0x05, 0x01, 0, 0, 0, 7, 0xb0, 1, 0xf4});
  m.start_64();
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 7u);
}

TEST(Blocks, AFunctionPatchedBetweenTwoCallsRunsItsNewCode) {
  TestMachine m;
  // call f; mov rbx,rax; mov byte [f+1],9; call f; hlt; f: mov al,5; ret
  m.code({0xe8, 16, 0, 0, 0, 0x48, 0x89, 0xc3, 0xc6, 0x05, 0x07, 0, 0, 0, 9, 0xe8, 1, 0, 0, 0, 0xf4, 0xb0, 5, 0xc3});
  m.start_64();
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RBX) & 0xff, 5u);
  EXPECT_EQ(m.gpr(RAX) & 0xff, 9u);
}

TEST(Blocks, DataBesideCodeInOnePageDoesNotDropTheCode) {
  TestMachine m;
  // loop: mov [rsi],rcx; dec rcx; jnz loop; hlt — the store goes to the same page, 2 KiB on
  m.code({0x48, 0x89, 0x0e, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4});
  m.start_64();
  m.set_gpr(RSI, CODE + 0x800);
  m.set_gpr(RCX, 1000);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u64>(CODE + 0x800), 1u);
  EXPECT_EQ(m.vcpu.counters().blocks_invalidated.load(), 0u);
  // The same loop storing into its own 64 bytes does (and still counts down).
  m.start_64();
  m.set_gpr(RSI, CODE + 0x20);
  m.set_gpr(RCX, 10);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u64>(CODE + 0x20), 1u);
}

TEST(Blocks, CodeWrittenByAnotherProcessIsSeenAfterItsNotice) {
  TestMachine m;
  m.code({0xb0, 1, 0xf4});
  m.start_64();
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 1u);
  m.put<u8>(CODE + 1, 2);                      // the data lands …
  EXPECT_TRUE(m.code_pages.wrote(CODE >> 12)); // … and the writer says so
  m.start_64();
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 2u);
  EXPECT_FALSE(m.code_pages.wrote(TestMachine::DATA >> 12)); // no code was ever there
}

TEST(Blocks, AnInstructionAcrossTwoPagesFollowsBothOfThem) {
  TestMachine m;
  const u64 at = CODE + 0x1000 - 3; // mov eax, imm32: opcode and two bytes before the border
  m.code({0xb8, 0x11, 0x22, 0x33, 0x44, 0xf4}, at);
  m.start_64(at);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 0x44332211u);
  // Another frame behind the second page.
  m.code({0x55, 0x66, 0xf4}, 0x3'0000);
  m.start_64(at);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((CODE >> 12) + 1), 0x3'0000 | 3);
  VcpuRegisters r = m.vcpu.registers();
  r.cr4 ^= CR4_PGE; // set_registers flushes translations only when something about them changed
  m.vcpu.set_registers(r);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 0x66552211u);
  // And the second half written by the guest itself.
  m.start_64(at);
  m.code({0xc6, 0x06, 0x77, 0xff, 0xe7}, CODE); // mov byte [rsi],77h; jmp rdi
  r = m.vcpu.registers();
  r.rip = CODE;
  r.gpr[RSI] = CODE + 0x1001;
  r.gpr[RDI] = at;
  m.vcpu.set_registers(r);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 0x77332211u);
}

TEST(Blocks, AFetchFaultInTheSecondPageNamesThatPage) {
  TestMachine m;
  const u64 at = CODE + 0x1000 - 2;
  m.code({0x90, 0xb8, 1, 2, 3, 4, 0xf4}, at);
  m.start_64(at);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((CODE >> 12) + 1), 0);
  VcpuRegisters r = m.vcpu.registers();
  m.vcpu.set_registers(r);
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == PF);
  EXPECT_EQ(e.error, 0x10u);
  EXPECT_EQ(m.vcpu.registers().rip, at + 1); // the NOP before it was executed
  EXPECT_EQ(m.vcpu.registers().cr2, CODE + 0x1000);
}

TEST(Blocks, ABranchToARemappedPageRunsWhatIsMappedNow) {
  TestMachine m;
  // 10000: jmp 14000;  14000: mov al,1; ret-like jmp to 10010;  10010: remap and go again once
  const u64 other = CODE + 0x4000, pte = TestMachine::PTE_OF_0 + 8 * (other >> 12);
  m.code({0xe9, 0xfb, 0x3f, 0, 0}, CODE);                    // jmp other
  m.code({0xb0, 1, 0xe9, 0x09, 0xc0, 0xff, 0xff}, other);    // mov al,1; jmp CODE+10h
  m.code({0xb0, 2, 0xe9, 0x09, 0xc0, 0xff, 0xff}, 0x3'0000); // mov al,2; jmp CODE+10h
  // cmp al,2; je done; mov [rsi],rbx; invlpg [rdi]; jmp CODE; done: hlt
  m.code({0x3c, 2, 0x74, 8, 0x48, 0x89, 0x1e, 0x0f, 0x01, 0x3f, 0xeb, 0xe4, 0xf4}, CODE + 0x10);
  m.start_64();
  m.set_gpr(RSI, pte);
  m.set_gpr(RBX, 0x3'0000 | 3);
  m.set_gpr(RDI, other);
  m.set_gpr(RAX, 0);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 2u);
}

TEST(Blocks, OnePhysicalPageRunsAtTwoAddresses) {
  TestMachine m;
  // lea rax,[rip]; jmp short +0; lea rbx,[rip]; ret
  m.code({0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xeb, 0, 0x48, 0x8d, 0x1d, 0, 0, 0, 0, 0xc3}, 0x3'0000);
  // call rsi; mov r8,rax; mov r9,rbx; call rdi; hlt
  m.code({0xff, 0xd6, 0x49, 0x89, 0xc0, 0x49, 0x89, 0xd9, 0xff, 0xd7, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * 0x50, 0x3'0000 | 3);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * 0x60, 0x3'0000 | 3);
  m.set_gpr(RSI, 0x5'0000);
  m.set_gpr(RDI, 0x6'0000);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(8), 0x5'0007u);
  EXPECT_EQ(m.gpr(9), 0x5'0010u);
  EXPECT_EQ(m.gpr(RAX), 0x6'0007u);
  EXPECT_EQ(m.gpr(RBX), 0x6'0010u);
}

TEST(Blocks, TheExitFlagEndsAnEndlessLoop) {
  TestMachine m;
  m.code({0xeb, 0xfe});
  m.start_64();
  std::thread other([&] { m.vcpu.exit_flag() |= Vcpu::LEAVE; });
  EXPECT_EQ(m.vcpu.run(), RunResult::exited);
  other.join();
  EXPECT_EQ(m.vcpu.registers().rip, CODE);
  EXPECT_EQ(m.vcpu.exit_flag().load(), 0u);
}

TEST(Blocks, MillionsOfInstructionsNeedNoStack) {
  TestMachine m;
  m.code({0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4}); // inc rax; dec rcx; jnz
  m.start_64();
  m.set_gpr(RCX, 3'000'000);
  m.set_gpr(RAX, 0);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 3'000'000u);
  EXPECT_EQ(instructions_executed(m.vcpu.cpu()), 9'000'001u);
}

TEST(Blocks, AMapChangeInsideAnOutTakesEffectBeforeTheNextInstruction) {
  TestMachine m;
  std::vector<u8> rom(PAGE_SIZE, 0x90);
  rom[2] = 0xb0, rom[3] = 2, rom[4] = 0xf4; // mov al,2; hlt
  m.code({0xe6, 0x10, 0xb0, 1, 0xf4});      // out 10h,al; mov al,1; hlt
  m.start_32();
  m.platform.on_out = [&](u16, u32, u32) {
    m.platform.on_page = [&](u64 gpa) -> PhysPage {
      return gpa == CODE ? PhysPage{rom.data(), nullptr, ~u64{0}} : PhysPage{};
    };
    m.vcpu.memory_map_changed();
  };
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 2u);
}

// A write to CF9h resets the machine: what stands behind it, in firmware a triple fault, must not run.
TEST(Blocks, ARequestThatAnOutMakesComesBeforeTheNextInstruction) {
  TestMachine m;
  m.code({0xe6, 0x10, 0xb0, 1, 0xf4}); // out 10h,al; mov al,1; hlt
  m.start_32();
  m.platform.on_out = [&](u16, u32, u32) { m.vcpu.exit_flag() |= Vcpu::LEAVE; };
  EXPECT_EQ(m.vcpu.run(), RunResult::exited);
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 2);
  EXPECT_EQ(m.gpr(RAX) & 0xff, 0u);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 1u);
}

// Whoever spins with a lock in its hand between two pauses would never let another processor have it.
TEST(Blocks, APauseGivesTheTurnUpBeforeTheNextInstruction) {
  TestMachine m;
  m.code({0x83, 0xf8, 0x00, 0xf3, 0x90, 0xb0, 1, 0xf4}); // cmp eax,0; pause; mov al,1; hlt
  m.start_32();
  m.platform.on_pause = [&] { m.vcpu.exit_flag() |= Vcpu::LEAVE; };
  EXPECT_EQ(m.vcpu.run(), RunResult::exited);
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 5);
  EXPECT_NE(m.vcpu.registers().rflags & FLAG_ZF, 0u);
  EXPECT_EQ(m.gpr(RAX) & 0xff, 0u);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 1u);
}

TEST(Blocks, TheA20GateFoldsTheSecondMegabyte) {
  TestMachine m;
  m.code({0x66, 0x8b, 0x06, 0xf4}); // mov ax,[esi]
  m.put<u16>(0x500, 0x1111);
  m.put<u16>(0x10'0500, 0x2222);
  m.start_32();
  m.set_gpr(RSI, 0x10'0500);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xffff, 0x2222u);
  m.platform.a20 = ~(u64{1} << 20);
  m.vcpu.memory_map_changed();
  m.start_32();
  m.set_gpr(RSI, 0x10'0500);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xffff, 0x1111u);
}

TEST(Blocks, CodeBeyondTheSegmentLimitFaults) {
  TestMachine m;
  m.code({0x90, 0x90, 0xb8, 0x34, 0x12}, CODE + 0xfffc);
  m.start_16(0xfffc);
  // nop; nop; then mov ax,1234h would need offsets fffe…10000
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == GP);
  EXPECT_EQ(m.vcpu.registers().rip, 0xfffeu);
}

// A library is at another address in each process.
TEST(Blocks, CodeAtManyAddressesIsTranslatedAtEach) {
  SoftOptions options;
  options.engine = SoftEngine::translate;
  options.threshold = 0;
  TestMachine m(options);
  m.code({0x48, 0xff, 0xc0, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4}); // loop: inc rax; dec rcx; jnz loop; hlt
  for (u64 n = 1; n <= 40; ++n) {
    const u64 linear = 0x20'0000 + n * PAGE_SIZE;
    m.start_64(linear);
    m.put<u64>(TestMachine::PTE_OF_0 + 8 * (linear >> PAGE_SHIFT), TestMachine::CODE | 7);
    m.set_gpr(RAX, 0);
    m.set_gpr(RCX, 100);
    const u64 before = m.vcpu.cpu().translated.instructions;
    ASSERT_TRUE(m.run());
    EXPECT_EQ(m.gpr(RAX), 100u);
    EXPECT_EQ(m.vcpu.cpu().translated.instructions - before, 300u) << n;
  }
}

} // namespace
} // namespace transom::soft
