// Runs a case on the software CPU: user mode, with pages of the same rights at the same linear addresses.
#pragma once

#include <memory>

#include "tests/cpu/case.hpp"

namespace transom::cpu_test {

// By which way through the software CPU.
enum class Way : u8 {
  stepped,    // one instruction at a time
  blocks,     // in blocks, as a guest would run
  translated, // every block becomes code of the host before its first run
  warm,       // ditto, but another state has run that code before, and linked it
};

class SoftRunner {
 public:
  SoftRunner();
  ~SoftRunner();
  void run(const Case& c, Way way, Outcome& outcome);

 private:
  struct Machine;
  std::unique_ptr<Machine> interpreting_, translating_;
};

} // namespace transom::cpu_test
