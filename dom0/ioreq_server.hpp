// One ioreq server: takes posted writes and ioreqs from its page, calls the devices, answers. Also lets the devices'
// timers, completions and received bytes happen. Knows nothing of event loops: poll() does what there is to do.
#pragma once

#include "core/device_host.hpp"
#include "core/domain_memory.hpp"

namespace transom {

class IoreqServer {
 public:
  IoreqServer(const DomainPlan& plan, const DomainMemory& memory, u32 index, std::function<void()> kick_services,
              std::function<void(u32, const std::string&, const char*)> log);

  // Creates this server's devices, then tells the hypervisor that it is ready; or why not.
  Result<void> start();

  // True if anything was done. Never blocks, unless the hypervisor leaves a full effect ring alone.
  bool poll();
  bool work_waiting() const; // cheap; for the spin loop and before a sleep
  u64 next_deadline() const { return host_.next_deadline(); }

 private:
  bool serve_posted();
  bool serve_ioreqs();
  void serve(u32 slot);
  u64 dispatch(u32 slot, const IoreqSide& side, u8 type, u8 flags, u64 addr, u64 data, u32 count, u32 size);
  void control(u32 slot, Control what);
  void respond(u32 slot, u64 value, u8 flags);
  template <class Condition>
  void wait_while(Condition&& condition); // for the hypervisor to apply effects
  void wait_for_room();
  void wait_for_effects();
  void tell_hypervisor(); // effects that no vCPU waits for

  const DomainPlan& plan_;
  const DomainMemory& memory_;
  const u32 index_;
  ServerPage& page_;
  DomainClock clock_;
  DeviceHost host_;
  bool resetting_ = false; // a reset waits in `reset_slot_` for requests in flight
  u32 reset_slot_ = 0;
};

} // namespace transom
