// The registers of a vCPU as gdb counts them: features of i386 and i386:x86-64 (gdb manual, "Target Descriptions",
// "i386 Features"), and one of our own for system registers.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/types.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::gdb {

struct CpuState {
  VcpuRegisters registers;
  u8 fx[512]; // FXSAVE image
};

// What gdb is told that the processor is: it reads registers and disassembles accordingly, and takes no symbols of
// another one.
enum class Architecture : u8 { x86_64, i386, i8086 };

class RegisterSet {
 public:
  explicit RegisterSet(Architecture architecture);

  u32 count() const { return static_cast<u32>(registers_.size()); }
  u32 bytes(u32 number) const { return registers_[number].bits / 8; }
  bool is_fpu(u32 number) const;                                  // of CpuState::fx
  const std::string& description() const { return description_; } // target.xml

  // `to` and `from` have bytes(number) bytes, little-endian.
  void read(const CpuState& state, u32 number, std::span<u8> to) const;
  // False: the processor could not have come to this value, or only by way of a mode change.
  bool write(CpuState& state, u32 number, std::span<const u8> from) const;

 private:
  enum class Bank : u8 { gpr, rip, rflags, selector, st, fpu_control, xmm, mxcsr, base, system };
  struct Register {
    const char* feature;
    std::string name;
    u32 bits;
    const char* type;
    const char* group; // null: gdb's own
    Bank bank;
    u8 index; // within the bank
  };
  void add_core(bool wide);
  void add_fpu(bool wide);
  void add_system(bool wide);
  std::string describe(const char* name) const;

  std::vector<Register> registers_;
  std::string description_;
};

bool write_pc(VcpuRegisters& r, u64 value);

inline u64 linear_pc(const VcpuRegisters& r) { // in 64-bit code the base of CS counts for nothing
  constexpr u64 LMA = 1 << 10;
  constexpr u16 ATTR_L = 0x2000;
  return (r.efer & LMA) && (r.cs.attr & ATTR_L) ? r.rip : static_cast<u32>(r.rip + r.cs.base);
}

} // namespace transom::gdb
