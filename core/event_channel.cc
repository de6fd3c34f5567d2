#include "core/event_channel.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

namespace transom {

u64 monotonic_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

int make_eventfd() { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

void EventChannel::notify() const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (word_->sleeping.load(std::memory_order_seq_cst) == 0) return;
  word_->wakes.fetch_add(1, std::memory_order_relaxed);
  wake();
}

void EventChannel::wake() const {
  const u64 one = 1;
  // Fails only when the counter is full, and then the sleeper wakes anyway.
  [[maybe_unused]] const auto written = ::write(fd_, &one, sizeof one);
}

void EventChannel::awake() const {
  word_->sleeping.store(0, std::memory_order_seq_cst);
  u64 count = 0;
  [[maybe_unused]] const auto drained = ::read(fd_, &count, sizeof count); // EAGAIN: nobody had to wake us
}

void EventChannel::sleep() const {
  pollfd p{fd_, POLLIN, 0};
  ::poll(&p, 1, -1);
  u64 count = 0;
  [[maybe_unused]] const auto drained = ::read(fd_, &count, sizeof count);
}

} // namespace transom
