#include "hypervisor/vcpu/soft/jit/translator.hpp"

#include <cstring>
#include <new>
#include <unistd.h>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/fpu.hpp"
#include "hypervisor/vcpu/soft/jit/checker.hpp"
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

namespace {

constexpr u64 NULL_RECORD = 1;         // step()'s and the thunks' word for "to the run loop"
constexpr unsigned MOST_ADDRESSES = 8; // translations of one block

const Insn* stop(Cpu&, const Insn* i) { return i; }

const u8* to_run_loop(Cpu& cpu) {
  cpu.translated.scratch = NULL_RECORD;
  return nullptr;
}

} // namespace

std::unique_ptr<HandlerRun, Translator::Free> Translator::new_run(unsigned count) {
  auto* const run = static_cast<HandlerRun*>(::operator new(sizeof(HandlerRun) + count * sizeof(Insn)));
  return std::unique_ptr<HandlerRun, Free>(new (run) HandlerRun{});
}

Translator::Translator(Cpu& cpu, const Options& options) : cpu_(cpu), options_(options), arena_(options.arena_bytes) {
  one_ = new_run(1);
  if (!options.perf_map.empty()) perf_map_.reset(std::fopen(options.perf_map.c_str(), "ae"));
  if (options.check) checker_ = std::make_unique<Checker>(cpu, options.sabotage);
  make_thunks();
  reset();
}

Translator::~Translator() = default;

void Translator::adopt(Block& block) const {
  block.first = block.insns()->handler;
  block.insns()->handler = count_run;
}

void Translator::drop(Block& block) {
  for (Translation* t = block.translation; t != nullptr; t = t->next) {
    // Jump to the exit that looks the address up again. Nobody is in the middle of these bytes: an instruction that
    // calls out is longer.
    u8* const entry = arena_.writable(t->entry);
    const i32 distance = static_cast<i32>(t->dead - (t->entry + 5));
    entry[0] = 0xe9;
    std::memcpy(entry + 1, &distance, 4);
  }
  block.translation = nullptr;
}

void Translator::reset() {
  for (const auto& t : translations_)
    if (Block& b = *t->block; b.translation == t.get()) {
      b.translation = nullptr;
      b.runs = 0;
      if (!b.stale) b.insns()->handler = count_run;
    }
  translations_.clear();
  steps_.clear();
  runs_.clear();
  exits_.clear();
  arena_.hot.used = thunk_bytes_;
  arena_.cold.used = 0;
  for (JumpEntry& e : cpu_.jumps) e = {JumpEntry::NONE, nullptr, 0, nullptr};
  for (ReturnSite& r : cpu_.translated.returns) r = {JumpEntry::NONE, nullptr}; // no RIP is that
  ++resets_;
}

const Insn* Translator::enter(const Translation& t) {
  return checker_ == nullptr ? enter_(cpu_.gpr, t.entry) : enter_checked(t);
}

// Other ways out have been checked when the answer is here: only a record that the interpreter is to go on with has
// not.
const Insn* Translator::enter_checked(const Translation& t) {
  checker_->begin(t, 0);
  const Insn* const to = enter_(cpu_.gpr, t.entry);
  if (checker_->running() && !checker_->end(to->ordinal - 1u, {}, 0)) return nullptr;
  return to;
}

const Translation* Translator::find(Block& block, u64 rip, bool plain) {
  unsigned addresses = 0;
  for (const Translation* t = block.translation; t != nullptr; t = t->next, ++addresses)
    if (t->rip == rip && t->plain == plain) return t;
  // Who asks for a plain one has just come from one that was not: that it exists must not depend on more runs.
  if (!plain && block.runs < options_.threshold) {
    ++block.runs;
    return nullptr;
  }
  // Shared code is at another address in every process: the oldest make room. Their entries lead to the new ones.
  if (addresses >= MOST_ADDRESSES) drop(block);
  if (const Translation* const t = translate(block, rip, plain)) return t;
  if (plain) give_up(block);
  return nullptr;
}

// From now on the interpreter runs it.
void Translator::give_up(Block& block) {
  if (block.first == nullptr) return;
  drop(block);
  block.insns()->handler = block.first;
  block.first = nullptr;
}

const Translation* Translator::translate(Block& block, u64 rip, bool plain) {
  if (arena_.left(arena_.hot) < BlockCompiler::MOST_BYTES || arena_.left(arena_.cold) < BlockCompiler::MOST_BYTES)
    reset();
  auto t = std::make_unique<Translation>(Translation{&block, rip, plain, nullptr, nullptr, 0, block.translation, {}});
  const std::size_t steps = steps_.size(), exits = exits_.size(), runs = runs_.size();
  if (!BlockCompiler(cpu_, *this, *t).compile()) {
    steps_.resize(steps);
    exits_.resize(exits);
    runs_.resize(runs);
    if (block.translation == nullptr) give_up(block);
    return nullptr;
  }
  block.translation = t.get();
  block.insns()->handler = run_translation;
  write_perf_map(*t);
  translations_.push_back(std::move(t));
  return block.translation;
}

