// When events come: IF, the shadows of STI and MOV SS, HLT, NMI, single steps, breakpoints.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 CODE = TestMachine::CODE, HANDLERS = 0x4'0000, IDT = 0x5'0000, GDT = 0x5'2000;

// 64-bit machine whose handler n sits at HANDLERS + 16 n: it stores n to [rdi], advances rdi and returns.
struct InterruptTest : testing::Test {
  TestMachine m;
  void start(std::initializer_list<int> bytes, u64 rflags = 2) {
    m.code(bytes);
    for (unsigned n = 0; n < 256; ++n) {
      const u64 at = HANDLERS + 16 * n;
      // mov byte [rdi],n; inc rdi; iretq
      m.code({0xc6, 0x07, static_cast<int>(n), 0x48, 0xff, 0xc7, 0x48, 0xcf}, at);
      m.put<u64>(IDT + 16 * n, (at & 0xffff) | u64{0x10} << 16 | u64{0x8e00} << 32 | (at >> 16 & 0xffff) << 48);
      m.put<u64>(IDT + 16 * n + 8, 0);
    }
    m.put<u64>(GDT + 0x10, 0x00af'9b00'0000'ffff);
    m.put<u64>(GDT + 0x18, 0x00cf'9300'0000'ffff);
    m.start_64();
    VcpuRegisters r = m.vcpu.registers();
    r.idtr = {IDT, 0xfff};
    r.gdtr = {GDT, 0x1f};
    r.rflags = rflags;
    r.gpr[RDI] = TestMachine::DATA;
    m.vcpu.set_registers(r);
  }
  std::vector<int> seen() {
    std::vector<int> v;
    for (u64 at = TestMachine::DATA; at < m.gpr(RDI); ++at) v.push_back(m.get<u8>(at));
    return v;
  }
};

// SDM 3B 17.3.1.1: IRET sets RF as popped, and the next instruction clears it.
TEST_F(InterruptTest, RfOfAnIretLastsForOneInstruction) {
  // push 18h; push rsp; push RF | 2; push 10h; lea rax,[target]; push rax; iretq; target: nop; nop; hlt
  start({0x6a, 0x18, 0x54, 0x68, 0x02, 0x00, 0x01, 0x00, 0x6a, 0x10, 0x48, 0x8d,
         0x05, 0x03, 0x00, 0x00, 0x00, 0x50, 0x48, 0xcf, 0x90, 0x90, 0xf4});
  ASSERT_TRUE(m.run());
  EXPECT_FALSE(m.vcpu.registers().rflags & FLAG_RF);
}

TEST_F(InterruptTest, AnInterruptWaitsForTheFlag) {
  start({0x90, 0x90, 0xf4});
  m.platform.interrupts = {0x31};
  ASSERT_TRUE(m.run());
  EXPECT_TRUE(seen().empty());
  start({0x90, 0x90, 0xf4}, 0x202);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(seen(), std::vector<int>{0x31});
}

TEST_F(InterruptTest, StiHoldsInterruptsForOneMoreInstruction) {
  start({0xfb, 0x88, 0x1f, 0x48, 0xff, 0xc7, 0xf4}); // sti; mov [rdi],bl; inc rdi; hlt
  m.platform.interrupts = {0x40};
  m.set_gpr(RBX, 1);
  ASSERT_TRUE(m.run());
  // The handler wrote over the byte that the shadowed instruction stored: the store came first.
  EXPECT_EQ(m.get<u8>(TestMachine::DATA), 0x40);
  EXPECT_EQ(m.gpr(RDI), TestMachine::DATA + 2);
}

TEST_F(InterruptTest, StiHltWakesWithTheInterruptPending) {
  start({0xfb, 0xf4, 0xf4});
  EXPECT_EQ(m.vcpu.run(), RunResult::halted);
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 2);
  EXPECT_EQ(m.vcpu.run(), RunResult::halted); // still asleep
  m.platform.interrupts = {0x22};
  EXPECT_EQ(m.vcpu.run(), RunResult::halted);
  EXPECT_EQ(seen(), std::vector<int>{0x22});
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 3);
}

