// What CPUID shows of a CPU model; everything that is the same for all of them is in cpuid.cc.
#pragma once

#include <string_view>

#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::soft {

struct Model {
  const char* name;
  u32 ecx, edx;         // leaf 1
  u32 ext_ecx, ext_edx; // leaf 8000_0001h
};

const Model* find_model(std::string_view name); // null: no such model
CpuidResult cpuid(const Model& model, VcpuPlatform& platform, u32 leaf, u32 subleaf);

} // namespace transom::soft
