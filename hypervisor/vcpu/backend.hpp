// Who runs the vCPUs of a domain: the software CPU, or KVM.
#pragma once

#include <memory>

#include "core/result.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom {

class InterruptSink;

class VcpuBackend {
 public:
  virtual ~VcpuBackend() = default;

  // Once, after the firmware was loaded and before create().
  virtual Result<void> open() { return {}; }

  // On the thread that will run it. `exit_flag` lives in shared memory and outlives the vCPU.
  virtual Result<std::unique_ptr<Vcpu>> create(u32 number, VcpuPlatform& platform, std::atomic<u32>& exit_flag) = 0;

  // What PhysPage answers has changed. Any thread, before Vcpu::memory_map_changed(), while all vCPUs stand.
  virtual void memory_map_changed() {}

  // After open(): its own local APICs, to which HLT, INIT and start-up belong too, so that every vCPU runs from the
  // beginning. Null: they are the board's.
  virtual InterruptSink* interrupt_sink() { return nullptr; }

  // True: one vCPU at a time executes guest code (hypervisor/turns.hpp).
  virtual bool takes_turns() const = 0;
};

} // namespace transom