TEST_F(InterruptTest, AnInterruptThatGoesAwayIsNotDelivered) {
  struct Fickle : RecordingPlatform {
    using RecordingPlatform::RecordingPlatform;
    bool interrupt_pending() override { return true; }
    int interrupt_acknowledge() override { return -1; }
  } platform(1 << 20);
  std::vector<u64> memory(CodePages::bytes_for(256) / 8 + 1);
  CodePages pages(memory.data(), 256);
  SoftVcpu vcpu(platform, pages, test_options());
  platform.ram[0x1000] = 0xf4;
  VcpuRegisters r;
  r.cs = {0, 0x93, 0xffff, 0};
  r.ss = r.ds = r.es = r.cs;
  r.rip = 0x1000;
  r.rflags = 0x202;
  vcpu.set_registers(r);
  EXPECT_EQ(vcpu.run(), RunResult::halted);
  EXPECT_EQ(vcpu.registers().rip, 0x1001u);
}

TEST_F(InterruptTest, ASecondNmiWaitsForTheReturnFromTheFirst) {
  start({0x90, 0xf4});
  m.platform.nmi = true;
  m.code({0xc6, 0x07, 2, 0x48, 0xff, 0xc7, 0xe6, 0x99, 0x90, 0x90, 0x48, 0xcf},
         HANDLERS + 32); // out 99h raises the next one
  // handlers 2 and 3 overlap in this layout, which is fine: nobody raises 3
  unsigned outs = 0;
  m.platform.on_out = [&](u16, u32, u32) {
    if (++outs == 1) {
      m.platform.nmi = true;
      m.vcpu.exit_flag() |= Vcpu::LOOK;
      EXPECT_EQ(seen().size(), 1u);
    }
  };
  ASSERT_TRUE(m.run());
  EXPECT_EQ(seen(), (std::vector<int>{2, 2}));
}

TEST_F(InterruptTest, SingleStepTrapsAfterEveryInstruction) {
  start({0x90, 0x90, 0x90, 0xf4}, 0x102);
  // Each NOP traps into the handler, three instructions whose IRETQ restores TF.
  m.vcpu.run_instructions(3 * (1 + 3));
  EXPECT_EQ(seen(), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 3);
  EXPECT_TRUE(m.vcpu.registers().dr[6] & (1 << 14));
}

// The first time POPF leaves TF alone, and its block learns what follows; the second time every instruction has to
// stop.
TEST_F(InterruptTest, PopfThatSetsTfStepsCodeThatRanWithoutIt) {
  // mov ecx,2; mov eax,2; again: push rax; popfq; nop; nop; push 2; popfq; mov eax,102h; dec ecx; jnz again; hlt
  start({0xb9, 2, 0,    0,    0, 0xb8, 2, 0, 0,    0,    0x50, 0x9d, 0x90, 0x90,
         0x6a, 2, 0x9d, 0xb8, 2, 1,    0, 0, 0xff, 0xc9, 0x75, 0xf0, 0xf4});
  ASSERT_TRUE(m.run());
  EXPECT_EQ(seen(), std::vector<int>(4, 1)) << "after each NOP, PUSH and the POPFQ that ends it";
}

TEST_F(InterruptTest, SingleStepTrapsAfterEachIterationOfARepeatedString) {
  start({0xf3, 0xa4, 0x90, 0xf4}, 0x102);
  m.code({0x41, 0xff, 0xc0, 0x48, 0xcf}, HANDLERS + 16); // inc r8d; iretq
  m.set_gpr(RCX, 3);
  m.set_gpr(RSI, TestMachine::DATA + 0x100);
  m.set_gpr(RDI, TestMachine::DATA + 0x200);
  m.set_gpr(8, 0);
  m.vcpu.run_instructions(2 * (1 + 2));
  EXPECT_EQ(m.gpr(8), 2u);
  EXPECT_EQ(m.gpr(RCX), 1u);
  EXPECT_EQ(m.vcpu.registers().rip, CODE);
  m.vcpu.run_instructions(2 * (1 + 2)); // the last iteration, and the NOP
  EXPECT_EQ(m.gpr(8), 4u);
  EXPECT_EQ(m.gpr(RCX), 0u);
}

