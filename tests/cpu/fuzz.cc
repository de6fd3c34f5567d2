#include "tests/cpu/fuzz.hpp"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cpu/blocks.hpp"
#include "tests/cpu/compare.hpp"
#include "tests/cpu/generator.hpp"
#include "tests/cpu/native_runner.hpp"
#include "tests/cpu/soft_runner.hpp"

namespace transom::cpu_test {

namespace {

constexpr const char* NAME[] = {"one by one", "in blocks", "translated", "translated before"}; // of each Way
constexpr unsigned MAX_SLOTS = 16384, REPORT_BYTES = 1 << 18, REPORTED = 40;

// Shared with the child.
struct Shared {
  u64 compared, completed, failures, translated;
  u64 current; // case being run
  char unavailable[256];
  u32 slot_compared[MAX_SLOTS], slot_completed[MAX_SLOTS], slot_failed[MAX_SLOTS];
  char report[REPORT_BYTES];
};

void append(Shared& s, const std::string& text) {
  const std::size_t used = std::strlen(s.report);
  if (used + text.size() + 1 < REPORT_BYTES) std::memcpy(s.report + used, text.c_str(), text.size() + 1);
}

std::string disassemble(const Case& c) {
  std::string text;
  for (unsigned at = 0; at < c.code_size;) {
    ZydisDisassembledInstruction d;
    const auto mode = c.mode == Mode::bits64   ? ZYDIS_MACHINE_MODE_LONG_64
                      : c.mode == Mode::bits32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
                                               : ZYDIS_MACHINE_MODE_LONG_COMPAT_16;
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, c.start + at, &c.code[at], c.code_size - at, &d))) break;
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
    if (!SOFT_ONLY && !native_setup(reason)) return unavailable(reason);
    if (!SOFT_ONLY && campaign_.mode == Mode::bits32 && !native_has_bits32())
      return unavailable("the host kernel has no 32-bit code segment (CONFIG_IA32_EMULATION)");
    if (!SOFT_ONLY && campaign_.mode == Mode::bits16 && !native_has_bits16())
      return unavailable("the host kernel has no modify_ldt() (CONFIG_MODIFY_LDT_SYSCALL)");
    for (u64 n = campaign_.first; n < campaign_.first + campaign_.cases; ++n) {
      shared_.current = n;
      one(n);
      if (campaign_.stop && shared_.failures != 0) return;
    }
  }

 private:
  void unavailable(const std::string& reason) {
    std::snprintf(shared_.unavailable, sizeof shared_.unavailable, "%s", reason.c_str());
  }
  void one(u64 n) {
    Generator generator(campaign_.mode, campaign_.seed * 0x1'0000'0000 + n);
    const std::vector<Slot>& all = slots(campaign_.mode);
    const unsigned slot = static_cast<unsigned>(n % all.size());
    Verdict verdict = Verdict::skip;
    for (int attempt = 0; attempt < 8 && verdict == Verdict::skip; ++attempt) verdict = make(generator, n, all[slot]);
    if (verdict == Verdict::skip) return;
    if (verdict == Verdict::unsupported) return check_unsupported(n, slot);
    run_natively();
    if (!SOFT_ONLY && host_.vector == HUNG) return;
    ++shared_.compared;
    if (host_.vector == soft::BP) ++shared_.completed;
    const bool block = campaign_.kind == Kind::blocks;
    const auto differences = [&] { return block ? block_differences(n) : instruction_differences(n); };
    std::string diff = differences();
    if (block)
      for (const Slot* s : generator.used()) covered(static_cast<unsigned>(s - all.data()));
    else
      covered(slot);
    // Between two instructions the host may have been elsewhere, and AMD's FXSAVE forgets the x87 pointers of an
    // exception that was masked then. That does not happen again and again.
    for (int again = 0; again < 3 && !diff.empty() && !SOFT_ONLY; ++again) {
      run_natively();
      diff = differences();
    }
    if (!diff.empty()) fail(n, block ? 0 : slot, diff);
  }

  Verdict make(Generator& generator, u64 n, const Slot& slot) {
    switch (campaign_.kind) {
      case Kind::slots: return generator.one(slot, case_);
      case Kind::bytes: return generator.bytes(case_);
      case Kind::blocks: return generator.block(case_, pools_) ? Verdict::compare : Verdict::skip;
      case Kind::given: break;
    }
    const std::vector<u8>& code = campaign_.code[n % campaign_.code.size()];
    return generator.given(case_, code.data(), static_cast<unsigned>(code.size()));
  }

  void check_unsupported(u64 n, unsigned slot) {
    soft_.run(case_, turn(n), ours_);
    ++shared_.compared;
    ++shared_.slot_compared[slot];
    ++shared_.slot_completed[slot];
    if (ours_.vector != soft::UD)
      fail(
          n, slot,
          "  an instruction outside of every CPUID model is not #UD but vector " + std::to_string(ours_.vector) + "\n");
  }

  void run_natively() {
    if (SOFT_ONLY) return;
    const u8 first = case_.code[0];
    if (campaign_.first_byte_for_host != 0) case_.code[0] = campaign_.first_byte_for_host;
    native_run(case_, host_);
    case_.code[0] = first;
  }

  void covered(unsigned slot) {
    ++shared_.slot_compared[slot];
    if (host_.vector == soft::BP) ++shared_.slot_completed[slot];
  }

  // Single instructions take turns. Every slot gets all of them, whatever the number of slots is.
  static constexpr bool translates(Mode mode) { return mode != Mode::bits16; }
  Way turn(u64 n) const {
    const u64 round = n / slots(campaign_.mode).size();
    return static_cast<Way>((n + round) % (translates(campaign_.mode) ? 4 : 2));
  }

  // One instruction, stepped, as a block of its own, or that block translated.
  std::string instruction_differences(u64 n) {
    const Way way = turn(n);
    soft_.run(case_, way, ours_);
    if (SOFT_ONLY) host_ = ours_;
    shared_.translated += ours_.translated;
    std::string diff = difference_at(case_.start);
    if (host_.vector == soft::BP && ours_.vector == soft::BP && ours_.instructions != 1)
      diff += "  instructions counted: not one\n";
    return diff.empty() ? diff : std::string("  ") + NAME[static_cast<unsigned>(way)] + ":\n" + diff;
  }

  // The block as a guest would run it, one instruction at a time, and translated, by turns with and
  // without a run before from another state: all do as the host does.
  std::string block_differences(u64 n) {
    soft_.run(case_, Way::stepped, ours_);
    if (SOFT_ONLY) host_ = ours_;
    const u64 counted = ours_.instructions;
    std::string diff = block_difference(Way::stepped);
    for (const Way way : {Way::blocks, n & 1 ? Way::translated : Way::warm}) {
      if (!diff.empty() || (way >= Way::translated && !translates(case_.mode))) break;
      soft_.run(case_, way, ours_);
      diff = block_difference(way);
      shared_.translated += ours_.translated;
      if (ours_.instructions != counted)
        diff += std::string("  instructions counted: ") + std::to_string(ours_.instructions) + " " +
                NAME[static_cast<unsigned>(way)] + ", " + std::to_string(counted) + " one by one\n";
    }
    return diff;
  }
  std::string block_difference(Way way) const {
    // What is accepted depends on the instruction that faulted.
    const std::string diff = difference_at(host_.state.rip + code_base(case_.mode));
    return diff.empty() ? diff : std::string("  ") + NAME[static_cast<unsigned>(way)] + ":\n" + diff;
  }

  // A repeated store over itself: the host finishes it, we look at the code again as after an interrupt. And what the
  // code has become was never classified.
  std::string difference_at(u64 linear) const {
    if (host_.wrote_code) return {};
    const ZydisMnemonic m = mnemonic(linear);
    return difference(case_, host_, ours_, undefined_flags(m), m);
  }

  ZydisMnemonic mnemonic(u64 linear) const { // INVALID: not an instruction of this case
    const u64 at = linear - case_.start;
    ZydisDecodedInstruction insn;
    const bool known =
        at < case_.code_size && ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(
                                    &zydis(campaign_.mode), nullptr, &case_.code[at], case_.code_size - at, &insn));
    return known ? insn.mnemonic : ZYDIS_MNEMONIC_INVALID;
  }

  void fail(u64 n, unsigned slot, const std::string& diff) {
    if (!SOFT_ONLY && ours_.vector == soft::PF && native_occupies(ours_.cr2)) return;
    ++shared_.failures;
    // One report a slot: the others would say the same.
    const bool again = ++shared_.slot_failed[slot] > 1 && campaign_.kind == Kind::slots;
    if (again || reported_++ >= REPORTED) return;
    char head[160];
    std::snprintf(head, sizeof head, "seed %llu case %llu (%s; host vector %d, soft vector %d):\n",
                  static_cast<unsigned long long>(campaign_.seed), static_cast<unsigned long long>(n),
                  campaign_.kind == Kind::slots ? slots(campaign_.mode)[slot].name().c_str() : "generated",
                  host_.vector, ours_.vector);
    append(shared_, head + disassemble(case_) + diff + describe(case_) + "\n");
  }

  const Campaign& campaign_;
  Shared& shared_;
  BlockPools pools_{campaign_.mode};
  SoftRunner soft_;
  Case case_;
  Outcome host_, ours_;
  unsigned reported_ = 0;
};

} // namespace

