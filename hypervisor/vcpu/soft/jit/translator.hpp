// Translated code: blocks that ran often, compiled to the host's own instructions.
//
// A translation belongs to a block and to one linear address. Guest registers live in host registers (emitter.hpp), the
// rest of the guest's state in Cpu, where handlers find it. Whatever is not the fast path of an instruction — a miss of
// the TLB, a device, a fault, a page with code, an instruction without a template — is done by its handler: every
// instruction begins in a state from which the interpreter can go on, so semantics exist once.
//
// Exits to other blocks start as calls of resolve() and are patched to direct jumps. A jump to another page compares
// the page's code tag first. An invalidated translation has its entry overwritten, so nobody keeps lists of who jumps
// to it.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/jit/arena.hpp"

namespace transom::soft {

struct Translation {
  Block* block;
  u64 rip;
  bool plain; // without groups of memory operands
  const u8* entry;
  const u8* dead;           // an exit to `rip` itself, for whoever comes when the block is no more
  u32 bytes;                // from entry
  Translation* next;        // of the same block, at another address
  std::vector<u64> records; // the checker's copy of the block
};

// An instruction that its handler executes, once or whenever the fast path gives up.
struct StepSite {
  Translation* translation;
  u16 record;  // of the block
  u16 counted; // instructions of the block before it that translated code has executed but not yet counted
  bool branch; // its record may be linked to another block
  bool fp;     // the code behind it relies on the guest's MXCSR in the host's
};

// Instructions in a row that have no template, for their handlers: copies of their records, with a block of their own
// before them and a record behind that stops.
struct HandlerRun {
  Translation* translation;
  u16 record; // of the block, the first one
  u16 count;
  u16 counted; // as in StepSite
  Block block;
  Insn insn[1]; // count + 1
};

// A way out of a translation to a known address.
struct ExitSite {
  u64 rip;
  u8* jump;         // rel32 to patch, in the writable view; null: never patched
  u8* tag;          // imm64 to patch with the page's code tag; null: same page
  bool plain;       // to a translation without groups
  u16 executed = 0; // records of the running block; ALL also where a RET of any block may come by
  static constexpr u16 ALL = 0xffff;
};

class Checker;
struct Decoded;

class Translator {
 public:
  struct Options {
    u64 arena_bytes = u64{48} << 20;
    u32 threshold = 40;                     // runs of a block before it is translated
    std::string perf_map;                   // path of a perf map to append to; empty: none
    bool check = false;                     // and the interpreter repeats what it does (checker.hpp)
    std::function<void(Decoded&)> sabotage; // tests of the checker: alters what is translated
  };
  Translator(Cpu& cpu, const Options& options);
  ~Translator();
  Translator(const Translator&) = delete;
  Translator& operator=(const Translator&) = delete;

  // Whether code of this mode is translated at all.
  static bool translatable(u16 mode) {
    return (mode & MODE_64 || mode & MODE_FLAT) && !(mode & (MODE_STEP | MODE_ALIGN | MODE_VM));
  }
  // A new block of such a mode, with its handlers in place: from now on its runs are counted.
  void adopt(Block& block) const;
  // The block is stale: nobody enters its translations any more.
  void drop(Block& block);
  // All blocks are about to die, or room is needed: every translation goes.
  void reset();

  // The translation of `block` at `rip`; made now if it has run often enough. Null: not yet, or never.
  const Translation* find(Block& block, u64 rip, bool plain = false);
  const Insn* enter(const Translation& t); // runs it; what the interpreter is to go on with, or null

  u64 count() const { return translations_.size(); }
  u64 code_bytes() const { return arena_.hot.used + arena_.cold.used; }
  u64 resets() const { return resets_; }
  const Checker* checker() const { return checker_.get(); } // null: nothing is checked

  // What translated code calls (thunks.cc). The answer of the first two: 0 to go on behind the instructions; else what
  // enter() returns, with 1 for null. Of the others: where to go on, or null to leave with `leave_record`.
  static u64 step(Cpu& cpu, u64 site);
  static u64 run_handlers(Cpu& cpu, HandlerRun* run);
  static const u8* resolve(Cpu& cpu, u64 site);
  static const u8* resolve_indirect(Cpu& cpu, u64 rip);

 private:
  friend class BlockCompiler;
  struct Free {
    void operator()(HandlerRun* r) const { ::operator delete(r); }
  };
  const Translation* translate(Block& block, u64 rip, bool plain);
  void give_up(Block& block);
  const u8* lookup(Cpu& cpu, u64 rip, bool plain, u64& tag, const u64*& slot);
  static std::unique_ptr<HandlerRun, Free> new_run(unsigned count);
  HandlerRun* add_run(Translation& t, unsigned record, unsigned count, unsigned counted);
  static void fill(HandlerRun& run);
  const Insn* enter_checked(const Translation& t);
  void make_thunks();
  void write_perf_map(const Translation& t);

  Cpu& cpu_;
  Options options_;
  CodeArena arena_;
  u64 thunk_bytes_ = 0; // of arena_.hot; they stay for ever
  std::vector<std::unique_ptr<Translation>> translations_;
  std::vector<StepSite> steps_;
  std::vector<std::unique_ptr<HandlerRun, Free>> runs_;
  std::vector<ExitSite> exits_;
  using Enter = const Insn* (*)(u64* gpr, const u8* code);
  Enter enter_ = nullptr;
  const Insn* leave_record_ = nullptr;
  u64 resets_ = 0;
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Close> perf_map_;
  std::unique_ptr<HandlerRun, Free> one_; // step()'s
  std::unique_ptr<Checker> checker_;
};

// Handlers of the first record of a block.
const Insn* count_run(Cpu& cpu, const Insn* i);
const Insn* run_translation(Cpu& cpu, const Insn* i);

// Translations of pages changed: code tags go with them.
void forget_code_tags(Cpu& cpu);
void forget_local_code_tags(Cpu& cpu);
void forget_code_tag(Cpu& cpu, u64 linear);

} // namespace transom::soft
