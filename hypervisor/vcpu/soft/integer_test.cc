// Integer instructions: results, flags, register widths, refusals.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

constexpr u64 SAMPLES[] = {0,
                           1,
                           2,
                           0x7f,
                           0x80,
                           0xff,
                           0x7fff,
                           0x8000,
                           0xffff,
                           0x7fff'ffff,
                           0x8000'0000,
                           0xffff'ffff,
                           0x7fff'ffff'ffff'ffff,
                           0x8000'0000'0000'0000,
                           ~u64{0},
                           0x0123'4567'89ab'cdef};
constexpr u64 ADD_FLAGS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF;

// What the manual says, worked out in software.
u64 flags_of(u64 a, u64 b, u64 result, unsigned bits, bool subtract) {
  const u64 mask = bits == 64 ? ~u64{0} : (u64{1} << bits) - 1, sign = u64{1} << (bits - 1);
  a &= mask, b &= mask, result &= mask;
  u64 f = 0;
  if (subtract ? a < b : result < a) f |= FLAG_CF;
  if (__builtin_popcount(result & 0xff) % 2 == 0) f |= FLAG_PF;
  if ((a ^ b ^ result) & 0x10) f |= FLAG_AF;
  if (result == 0) f |= FLAG_ZF;
  if (result & sign) f |= FLAG_SF;
  if ((subtract ? (a ^ b) & (a ^ result) : ~(a ^ b) & (a ^ result)) & sign) f |= FLAG_OF;
  return f;
}

class AtWidth : public testing::TestWithParam<int> {
 protected:
  // <op> rax, rbx at the width, then HLT, in 64-bit mode
  void place(u8 opcode_byte) {
    const int bits = GetParam();
    u64 at = TestMachine::CODE;
    if (bits == 16) m.put<u8>(at++, 0x66);
    if (bits == 64) m.put<u8>(at++, 0x48);
    m.put<u8>(at++, static_cast<u8>(bits == 8 ? opcode_byte : opcode_byte + 1));
    m.put<u8>(at++, 0xd8);
    m.put<u8>(at++, 0xf4);
    m.code_pages.wrote(TestMachine::CODE >> PAGE_SHIFT);
  }
  u64 expected(u64 old, u64 result) const {
    switch (GetParam()) {
      case 8: return (old & ~u64{0xff}) | (result & 0xff);
      case 16: return (old & ~u64{0xffff}) | (result & 0xffff);
      case 32: return result & 0xffff'ffff;
      default: return result;
    }
  }
  TestMachine m;
};

TEST_P(AtWidth, AddAndSubtractMatchTheManual) {
  for (const bool subtract : {false, true}) {
    place(subtract ? 0x28 : 0x00);
    for (const u64 a : SAMPLES)
      for (const u64 b : SAMPLES) {
        m.start_64();
        m.set_gpr(RAX, a);
        m.set_gpr(RBX, b);
        ASSERT_TRUE(m.run());
        const u64 result = subtract ? a - b : a + b;
        EXPECT_EQ(m.gpr(RAX), expected(a, result)) << std::hex << a << " " << b;
        EXPECT_EQ(get_flags(m.vcpu.cpu()) & ADD_FLAGS,
                  flags_of(a, b, result, static_cast<unsigned>(GetParam()), subtract))
            << std::hex << a << " " << b;
      }
  }
}

TEST_P(AtWidth, LogicClearsCarryAndOverflow) {
  place(0x30); // XOR
  for (const u64 a : SAMPLES)
    for (const u64 b : SAMPLES) {
      m.start_64();
      set_arithmetic_flags(m.vcpu.cpu(), ~u64{0});
      m.set_gpr(RAX, a);
      m.set_gpr(RBX, b);
      ASSERT_TRUE(m.run());
      EXPECT_EQ(m.gpr(RAX), expected(a, a ^ b));
      EXPECT_EQ(get_flags(m.vcpu.cpu()) & (FLAG_CF | FLAG_OF), 0u);
    }
}

INSTANTIATE_TEST_SUITE_P(Widths, AtWidth, testing::Values(8, 16, 32, 64));

TEST(Integer, AdcAndSbbPassTheCarryOn) {
  TestMachine m;
  m.code({0x48, 0x01, 0xd8, 0x48, 0x11, 0xca, 0x48, 0x29, 0xd8, 0x48, 0x19, 0xca,
          0xf4}); // add rax,rbx; adc rdx,rcx; sub; sbb
  m.start_64();
  m.set_gpr(RAX, ~u64{0});
  m.set_gpr(RDX, 5);
  m.set_gpr(RBX, 1);
  m.set_gpr(RCX, 7);
  m.vcpu.run_instructions(2);
  EXPECT_EQ(m.gpr(RAX), 0u);
  EXPECT_EQ(m.gpr(RDX), 13u);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), ~u64{0});
  EXPECT_EQ(m.gpr(RDX), 5u);
}

