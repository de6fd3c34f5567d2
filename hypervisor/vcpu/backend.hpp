// Who runs the vCPUs of a domain: the software CPU, or KVM.
#pragma once

#include <memory>

#include "core/result.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom {

class VcpuBackend {
 public:
  virtual ~VcpuBackend() = default;

  // On the thread that will run it. `exit_flag` lives in shared memory and outlives the vCPU.
  virtual Result<std::unique_ptr<Vcpu>> create(u32 number, VcpuPlatform& platform, std::atomic<u32>& exit_flag) = 0;

  // Any thread, once for each change and before Vcpu::memory_map_changed(): what PhysPage answers has changed.
  virtual void memory_map_changed() {}

  // True: one vCPU at a time executes guest code (hypervisor/turns.hpp).
  virtual bool takes_turns() const = 0;
};

} // namespace transom
