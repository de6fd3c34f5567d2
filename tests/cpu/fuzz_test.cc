// The software CPU against the host's CPU. Cases and seed are fixed; TRANSOM_FUZZ_CASES and TRANSOM_FUZZ_SEED make it
// another campaign. A failure prints the instruction, the state it starts from and every difference, and `seed S case
// N` finds it again with TRANSOM_FUZZ_SEED=S.
#include "tests/cpu/fuzz.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <string>

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "tests/cpu/compare.hpp"

namespace transom::cpu_test {

namespace {

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

Campaign campaign(Mode mode, Kind kind, u64 cases) {
  Campaign c;
  c.mode = mode;
  c.kind = kind;
  c.cases = from_environment("TRANSOM_FUZZ_CASES", cases);
  c.seed = from_environment("TRANSOM_FUZZ_SEED", 1);
  return c;
}

void expect_agreement(const Campaign& c) {
  const Findings f = run_campaign(c);
  if (!f.unavailable.empty()) GTEST_SKIP() << f.unavailable;
  std::printf("%zu slots, %llu cases compared, %llu ran to the end, %llu differ\n", slots(c.mode).size(),
              static_cast<unsigned long long>(f.compared), static_cast<unsigned long long>(f.completed),
              static_cast<unsigned long long>(f.failures));
  EXPECT_EQ(f.failures, 0u) << f.report;
  EXPECT_GT(f.completed, c.cases / 2) << "most cases should run to their end";
  if (c.kind == Kind::slots && c.cases / slots(c.mode).size() >= 50) {
    EXPECT_EQ(uncovered_slots(f, c.mode), "") << "slots without a case";
  }
}

} // namespace

TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostIn64BitMode) {
  expect_agreement(campaign(Mode::bits64, Kind::slots, 250'000));
}
TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostInCompatibilityMode) {
  expect_agreement(campaign(Mode::bits32, Kind::slots, 250'000));
}
TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostIn16BitSegments) {
  expect_agreement(campaign(Mode::bits16, Kind::slots, 250'000));
}
TEST(Differential, RandomBytesBehaveAsOnTheHostIn64BitMode) {
  expect_agreement(campaign(Mode::bits64, Kind::bytes, 100'000));
}
TEST(Differential, RandomBytesBehaveAsOnTheHostInCompatibilityMode) {
  expect_agreement(campaign(Mode::bits32, Kind::bytes, 100'000));
}
TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostIn64BitMode) {
  expect_agreement(campaign(Mode::bits64, Kind::blocks, 80'000));
}
TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostInCompatibilityMode) {
  expect_agreement(campaign(Mode::bits32, Kind::blocks, 80'000));
}

// What the fuzzer found once, each in a few thousand states.
TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostIn16BitSegments) {
  expect_agreement(campaign(Mode::bits16, Kind::blocks, 80'000));
}

TEST(Differential, InstructionsThatOnceFailedBehaveAsOnTheHost) {
  Campaign c = campaign(Mode::bits64, Kind::given, 60'000);
  c.code = {
      {0x43, 0x0f, 0xb1, 0xdd},             // CMPXCHG r13d, ebx: unequal, the destination is not zero-extended
      {0x66, 0xff, 0x36},                   // PUSH [rsi] on a non-canonical stack: #SS
      {0x8f, 0x41, 0x4a},                   // POP [rcx+4A] from one
      {0x0f, 0xa8},                         // PUSH GS on one
      {0xff, 0x16},                         // CALL [rsi] on one
      {0xd9, 0x52, 0x10},                   // FST m32 with an unmasked exception and a page fault
      {0x0f, 0x2a, 0x01},                   // CVTPI2PS from memory: TOP stays
      {0x0f, 0x2a, 0xc7},                   // CVTPI2PS that raises #XM: TOP does not
      {0x66, 0x0f, 0x2c, 0x1a},             // CVTTPD2PI that raises #XM
      {0x0f, 0xf7, 0xc8},                   // MASKMOVQ that faults
      {0xf2, 0x0f, 0x38, 0xf1, 0xc3},       // CRC32
      {0x66, 0x0f, 0x3a, 0x63, 0xca, 0x0c}, // PCMPISTRI
  };
  expect_agreement(c);
}
TEST(Differential, InstructionsThatOnceFailedIn16BitSegmentsBehaveAsOnTheHost) {
  Campaign c = campaign(Mode::bits16, Kind::given, 20'000);
  c.code = {
      {0x60},                   // PUSHA that faults half-way
      {0x0f, 0x57, 0x42, 0x10}, // XORPS on the stack, misaligned and beyond the limit: #GP
      {0x66, 0x0f, 0x6f, 0x00}, // MOVDQA likewise in DS
      {0xd9, 0x72, 0x08},       // FNSTENV across the limit
  };
  expect_agreement(c);
}
TEST(Differential, PointersOfFnopAreRecorded) {
  Campaign c = campaign(Mode::bits64, Kind::given, 5'000);
  c.code = {{0xd9, 0xd0}};
  expect_agreement(c);
}

// --- the comparison itself has to notice things

namespace {
Outcome an_outcome() {
  Outcome o;
  o.vector = soft::BP;
  o.data.assign(DATA_WRITABLE, 0x5a);
  return o;
}
std::string compare_outcomes(const Outcome& a, const Outcome& b, u64 undefined = 0) {
  Case c;
  return difference(c, a, b, undefined, ZYDIS_MNEMONIC_INVALID);
}
} // namespace

TEST(Comparison, EqualOutcomesHaveNoDifference) { EXPECT_EQ(compare_outcomes(an_outcome(), an_outcome()), ""); }

TEST(Comparison, EachKindOfDifferenceIsReported) {
  const Outcome host = an_outcome();
  const auto changed = [&](auto change) {
    Outcome o = an_outcome();
    change(o);
    return compare_outcomes(host, o);
  };
  EXPECT_NE(changed([](Outcome& o) { o.state.gpr[15] ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.rip ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.rflags ^= soft::FLAG_OF; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.fx.xmm[15][15] ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.fx.st[7][9] ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.fx.fsw ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.state.fx.mxcsr ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.data[DATA_WRITABLE - 1] ^= 1; }), "");
  EXPECT_NE(changed([](Outcome& o) { o.vector = soft::UD; }), "");
}

TEST(Comparison, UndefinedFlagsAreNotCompared) {
  Outcome other = an_outcome();
  other.state.rflags ^= soft::FLAG_AF;
  EXPECT_EQ(compare_outcomes(an_outcome(), other, soft::FLAG_AF), "");
  EXPECT_NE(compare_outcomes(an_outcome(), other, soft::FLAG_CF), "");
}

TEST(Comparison, PageFaultsComparedByAddressAndErrorCode) {
  Outcome host = an_outcome(), ours = an_outcome();
  host.vector = ours.vector = soft::PF;
  host.cr2 = ours.cr2 = DATA + DATA_SIZE;
  EXPECT_EQ(compare_outcomes(host, ours), "");
  ours.cr2 += 1;
  EXPECT_NE(compare_outcomes(host, ours), "");
  ours.cr2 = host.cr2;
  ours.error = 2;
  EXPECT_NE(compare_outcomes(host, ours), "");
}

} // namespace transom::cpu_test
