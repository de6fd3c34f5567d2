// String instructions and port input/output.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 DATA = TestMachine::DATA, P = 1, W = 2;

struct StringTest : testing::Test {
  TestMachine m;
  void start(std::initializer_list<int> bytes, u64 rsi, u64 rdi, u64 rcx) {
    m.code(bytes);
    m.start_64();
    m.set_gpr(RSI, rsi);
    m.set_gpr(RDI, rdi);
    m.set_gpr(RCX, rcx);
  }
};

TEST_F(StringTest, OverlappingMoveUpwardsRepeatsThePattern) {
  m.put<u8>(DATA, 0xaa);
  m.put<u8>(DATA + 1, 0xbb);
  start({0xf3, 0xa4, 0xf4}, DATA, DATA + 2, 6000);
  ASSERT_TRUE(m.run());
  for (unsigned n = 0; n < 6002; ++n) ASSERT_EQ(m.get<u8>(DATA + n), n % 2 ? 0xbb : 0xaa) << n;
  EXPECT_EQ(m.get<u8>(DATA + 6002), 0);
  EXPECT_EQ(m.gpr(RCX), 0u);
  EXPECT_EQ(m.gpr(RSI), DATA + 6000);
  EXPECT_EQ(m.gpr(RDI), DATA + 6002);
}

TEST_F(StringTest, MovesAcrossUnalignedPages) {
  for (unsigned n = 0; n < 10000; ++n) m.put<u8>(DATA + 5 + n, static_cast<u8>(n * 7));
  start({0xf3, 0x48, 0xa5, 0xf4}, DATA + 5, DATA + 0x8003, 1250);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(std::memcmp(m.at(DATA + 5), m.at(DATA + 0x8003), 10000), 0);
}

TEST_F(StringTest, BackwardMoveEndsBelow) {
  for (unsigned n = 0; n < 0x3000; ++n) m.put<u8>(DATA + n, static_cast<u8>(n));
  start({0xfd, 0xf3, 0x66, 0xa5, 0xfc, 0xf4}, DATA + 0x2ffe, DATA + 0x8ffe, 0x1800);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(std::memcmp(m.at(DATA), m.at(DATA + 0x6000), 0x3000), 0);
  EXPECT_EQ(m.gpr(RSI), DATA - 2);
}

TEST_F(StringTest, AFaultMidwayLeavesTheRegistersAtTheElementThatFaulted) {
  start({0xf3, 0x48, 0xab, 0xf4}, 0, DATA + 0xff0, 100);
  m.set_gpr(RAX, 0x5555'5555'5555'5555);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((DATA >> 12) + 1), 0);
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == PF && e.error == 2);
  EXPECT_EQ(m.gpr(RCX), 98u);
  EXPECT_EQ(m.gpr(RDI), DATA + 0x1000);
  EXPECT_EQ(m.vcpu.registers().rip, TestMachine::CODE);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((DATA >> 12) + 1), (DATA + 0x1000) | P | W);
  ASSERT_TRUE(m.run()); // and goes on from there
  EXPECT_EQ(m.gpr(RCX), 0u);
  EXPECT_EQ(m.get<u64>(DATA + 0xff0 + 99 * 8), 0x5555'5555'5555'5555u);
}

TEST_F(StringTest, ScanStopsAtTheByteAndSaysSo) {
  m.put<u8>(DATA + 5000, 'x');
  start({0xf2, 0xae, 0xf4}, 0, DATA, 9000);
  m.set_gpr(RAX, 'x');
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RDI), DATA + 5001);
  EXPECT_EQ(m.gpr(RCX), 9000u - 5001);
  EXPECT_TRUE(get_flags(m.vcpu.cpu()) & FLAG_ZF);
}

