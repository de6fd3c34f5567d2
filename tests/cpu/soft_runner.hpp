// Runs a case on the software CPU: user mode, with pages of the same rights at the same linear addresses.
#pragma once

#include <memory>

#include "tests/cpu/case.hpp"

namespace transom::cpu_test {

class SoftRunner {
 public:
  SoftRunner();
  ~SoftRunner();
  // `stepping`: one instruction at a time, otherwise in blocks as a guest would run.
  void run(const Case& c, bool stepping, Outcome& outcome);

 private:
  struct Machine;
  std::unique_ptr<Machine> machine_;
};

} // namespace transom::cpu_test