TEST(Integer, IncrementKeepsTheCarryThatDeadFlagsMustNotDrop) {
  TestMachine m;
  m.code({0xf9, 0x48, 0xff, 0xc0, 0x48, 0x11, 0xdb, 0xf4}); // stc; inc rax; adc rbx,rbx
  m.start_64();
  m.set_gpr(RBX, 1);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RBX), 3u);
}

TEST(Integer, HighByteRegistersAreBitsFifteenToEight) {
  TestMachine m;
  m.code({0xb4, 0x12, 0x88, 0xe3, 0x00, 0xe7, 0x40, 0xb4, 0x55, 0xf4}); // mov ah,12h; mov bl,ah; add bh,ah; mov spl,55h
  m.start_64();
  m.set_gpr(RAX, 0x1111'1111'1111'1111);
  m.set_gpr(RBX, 0x0100);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), 0x1111'1111'1111'1211u);
  EXPECT_EQ(m.gpr(RBX), 0x1312u);
  EXPECT_EQ(m.gpr(RSP), (TestMachine::STACK & ~u64{0xff}) | 0x55);
}

TEST(Integer, ThirtyTwoBitResultsClearTheUpperHalf) {
  TestMachine m;
  m.code({0x89, 0xc3, 0x66, 0x89, 0xc1, 0xf4}); // mov ebx,eax; mov cx,ax
  m.start_64();
  m.set_gpr(RAX, ~u64{0});
  m.set_gpr(RBX, ~u64{0});
  m.set_gpr(RCX, 0);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RBX), 0xffff'ffffu);
  EXPECT_EQ(m.gpr(RCX), 0xffffu);
}

TEST(Integer, EveryConditionOfAFusedCompareAndBranch) {
  static constexpr i64 VALUES[] = {0, 1, -1, 5, INT64_MAX, INT64_MIN};
  for (int cc = 0; cc < 16; ++cc)
    for (const i64 a : VALUES)
      for (const i64 b : VALUES) {
        TestMachine m;
        // cmp rax,rbx; jcc +7; mov ecx,1; hlt; nop; mov ecx,2; hlt
        m.code({0x48, 0x39, 0xd8, 0x70 + cc, 7, 0xb9, 1, 0, 0, 0, 0xf4, 0x90, 0xb9, 2, 0, 0, 0, 0xf4});
        m.start_64();
        m.set_gpr(RAX, static_cast<u64>(a));
        m.set_gpr(RBX, static_cast<u64>(b));
        ASSERT_TRUE(m.run());
        const u64 difference = static_cast<u64>(a) - static_cast<u64>(b);
        const bool overflow = flags_of(static_cast<u64>(a), static_cast<u64>(b), difference, 64, true) & FLAG_OF;
        const bool parity = __builtin_popcount(difference & 0xff) % 2 == 0;
        const bool below = static_cast<u64>(a) < static_cast<u64>(b), sign = difference >> 63;
        const bool yes[] = {overflow, below, a == b, below || a == b, sign, parity, a < b, a <= b};
        EXPECT_EQ(m.gpr(RCX), yes[cc / 2] != (cc & 1) ? 2u : 1u) << cc << " " << a << " " << b;
      }
}

