// Translation in every paging mode: what faults, with which code, and what the walk leaves in the tables.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 P = 1, W = 2, U = 4, A = 32, D = 64, PS = 128, G = 256, NX = u64{1} << 63;

// mov rax,[rsi] or mov [rsi],rax, then hlt
struct Probe {
  TestMachine m;
  SoftVcpu::LastEvent touch(bool write, u64 linear, bool user, u64 pte) {
    m.code({0x48, write ? 0x89 : 0x8b, 0x06, 0x90});
    m.start_64(TestMachine::CODE, user);
    m.put<u64>(TestMachine::PTE_OF_0 + 8 * (linear >> 12), pte);
    m.set_gpr(RSI, linear);
    m.set_gpr(RAX, 0x1122'3344'5566'7788);
    return m.run_to_exception(1);
  }
};

struct Case {
  const char* what;
  bool write, user;
  u64 flags;
  bool faults;
  u32 code;
};

TEST(Paging, FaultsWithTheArchitectedErrorCode) {
  static constexpr Case CASES[] = {
      {"supervisor reads", false, false, P | W | U, false, 0},
      {"supervisor reads a page that is not there", false, false, 0, true, 0},
      {"supervisor writes a page that is not there", true, false, 0, true, 2},
      {"user reads a page that is not there", false, true, 0, true, 4},
      {"user writes a page that is not there", true, true, W | U, true, 6},
      {"user reads a supervisor page", false, true, P | W, true, 5},
      {"user writes a read-only page", true, true, P | U, true, 7},
      {"user writes", true, true, P | W | U, false, 0},
      {"supervisor writes a read-only page with WP", true, false, P, true, 3},
      {"a reserved bit is set", false, false, P | W | U | (u64{1} << 45), true, 9},
      {"the page is not executable and read", false, true, P | W | U | NX, false, 0},
  };
  for (const Case& c : CASES) {
    Probe p;
    const auto e = p.touch(c.write, TestMachine::DATA + 0x10, c.user, TestMachine::DATA | c.flags);
    EXPECT_EQ(e.raised, c.faults) << c.what;
    if (!c.faults) continue;
    EXPECT_EQ(e.vector, PF) << c.what;
    EXPECT_EQ(e.error, c.code) << c.what;
    EXPECT_EQ(p.m.vcpu.registers().cr2, TestMachine::DATA + 0x10) << c.what;
    EXPECT_EQ(p.m.vcpu.registers().rip, TestMachine::CODE) << c.what;
  }
}

TEST(Paging, WithoutWriteProtectTheSupervisorWritesReadOnlyPages) {
  Probe p;
  p.m.code({0x48, 0x89, 0x06, 0xf4});
  p.m.start_64();
  p.m.put<u64>(TestMachine::PTE_OF_0 + 8 * 0x20, TestMachine::DATA | P);
  VcpuRegisters r = p.m.vcpu.registers();
  r.cr0 &= ~CR0_WP;
  r.gpr[RSI] = TestMachine::DATA;
  r.gpr[RAX] = 77;
  p.m.vcpu.set_registers(r);
  ASSERT_TRUE(p.m.run());
  EXPECT_EQ(p.m.get<u64>(TestMachine::DATA), 77u);
}

TEST(Paging, FetchFromANoExecutePageFaultsWithTheInstructionBit) {
  TestMachine m;
  m.code({0x90, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (TestMachine::CODE >> 12), TestMachine::CODE | P | W | NX);
  const auto e = m.run_to_exception(1);
  EXPECT_TRUE(e.raised);
  EXPECT_EQ(e.error, 0x11u);
  EXPECT_EQ(m.vcpu.registers().cr2, TestMachine::CODE);
}

TEST(Paging, TheWalkSetsAccessedAndOnlyAWriteSetsDirty) {
  Probe p;
  p.touch(false, TestMachine::DATA, false, TestMachine::DATA | P | W | U);
  const u64 slot = TestMachine::PTE_OF_0 + 8 * 0x20;
  EXPECT_EQ(p.m.get<u64>(slot) & (A | D), A);
  EXPECT_TRUE(p.m.get<u64>(TestMachine::TABLES) & A);
  // A second instruction writes through the translation that the read left.
  p.m.code({0x48, 0x89, 0x06, 0xf4});
  VcpuRegisters r = p.m.vcpu.registers();
  r.rip = TestMachine::CODE;
  p.m.vcpu.set_registers(r);
  p.m.code_pages.wrote(TestMachine::CODE >> 12);
  ASSERT_TRUE(p.m.run());
  EXPECT_EQ(p.m.get<u64>(slot) & (A | D), A | D);
}

TEST(Paging, AWriteAcrossTwoPagesFaultsBeforeTheFirstByte) {
  Probe p;
  const u64 second = TestMachine::DATA + 0x1000, at = second - 3;
  p.m.put<u64>(at - 5, 0);
  p.m.code({0x48, 0x89, 0x06, 0xf4});
  p.m.start_64();
  p.m.put<u64>(TestMachine::PTE_OF_0 + 8 * (second >> 12), 0);
  p.m.set_gpr(RSI, at);
  p.m.set_gpr(RAX, ~u64{0});
  const auto e = p.m.run_to_exception();
  EXPECT_TRUE(e.raised);
  EXPECT_EQ(p.m.vcpu.registers().cr2, second);
  EXPECT_EQ(p.m.get<u64>(at - 5), 0u);
  EXPECT_EQ(p.m.get<u8>(at + 2), 0u);
  // With both pages there, all eight bytes arrive, in different frames.
  p.m.put<u64>(TestMachine::PTE_OF_0 + 8 * (second >> 12), 0x30000 | P | W);
  VcpuRegisters r = p.m.vcpu.registers();
  p.m.vcpu.set_registers(r);
  ASSERT_TRUE(p.m.run());
  EXPECT_EQ(p.m.get<u32>(at) & 0xff'ffff, 0xff'ffffu);
  EXPECT_EQ(p.m.get<u32>(0x30000), ~u32{0});
  EXPECT_EQ(p.m.get<u8>(0x30005), 0u);
}

TEST(Paging, PushThatFaultsLeavesTheStackPointer) {
  TestMachine m;
  m.code({0x50, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((TestMachine::STACK >> 12) - 1), 0);
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == PF && e.error == 2);
  EXPECT_EQ(m.gpr(RSP), TestMachine::STACK);
}

TEST(Paging, TwoMegabytePages) {
  TestMachine m;
  m.code({0x48, 0x8b, 0x06, 0xf4});
  m.start_64();
  // linear 40000000h (1 GiB): its own directory pointer entry
  m.put<u64>(TestMachine::TABLES + 0x1000 + 8, (TestMachine::TABLES + 0x8000) | P | W);
  m.put<u64>(TestMachine::TABLES + 0x8000 + 8, 0x20'0000 | P | W | PS);
  m.put<u64>(0x2f'0008, 0xfeed);
  m.set_gpr(RSI, 0x4000'0000 + 0x2f'0008);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 0xfeedu);
}

TEST(Paging, OneGigabytePagesAreReserved) {
  TestMachine m;
  m.code({0x48, 0x8b, 0x06, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::TABLES + 0x1000 + 8, 0 | P | W | PS);
  m.set_gpr(RSI, 0x4000'0000 + 0x2f'0008);
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == PF && e.error == 9);
}

TEST(Paging, NonCanonicalAddressesAreProtectionFaults) {
  TestMachine m;
  m.code({0x48, 0x8b, 0x06, 0x90, 0x48, 0x8b, 0x45, 0x00}); // mov rax,[rsi]; nop; mov rax,[rbp]
  m.start_64();
  m.set_gpr(RSI, 0x8000'0000'0000);
  m.set_gpr(RBP, 0x8000'0000'0000);
  EXPECT_EQ(m.run_to_exception(1).vector, GP);
  VcpuRegisters r = m.vcpu.registers();
  r.rip = TestMachine::CODE + 4;
  m.vcpu.set_registers(r);
  EXPECT_EQ(m.run_to_exception(1).vector, SS_FAULT);
}

struct Legacy {
  TestMachine m;
  void start(u64 cr3, u64 cr4, u64 efer = 0) {
    m.code({0x8b, 0x06, 0x89, 0x07, 0xf4}); // mov eax,[esi]; mov [edi],eax
    m.start_32();
    VcpuRegisters r = m.vcpu.registers();
    r.cr0 |= CR0_PG | CR0_WP;
    r.cr3 = cr3;
    r.cr4 = cr4;
    r.efer = efer;
    r.gpr[RSI] = 0x40'1000;
    r.gpr[RDI] = 0x40'2000;
    m.vcpu.set_registers(r);
  }
};

TEST(Paging, TwoLevelTablesAndFourMegabytePages) {
  Legacy l;
  const u32 dir = 0x10'0000, table = 0x10'1000;
  l.m.put<u32>(dir, 0 | 0x83);      // 4 MiB page at 0
  l.m.put<u32>(dir + 4, table | 3); // 400000h by 4 KiB pages
  l.m.put<u32>(table + 4, 0x3'0000 | 3);
  l.m.put<u32>(table + 8, 0x3'1000 | 3);
  l.m.put<u32>(0x3'0000, 0xcafe);
  l.start(dir, CR4_PSE);
  ASSERT_TRUE(l.m.run());
  EXPECT_EQ(l.m.get<u32>(0x3'1000), 0xcafeu);
  EXPECT_TRUE(l.m.get<u32>(table + 8) & D);
  EXPECT_FALSE(l.m.get<u32>(table + 4) & D);
}

TEST(Paging, PhysicalAddressExtension) {
  Legacy l;
  const u64 dirs = 0x10'0000, dir = 0x10'1000, table = 0x10'2000;
  l.m.put<u64>(dirs, dir | 1);
  l.m.put<u64>(dir, 0 | 0x83);       // 2 MiB page at 0
  l.m.put<u64>(dir + 16, table | 3); // 400000h
  l.m.put<u64>(table + 8, 0x3'0000 | 3);
  l.m.put<u64>(table + 16, 0x3'1000 | 3);
  l.m.put<u32>(0x3'0000, 0xbeef);
  l.start(dirs, CR4_PAE);
  ASSERT_TRUE(l.m.run());
  EXPECT_EQ(l.m.get<u32>(0x3'1000), 0xbeefu);
}

TEST(Paging, ChangingCr3DropsUserTranslationsAndKeepsGlobalOnes) {
  TestMachine m;
  // mov rax,[rsi]; mov rbx,[rdi]; mov cr3,rcx; mov r8,[rsi]; mov r9,[rdi]; hlt
  m.code({0x48, 0x8b, 0x06, 0x48, 0x8b, 0x1f, 0x48, 0xc7, 0x02, 0,    0,   0,
          0,    0x0f, 0x22, 0xd9, 0x4c, 0x8b, 0x06, 0x4c, 0x8b, 0x0f, 0xf4});
  m.start_64();
  const u64 local = TestMachine::PTE_OF_0 + 8 * 0x30, global = TestMachine::PTE_OF_0 + 8 * 0x31;
  m.put<u64>(global, 0x3'1000 | P | W | G);
  m.put<u64>(0x3'0000, 1);
  m.put<u64>(0x3'1000, 2);
  m.put<u64>(0x3'2000, 3);
  m.set_gpr(RSI, 0x3'0000);
  m.set_gpr(RDI, 0x3'1000);
  m.set_gpr(RCX, TestMachine::TABLES);
  m.set_gpr(RDX, 0x4'0000);
  m.vcpu.run_instructions(3);
  m.put<u64>(local, 0x3'2000 | P | W);
  m.put<u64>(global, 0x3'2000 | P | W | G);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(8), 3u); // looked up anew
  EXPECT_EQ(m.gpr(9), 2u); // still the global translation
}

} // namespace
} // namespace transom::soft
