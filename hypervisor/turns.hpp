// Turns: one vCPU at a time executes guest code, though each has a thread of its own. For a CPU whose decoded code
// other vCPUs may change only while it stands.
//
// First come, first served. Who waits and finds that the holder had its slice makes it give up; nobody looks at a clock
// while nobody waits. A vCPU that waits for a device, halts or spins (PAUSE) gives its turn up.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "core/server_page.hpp"
#include "core/types.hpp"

namespace transom {

class Turns {
 public:
  static constexpr std::chrono::microseconds SLICE{1000}, URGENT_SLICE{50};

  // `preempt` makes a vCPU leave guest code soon; called by the thread of another one.
  explicit Turns(std::function<void(u32 vcpu)> preempt) : preempt_(std::move(preempt)) {}

  // A vCPU's thread: waits for its turn. `urgent`: an interrupt waits, so it comes next and need not wait for a whole
  // slice.
  void take(u32 vcpu, bool urgent = false);
  // False: it was not this vCPU's turn.
  bool give(u32 vcpu);
  // Any thread: somebody waits.
  bool wanted() const { return waiting_.load(std::memory_order_relaxed) != 0; }

 private:
  static constexpr u32 NOBODY = ~0u;
  std::function<void(u32)> preempt_;
  std::mutex mutex_;
  std::array<std::condition_variable, MAX_VCPUS> mine_;
  std::deque<u32> queue_;
  u32 holder_ = NOBODY;
  std::chrono::steady_clock::time_point since_;
  std::atomic<u32> waiting_{0};
};

} // namespace transom