TEST(Integer, DivisionFaultsAtTheInstructionAndChangesNothing) {
  TestMachine m;
  m.code({0x90, 0x48, 0xf7, 0xf3, 0xf4}); // nop; div rbx
  m.start_64();
  m.set_gpr(RAX, 7);
  m.set_gpr(RDX, 1);
  m.set_gpr(RBX, 1); // quotient needs 65 bits
  const auto e = m.run_to_exception();
  EXPECT_TRUE(e.raised);
  EXPECT_EQ(e.vector, DE);
  EXPECT_EQ(m.vcpu.registers().rip, TestMachine::CODE + 1);
  EXPECT_EQ(m.gpr(RAX), 7u);
  m.start_64();
  m.set_gpr(RAX, 7);
  m.set_gpr(RDX, 1);
  m.set_gpr(RBX, 2);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX), (u64{1} << 63) + 3);
  EXPECT_EQ(m.gpr(RDX), 1u);
}

TEST(Integer, SignedDivisionOfTheSmallestByMinusOneOverflows) {
  TestMachine m;
  m.code({0x48, 0x99, 0x48, 0xf7, 0xfb, 0xf4}); // cqo; idiv rbx
  m.start_64();
  m.set_gpr(RAX, u64{1} << 63);
  m.set_gpr(RBX, ~u64{0});
  EXPECT_EQ(m.run_to_exception().vector, DE);
  m.start_64();
  m.set_gpr(RAX, static_cast<u64>(-7));
  m.set_gpr(RBX, 2);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(static_cast<i64>(m.gpr(RAX)), -3);
  EXPECT_EQ(static_cast<i64>(m.gpr(RDX)), -1);
}

TEST(Integer, LockIsRefusedWhereItMayNotStand) {
  static const std::initializer_list<int> REFUSED[] = {
      {0xf0, 0x48, 0x01, 0xd8},       // lock add rax,rbx
      {0xf0, 0x48, 0x39, 0x1e},       // lock cmp [rsi],rbx
      {0xf0, 0x48, 0x03, 0x1e},       // lock add rbx,[rsi]
      {0xf0, 0x48, 0x89, 0x1e},       // lock mov [rsi],rbx
      {0xf0, 0x48, 0x0f, 0xa3, 0x1e}, // lock bt [rsi],rbx
      {0xf0, 0x90},                   // lock nop
  };
  for (const auto& bytes : REFUSED) {
    TestMachine m;
    m.code(bytes);
    m.start_64();
    m.set_gpr(RSI, TestMachine::DATA);
    const auto e = m.run_to_exception(1);
    EXPECT_TRUE(e.raised && e.vector == UD);
    EXPECT_EQ(m.vcpu.registers().rip, TestMachine::CODE);
  }
  TestMachine m;
  m.code({0xf0, 0x48, 0x01, 0x1e, 0xf0, 0x48, 0xff, 0x0e, 0xf0, 0x48, 0x0f, 0xc1, 0x1e, 0xf4}); // lock add, dec, xadd
  m.start_64();
  m.put<u64>(TestMachine::DATA, 10);
  m.set_gpr(RSI, TestMachine::DATA);
  m.set_gpr(RBX, 3);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u64>(TestMachine::DATA), 15u);
  EXPECT_EQ(m.gpr(RBX), 12u);
}

TEST(Integer, UndefinedOpcodesFaultInEveryMap) {
  static const std::initializer_list<int> CODES[] = {
      {0x0f, 0x0b},
      {0x0f, 0xff, 0xc0},
      {0x0f, 0xb9, 0xc0},
      {0x06},
      {0x0f, 0x04},
      {0xfe, 0xf8},
      {0x8d, 0xc0},
      {0x0f, 0x38, 0xff, 0xc0},
      {0xc5, 0xf8, 0x77} /* vzeroupper */,
  };
  for (const auto& bytes : CODES) {
    TestMachine m;
    m.code(bytes);
    m.start_64();
    const auto e = m.run_to_exception(1);
    EXPECT_TRUE(e.raised && e.vector == UD) << std::hex << *bytes.begin();
  }
}