void Findings::add(const Findings& other) {
  if (unavailable.empty()) unavailable = other.unavailable;
  compared += other.compared;
  completed += other.completed;
  failures += other.failures;
  translated += other.translated;
  report += other.report;
  slot_compared.resize(other.slot_compared.size());
  slot_completed.resize(other.slot_completed.size());
  for (std::size_t n = 0; n < slot_compared.size(); ++n) {
    slot_compared[n] += other.slot_compared[n];
    slot_completed[n] += other.slot_completed[n];
  }
}

namespace {
struct Covered {
  const Slot* slot;
  u32 count;
};
// The slots that this kind of campaign has to reach, the least covered first.
std::vector<Covered> coverage(const Findings& f, const Campaign& c) {
  std::vector<Covered> all;
  const std::vector<Slot>& s = slots(c.mode);
  for (std::size_t n = 0; n < s.size(); ++n) {
    if (c.kind == Kind::blocks && !fits_in_block(s[n])) continue;
    all.push_back({&s[n], always_faults(s[n]) ? f.slot_compared[n] : f.slot_completed[n]});
  }
  std::stable_sort(all.begin(), all.end(), [](const Covered& a, const Covered& b) { return a.count < b.count; });
  return all;
}
} // namespace

std::string uncovered_slots(const Findings& findings, const Campaign& campaign) {
  std::string text;
  for (const Covered& c : coverage(findings, campaign))
    if (c.count == 0) text += "  " + c.slot->name() + "\n";
  return text;
}

