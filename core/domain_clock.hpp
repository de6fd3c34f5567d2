// The domain's one clock: nanoseconds since the domain started, standing still while it is paused. PIT, RTC, PM timer,
// LAPIC timers and the TSC all derive from it. The hypervisor writes {offset, running}; everyone reads.
#pragma once

#include <atomic>

#include "core/event_channel.hpp"
#include "core/types.hpp"

namespace transom {

// In shared memory. A sequence lock: odd while the hypervisor writes.
struct ClockPage {
  std::atomic<u32> sequence{0};
  std::atomic<u32> running{0};
  std::atomic<u64> offset{0};   // running: monotonic_ns() − domain time; paused: domain time
  std::atomic<i64> calendar{0}; // ns since 1970-01-01 at domain time 0
};

class DomainClock {
 public:
  DomainClock() = default;
  explicit DomainClock(ClockPage* page) : page_(page) {}

  u64 now() const {
    for (;;) {
      const u32 before = page_->sequence.load(std::memory_order_acquire);
      const u64 time = sample();
      __builtin_ia32_lfence(); // the time stamp counter was read before the sequence is looked at again
      std::atomic_thread_fence(std::memory_order_acquire);
      if ((before & 1) == 0 && before == page_->sequence.load(std::memory_order_relaxed)) return time;
      cpu_relax();
    }
  }
  i64 calendar() const { return page_->calendar.load(std::memory_order_relaxed) + static_cast<i64>(now()); }
  bool running() const { return page_->running.load(std::memory_order_relaxed) != 0; }
  // The host's monotonic time at which domain time reaches `deadline`, if the clock keeps running.
  u64 host_deadline(u64 deadline) const {
    const u64 offset = page_->offset.load(std::memory_order_relaxed);
    return offset + deadline < offset ? ~u64{0} : offset + deadline;
  }

  // Hypervisor only.
  void start() {
    write([&] {
      page_->offset.store(monotonic_ns() - sample(), std::memory_order_relaxed);
      page_->running.store(1, std::memory_order_relaxed);
    });
  }
  void stop() {
    write([&] {
      page_->offset.store(sample(), std::memory_order_relaxed);
      page_->running.store(0, std::memory_order_relaxed);
    });
  }
  void set_calendar(i64 ns_at_zero) { page_->calendar.store(ns_at_zero, std::memory_order_relaxed); }

 private:
  u64 sample() const { // valid if the sequence stands still meanwhile
    const u64 offset = page_->offset.load(std::memory_order_relaxed);
    return page_->running.load(std::memory_order_relaxed) != 0 ? monotonic_ns() - offset : offset;
  }
  // The time is taken inside: no reader can have seen a later one when the clock stops at it.
  template <class Body>
  void write(Body&& body) {
    page_->sequence.fetch_add(1, std::memory_order_acq_rel);
    std::atomic_thread_fence(std::memory_order_release); // nobody sees the new values with the old sequence
    body();
    page_->sequence.fetch_add(1, std::memory_order_release);
  }

  ClockPage* page_ = nullptr;
};

} // namespace transom