TEST_F(StringTest, CompareStopsAtTheDifference) {
  m.put<u32>(DATA + 0x8000 + 4 * 1500, 1);
  start({0xf3, 0xa7, 0xf4}, DATA, DATA + 0x8000, 2000);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RCX), 499u);
  EXPECT_EQ(get_flags(m.vcpu.cpu()) & (FLAG_ZF | FLAG_CF), FLAG_CF);
  start({0xf3, 0xa7, 0xf4}, DATA, DATA + 0x8000, 0); // nothing to do: flags stay
  set_arithmetic_flags(m.vcpu.cpu(), FLAG_SF);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(get_flags(m.vcpu.cpu()) & FLAGS_ARITHMETIC, FLAG_SF);
}

TEST_F(StringTest, SixteenBitPointersWrapWithinTheSegment) {
  m.code({0xf3, 0xaa, 0xf4});
  m.start_16();
  m.set_gpr(RAX, 0x77);
  m.set_gpr(RDI, 0xabcd'fffe);
  m.set_gpr(RCX, 4);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u16>(DATA + 0xfffe), 0x7777);
  EXPECT_EQ(m.get<u16>(DATA), 0x7777);
  EXPECT_EQ(m.get<u8>(DATA + 2), 0);
  EXPECT_EQ(m.gpr(RDI), 0xabcd'0002u);
}

TEST_F(StringTest, PortsSeeTheirWidths) {
  start({0xe4, 0x60, 0x66, 0xed, 0xed, 0xe6, 0x61, 0x66, 0xef, 0xef, 0xf4}, 0, 0, 0);
  m.set_gpr(RDX, 0xcf8);
  m.set_gpr(RAX, ~u64{0});
  m.platform.on_in = [](u16 port, u32) { return port == 0x60 ? 0x1212'3434u : 0x5656'7878u; };
  ASSERT_TRUE(m.run());
  ASSERT_EQ(m.platform.ports.size(), 6u);
  const u32 widths[] = {1, 2, 4, 1, 2, 4};
  for (unsigned n = 0; n < 6; ++n) EXPECT_EQ(m.platform.ports[n].width, widths[n]);
  EXPECT_EQ(m.platform.ports[3].value, 0x78u);
  EXPECT_EQ(m.platform.ports[5].value, 0x5656'7878u);
  EXPECT_EQ(m.gpr(RAX), 0x5656'7878u);
}

TEST_F(StringTest, RepeatedInputAcrossAPageBorderIsTwoRuns) {
  start({0xf3, 0x66, 0x6d, 0xf4}, 0, DATA + 0xf00, 256);
  m.set_gpr(RDX, 0x1f0);
  u32 next = 0;
  m.platform.on_in = [&](u16, u32) { return next++; };
  ASSERT_TRUE(m.run());
  ASSERT_EQ(m.platform.runs.size(), 2u);
  EXPECT_EQ(m.platform.runs[0].gpa, DATA + 0xf00);
  EXPECT_EQ(m.platform.runs[0].count, 128u);
  EXPECT_EQ(m.platform.runs[1].gpa, DATA + 0x1000);
  EXPECT_EQ(m.platform.runs[1].count, 128u);
  EXPECT_TRUE(m.platform.runs[0].in);
  EXPECT_EQ(m.platform.runs[0].width, 2u);
  EXPECT_EQ(m.get<u16>(DATA + 0xf00 + 2 * 200), 200u);
}

TEST_F(StringTest, AnInputBufferThatFaultsCostsTheDeviceNothing) {
  start({0xf3, 0x66, 0x6d, 0xf4}, 0, DATA, 4);
  m.set_gpr(RDX, 0x1f0);
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (DATA >> 12), DATA | P);
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised && e.vector == PF && e.error == 3);
  EXPECT_TRUE(m.platform.ports.empty());
  EXPECT_TRUE(m.platform.runs.empty());
}

TEST_F(StringTest, InputAndOutputReachBeyond4GiB) {
  constexpr u64 HIGH = (u64{1} << 32) + 0x1000, RAM_THERE = 0x20'1000;
  for (const bool repeated : {false, true}) {
    const int prefix = repeated ? 0xf3 : 0x90;
    start({prefix, 0x6c, prefix, 0x6e, 0xf4}, HIGH, HIGH, 1); // INSB, OUTSB, or the same with REP
    m.put<u64>(TestMachine::TABLES + 0x1000 + 8 * 4, DATA | P | W);
    m.put<u64>(DATA, 0x20'0000 | 0x80 | P | W); // a page of 2 MiB
    m.put<u8>(RAM_THERE, 0);
    m.put<u8>(0x1000, 0);
    m.set_gpr(RDX, 0x80);
    m.platform.ports.clear();
    m.platform.on_in = [](u16, u32) { return 0x5au; };
    ASSERT_TRUE(m.run());
    EXPECT_EQ(m.get<u8>(RAM_THERE), 0x5a) << repeated;
    EXPECT_EQ(m.get<u8>(0x1000), 0) << repeated;
    EXPECT_EQ(m.gpr(RDI), HIGH + 1);
    if (repeated) continue; // RCX is 0 by then
    ASSERT_EQ(m.platform.ports.size(), 2u);
    EXPECT_EQ(m.platform.ports[1].value, 0x5au);
    EXPECT_EQ(m.gpr(RSI), HIGH + 1);
  }
}

TEST_F(StringTest, AMapChangeInsideAnInHoldsForItsOwnStore) {
  start({0x6c, 0xf4}, 0, DATA, 0);
  std::vector<u8> rom(PAGE_SIZE, 0x11);
  m.platform.on_in = [&](u16, u32) {
    m.platform.on_page = [&](u64 gpa) { return gpa == DATA ? PhysPage{rom.data(), nullptr, ~u64{0}} : PhysPage{}; };
    m.vcpu.memory_map_changed();
    return 0x5au;
  };
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u8>(DATA), 0);
  ASSERT_EQ(m.platform.mmio.size(), 1u);
  EXPECT_EQ(m.platform.mmio[0].gpa, DATA);
  EXPECT_EQ(m.platform.mmio[0].value, 0x5au);
}

TEST_F(StringTest, ARepeatedCompareReadsADeviceElementByElement) {
  start({0xf3, 0xa6, 0xf4}, DATA, DATA + 0x1000, 4);
  m.put<u32>(DATA, 0x05'07'05'05); // the third differs
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * ((DATA >> 12) + 1), TestMachine::RAM | P | W);
  m.platform.on_mmio_read = [](u64, u32) { return u64{5}; };
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RCX), 1u);
  EXPECT_EQ(m.gpr(RDI), DATA + 0x1003);
  EXPECT_EQ(m.platform.mmio.size(), 3u);
}

