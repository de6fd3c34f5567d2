// Event channels: how one process (or thread) tells another that there is work in shared memory.
//
// A channel is a word that both sides map, and an eventfd. The waiting side spins on whatever it waits for, then says
// "I sleep" in the word, looks once more, and sleeps on the eventfd. The notifying side pays for a system call only
// when the word says that the other one sleeps. Sequentially consistent accesses on both sides make a lost wake-up
// impossible: notify() publishes work before it reads `sleeping`; the waiter stores `sleeping` before it looks for
// work.
#pragma once

#include <atomic>
#include <sched.h>

#include "core/types.hpp"

namespace transom {

// In shared memory.
struct EventWord {
  std::atomic<u32> sleeping{0};
  std::atomic<u32> wakes{0}; // eventfd writes: how often the other side really slept
};

inline void cpu_relax() { __builtin_ia32_pause(); }

// Who spins longer than this lets others run in between: on a busy host the peer may be waiting for this very CPU.
inline constexpr u64 SPIN_ALONE_NS = 5'000;

class EventChannel {
 public:
  EventChannel() = default;
  EventChannel(EventWord* word, int eventfd) : word_(word), fd_(eventfd) {}

  // Any thread. The work must have been stored before.
  void notify() const;
  // Wakes the waiter whatever the word says, which a peer may have damaged: for the end of a domain.
  void wake() const;

  // Waiting side, one thread. True if the eventfd may be slept on: announce, then look for work once more; when work
  // was found, or after the sleep, call awake().
  void announce_sleep() const {
    word_->sleeping.store(1, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst); // whatever order ready() reads with
  }
  void awake() const;

  // Spins until ready() or for about `spin_ns`, then sleeps until ready(). `ready` is called often: make it cheap.
  template <class Ready>
  void wait(Ready&& ready, u64 spin_ns) const {
    if (spin(ready, spin_ns)) return;
    for (;;) {
      announce_sleep();
      if (ready()) break;
      sleep();
      if (ready()) break;
    }
    awake();
  }
  template <class Ready>
  static bool spin(Ready&& ready, u64 spin_ns);

  int fd() const { return fd_; }
  void sleep() const; // blocks until the eventfd is written

 private:
  EventWord* word_ = nullptr;
  int fd_ = -1;
};

u64 monotonic_ns();

template <class Ready>
bool EventChannel::spin(Ready&& ready, u64 spin_ns) {
  if (ready()) return true;
  if (spin_ns == 0) return false;
  const u64 start = monotonic_ns();
  for (u64 spun = 0; spun < spin_ns; spun = monotonic_ns() - start) {
    if (spun > SPIN_ALONE_NS) ::sched_yield();
    for (int i = 0; i < 64; ++i) {
      cpu_relax();
      if (ready()) return true;
    }
  }
  return false;
}

// An eventfd, non-blocking and close-on-exec; -1 when the system has none left.
int make_eventfd();

} // namespace transom
