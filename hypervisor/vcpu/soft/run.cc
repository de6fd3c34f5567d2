// The run loop: between instructions. Exceptions come back here by longjmp; interrupts, halts and single steps are
// decided here.
#include <algorithm>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"

namespace transom {

using namespace soft;

namespace {

constexpr u64 DR6_BS = 1 << 14;

void add(std::atomic<u64>& counter, u64 n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

void run_from(Cpu& cpu, const Insn* i) {
  while (i != nullptr) i = i->handler(cpu, i);
}

u64 linear_rip(const Cpu& cpu) {
  const u64 linear = cpu.rip + cpu.code_base;
  return code64(cpu) ? linear : static_cast<u32>(linear);
}

// Instruction breakpoints: DR7 type 0 at this linear address (SDM 3B 17.2.4).
u64 breakpoint_hits(const Cpu& cpu) {
  u64 hits = 0;
  for (unsigned n = 0; n < 4; ++n)
    if ((cpu.dr[7] >> (2 * n) & 3) && (cpu.dr[7] >> (16 + 4 * n) & 3) == 0 && cpu.dr[n] == cpu.rip + cpu.code_base)
      hits |= u64{1} << n;
  return hits;
}

// INT n and friends clear TF on their way in and do not trap.
bool entered_handler(const Cpu& cpu, u8 opcode) {
  const bool software_interrupt = opcode == 0xcc || opcode == 0xcd || opcode == 0xce || opcode == 0xf1;
  return software_interrupt && !(cpu.rflags & FLAG_TF);
}

void step_one(Cpu& cpu) {
  if ((cpu.dr[7] & 0xff) && !(cpu.rflags & FLAG_RF)) {
    if (const u64 hits = breakpoint_hits(cpu)) {
      cpu.dr[6] |= hits;
      raise(cpu, DB);
    }
  }
  const bool trap = cpu.rflags & FLAG_TF;
  cpu.rflags &= ~FLAG_RF;
  cpu.interrupt_shadow = cpu.debug_shadow = false;
  cpu.mode |= MODE_STEP;
  Block* const b = cpu.blocks->find(cpu);
  const u8 opcode = b->insns()->opcode;
  cpu.gpr[REG_RIP] = cpu.rip;
  cpu.leave = LEAVE_ASKED;
  run_from(cpu, b->insns());
  if (trap && !entered_handler(cpu, opcode) && !cpu.debug_shadow) cpu.pending_debug |= DR6_BS;
}

} // namespace

bool SoftVcpu::stops_here() {
  return std::binary_search(debug_.breakpoints.begin(), debug_.breakpoints.end(), linear_rip(*cpu_));
}

// What has to be looked at before the next instruction. False: run() returns result_.
bool SoftVcpu::take_events() {
  Cpu& cpu = *cpu_;
  // A debugger's step is over its instruction, not into a handler; a halted CPU has no other way on.
  const bool held = stepping_ || past_breakpoint_ || (debug_.step && !cpu.halted);
  const u32 asked = stepping_ ? 0 : cpu.exit_flag->exchange(0, std::memory_order_seq_cst);
  blocks_->harvest(cpu);
  if (asked & LEAVE) {
    result_ = RunResult::exited;
    return false;
  }
  if (cpu.pending_debug != 0 && !(cpu.interrupt_shadow && cpu.debug_shadow)) {
    cpu.dr[6] |= cpu.pending_debug;
    cpu.pending_debug = 0;
    cpu.halted = false;
    raise_event(cpu, {EventKind::trap, DB, false, 0});
  }
  if (held) return !cpu.halted || (result_ = RunResult::halted, false);
  if (!cpu.interrupt_shadow) {
    if (!cpu.nmi_blocked && cpu.platform->nmi_take()) {
      cpu.halted = false;
      stepped_ = true;
      raise_event(cpu, {EventKind::nmi, NMI, false, 0});
    }
    if ((cpu.rflags & FLAG_IF) && cpu.platform->interrupt_pending()) {
      const int vector = cpu.platform->interrupt_acknowledge();
      if (vector >= 0) {
        cpu.halted = false;
        stepped_ = true;
        add(cpu.counters.interrupts, 1);
        raise_event(cpu, {EventKind::external, static_cast<u8>(vector), false, 0});
      }
    }
  }
  if (!cpu.halted) {
    const bool pending = cpu.platform->interrupt_pending();
    cpu.quiet = !pending && !cpu.interrupt_shadow && !cpu.nmi_blocked;
    return true;
  }
  add(cpu.counters.halts, 1);
  result_ = RunResult::halted;
  return false;
}

RunResult SoftVcpu::dispatch_loop() {
  Cpu& cpu = *cpu_;
  last_event_ = {};
  _setjmp(cpu.fault_env); // raised events arrive here, in cpu.event
  for (;;) {
    unload_fp(cpu);
    cpu.counters.instructions.store(instructions_executed(cpu), std::memory_order_relaxed);
    cpu.counters.translated.store(cpu.translated.instructions, std::memory_order_relaxed);
    if (differs()) return RunResult::failed;
    if (cpu.shutdown) return RunResult::shutdown;
    if (cpu.event.kind != EventKind::none) {
      past_breakpoint_ = false;
      if (cpu.event.kind == EventKind::fault) add(cpu.counters.exceptions, 1);
      last_event_ = {true, cpu.event.vector, cpu.event.has_error, cpu.event.error};
      if (stop_at_exceptions_) {
        cpu.event = cpu.delivering = {};
        update_mode(cpu);
        return RunResult::exited;
      }
      deliver(cpu);
      continue;
    }
    update_mode(cpu);
    if (stepping_ && steps_left_ == 0) return RunResult::exited;
    if (debug_.step && stepped_) return RunResult::debug;
    if (!take_events()) return result_;
    cpu.leave = 0;
    const bool debugged = debug_.step || past_breakpoint_;
    if (stepping_ || debugged || cpu.at_breakpoint || cpu.interrupt_shadow || (cpu.mode & MODE_STEP) ||
        (cpu.rflags & FLAG_RF)) {
      cpu.at_breakpoint = false;
      if (!debugged && stops_here()) return RunResult::debug;
      if (steps_left_ > 0) --steps_left_;
      past_breakpoint_ = false;
      stepped_ = true;
      step_one(cpu);
    } else {
      run_from(cpu, enter(cpu));
    }
  }
}

RunResult SoftVcpu::run() {
  const Cpu& cpu = *cpu_;
  stepping_ = stop_at_exceptions_ = stepped_ = false;
  past_breakpoint_ = !cpu.halted && stopped_at_ == linear_rip(cpu);
  const RunResult result = dispatch_loop();
  stopped_at_.reset();
  if (result == RunResult::debug || past_breakpoint_) stopped_at_ = linear_rip(cpu);
  return result;
}

RunResult SoftVcpu::run_to_exception() {
  stepping_ = past_breakpoint_ = false;
  stop_at_exceptions_ = true;
  return dispatch_loop();
}

RunResult SoftVcpu::run_instructions(u64 count, bool stop_at_exceptions) {
  stepping_ = true;
  past_breakpoint_ = false;
  stop_at_exceptions_ = stop_at_exceptions;
  steps_left_ = count;
  return dispatch_loop();
}

} // namespace transom
