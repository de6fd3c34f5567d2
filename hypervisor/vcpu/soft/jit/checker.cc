#include "hypervisor/vcpu/soft/jit/checker.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "hypervisor/vcpu/soft/decode.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/fpu.hpp"

namespace transom::soft {

namespace {

const Insn* stop(Cpu&, const Insn* i) { return i; }

void run_to_stop(Cpu& cpu, const Insn* i) {
  while (i != nullptr && i->handler != stop) i = i->handler(cpu, i);
  if (i != nullptr) cpu.rip = mask_rip(cpu, cpu.gpr[REG_RIP] + i->offset);
}

Insn stop_record(unsigned offset, unsigned ordinal) {
  Insn i{};
  i.handler = stop;
  i.offset = static_cast<u16>(offset);
  i.ordinal = static_cast<u8>(ordinal);
  return i;
}

Block* block_of_copy(const Translation& t) { return reinterpret_cast<Block*>(const_cast<u64*>(t.records.data())); }

bool overlap(const u8* a, u64 a_size, const u8* b, u64 b_size) { return a < b + b_size && b < a + a_size; }

} // namespace

void Checker::prepare(Translation& t, std::span<Decoded> instructions) {
  const Block& b = *t.block;
  t.records.resize((sizeof(Block) + (instructions.size() + 1) * sizeof(Insn)) / sizeof(u64));
  Block* const copy =
      new (t.records.data()) Block{b.gpa, b.second, nullptr, {}, {b.ram[0], b.ram[1]}, b.mode, b.bytes, b.count, false};
  Insn* const insns = copy->insns();
  unsigned offset = 0;
  for (unsigned n = 0; n < instructions.size(); ++n) {
    const Decoded& d = instructions[n];
    if (d.selection.handler != nullptr)
      place_record(cpu_, d, insns[n], b.gpa, offset, n + 1);
    else
      insns[n] = stop_record(offset, n + 1); // #UD: translated code stops before it
    offset += d.length;
  }
  insns[instructions.size()] = stop_record(offset, static_cast<unsigned>(instructions.size()) + 1);
  if (sabotage_)
    for (Decoded& d : instructions) sabotage_(d);
}

std::span<const JournalEntry> Checker::journal() const {
  return {cpu_.translated.journal, cpu_.translated.journal_used / sizeof(JournalEntry)};
}

// Neither engine runs x87 instructions here (they have no templates), so of the host's control words only MXCSR counts.
void Checker::capture(CheckedState& state) {
  if (cpu_.fp_loaded & LOADED_MXCSR) cpu_.fx.mxcsr = host_mxcsr();
  std::memcpy(state.gpr, cpu_.gpr, sizeof state.gpr);
  state.rip = cpu_.rip;
  state.rflags = get_flags(cpu_);
  state.fx = cpu_.fx;
}

void Checker::restore(const CheckedState& state) {
  std::memcpy(cpu_.gpr, state.gpr, sizeof state.gpr);
  cpu_.rflags = state.rflags;
  set_arithmetic_flags(cpu_, state.rflags);
  cpu_.fx = state.fx;
  cpu_.fp_loaded = fp_loaded_;
  set_host_mxcsr(fp_loaded_ & LOADED_MXCSR ? state.fx.mxcsr : HOST_MXCSR);
}

void Checker::begin(const Translation& t, unsigned record) {
  running_ = &t;
  run_.first = record;
  capture(run_.before);
  fp_loaded_ = cpu_.fp_loaded;
  cpu_.translated.journal_used = 0;
  if (record == 0) counted_ = instructions_executed(cpu_);
}

bool Checker::end(unsigned end, std::optional<u64> rip, std::optional<u64> counted) {
  run_.translation = std::exchange(running_, nullptr);
  run_.end = end;
  run_.complaints.clear();
  capture(run_.translated);
  run_.translated.rip =
      rip ? *rip : mask_rip(cpu_, run_.translation->rip + block_of_copy(*run_.translation)->insns()[end].offset);
  ++runs_;
  const u64 executed = cpu_.instructions;
  if (counted && instructions_executed(cpu_) - counted_ != *counted) run_.complaints.push_back("count of instructions");
  take_back();
  restore(run_.before);
  interpret();
  cpu_.instructions = executed; // translated code has counted them, or will
  compare(run_);
  if (run_.complaints.empty()) return true;
  if (raced()) {
    ++races_;
    return true;
  }
  difference_ = describe(cpu_, run_, journal());
  return false;
}

void Checker::take_back() {
  run_.stores.clear();
  for (const JournalEntry& e : journal()) {
    if (!e.store()) continue;
    CheckedStore& s = run_.stores.emplace_back(CheckedStore{e.at, e.size(), {}, {}, {}});
    std::memcpy(s.before, e.before, s.size);
    std::memcpy(s.translated, s.at, s.size);
  }
  for (std::size_t n = run_.stores.size(); n-- > 0;)
    std::memcpy(run_.stores[n].at, run_.stores[n].before, run_.stores[n].size);
}

void Checker::interpret() {
  Insn* const insns = block_of_copy(*run_.translation)->insns();
  const Handler kept = std::exchange(insns[run_.end].handler, stop);
  jmp_buf outside;
  std::memcpy(&outside, &cpu_.fault_env, sizeof outside);
  TlbEntry* const tlb = cpu_.tlb;
  cpu_.gpr[REG_RIP] = run_.translation->rip;
  cpu_.leave = LEAVE_CONFINED; // whoever looks for more code stops there
  cpu_.tlb = cpu_.slow_tlb;    // so that every store is logged
  cpu_.store_log = &log_;
  log_.count = 0;
  raised_ = {};
  interpret_guarded(insns + run_.first);
  cpu_.store_log = nullptr;
  cpu_.tlb = tlb;
  cpu_.leave = 0;
  cpu_.current = nullptr;
  std::memcpy(&cpu_.fault_env, &outside, sizeof outside);
  insns[run_.end].handler = kept;
  capture(run_.interpreted);
}

// Translated code has got through: an exception of the interpreter is a difference too.
void Checker::interpret_guarded(const Insn* i) {
  if (_setjmp(cpu_.fault_env) != 0) {
    raised_ = std::exchange(cpu_.event, {});
    return;
  }
  run_to_stop(cpu_, i);
}

void Checker::compare(CheckedRun& run) {
  static constexpr const char* NAMES[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  const auto complain = [&](bool same, const char* what) {
    if (!same) run.complaints.push_back(what);
  };
  const CheckedState &a = run.translated, &b = run.interpreted;
  for (unsigned n = 0; n < 16; ++n) complain(a.gpr[n] == b.gpr[n], NAMES[n]);
  complain(a.rip == b.rip, "rip");
  complain(a.rflags == b.rflags, "rflags");
  complain(std::memcmp(&a.fx, &b.fx, sizeof a.fx) == 0, "fx");
  if (raised_.kind != EventKind::none)
    run.complaints.push_back("exception " + std::to_string(raised_.vector) + " of the interpreter");
  compare_memory(run);
}

void Checker::compare_memory(CheckedRun& run) {
  bool same = true;
  for (CheckedStore& s : run.stores) {
    std::memcpy(s.interpreted, s.at, s.size);
    same &= std::memcmp(s.translated, s.interpreted, s.size) == 0;
  }
  if (!same) run.complaints.push_back("memory");
  // Nor may the interpreter have stored where translated code has not.
  for (u32 n = 0; n < log_.count; ++n) {
    const StoreLog::Entry& e = log_.entry[n];
    const bool known = std::any_of(run.stores.begin(), run.stores.end(), [&](const CheckedStore& s) {
      return s.at <= e.at && e.at + e.width <= s.at + s.size;
    });
    if (!known) {
      run.complaints.push_back("a store of the interpreter alone");
      CheckedStore& s =
          run.stores.emplace_back(CheckedStore{const_cast<u8*>(e.at), std::min(e.width, 16u), {}, {}, {}});
      std::memcpy(s.interpreted, s.at, s.size);
    }
  }
}

// A device may have written to memory between the two runs. Then something that translated code has read and nobody
// here has stored to is another value now.
bool Checker::raced() const {
  const auto stored_to = [&](const JournalEntry& e) {
    return std::any_of(run_.stores.begin(), run_.stores.end(),
                       [&](const CheckedStore& s) { return overlap(e.at, e.size(), s.at, s.size); });
  };
  const auto all = journal();
  return std::any_of(all.begin(), all.end(), [&](const JournalEntry& e) {
    return !e.store() && !stored_to(e) && std::memcmp(e.at, e.before, e.size()) != 0;
  });
}

} // namespace transom::soft