void Translator::write_perf_map(const Translation& t) {
  if (perf_map_ == nullptr) return;
  std::fprintf(perf_map_.get(), "%llx %x guest_%llx\n", static_cast<unsigned long long>(reinterpret_cast<u64>(t.entry)),
               t.bytes, static_cast<unsigned long long>(t.rip));
  std::fflush(perf_map_.get());
}

// --- handlers

const Insn* count_run(Cpu& cpu, const Insn* i) {
  Block* const b = block_of(i);
  if (const Translation* t = cpu.translator->find(*b, cpu.gpr[REG_RIP])) {
    const Insn* const to = cpu.translator->enter(*t);
    return to == nullptr ? nullptr : go(cpu, to);
  }
  return b->first != nullptr ? b->first(cpu, i) : b->insns()->handler(cpu, i);
}

const Insn* run_translation(Cpu& cpu, const Insn* i) {
  const Translation* t = block_of(i)->translation;
  if (t->rip != cpu.gpr[REG_RIP] || t->plain) [[unlikely]]
    return count_run(cpu, i);
  const Insn* const to = cpu.translator->enter(*t);
  return to == nullptr ? nullptr : go(cpu, to);
}

// --- called by translated code

// Whatever a handler run wants of the block that it is in happens to this one.
void Translator::fill(HandlerRun& run) {
  const Block& b = *run.translation->block;
  const Insn* const from = const_cast<Block&>(b).insns() + run.record;
  for (unsigned n = 0; n < run.count; ++n) {
    run.insn[n] = from[n];
    run.insn[n].ordinal = static_cast<u8>(n + 1);
    if ((from[n].opcode & 0xfc) == 0xe0) run.insn[n].link = nullptr; // LOOP, JCXZ: a link would not look at `leave`
  }
  if (run.record == 0) run.insn[0].handler = b.first;
  Insn& end = run.insn[run.count];
  end = Insn{};
  end.handler = stop;
  end.ordinal = static_cast<u8>(run.count + 1);
  end.offset = static_cast<u16>(from[run.count - 1].offset + from[run.count - 1].length);
  run.block.gpa = b.gpa;
  run.block.second = ~u64{0};
  run.block.mode = b.mode;
  run.block.count = run.count;
  run.block.stale = false;
}

HandlerRun* Translator::add_run(Translation& t, unsigned record, unsigned count, unsigned counted) {
  auto run = new_run(count);
  run->translation = &t;
  run->record = static_cast<u16>(record);
  run->count = static_cast<u16>(count);
  run->counted = static_cast<u16>(counted);
  fill(*run);
  runs_.push_back(std::move(run));
  return runs_.back().get();
}

namespace {

// Runs records to the stopping one. False: a handler has gone to the run loop.
bool run_records(Cpu& cpu, const Insn* i) {
  cpu.leave = LEAVE_CONFINED; // whoever looks for more code finds the run loop
  do i = i->handler(cpu, i);
  while (i != nullptr && i->handler != stop);
  if (i == nullptr) return false;
  cpu.leave &= LEAVE_ASKED;
  cpu.current = nullptr;
  return true;
}

bool may_go_on(const Cpu& cpu, const Block& b, u32 generation) {
  return !b.stale && cpu.tlb_generation == generation && cpu.leave == 0 &&
         cpu.exit_flag->load(std::memory_order_relaxed) == 0 && cpu.pending_debug == 0;
}

} // namespace

u64 Translator::step(Cpu& cpu, u64 site) {
  Translator& self = *cpu.translator;
  const StepSite s = self.steps_[static_cast<u32>(site)];
  const Block& b = *s.translation->block;
  if (self.checker_ != nullptr && !self.checker_->end(s.record)) return NULL_RECORD;
  HandlerRun& one = *self.one_;
  one.translation = s.translation;
  one.record = s.record;
  one.count = 1;
  fill(one);
  if (s.branch) one.insn[0].link = nullptr; // it would not look at `leave`
  const u16 record = s.record;
  const u32 generation = cpu.tlb_generation;

  cpu.gpr[REG_RIP] = s.translation->rip;
  cpu.translated.instructions += s.counted; // in case it faults
  if (!run_records(cpu, one.insn)) return NULL_RECORD;
  bool go_on = may_go_on(cpu, b, generation);
  if (s.fp && !(cpu.fp_loaded & LOADED_MXCSR)) {
    if ((cpu.fx.mxcsr & MXCSR_MASKS) == MXCSR_MASKS)
      load_mxcsr(cpu);
    else
      go_on = false;
  }
  if (!go_on) {
    // The interpreter counts the whole block when it leaves it.
    cpu.instructions -= record;
    return reinterpret_cast<u64>(const_cast<Block&>(b).insns() + record + 1);
  }
  cpu.translated.instructions -= s.counted;
  ++cpu.translated.slow; // the translation counts it
  if (self.checker_ != nullptr) self.checker_->begin(*s.translation, record + 1u);
  return 0;
}

