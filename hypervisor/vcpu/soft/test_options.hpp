// Which engine the CPU's tests run on: TRANSOM_TEST_CPU=jit translates every block before its first run.
#pragma once

#include <cstdlib>
#include <string>

#include "hypervisor/vcpu/soft/soft_vcpu.hpp"

namespace transom::soft {

inline SoftOptions test_options(std::string model = "base") {
  const char* const engine = std::getenv("TRANSOM_TEST_CPU");
  SoftOptions o;
  o.model = std::move(model);
  o.translate = engine != nullptr && std::string(engine) == "jit";
  o.threshold = 0;
  return o;
}

} // namespace transom::soft
