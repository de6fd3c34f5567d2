// Which engine the CPU's tests run on: TRANSOM_TEST_CPU=jit translates every block before its first run, =check also
// compares that with the interpreter.
#pragma once

#include <cstdlib>
#include <string>

#include "hypervisor/vcpu/soft/soft_vcpu.hpp"

namespace transom::soft {

inline SoftOptions test_options(std::string model = "base") {
  const char* const given = std::getenv("TRANSOM_TEST_CPU");
  const std::string engine = given != nullptr ? given : "";
  SoftOptions o;
  o.model = std::move(model);
  o.engine = engine == "jit" ? SoftEngine::translate : engine == "check" ? SoftEngine::check : SoftEngine::interpret;
  o.threshold = 0;
  return o;
}

// Of tests that want translated code whatever the environment says; it may ask for the engine that checks it.
inline SoftEngine translating_engine() {
  return test_options().engine == SoftEngine::check ? SoftEngine::check : SoftEngine::translate;
}

} // namespace transom::soft