u64 Translator::run_handlers(Cpu& cpu, HandlerRun* run) {
  Checker* const checker = cpu.translator->checker_.get();
  if (checker != nullptr && !checker->end(run->record)) return NULL_RECORD;
  if (run->block.stale) fill(*run);
  const u32 generation = cpu.tlb_generation;
  cpu.gpr[REG_RIP] = run->translation->rip;
  cpu.translated.instructions += run->counted; // in case of a fault
  if (!run_records(cpu, run->insn)) return NULL_RECORD;
  Block& b = *run->translation->block;
  if (may_go_on(cpu, b, generation)) {
    cpu.translated.instructions -= run->counted;
    cpu.instructions += run->count;
    if (checker != nullptr) checker->begin(*run->translation, run->record + run->count);
    return 0;
  }
  cpu.instructions -= run->record; // as above
  return reinterpret_cast<u64>(b.insns() + run->record + run->count);
}

namespace {

// The page was just found executable: until its translation is flushed, code there may be entered without a walk.
const u64* set_code_tag(Cpu& cpu, u64 linear, u64 ram_page) {
  const bool user = user_mode(cpu);
  CodeTags& tags = cpu.code_tags[user];
  const u64 index = (linear >> PAGE_SHIFT) % CODE_TAGS, tag = code_tag(linear, ram_page);
  if (tags.tag[index] == tag) return &tags.tag[index];
  tags.tag[index] = tag;
  const TlbInfo& info = cpu.tlbs[user].info[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (!(info.valid && info.page == (linear & PAGE_MASK) && info.global)) {
    if (tags.locals < CODE_TAGS) tags.local[tags.locals] = static_cast<u16>(index);
    ++tags.locals;
  }
  return &tags.tag[index];
}

} // namespace

// Where code at `rip` runs: a translation's entry, or null with what the interpreter is to run in `scratch`.
const u8* Translator::lookup(Cpu& cpu, u64 rip, bool plain, u64& tag, const u64*& slot) {
  cpu.rip = rip;
  cpu.current = nullptr;
  cpu.translated.scratch = NULL_RECORD;
  if (cpu.exit_flag->load(std::memory_order_relaxed) != 0 || cpu.leave) return nullptr;
  Block* b = cpu.blocks->remembered(cpu, rip);
  if (b == nullptr || b->stale) b = cpu.blocks->find_and_remember(cpu); // may fault
  cpu.gpr[REG_RIP] = rip;
  cpu.translated.scratch = reinterpret_cast<u64>(b->insns());
  if (b->first == nullptr) return nullptr;
  const Translation* const t = find(*b, rip, plain);
  if (t == nullptr) return nullptr;
  tag = code_tag(rip, b->ram[0]);
  slot = set_code_tag(cpu, rip, b->ram[0]);
  if (b->second != ~u64{0}) set_code_tag(cpu, (rip & PAGE_MASK) + PAGE_SIZE, b->ram[1]);
  if (checker_ != nullptr) checker_->begin(*t, 0);
  return t->entry;
}

const u8* Translator::resolve(Cpu& cpu, u64 site) {
  Translator& self = *cpu.translator;
  const u64 resets = self.resets_;
  const ExitSite s = self.exits_[static_cast<u32>(site)];
  if (Checker* const checker = self.checker_.get()) {
    const unsigned executed = s.executed == ExitSite::ALL ? checker->all() : s.executed;
    if (!checker->end(executed, s.rip, executed)) return to_run_loop(cpu);
  }
  u64 tag;
  const u64* slot;
  const u8* const code = self.lookup(cpu, s.rip, s.plain, tag, slot);
  if (code == nullptr || s.jump == nullptr || self.resets_ != resets || self.checker_ != nullptr) return code;
  const i32 distance = static_cast<i32>(code - (self.arena_.executable(s.jump) + 4));
  std::memcpy(s.jump, &distance, 4);
  if (s.tag != nullptr) std::memcpy(s.tag, &tag, 8);
  return code;
}

const u8* Translator::resolve_indirect(Cpu& cpu, u64 rip) {
  u64 tag;
  const u64* slot;
  Checker* const checker = cpu.translator->checker_.get();
  if (checker != nullptr && !checker->end(checker->all(), rip, checker->all())) return to_run_loop(cpu);
  const u8* const code = cpu.translator->lookup(cpu, rip, false, tag, slot);
  if (code != nullptr && checker == nullptr) {
    const u64 key = rip ^ u64 { cpu.mode } << 48;
    cpu.jumps[rip % JUMP_ENTRIES] = {key, code, tag, slot};
  }
  return code;
}

// --- code tags

void forget_code_tags(Cpu& cpu) {
  for (CodeTags& t : cpu.code_tags) {
    std::memset(t.tag, 0, sizeof t.tag);
    t.locals = 0;
  }
}
void forget_local_code_tags(Cpu& cpu) {
  for (CodeTags& t : cpu.code_tags) {
    if (t.locals > CODE_TAGS)
      std::memset(t.tag, 0, sizeof t.tag);
    else
      for (u32 n = 0; n < t.locals; ++n) t.tag[t.local[n]] = 0;
    t.locals = 0;
  }
}
void forget_code_tag(Cpu& cpu, u64 linear) {
  for (CodeTags& t : cpu.code_tags) t.tag[(linear >> PAGE_SHIFT) % CODE_TAGS] = 0;
}

} // namespace transom::soft
