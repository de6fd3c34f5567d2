#include "hypervisor/turns.hpp"

namespace transom {

void Turns::take(u32 vcpu, bool urgent) {
  std::unique_lock lock(mutex_);
  if (holder_ == NOBODY && queue_.empty()) {
    holder_ = vcpu;
    since_ = std::chrono::steady_clock::now();
    return;
  }
  if (urgent)
    queue_.push_front(vcpu);
  else
    queue_.push_back(vcpu);
  waiting_.fetch_add(1, std::memory_order_relaxed);
  const auto slice = urgent ? URGENT_SLICE : SLICE;
  auto patience = since_ + slice;
  while (holder_ != vcpu) {
    if (mine_[vcpu].wait_until(lock, patience) == std::cv_status::no_timeout || holder_ == vcpu) continue;
    const auto now = std::chrono::steady_clock::now();
    if (queue_.front() == vcpu && now >= since_ + slice) preempt_(holder_);
    patience = now + slice;
  }
  waiting_.fetch_sub(1, std::memory_order_relaxed);
}

bool Turns::give(u32 vcpu) {
  const std::lock_guard lock(mutex_);
  if (holder_ != vcpu) return false;
  holder_ = NOBODY;
  if (queue_.empty()) return true;
  holder_ = queue_.front();
  queue_.pop_front();
  since_ = std::chrono::steady_clock::now();
  mine_[holder_].notify_one();
  return true;
}

} // namespace transom
