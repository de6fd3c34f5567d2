#include "hypervisor/standstill.hpp"

namespace transom {

void Standstill::pass(u32 vcpu) {
  std::unique_lock lock(mutex_);
  const auto may_go = [&] { return !held_ && (kept_ >> vcpu & 1) == 0; };
  if (may_go()) return;
  --running_;
  changed_.notify_all();
  changed_.wait(lock, may_go);
  ++running_;
}

void Standstill::retire() {
  const std::lock_guard lock(mutex_);
  --running_;
  changed_.notify_all();
}

void Standstill::hold(bool is_vcpu) {
  std::unique_lock lock(mutex_);
  if (is_vcpu) --running_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !held_; });
  held_ = true;
  kick_();
  changed_.wait(lock, [this] { return running_ == 0; });
}

void Standstill::release(bool is_vcpu) {
  const std::lock_guard lock(mutex_);
  held_ = false;
  if (is_vcpu) ++running_;
  changed_.notify_all();
}

void Standstill::keep(u32 vcpus) {
  const std::lock_guard lock(mutex_);
  if (!ending_) kept_ |= vcpus;
}

void Standstill::let_go(u32 vcpus) {
  const std::lock_guard lock(mutex_);
  kept_ &= ~vcpus;
  changed_.notify_all();
}

void Standstill::keep_nobody() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  kept_ = 0;
  changed_.notify_all();
}

} // namespace transom
