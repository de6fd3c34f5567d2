// What the stub needs of the domain that it debugs. On the debugger's own thread.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "core/types.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::gdb {

enum class Action : u8 { stand, go_on, step };

class Target {
 public:
  virtual ~Target() = default;

  virtual u32 vcpus() const = 0;

  // --- only while all stand
  virtual VcpuRegisters registers(u32 vcpu) = 0;
  virtual void set_registers(u32 vcpu, const VcpuRegisters& registers) = 0;
  virtual void fpu_state(u32 vcpu, u8 (&image)[512]) = 0;
  virtual void set_fpu_state(u32 vcpu, const u8 (&image)[512]) = 0;
  virtual std::optional<u64> physical(u32 vcpu, u64 linear) = 0;
  // Within one page. False: no RAM or ROM there (devices are not asked), or ROM for write_memory().
  virtual bool read_memory(u64 gpa, std::span<u8> to) = 0;
  virtual bool write_memory(u64 gpa, std::span<const u8> from) = 0;
  virtual std::string state(u32 vcpu) = 0; // "halted" …
  virtual u32 breakpoint_limit() const { return ~u32{0}; }

  // One action a vCPU, and the breakpoints of all: linear addresses.
  virtual void resume(std::span<const Action> actions, std::span<const u64> breakpoints) = 0;

  // --- any time
  virtual void stand() = 0; // all vCPUs stand when it returns
  // A vCPU that stopped by itself since the last resume(): a breakpoint, or its step is done. Each is told once.
  virtual std::optional<u32> take_stop() = 0;
  virtual void kill() = 0; // the domain
};

} // namespace transom::gdb
