// A fuzzing campaign: forked shards, each with its own seed, and what they found.
#pragma once

#include <string>
#include <vector>

#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

enum class Kind : u8 { slots, bytes, blocks, given };

struct Campaign {
  Mode mode = Mode::bits64;
  Kind kind = Kind::slots;
  u64 seed = 1;
  u64 first = 0; // number of the first case
  u64 cases = 100'000;
  bool stop = false;                 // at the first difference
  std::vector<std::vector<u8>> code; // Kind::given: one instruction each
  // Its first byte for the host, if not 0: a prefix that does nothing in place of one that means something else there.
  u8 first_byte_for_host = 0;
};

struct Findings {
  std::string unavailable; // why the host cannot run it; empty if it can
  u64 compared = 0, completed = 0;
  u64 failures = 0;
  u64 translated = 0;             // instructions that ran as code of the host
  std::string report;             // the first failures, with reproducers
  std::vector<u32> slot_compared; // by slots(mode)
  std::vector<u32> slot_completed;

  void add(const Findings& other); // of the same mode and kind, with another seed
};

Findings run_campaign(const Campaign& campaign);

// Slots that no case completed (or, if they always fault, that no case reached), one a line. Blocks: those that stood
// in no block that ran to its end, of the slots that may stand in blocks.
std::string uncovered_slots(const Findings& findings, const Campaign& campaign);
std::string coverage_summary(const Findings& findings, const Campaign& campaign);

} // namespace transom::cpu_test