TEST(Integer, MoreThanFifteenBytesIsAProtectionFault) {
  TestMachine m;
  for (unsigned n = 0; n < 15; ++n) m.put<u8>(TestMachine::CODE + n, 0x66);
  m.put<u8>(TestMachine::CODE + 15, 0x90);
  m.start_64();
  auto e = m.run_to_exception(1);
  EXPECT_TRUE(e.raised && e.vector == GP);
  m.start_64(TestMachine::CODE + 1); // fourteen prefixes and the opcode
  e = m.run_to_exception(1);
  EXPECT_FALSE(e.raised);
}

TEST(Integer, SixteenBitAddressingAddsAndWraps) {
  TestMachine m;
  m.code({0x8a, 0x00, 0x8a, 0x62, 0xfe, 0xf4}); // mov al,[bx+si]; mov ah,[bp+si-2] (SS)
  m.start_16();
  m.set_gpr(RBX, 0xfff0);
  m.set_gpr(RSI, 0x20);
  m.set_gpr(RBP, 0x100);
  m.put<u8>(TestMachine::DATA + 0x10, 0xab);
  m.put<u8>(0x70000 + 0x11e, 0xcd);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xffff, 0xcdabu);
}

TEST(Integer, RealModeAccessBeyondTheLimitFaults) {
  TestMachine m;
  m.code({0x8b, 0x07, 0xf4}); // mov ax,[bx]
  m.start_16();
  m.set_gpr(RBX, 0xffff);
  EXPECT_EQ(m.run_to_exception().vector, GP);
  m.start_16();
  m.set_gpr(RBX, 0xfffe);
  EXPECT_TRUE(m.run());
}

TEST(Integer, ShiftByZeroKeepsTheFlagsAndRotateTouchesTwo) {
  TestMachine m;
  m.code({0x48, 0xd3, 0xe0, 0x9c, 0x5b, 0x48, 0xc1, 0xc0, 0x01, 0xf4}); // shl rax,cl; pushf; pop rbx; rol rax,1
  m.start_64();
  set_arithmetic_flags(m.vcpu.cpu(), FLAGS_ARITHMETIC);
  m.set_gpr(RCX, 64);
  m.set_gpr(RAX, 1);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RBX) & FLAGS_ARITHMETIC, FLAGS_ARITHMETIC);
  EXPECT_EQ(m.gpr(RAX), 2u);
  EXPECT_EQ(get_flags(m.vcpu.cpu()) & FLAGS_ARITHMETIC, FLAGS_ARITHMETIC & ~(FLAG_CF | FLAG_OF));
}

TEST(Integer, BitTestWithARegisterIndexReachesBeyondTheOperand) {
  TestMachine m;
  m.code({0x48, 0x0f, 0xab, 0x1e, 0x48, 0x0f, 0xa3, 0x0e, 0xf4}); // bts [rsi],rbx; bt [rsi],rcx
  m.start_64();
  m.set_gpr(RSI, TestMachine::DATA + 64);
  m.set_gpr(RBX, 130);
  m.set_gpr(RCX, static_cast<u64>(-1));
  m.put<u64>(TestMachine::DATA + 56, u64{1} << 63);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.get<u64>(TestMachine::DATA + 80), 4u);
  EXPECT_TRUE(get_flags(m.vcpu.cpu()) & FLAG_CF);
}

TEST(Integer, DecimalAdjustment) {
  TestMachine m;
  m.code({0x00, 0xd8, 0x27, 0xf4}); // add al,bl; daa
  m.start_32();
  m.set_gpr(RAX, 0x79);
  m.set_gpr(RBX, 0x35);
  ASSERT_TRUE(m.run());
  EXPECT_EQ(m.gpr(RAX) & 0xff, 0x14u);
  EXPECT_TRUE(get_flags(m.vcpu.cpu()) & FLAG_CF);
}

} // namespace
} // namespace transom::soft
