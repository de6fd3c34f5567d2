#include "tests/cpu/fuzz.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/cpu/compare.hpp"
#include "tests/cpu/generator.hpp"
#include "tests/cpu/native_runner.hpp"
#include "tests/cpu/soft_runner.hpp"

namespace transom::cpu_test {

namespace {

constexpr unsigned MAX_SLOTS = 16384, REPORT_BYTES = 1 << 18, REPORTED = 40;

// Shared with the child.
struct Shared {
  u64 compared, completed, failures;
  u64 current; // case being run
  char unavailable[256];
  u32 slot_compared[MAX_SLOTS], slot_completed[MAX_SLOTS], slot_failed[MAX_SLOTS];
  char report[REPORT_BYTES];
  char running[4096]; // the case being run on the software CPU
};

void append(Shared& s, const std::string& text) {
  const std::size_t used = std::strlen(s.report);
  if (used + text.size() + 1 < REPORT_BYTES) std::memcpy(s.report + used, text.c_str(), text.size() + 1);
}

std::string disassemble(const Case& c) {
  std::string text;
  for (unsigned at = 0; at < c.code_size;) {
    ZydisDisassembledInstruction d;
    const auto mode = c.mode == Mode::bits64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32;
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, CODE_START + at, &c.code[at], c.code_size - at, &d))) break;
    text += std::string("  ") + d.text + "\n";
    at += d.info.length;
  }
  return text;
}

class Shard {
 public:
  Shard(const Campaign& campaign, Shared& shared) : campaign_(campaign), shared_(shared) {}

  void run() {
    std::string reason;
    if (!native_setup(reason)) return unavailable(reason);
    if (campaign_.mode == Mode::bits32 && !native_has_bits32())
      return unavailable("the host kernel has no 32-bit code segment (CONFIG_IA32_EMULATION)");
    if (campaign_.kind == Kind::blocks) collect_pool();
    for (u64 n = 0; n < campaign_.cases; ++n) {
      shared_.current = n;
      one(n);
    }
  }

 private:
  void unavailable(const std::string& reason) {
    std::snprintf(shared_.unavailable, sizeof shared_.unavailable, "%s", reason.c_str());
  }
  void collect_pool() {}

  void one(u64 n) {
    Generator generator(campaign_.mode, campaign_.seed * 0x1'0000'0000 + n);
    const std::vector<Slot>& all = slots(campaign_.mode);
    const unsigned slot = static_cast<unsigned>(n % all.size());
    Verdict verdict = Verdict::skip;
    for (int attempt = 0; attempt < 8 && verdict == Verdict::skip; ++attempt)
      verdict = campaign_.kind == Kind::bytes ? generator.bytes(case_) : generator.one(all[slot], case_);
    if (verdict == Verdict::skip) return;
    if (verdict == Verdict::unsupported)
      check_unsupported(n, slot);
    else
      compare(n, slot);
  }

  void check_unsupported(u64 n, unsigned slot) {
    soft_.run(case_, n & 1, ours_);
    ++shared_.compared;
    ++shared_.slot_compared[slot];
    ++shared_.slot_completed[slot];
    if (ours_.vector != soft::UD)
      fail(n, slot, "  an instruction outside of every CPUID model is not #UD but vector " + std::to_string(ours_.vector) + "\n");
  }

  void compare(u64 n, unsigned slot) {
    native_run(case_, host_);
    if (host_.vector == HUNG) return;
    soft_.run(case_, n & 1, ours_);
    ++shared_.compared;
    ++shared_.slot_compared[slot];
    if (host_.vector == soft::BP) {
      ++shared_.completed;
      ++shared_.slot_completed[slot];
    }
    ZydisDecodedInstruction insn{};
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderDecodeFull(&zydis(campaign_.mode), case_.code.data(), case_.code_size, &insn, operands);
    // Both fault, one on the stack and one on the target: the order is the vendor's.
    const bool two_faults = insn.meta.category == ZYDIS_CATEGORY_CALL && ours_.vector == soft::GP &&
                            (host_.vector == soft::PF || host_.vector == soft::SS_FAULT);
    if (two_faults) return;
    const std::string diff = difference(case_, host_, ours_, undefined_flags(insn, case_));
    if (!diff.empty()) fail(n, slot, diff);
  }

  void fail(u64 n, unsigned slot, const std::string& diff) {
    ++shared_.failures;
    // One report a slot: the others would say the same.
    if (++shared_.slot_failed[slot] > 1 || reported_++ >= REPORTED) return;
    char head[160];
    std::snprintf(head, sizeof head, "seed %llu case %llu (%s, host vector %d, soft vector %d):\n",
                  static_cast<unsigned long long>(campaign_.seed), static_cast<unsigned long long>(n),
                  slots(campaign_.mode)[slot].name().c_str(), host_.vector, ours_.vector);
    append(shared_, head + disassemble(case_) + diff + describe(case_) + "\n");
  }

  const Campaign& campaign_;
  Shared& shared_;
  SoftRunner soft_;
  Case case_;
  Outcome host_, ours_;
  unsigned reported_ = 0;
};

} // namespace

Findings run_campaign(const Campaign& campaign) {
  slots(campaign.mode); // before the fork
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Findings f;
  if (memory == MAP_FAILED) {
    f.unavailable = "no memory for the results";
    return f;
  }
  Shared& shared = *static_cast<Shared*>(memory);
  const pid_t child = fork();
  if (child == 0) {
    alarm(1200);
    Shard(campaign, shared).run();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  f.unavailable = shared.unavailable;
  f.compared = shared.compared;
  f.completed = shared.completed;
  f.failures = shared.failures;
  f.report = shared.report;
  const std::size_t count = slots(campaign.mode).size();
  f.slot_compared.assign(shared.slot_compared, shared.slot_compared + count);
  f.slot_completed.assign(shared.slot_completed, shared.slot_completed + count);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    ++f.failures;
    f.report += "the shard died (wait status " + std::to_string(status) + ") in seed " + std::to_string(campaign.seed) +
                " case " + std::to_string(shared.current) + "\n";
  }
  munmap(memory, sizeof(Shared));
  return f;
}

} // namespace transom::cpu_test
