// The registers of a vCPU as gdb counts them: features of i386:x86-64 (gdb manual, "Target Descriptions", "i386
// Features"), and one of our own for system registers.
#pragma once

#include <span>
#include <string>

#include "core/types.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::gdb {

struct CpuState {
  VcpuRegisters registers;
  u8 fx[512]; // FXSAVE image
};

u32 register_count();
u32 register_bytes(u32 number);
bool is_fpu_register(u32 number); // of CpuState::fx
// target.xml: what all of this means.
const std::string& target_description();

// `to` and `from` have register_bytes(number) bytes, little-endian.
void read_register(const CpuState& state, u32 number, std::span<u8> to);
// False: the processor could not have come to this value, or only by way of a mode change.
bool write_register(CpuState& state, u32 number, std::span<const u8> from);

bool write_pc(VcpuRegisters& r, u64 value);

inline u64 linear_pc(const VcpuRegisters& r) { // in 64-bit code the base of CS counts for nothing
  constexpr u64 LMA = 1 << 10;
  constexpr u16 ATTR_L = 0x2000;
  return (r.efer & LMA) && (r.cs.attr & ATTR_L) ? r.rip : static_cast<u32>(r.rip + r.cs.base);
}

} // namespace transom::gdb
