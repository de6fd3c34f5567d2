// Lengths and validity of instructions against the host, without any table: bytes stand before a page that cannot be
// executed, first one of them, then two, and so on. As long as the instruction goes on behind the page's end, fetching
// it faults there; the first time it does not, its length is known, and whether it exists.
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "tests/cpu/generator.hpp"
#include "tests/cpu/native_runner.hpp"
#include "tests/cpu/soft_runner.hpp"

namespace transom::cpu_test {

using namespace soft;

namespace {

constexpr u64 END = CODE + CODE_SIZE;
constexpr u32 FETCH = 0x10; // page-fault error code, SDM 3A 4.7

struct Probe {
  unsigned length = 0; // 0: more than 15 bytes
  bool undefined = false;
};

enum class Kind {
  instruction,
  // Nothing that Zydis knows: #UD, unless the host is newer. How much of it is fetched first is the vendor's.
  unknown,
  // UD0, UD1: this host's AMD processor stops at the opcode, Intel's fetch a ModRM operand (SDM 2B, UD).
  undefined,
  skip, // must not be executed here, or is of no model of ours
};
Kind kind_of(const u8* bytes, bool comparable) {
  ZydisDecodedInstruction insn;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis(Mode::bits64), nullptr, bytes, 15, &insn)))
    return Kind::unknown;
  if (insn.mnemonic == ZYDIS_MNEMONIC_UD0 || insn.mnemonic == ZYDIS_MNEMONIC_UD1) return Kind::undefined;
  return comparable ? Kind::instruction : Kind::skip;
}

bool goes_on(const Outcome& o) { return o.vector == PF && o.cr2 == END && (o.error & FETCH) && o.state.rip < END; }

// `run(c, outcome)` on the CPU in question.
template <class Run>
Probe probe(Case& c, const u8* bytes, Run run) {
  Outcome o;
  for (unsigned n = 1; n <= 15; ++n) {
    c.start = END - n;
    c.initial.rip = c.start;
    c.code_size = n;
    std::memcpy(c.code.data(), bytes, n);
    run(c, o);
    // Behind an instruction that completed, the next fetch faults at the same place, but RIP is there.
    if (!goes_on(o)) return {n, o.vector == UD};
  }
  return {};
}

struct Shared {
  u64 probed, undefined, of_length[16];
  u64 differences;
  char report[8192];
  char unavailable[256];
};

void note(Shared& s, const u8* bytes, const Probe& host, const Probe& ours) {
  if (++s.differences > 20) return;
  char line[200];
  int at = 0;
  for (unsigned n = 0; n < 15; ++n)
    at += std::snprintf(line + at, sizeof line - static_cast<unsigned>(at), "%02x ", bytes[n]);
  std::snprintf(line + at, sizeof line - static_cast<unsigned>(at), ": host %u%s, soft %u%s\n", host.length,
                host.undefined ? " #UD" : "", ours.length, ours.undefined ? " #UD" : "");
  std::strncat(s.report, line, sizeof s.report - std::strlen(s.report) - 1);
}

void probe_many(Shared& s, u64 seed, u64 cases) {
  std::string reason;
  if (!native_setup(reason)) {
    std::snprintf(s.unavailable, sizeof s.unavailable, "%s", reason.c_str());
    return;
  }
  SoftRunner soft;
  for (u64 n = 0; n < cases; ++n) {
    Generator generator(Mode::bits64, seed * 0x1'0000'0000 + n);
    Case c;
    const bool comparable = generator.bytes(c) == Verdict::compare;
    u8 bytes[15];
    std::memcpy(bytes, c.code.data(), 15);
    const Kind kind = kind_of(bytes, comparable);
    if (kind == Kind::skip) continue;
    const Probe host = probe(c, bytes, [](const Case& a, Outcome& o) { native_run(a, o); });
    const Probe ours = probe(c, bytes, [&](const Case& a, Outcome& o) { soft.run(a, static_cast<Way>(n & 3), o); });
    ++s.probed;
    ++s.of_length[host.length];
    s.undefined += host.undefined;
    const bool same_length = kind != Kind::instruction || host.length == ours.length;
    const bool same_validity = host.undefined == ours.undefined || (kind == Kind::unknown && ours.undefined);
    if (!same_length || !same_validity) note(s, bytes, host, ours);
  }
}

} // namespace

TEST(Lengths, OfRandomInstructionsAtThePagesEndAreTheHosts) {
  if (SOFT_ONLY) GTEST_SKIP() << "the sanitizer's shadow memory lies where the code is";
  const char* const cases = std::getenv("TRANSOM_FUZZ_CASES");
  const char* const seed = std::getenv("TRANSOM_FUZZ_SEED");
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  Shared& s = *static_cast<Shared*>(memory);
  const pid_t child = fork();
  if (child == 0) {
    alarm(1200);
    probe_many(s, seed != nullptr ? std::strtoull(seed, nullptr, 0) : 1,
               cases != nullptr ? std::strtoull(cases, nullptr, 0) : 40'000);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (s.unavailable[0] != 0) GTEST_SKIP() << s.unavailable;
  EXPECT_EQ(status, 0);
  std::printf("%llu instructions probed, %llu of them #UD; lengths", static_cast<unsigned long long>(s.probed),
              static_cast<unsigned long long>(s.undefined));
  for (unsigned n = 1; n < 16; ++n) std::printf(" %llu", static_cast<unsigned long long>(s.of_length[n]));
  std::printf("\n");
  EXPECT_EQ(s.differences, 0u) << s.report;
  EXPECT_GT(s.probed, 1000u);
  for (unsigned n = 1; n < 12; ++n) EXPECT_GT(s.of_length[n], 0u) << n;
  munmap(memory, sizeof(Shared));
}

} // namespace transom::cpu_test