TEST_F(StringTest, BackwardOutputSaysSo) {
  start({0xfd, 0xf3, 0x6e, 0xf4}, DATA + 9, 0, 10);
  m.set_gpr(RDX, 0x80);
  for (unsigned n = 0; n < 10; ++n) m.put<u8>(DATA + n, static_cast<u8>(n));
  ASSERT_TRUE(m.run());
  ASSERT_EQ(m.platform.runs.size(), 1u);
  EXPECT_TRUE(m.platform.runs[0].backward);
  EXPECT_EQ(m.platform.ports.front().value, 9u);
  EXPECT_EQ(m.platform.ports.back().value, 0u);
}

TEST_F(StringTest, DeviceMemoryIsReachedElementByElement) {
  start({0xf3, 0x48, 0xab, 0xf4}, 0, DATA, 2);
  const u64 gpa = 0x8000'0000;
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (DATA >> 12), gpa | P | W);
  m.set_gpr(RAX, 0x0102'0304'0506'0708);
  ASSERT_TRUE(m.run());
  ASSERT_EQ(m.platform.mmio.size(), 2u);
  EXPECT_EQ(m.platform.mmio[1].gpa, gpa + 8);
  EXPECT_EQ(m.platform.mmio[1].width, 8u);
  EXPECT_EQ(m.platform.mmio[1].value, 0x0102'0304'0506'0708u);
}

} // namespace
} // namespace transom::soft
