#include "hypervisor/standstill.hpp"

namespace transom {

void Standstill::pass() {
  std::unique_lock lock(mutex_);
  if (!held_) return;
  --running_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !held_; });
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

} // namespace transom
