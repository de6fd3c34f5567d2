// What CPUID shows of a CPU model; everything that is the same for all of them is in cpuid.cc.
#pragma once

#include "core/types.hpp"

namespace transom::soft {

struct Model {
  const char* name;
  u32 ecx, edx;         // leaf 1
  u32 ext_ecx, ext_edx; // leaf 8000_0001h
};

} // namespace transom::soft
