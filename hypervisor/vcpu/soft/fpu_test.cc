// What the differential tests do not reach of x87 and SSE: real mode, where pointers are linear addresses (SDM 1
// figures 8-10 and 8-12), and PE beside a trapped underflow, where vendors differ.
#include "hypervisor/vcpu/soft/fpu.hpp"

#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;

constexpr u32 FROM = 0x5000, TO = 0x5100;

class X87InRealMode : public ::testing::Test {
 protected:
  void SetUp() override { b.real_mode(); }
  void environment(std::initializer_list<u32> fields, unsigned bytes) {
    u32 at = FROM;
    for (const u32 field : fields) {
      if (bytes == 2)
        b.put16(at, static_cast<u16>(field));
      else
        b.put32(at, field);
      at += bytes;
    }
  }
  Bench b;
};

TEST_F(X87InRealMode, AShortEnvironmentHoldsTwentyBitsOfThePointers) {
  environment({0x037f, 0x3800, 0xffff, 0x1234, 0x5123, 0x5678, 0x9000}, 2);
  b.code({0xd9, 0x26, FROM & 0xff, FROM >> 8, 0xd9, 0x36, TO & 0xff, TO >> 8, 0xf4}); // fldenv; fnstenv
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.fx.fip, 0x5'1234u);
  EXPECT_EQ(b.cpu.fx.fdp, 0x9'5678u);
  EXPECT_EQ(b.cpu.fx.fop, 0x123);
  for (u32 at = 0; at < 14; at += 2) EXPECT_EQ(b.get16(TO + at), b.get16(FROM + at)) << at;
}

TEST_F(X87InRealMode, ALongEnvironmentHoldsAllOfThem) {
  environment({0xffff'037f, 0xffff'3800, 0xffff'ffff, 0xffff'1234, 0x0abc'd123, 0xffff'5678, 0x0ef0'1000}, 4);
  b.code({0x66, 0xd9, 0x26, FROM & 0xff, FROM >> 8, 0x66, 0xd9, 0x36, TO & 0xff, TO >> 8, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.fx.fip, 0xabcd'1234u);
  EXPECT_EQ(b.cpu.fx.fdp, 0xef01'5678u);
  EXPECT_EQ(b.cpu.fx.fop, 0x123);
  for (u32 at = 0; at < 28; at += 4) EXPECT_EQ(b.get32(TO + at), b.get32(FROM + at)) << at;
}

TEST_F(X87InRealMode, PointersOfAnInstructionAreLinear) {
  set_segment(b.cpu, FS, real_segment(b.cpu, FS, 0x1234));
  b.code({0xdb, 0xe3, 0x64, 0xd9, 0x06, 0x10, 0x00, 0xd9, 0x36, TO & 0xff, TO >> 8, 0xf4}); // fninit; fld fs:[10h]
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.get16(TO + 6), 2) << "where FLD begins, with its prefix";
  EXPECT_EQ(b.get16(TO + 8), 0x1106);
  EXPECT_EQ(b.get16(TO + 10), 0x2350);
  EXPECT_EQ(b.get16(TO + 12), 0x1000);
}

// FXSAVE has the pointers of 64 bits only with REX.W (SDM 1 table 10-2).
TEST(FxsaveIn64BitMode, HoldsHalfOfAPointerWithoutRexW) {
  Bench b;
  b.long_mode_64();
  b.cpu.fx.fip = 0x0000'7123'4567'89ab;
  b.cpu.fx.fdp = 0x0000'7fed'cba9'8765;
  b.cpu.fx.fsw = 0x8080; // an exception is pending: the pointers count on every processor
  b.code({0x0f, 0xae, 0x07, 0x48, 0x0f, 0xae, 0x06, 0xf4}); // fxsave [rdi]; fxsave64 [rsi]
  b.cpu.gpr[RDI] = TO & ~15u;
  b.cpu.gpr[RSI] = (TO & ~15u) + 0x200;
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.get64((TO & ~15u) + 8), 0x4567'89abu);
  EXPECT_EQ(b.get64((TO & ~15u) + 16) & 0xffff'ffff'ffff, 0xcba9'8765u);
  EXPECT_EQ(b.get64((TO & ~15u) + 0x208), 0x7123'4567'89abu);
  EXPECT_EQ(b.get64((TO & ~15u) + 0x210), 0x7fed'cba9'8765u);
}

// A trapped underflow is not flushed to zero, whatever FTZ says: what is exact stays exact (SDM 1 10.2.3.3).
TEST(Sse, AnExactResultThatUnderflowsIsNotInexact) {
  Bench b;
  b.long_mode_64();
  b.cpu.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
  update_mode(b.cpu);
  b.cpu.fx.mxcsr = MXCSR_FTZ | (MXCSR_MASKS & ~(MXCSR_UE << 7));
  const u32 smallest_normal = 0x0080'0000, half = 0x3f00'0000;
  std::memcpy(b.cpu.fx.xmm[0], &smallest_normal, 4);
  std::memcpy(b.cpu.fx.xmm[1], &half, 4);
  b.code({0xf3, 0x0f, 0x59, 0xc1, 0xf4}); // mulss xmm0,xmm1
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(XM));
  EXPECT_EQ(b.cpu.fx.mxcsr & MXCSR_FLAGS, MXCSR_UE);
}

} // namespace
} // namespace transom::soft
