// A domain in the hypervisor: board, firmware interface and vCPUs, with the two kinds of threads that move it.
//
//   vCPU thread    runs guest code; everything a vCPU waits for happens on it
//   device thread  (the caller of run()) timers of this process, effects that no vCPU waits for, the control socket
#pragma once

#include <memory>
#include <thread>

#include "firmware/machine.hpp"
#include "hypervisor/platform.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom {

class Machine {
 public:
  Machine(const DomainPlan& plan, const DomainMemory& memory);
  ~Machine();

  // Loads the firmware image.
  Result<void> prepare();
  // Waits for the servers, creates the devices placed here, builds the board, then runs the domain to its end, which
  // DomainPage names. `control`: the supervisor's socket; its end means "stop". -1: none.
  Result<void> run(int control);

 private:
  Result<void> wait_for_servers(int control);
  Result<void> power_on(); // firmware or direct boot; also after a reset
  Result<void> direct_boot(Platform& platform, Vcpu& vcpu);
  firmware::MachineDescription describe() const;

  void vcpu_thread();
  void serve_requests();
  void wait_halted();
  void system_reset();
  void publish_counters();
  void device_thread(int control);
  bool stopped() const { return memory_.page().state.load(std::memory_order_acquire) == DomainState::stopped; }
  void fail(const std::string& why);

  const DomainPlan& plan_;
  const DomainMemory& memory_;
  Board board_;
  CodePages code_;
  firmware::FwCfg fw_cfg_;
  std::unique_ptr<Platform> platform_;
  std::unique_ptr<Vcpu> vcpu_;
};

} // namespace transom
