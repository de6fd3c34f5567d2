// A process's view of its domain: every shared memory mapped, every event channel bound. Made from the descriptors that
// came with the plan.
#pragma once

#include <vector>

#include "core/domain_page.hpp"
#include "core/domain_plan.hpp"
#include "core/guest_memory.hpp"
#include "core/shared_memory.hpp"

namespace transom {

class DomainMemory {
 public:
  static Result<DomainMemory> attach(const DomainPlan& plan, DomainDescriptors descriptors);

  GuestMemory ram() const { return GuestMemory(ram_.data(), ram_bytes_); }
  DomainPage& page() const { return *reinterpret_cast<DomainPage*>(domain_.data()); }
  CodePages code() const { return page().code_pages(ram().page_span(), vcpu_count()); }
  DomainClock clock() const { return DomainClock(&page().clock); }
  u32 vcpu_count() const { return static_cast<u32>(fds_.vcpu_events.size()); }
  u32 server_count() const { return static_cast<u32>(servers_.size()); }
  ServerPage& server(u32 index) const {
    return *reinterpret_cast<ServerPage*>(index == SERVER_HYPERVISOR ? hypervisor_page_.data()
                                                                     : servers_[index].data());
  }

  EventChannel vcpu_event(u32 vcpu) const { return {&page().vcpus[vcpu].event, fds_.vcpu_events[vcpu].get()}; }
  EventChannel device_thread_event() const { return {&page().device_thread, fds_.device_thread_event.get()}; }
  EventChannel doorbell(u32 server) const { return {&page().doorbells[server].event, fds_.doorbells[server].get()}; }
  // The doorbell of whoever hosts devices for `server`.
  EventChannel host_event(u32 server) const {
    return server == SERVER_HYPERVISOR ? device_thread_event() : doorbell(server);
  }

 private:
  DomainDescriptors fds_;
  SharedMemory ram_, domain_, hypervisor_page_;
  std::vector<SharedMemory> servers_;
  u64 ram_bytes_ = 0;
};

} // namespace transom
