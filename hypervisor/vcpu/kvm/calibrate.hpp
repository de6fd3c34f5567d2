// Is this machine's KVM one to run a guest on? Some that are nested in another emulate every instruction, and are
// slower than the software CPU by two orders of magnitude.
#pragma once

#include <string>

#include "core/result.hpp"

namespace transom {

struct KvmSpeed {
  double mips = 0;    // of a loop of two instructions: thousands where a processor runs it
  double exit_us = 0; // a port write, to user space and back
};

// Runs a tiny guest for a few milliseconds in a process of its own, which is ended should KVM_RUN not come back. An
// error says why there is no KVM, or none that works. The caller has one thread.
Result<KvmSpeed> measure_kvm();

// What cpu = "auto" means here: the answer, and why in one line.
struct CpuChoice {
  bool kvm = false;
  std::string why;
};
CpuChoice choose_cpu(const Result<KvmSpeed>& measured);

// Null string: /dev/kvm can be used; else what to do about it.
std::string kvm_obstacle();

} // namespace transom
