// The software CPU against the host's CPU: a few seconds of cases with fixed seeds, or by the environment
//   TRANSOM_FUZZ=full    the campaign that docs/cpu-proof.md tells about: FULL_CASES a mode, and every slot covered
//   TRANSOM_FUZZ_CASES   cases a test
//   TRANSOM_FUZZ_SEED    another seed; `seed S case N` of a failure is found again with
//   TRANSOM_FUZZ_FIRST   the number of the first case
//   TRANSOM_FUZZ_STOP    end at the first difference
// A failure prints the instructions, the state they start from and every difference.
#include "tests/cpu/fuzz.hpp"

#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <sys/resource.h>

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "tests/cpu/compare.hpp"

namespace transom::cpu_test {

namespace {

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

// CPU time of the shards, which run one after another.
double child_seconds() {
  rusage u{};
  getrusage(RUSAGE_CHILDREN, &u);
  return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

// Seeds of the full campaign; each has its share of the cases. A mode gets FULL_CASES: 60% by slot, 10% random bytes,
// 30% blocks.
constexpr u64 FULL_SEEDS[] = {1, 20'260'101, 0x5eed, 0xc0ffee};
constexpr u64 FULL_CASES = 10'000'000;

struct Plan {
  Campaign campaign;
  std::vector<u64> seeds;
};

// `share`: percent of FULL_CASES that this kind gets in a full campaign.
Plan plan(Mode mode, Kind kind, u64 cases, u64 share) {
  const bool full = std::getenv("TRANSOM_FUZZ") != nullptr && std::strcmp(std::getenv("TRANSOM_FUZZ"), "full") == 0;
  Plan p;
  p.campaign.mode = mode;
  p.campaign.kind = kind;
  p.campaign.cases = from_environment("TRANSOM_FUZZ_CASES", full ? FULL_CASES / 100 * share : cases);
  if (kind == Kind::given && p.campaign.cases > cases) p.campaign.cases = cases;
  p.campaign.first = from_environment("TRANSOM_FUZZ_FIRST", 0);
  p.campaign.stop = std::getenv("TRANSOM_FUZZ_STOP") != nullptr;
  const bool given = std::getenv("TRANSOM_FUZZ_SEED") != nullptr;
  if (full && !given)
    p.seeds.assign(std::begin(FULL_SEEDS), std::end(FULL_SEEDS));
  else
    p.seeds = {from_environment("TRANSOM_FUZZ_SEED", 1)};
  return p;
}

Findings run(const Plan& p) {
  Findings all;
  for (const u64 seed : p.seeds) {
    Campaign c = p.campaign;
    c.seed = seed;
    c.cases = p.campaign.cases / p.seeds.size();
    all.add(run_campaign(c));
  }
  return all;
}

void expect_agreement(const Plan& p) {
  const double begin = child_seconds();
  const Findings f = run(p);
  if (!f.unavailable.empty()) GTEST_SKIP() << f.unavailable;
  const double seconds = child_seconds() - begin + 1e-9;
  std::printf("%llu cases compared (%.0f a CPU second), %llu ran to the end, %llu differ\n",
              static_cast<unsigned long long>(f.compared), static_cast<double>(f.compared) / seconds,
              static_cast<unsigned long long>(f.completed), static_cast<unsigned long long>(f.failures));
  EXPECT_EQ(f.failures, 0u) << f.report;
  if (p.campaign.stop) return;
  EXPECT_GT(f.completed, p.campaign.cases / 2) << "most cases should run to their end";
  // Whether the translator was there at all; 16-bit code it leaves to the interpreter.
  const u64 rounds = p.campaign.kind == Kind::blocks  ? p.campaign.cases
                     : p.campaign.kind == Kind::slots ? p.campaign.cases / 20
                                                      : 0;
  const u64 wanted = p.campaign.mode == Mode::bits16 ? 0 : rounds;
  EXPECT_GE(f.translated, wanted) << "not enough ran translated";
  if (p.campaign.kind != Kind::slots && p.campaign.kind != Kind::blocks) return;
  std::printf("%s\n", coverage_summary(f, p.campaign).c_str());
  if (p.campaign.cases / slots(p.campaign.mode).size() >= 50) {
    EXPECT_EQ(uncovered_slots(f, p.campaign), "") << "slots without a case that ran to its end";
  }
}

void expect_agreement_of(Mode mode, u64 cases, const std::vector<std::vector<u8>>& code) {
  Plan p = plan(mode, Kind::given, cases, 1);
  p.campaign.code = code;
  expect_agreement(p);
}

} // namespace

TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostIn64BitMode) {
  expect_agreement(plan(Mode::bits64, Kind::slots, 250'000, 60));
}
TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostInCompatibilityMode) {
  expect_agreement(plan(Mode::bits32, Kind::slots, 250'000, 60));
}
TEST(Differential, EveryOpcodeSlotBehavesAsOnTheHostIn16BitSegments) {
  expect_agreement(plan(Mode::bits16, Kind::slots, 250'000, 60));
}
TEST(Differential, RandomBytesBehaveAsOnTheHostIn64BitMode) {
  expect_agreement(plan(Mode::bits64, Kind::bytes, 100'000, 10));
}
TEST(Differential, RandomBytesBehaveAsOnTheHostInCompatibilityMode) {
  expect_agreement(plan(Mode::bits32, Kind::bytes, 100'000, 10));
}
TEST(Differential, RandomBytesBehaveAsOnTheHostIn16BitSegments) {
  expect_agreement(plan(Mode::bits16, Kind::bytes, 100'000, 10));
}
TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostIn64BitMode) {
  expect_agreement(plan(Mode::bits64, Kind::blocks, 100'000, 30));
}
TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostInCompatibilityMode) {
  expect_agreement(plan(Mode::bits32, Kind::blocks, 100'000, 30));
}

TEST(Differential, BlocksOfInstructionsBehaveAsOnTheHostIn16BitSegments) {
  expect_agreement(plan(Mode::bits16, Kind::blocks, 100'000, 30));
}

// What the fuzzer found once, each in a few thousand states.
TEST(Differential, InstructionsThatOnceFailedBehaveAsOnTheHost) {
  expect_agreement_of(Mode::bits64, 60'000,
                      {
                          {0x43, 0x0f, 0xb1, 0xdd}, // CMPXCHG r13d, ebx: unequal, the destination is not zero-extended
                          {0x66, 0xff, 0x36},       // PUSH [rsi] on a non-canonical stack: #SS
                          {0x8f, 0x41, 0x4a},       // POP [rcx+4A] from one
                          {0x0f, 0xa8},             // PUSH GS on one
                          {0xff, 0x16},             // CALL [rsi] on one
                          {0xd9, 0x52, 0x10},       // FST m32 with an unmasked exception and a page fault
                          {0x0f, 0x2a, 0x01},       // CVTPI2PS from memory: TOP stays
                          {0x0f, 0x2a, 0xc7},       // CVTPI2PS that raises #XM: TOP does not
                          {0x66, 0x0f, 0x2c, 0x1a}, // CVTTPD2PI that raises #XM
                          {0x0f, 0xf7, 0xc8},       // MASKMOVQ that faults
                          {0xf2, 0x0f, 0x38, 0xf1, 0xc3},       // CRC32
                          {0x66, 0x0f, 0x3a, 0x63, 0xca, 0x0c}, // PCMPISTRI
                      });
}
TEST(Differential, InstructionsThatOnceFailedIn16BitSegmentsBehaveAsOnTheHost) {
  expect_agreement_of(Mode::bits16, 20'000,
                      {
                          {0x60},                   // PUSHA that faults half-way
                          {0x0f, 0x57, 0x42, 0x10}, // XORPS on the stack, misaligned and beyond the limit: #GP
                          {0x66, 0x0f, 0x6f, 0x00}, // MOVDQA likewise in DS
                          {0xd9, 0x72, 0x08},       // FNSTENV across the limit
                          {0xdb, 0x7a, 0x89},       // FSTP m80 into a read-only page: CR2
                      });
}
// Prefixes that mean something on the host and nothing in our models. The host gets another one, which does nothing.
TEST(Differential, PrefixesOfExtensionsThatAreNotShownDoNothing) {
  for (const Mode mode : {Mode::bits64, Mode::bits32, Mode::bits16}) {
    Plan p = plan(mode, Kind::given, 8'000, 1);
    p.campaign.code = {{0xf3, 0x0f, 0xbc, 0xc1},       {0xf3, 0x0f, 0xbd, 0xca}, {0xf3, 0x66, 0x0f, 0xbc, 0xd3},
                       {0xf3, 0x66, 0x0f, 0xbd, 0xc6}, {0xf3, 0x0f, 0xbc, 0x03}, {0xf3, 0x0f, 0xbd, 0x07}};
    p.campaign.first_byte_for_host = 0xf2; // BSF and BSR, not TZCNT and LZCNT
    expect_agreement(p);
    p.campaign.code = {{0xf3, 0xe0, 0x10}, {0xf2, 0xe0, 0x10}, {0xf3, 0xe1, 0x10}, {0xf2, 0xe1, 0x10}};
    p.campaign.first_byte_for_host = 0x3e; // LOOPcc without a second condition
    expect_agreement(p);
  }
}
TEST(Differential, OperandSizeOfNearBranchesIsIgnoredIn64BitCode) {
  Plan p = plan(Mode::bits64, Kind::given, 30'000, 1);
  p.campaign.code = {{0x66, 0x74, 0x10},       {0x66, 0x7c, 0x10},       {0x66, 0xeb, 0x10},
                     {0x66, 0xe3, 0x10},       {0x66, 0xe2, 0x10},       {0x66, 0x0f, 0x85, 0, 1, 0, 0},
                     {0x66, 0xe9, 0, 1, 0, 0}, {0x66, 0xe8, 0, 1, 0, 0}, {0x66, 0xc3},
                     {0x66, 0xc2, 8, 0},       {0x66, 0xff, 0xd0},       {0x66, 0xff, 0xe1},
                     {0x66, 0xff, 0x13},       {0x66, 0xff, 0x26}};
  p.campaign.first_byte_for_host = 0x3e;
  expect_agreement(p);
}
TEST(Differential, PointersOfFnopAreRecorded) { expect_agreement_of(Mode::bits64, 5'000, {{0xd9, 0xd0}}); }

// --- what is left out

TEST(Slots, EveryExcludedOneHasAReasonAndTheyAreFew) {
  for (const Mode mode : {Mode::bits64, Mode::bits32, Mode::bits16}) {
    std::map<std::string, std::string> by_reason;
    const std::vector<Slot> excluded = excluded_slots(mode);
    for (const Slot& s : excluded) by_reason[s.reason] += "\n    " + s.name();
    std::printf("%s code: %zu slots compared, %zu excluded\n",
                mode == Mode::bits64   ? "64-bit"
                : mode == Mode::bits32 ? "32-bit"
                                       : "16-bit",
                slots(mode).size(), excluded.size());
    for (const auto& [reason, names] : by_reason) std::printf("  %s%s\n", reason.c_str(), names.c_str());
    EXPECT_LT(excluded.size(), slots(mode).size() / 10);
  }
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

TEST(Comparison, CmpsMayFaultAtEitherOperandAndNowhereElse) {
  Outcome host = an_outcome(), ours = an_outcome();
  for (Outcome* o : {&host, &ours}) {
    o->vector = soft::PF;
    o->state.gpr[soft::RSI] = 0x1234;
    o->state.gpr[soft::RDI] = 0x5678;
  }
  const auto differs = [&] { return !difference({}, host, ours, 0, ZYDIS_MNEMONIC_CMPSB).empty(); };
  host.cr2 = 0x5678;
  ours.cr2 = 0x1234;
  EXPECT_FALSE(differs());
  EXPECT_NE(compare_outcomes(host, ours), "") << "other instructions";
  ours.state.gpr[soft::RCX] ^= 1;
  EXPECT_TRUE(differs()) << "all but the fault is compared";
  ours.state.gpr[soft::RCX] ^= 1;
  ours.cr2 = 0x1334;
  EXPECT_TRUE(differs()) << "ours is at neither";
  host.cr2 = ours.cr2 = 0x1234;
  EXPECT_FALSE(differs());
  ours.cr2 = 0x1334;
  EXPECT_TRUE(differs()) << "[SI] alone faults";
}

TEST(Comparison, AnImageMayFaultAnywhereInItAlsoAcrossTheEndOfTheAddressSpace) {
  Outcome host = an_outcome(), ours = an_outcome();
  host.vector = ours.vector = soft::PF;
  const auto differs = [&] { return !difference({}, host, ours, 0, ZYDIS_MNEMONIC_FXSAVE).empty(); };
  ours.cr2 = ~u64{0x1f};
  host.cr2 = ours.cr2 + 511;
  EXPECT_FALSE(differs());
  host.cr2 = ours.cr2 + 513;
  EXPECT_TRUE(differs());
}

} // namespace transom::cpu_test