TEST_F(InterruptTest, AnInstructionBreakpointComesBeforeTheInstruction) {
  start({0xb0, 1, 0xb0, 2, 0xf4});
  VcpuRegisters r = m.vcpu.registers();
  r.dr[0] = CODE + 2;
  r.dr[7] = 0x401;
  m.vcpu.set_registers(r);
  m.vcpu.run_instructions(100, true);
  EXPECT_EQ(m.vcpu.last_event().vector, DB);
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 2);
  EXPECT_EQ(m.gpr(RAX) & 0xff, 1u);
  EXPECT_TRUE(m.vcpu.registers().dr[6] & 1);
}

TEST_F(InterruptTest, ADataBreakpointComesAfterTheStore) {
  start({0x88, 0x06, 0x90, 0xf4}); // mov [rsi],al
  VcpuRegisters r = m.vcpu.registers();
  r.dr[1] = TestMachine::DATA + 0x103;
  r.dr[7] = 0x0010'0404; // one byte, writes, number 1
  r.gpr[RSI] = TestMachine::DATA + 0x103;
  r.gpr[RAX] = 0x42;
  m.vcpu.set_registers(r);
  m.vcpu.run_instructions(100, true);
  EXPECT_EQ(m.vcpu.last_event().vector, DB);
  EXPECT_EQ(m.vcpu.registers().rip, CODE + 2);
  EXPECT_EQ(m.get<u8>(TestMachine::DATA + 0x103), 0x42);
  EXPECT_TRUE(m.vcpu.registers().dr[6] & 2);
}

TEST_F(InterruptTest, APortBreakpointComesAfterEveryKindOfAccess) {
  const std::vector<std::vector<int>> accesses = {{0xe4, 0x99}, {0xe6, 0x99}, {0xec}, {0xee}, {0x6c}, {0x6e}};
  for (const auto& bytes : accesses)
    for (const u16 port : {0x99, 0x9a}) { // the second is not reached
      start({bytes[0], bytes.size() > 1 ? bytes[1] : 0x90, 0x90, 0xf4});
      VcpuRegisters r = m.vcpu.registers();
      r.dr[0] = port;
      r.dr[6] = 0xffff'0ff0;
      r.dr[7] = 0x2'0401; // one byte, I/O
      r.cr4 |= CR4_DE;
      r.gpr[RDX] = 0x99;
      r.gpr[RSI] = r.gpr[RDI] = TestMachine::DATA + 0x103;
      m.vcpu.set_registers(r);
      m.vcpu.run_instructions(100, true);
      EXPECT_EQ(m.vcpu.registers().rip, CODE + (port == 0x99 ? bytes.size() : 4)) << std::hex << bytes[0];
      EXPECT_EQ((m.vcpu.registers().dr[6] & 1) != 0, port == 0x99) << std::hex << bytes[0];
    }
}

TEST_F(InterruptTest, ARequestToLeaveIsNotLostToATrap) {
  start({0x90, 0xf4});
  m.vcpu.cpu().pending_debug = 1 << 14;
  m.vcpu.exit_flag() |= Vcpu::LEAVE;
  EXPECT_EQ(m.vcpu.run(), RunResult::exited);
  EXPECT_TRUE(seen().empty());
  EXPECT_EQ(m.vcpu.run(), RunResult::halted); // the trap came first this time
  EXPECT_EQ(seen(), std::vector<int>{1});
}

TEST_F(InterruptTest, AMissingHandlerEndsInShutdown) {
  start({0x0f, 0x0b});
  VcpuRegisters r = m.vcpu.registers();
  r.idtr.limit = 0;
  m.vcpu.set_registers(r);
  EXPECT_EQ(m.vcpu.run(), RunResult::shutdown);
}

TEST_F(InterruptTest, HypercallsReachThePlatform) {
  start({0x0f, 0x01, 0xd9, 0x0f, 0x01, 0xc1, 0xf4});
  m.platform.hypercall_answer = 99;
  m.set_gpr(RAX, 12);
  ASSERT_TRUE(m.run());
  ASSERT_EQ(m.platform.hypercalls.size(), 2u);
  EXPECT_EQ(m.platform.hypercalls[0][0], 12u);
  EXPECT_EQ(m.gpr(RAX), 99u);
}

} // namespace
} // namespace transom::soft