std::string coverage_summary(const Findings& findings, const Campaign& campaign) {
  const std::vector<Covered> all = coverage(findings, campaign);
  const auto reached = std::count_if(all.begin(), all.end(), [](const Covered& c) { return c.count != 0; });
  std::string text = std::to_string(reached) + " of " + std::to_string(all.size()) +
                     " slots covered; cases a slot: median " + std::to_string(all[all.size() / 2].count) + ", fewest";
  for (std::size_t n = 0; n < 5 && n < all.size(); ++n)
    text += (n == 0 ? " " : ", ") + std::to_string(all[n].count) + " (" + all[n].slot->name() + ")";
  return text;
}

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
  f.translated = shared.translated;
  f.report = shared.report;
  const std::size_t count = slots(campaign.mode).size();
  f.slot_compared.assign(shared.slot_compared, shared.slot_compared + count);
  f.slot_completed.assign(shared.slot_completed, shared.slot_completed + count);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    ++f.failures;
    const bool hangs = WIFEXITED(status) && WEXITSTATUS(status) == HANGS;
    f.report += (hangs ? "the software CPU hangs" : "the shard died (wait status " + std::to_string(status) + ")");
    f.report += " in seed " + std::to_string(campaign.seed) + " case " + std::to_string(shared.current) + "\n";
  }
  munmap(memory, sizeof(Shared));
  return f;
}

} // namespace transom::cpu_test
