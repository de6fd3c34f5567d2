// Makes all vCPUs stand between two instructions: for a reset, and for a debugger.
//
// A vCPU's thread calls pass() each time it is out of guest code; it waits there while somebody holds. Whoever holds
// may use every Vcpu. Holders take turns.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>

#include "core/types.hpp"

namespace transom {

class Standstill {
 public:
  // `kick` makes every vCPU leave guest code and call pass().
  Standstill(u32 vcpus, std::function<void()> kick) : running_(vcpus), kick_(std::move(kick)) {}

  // A vCPU's thread, between two runs of guest code.
  void pass(u32 vcpu);
  // A vCPU's thread, at its end: nobody waits for it any more.
  void retire();

  // Any thread; one that is a vCPU's counts as standing already. Returns when all stand.
  void hold(bool is_vcpu);
  void release(bool is_vcpu);

  // A debugger's, one bit a vCPU: these go on standing while nobody holds, until they are let go. While all stand, or
  // on the thread of the only vCPU that is named.
  void keep(u32 vcpus);
  void let_go(u32 vcpus);
  void keep_nobody(); // from now on: the domain ends

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  u32 running_; // vCPU threads that do not stand
  bool held_ = false;
  u32 kept_ = 0;
  bool ending_ = false;
  std::function<void()> kick_;
};

} // namespace transom
