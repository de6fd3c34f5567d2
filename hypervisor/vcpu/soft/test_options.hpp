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

} // namespace transom::soft
