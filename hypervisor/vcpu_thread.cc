// What a vCPU's thread does between two runs of guest code.
#include <poll.h>

#include "hypervisor/machine.hpp"
#include "hypervisor/poll_timeout.hpp"

namespace transom {

// A halted vCPU looks this long for an interrupt before it sleeps: a completion from Dom0 is often that near.
constexpr u64 HALT_SPIN_NS = 20'000;

void Machine::vcpu_thread(u32 v) {
  Processor& self = processors_[v];
  auto made = backend_->create(v, *self.platform, memory_.page().vcpus[v].exit_flag);
  if (made) {
    self.vcpu = std::move(*made);
    self.running.store(self.vcpu.get(), std::memory_order_release);
  }
  vcpus_made_.fetch_add(1);
  vcpus_made_.notify_all();
  // A start-up IPI must find its processor.
  for (u32 made_by_now; (made_by_now = vcpus_made_.load()) != plan_.cpus;) vcpus_made_.wait(made_by_now);
  if (made) {
    auto on = power_on(v); // the first one makes port writes, so it already belongs to this thread
    if (!on) made = tl::unexpected(on.error());
  }
  if (!made) fail(made.error().text);
  if (v == 0 && made) memory_.page().state.store(DomainState::running, std::memory_order_release);
  standstill_.pass(v); // a debugger may want to be there first
  while (!stopped()) {
    if (self.started)
      run_guest(v);
    else
      wait_halted(v);
    if (board_.start_pending(v)) take_start(v);
    serve_requests(v);
    standstill_.pass(v);
    if (std::exchange(self.reset, false)) {
      if (auto on = power_on(v); !on) fail(on.error().text);
    }
  }
  if (self.vcpu) publish_counters(v);
  standstill_.retire();
}

Result<void> Machine::power_on(u32 v) {
  Processor& self = processors_[v];
  self.vcpu->memory_map_changed();
  self.vcpu->reset();
  self.started = v == 0 || !board_.has_apics(); // the others wait for a start-up IPI, here or in the backend
  if (v != 0) return {};
  fw_cfg_.reset();
  if (!plan_.boot.kernel.empty()) return direct_boot(*self.platform, *self.vcpu);
  return {};
}

void Machine::run_guest(u32 v) {
  if (turns_) turns_->take(v, board_.interrupt_pending(v));
  const RunResult result = processors_[v].vcpu->run();
  if (turns_) turns_->give(v);
  switch (result) {
    case RunResult::exited: break;
    case RunResult::debug:
      if (debugger_) debugger_->stopped(v);
      break;
    case RunResult::halted: wait_halted(v); break;
    case RunResult::failed: fail(processors_[v].vcpu->failure()); break;
    case RunResult::shutdown: {
      const auto held = board_.lock();
      if (plan_.reboot_exits)
        board_.stop(StopReason::triple_fault);
      else
        board_.request(REQUEST_RESET); // a triple fault pulls RESET# on a PC
      break;
    }
  }
}

// INIT, and the start-up IPI that ends its wait [SDM 3A 8.4].
void Machine::take_start(u32 v) {
  Processor& self = processors_[v];
  auto held = board_.lock();
  const StartEvents events = board_.take_start(v);
  held.unlock();
  if (events.init) {
    self.vcpu->init();
    self.started = v == 0;
  }
  if (events.vector >= 0) {
    self.vcpu->startup(static_cast<u8>(events.vector));
    self.started = true;
  }
}

void Machine::serve_requests(u32 v) {
  const u32 requests = board_.take_requests(v);
  if ((requests & REQUEST_RESET) != 0 && !stopped()) return system_reset(v);
  if ((requests & REQUEST_MAP_CHANGED) == 0 || stopped()) return;
  standstill_.hold(true); // the backend's map changes under all of them
  backend_->memory_map_changed();
  processors_[v].vcpu->memory_map_changed();
  standstill_.release(true);
}

// HLT, or the wait for a start-up IPI: until an interrupt, a request or the end. The thread also serves timers of this
// process, which spares a wake-up of the device thread and one back.
void Machine::wait_halted(u32 v) {
  const bool started = processors_[v].started;
  if (started) processors_[v].platform->count(ExitCause::halt);
  const EventChannel event = memory_.vcpu_event(v);
  auto& flag = memory_.page().vcpus[v].exit_flag;
  const auto woken = [&] {
    return flag.load(std::memory_order_seq_cst) != 0 || (started && board_.interrupt_pending(v)) || stopped();
  };
  publish_counters(v);
  while (!EventChannel::spin(woken, started ? HALT_SPIN_NS : 0)) {
    if (board_.next_deadline(v) <= memory_.clock().now()) {
      const auto held = board_.lock();
      board_.expire();
      continue;
    }
    event.announce_sleep();
    if (!woken()) {
      pollfd fd{event.fd(), POLLIN, 0};
      const timespec timeout = poll_timeout(memory_.clock(), board_.next_deadline(v));
      ::ppoll(&fd, 1, &timeout, nullptr);
    }
    event.awake();
  }
  if (!started) flag.store(0, std::memory_order_seq_cst); // nobody runs who would; what it asks for is looked at next
}

// One order: the vCPUs stand → hosts cancel and drain, then reset their devices → this process's devices → board →
// start.
void Machine::system_reset(u32 v) {
  if (plan_.reboot_exits) {
    const auto held = board_.lock();
    return board_.stop(StopReason::reset);
  }
  standstill_.hold(true);
  for (u32 s = 0; s < board_.server_count(); ++s) {
    board_.link(s).flush_posted();
    ServerLink::Request reset;
    reset.type = IoreqType::control;
    reset.addr = static_cast<u64>(Control::reset);
    board_.link(s).call(v, reset, memory_.vcpu_event(v));
  }
  {
    const auto held = board_.lock();
    board_.local().cancel_all();
  }
  while (board_.local().requests_in_flight() && !stopped()) std::this_thread::yield();
  {
    const auto held = board_.lock();
    board_.local().deliver_completions(); // all stale: the generation moved on
    board_.settle();
    board_.local().reset_all();
    board_.reset();
  }
  backend_->memory_map_changed();
  for (u32 other = 0; other < plan_.cpus; ++other) {
    if (other == 0 || board_.has_apics())
      processors_[other].reset = true;
    else
      processors_[other].vcpu->reset(); // now: the first one's IPIs go straight to it
  }
  standstill_.release(true);
}

void Machine::publish_counters(u32 v) {
  const VcpuCounters& from = processors_[v].vcpu->counters();
  VcpuShared& to = memory_.page().vcpus[v];
  const auto copy = [](const std::atomic<u64>& source, std::atomic<u64>& target) {
    target.store(source.load(std::memory_order_relaxed), std::memory_order_relaxed);
  };
  copy(from.instructions, to.instructions);
  copy(from.translated, to.translated);
  copy(from.exceptions, to.exceptions);
  copy(from.interrupts, to.interrupts);
  copy(from.tlb_misses, to.tlb_misses);
  copy(from.blocks_decoded, to.blocks_decoded);
  copy(from.blocks_invalidated, to.blocks_invalidated);
}

} // namespace transom
