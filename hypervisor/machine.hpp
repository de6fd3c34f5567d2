// A domain in the hypervisor: board, firmware interface and vCPUs, with the two kinds of threads that move it.
//
//   vCPU threads   one a vCPU: run guest code; everything a vCPU waits for happens there (vcpu_thread.cc)
//   device thread  (the caller of run()) timers of this process, effects that no vCPU waits for, the control socket
#pragma once

#include <array>
#include <memory>
#include <thread>

#include "firmware/machine.hpp"
#include "hypervisor/gdb/debugger.hpp"
#include "hypervisor/platform.hpp"
#include "hypervisor/standstill.hpp"
#include "hypervisor/turns.hpp"
#include "hypervisor/vcpu/backend.hpp"

namespace transom {

class Machine {
 public:
  Machine(const DomainPlan& plan, const DomainMemory& memory);
  ~Machine();

  // Loads the firmware image, finds who runs the vCPUs, listens for a debugger.
  Result<void> prepare();
  // Waits for the servers, creates the devices placed here, builds the board, then runs the domain to its end, which
  // DomainPage names. `control`: the supervisor's socket; its end means "stop". -1: none.
  Result<void> run(int control);

 private:
  struct Processor {
    std::unique_ptr<Platform> platform;
    std::unique_ptr<Vcpu> vcpu;          // made and used by its thread; by others only while all stand
    std::atomic<Vcpu*> running{nullptr}; // for kick()
    std::thread thread;
    bool started = false; // not waiting for a start-up IPI
    bool reset = false;   // the machine was reset while it stood
  };

  Result<void> wait_for_servers(int control);
  Result<void> direct_boot(Platform& platform, Vcpu& vcpu);
  firmware::MachineDescription describe() const;

  // --- vcpu_thread.cc; on the thread of vCPU `v`
  void vcpu_thread(u32 v);
  Result<void> power_on(u32 v); // firmware or direct boot; also after a reset
  void run_guest(u32 v);
  void take_start(u32 v);
  void serve_requests(u32 v);
  void wait_halted(u32 v);
  void system_reset(u32 v);
  void publish_counters(u32 v);

  void device_thread(int control);
  bool stopped() const { return memory_.page().state.load(std::memory_order_acquire) == DomainState::stopped; }
  void fail(const std::string& why);

  const DomainPlan& plan_;
  const DomainMemory& memory_;
  std::unique_ptr<VcpuBackend> backend_;
  std::unique_ptr<Turns> turns_; // null: vCPUs run at once
  Board board_;
  CodePages code_;
  firmware::FwCfg fw_cfg_;
  Standstill standstill_;
  std::array<Processor, MAX_VCPUS> processors_;
  std::atomic<u32> vcpus_made_{0};          // or failed to be
  std::unique_ptr<gdb::Debugger> debugger_; // null: none was asked for
};

} // namespace transom
