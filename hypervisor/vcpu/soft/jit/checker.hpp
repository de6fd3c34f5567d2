// Both engines on the same instructions: cpu = "soft:check".
//
// Translated code runs as it always does, but it notes its memory accesses (TranslatedState::journal) and is never
// linked, so every way out of a block and every slow path comes by here. Then the stores are undone, the interpreter
// runs the same records from the same state, and both ends are compared. What the interpreter has done is what goes on.
//
// What a slow path does is no business of the checker: it is a handler, and runs once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"

namespace transom::soft {

// What both engines have to agree on.
struct CheckedState {
  u64 gpr[16];
  u64 rip;
  u64 rflags; // with the arithmetic flags
  Fx fx;      // with the MXCSR flags that the host's register has collected
};

struct CheckedStore {
  u8* at;
  u32 size;
  u8 before[16], translated[16], interpreted[16];
};

// A run of translated code and its repetition.
struct CheckedRun {
  const Translation* translation;
  unsigned first, end; // records [first, end)
  CheckedState before, translated, interpreted;
  std::vector<CheckedStore> stores; // of translated code
  std::vector<std::string> complaints;
};

class Checker {
 public:
  explicit Checker(Cpu& cpu, std::function<void(Decoded&)> sabotage) : cpu_(cpu), sabotage_(std::move(sabotage)) {}

  // A translation is about to be made: records of its instructions for the repetition. They compute all flags and are
  // not fused, so the interpreter can be stopped before any of them.
  void prepare(Translation& t, std::span<Decoded> instructions);

  // Translated code goes on at this record.
  void begin(const Translation& t, unsigned record);
  // It has executed the records up to `end` and is to go on at `rip`, by default with the next record. False: the
  // engines differ; difference() says how. `counted`: how many instructions it should have counted since it was
  // entered.
  bool end(unsigned end, std::optional<u64> rip = {}, std::optional<u64> counted = {});
  bool running() const { return running_ != nullptr; } // begun, and not ended
  unsigned all() const { return running_->block->count; }

  const std::string& difference() const { return difference_; } // empty: none so far
  u64 runs() const { return runs_; }
  u64 races() const { return races_; }

 private:
  void capture(CheckedState& state);
  void restore(const CheckedState& state);
  void take_back(); // the stores of translated code
  void interpret(); // the same records
  void interpret_guarded(const Insn* i);
  void compare(CheckedRun& run);
  void compare_memory(CheckedRun& run);
  bool raced() const;
  std::span<const JournalEntry> journal() const;

  Cpu& cpu_;
  std::function<void(Decoded&)> sabotage_;
  const Translation* running_ = nullptr;
  CheckedRun run_;
  StoreLog log_;
  Event raised_;
  u64 counted_ = 0;
  u8 fp_loaded_ = 0;
  std::string difference_;
  u64 runs_ = 0, races_ = 0;
};

// Everything that a test of its own needs to repeat it.
std::string describe(Cpu& cpu, const CheckedRun& run, std::span<const JournalEntry> journal);

} // namespace transom::soft
