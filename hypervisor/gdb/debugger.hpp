// The debugger of a domain: a thread that listens for gdb, makes the vCPUs stand while gdb talks, and lets go those
// that gdb wants to run. The domain's clock stands while all vCPUs do, if their TSC does.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "core/domain_plan.hpp"
#include "hypervisor/board.hpp"
#include "hypervisor/gdb/stub.hpp"
#include "hypervisor/standstill.hpp"

namespace transom::gdb {

struct DebuggedVcpu {
  Vcpu* vcpu;   // null: not made yet
  bool started; // not waiting for a start-up IPI
};

// All of it outlives the debugger. `vcpu` is called while all stand.
struct DebuggedMachine {
  u32 vcpus;
  const DomainMemory& memory;
  Board& board;
  Standstill& standstill;
  std::function<DebuggedVcpu(u32)> vcpu;
  bool own_tsc; // of the vCPUs: it goes on while they stand, and so must the domain's clock
};

struct Listener {
  FileDescriptor socket;
  std::string path; // of a unix socket, to be removed
};
// A unix socket that only its owner may use (a dead one is replaced), or a port of the loopback interface.
Result<Listener> listen_for_client(const DebuggerPlan& plan);

Architecture architecture_of(const DebuggerPlan& plan);

class Debugger final : private Target {
 public:
  Debugger(DebuggedMachine machine, Listener listener, Architecture architecture);
  ~Debugger() override;

  // Before the threads of the vCPUs start. `wait`: they stand until a client lets them go.
  void start(bool wait);
  // The thread of vCPU `v`: its run() said RunResult::debug. It stands from its next Standstill::pass() on.
  void stopped(u32 v);
  // The domain has ended: nobody stands any more.
  void end();

 private:
  u32 vcpus() const override { return machine_.vcpus; }
  VcpuRegisters registers(u32 vcpu) override;
  void set_registers(u32 vcpu, const VcpuRegisters& registers) override;
  void fpu_state(u32 vcpu, u8 (&image)[512]) override;
  void set_fpu_state(u32 vcpu, const u8 (&image)[512]) override;
  std::optional<u64> physical(u32 vcpu, u64 linear) override;
  bool read_memory(u64 gpa, std::span<u8> to) override;
  bool write_memory(u64 gpa, std::span<const u8> from) override;
  std::string state(u32 vcpu) override;
  u32 breakpoint_limit() const override;
  void resume(std::span<const Action> actions, std::span<const u64> breakpoints) override;
  void stand() override;
  std::optional<u32> take_stop() override;
  void kill() override;

  void serve(bool wait);
  void admit();
  void hear();
  void send();
  void hang_up();

  DebuggedMachine machine_;
  Listener listener_;
  const Architecture architecture_;
  FileDescriptor wake_, client_;
  std::unique_ptr<Stub> stub_; // while there is a client
  std::string unsent_;
  std::atomic<u32> stops_{0}; // vCPUs that stopped by themselves
  std::atomic<bool> ending_{false};
  bool holding_ = false;
  std::thread thread_;
};

} // namespace transom::gdb
