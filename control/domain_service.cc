#include "control/domain_service.hpp"

namespace transom::control {

namespace {

using Named = std::pair<const char*, const std::atomic<u64>*>;

template <class List>
void fill(List list, const std::vector<Named>& counters) {
  for (u32 i = 0; i < counters.size(); ++i) {
    list[i].setName(counters[i].first);
    list[i].setValue(counters[i].second->load(std::memory_order_relaxed));
  }
}

const char* state_name(DomainState state) {
  switch (state) {
    case DomainState::starting: return "starting";
    case DomainState::running: return "running";
    case DomainState::paused: return "paused";
    default: return "stopped";
  }
}

void fill_vcpu(schema::Vcpu::Builder to, const VcpuShared& from) {
  std::vector<Named> exits;
  for (u32 c = 0; c < EXIT_CAUSES; ++c) exits.emplace_back(EXIT_CAUSE_NAMES[c], &from.exits[c]);
  const std::vector<Named> execution = {{"instructions", &from.instructions},
                                        {"translated", &from.translated},
                                        {"exceptions", &from.exceptions},
                                        {"interrupts", &from.interrupts},
                                        {"tlb_misses", &from.tlb_misses},
                                        {"blocks_decoded", &from.blocks_decoded},
                                        {"blocks_invalidated", &from.blocks_invalidated}};
  fill(to.initExits(static_cast<u32>(exits.size())), exits);
  fill(to.initExecution(static_cast<u32>(execution.size())), execution);
}

void fill_device(schema::Device::Builder to, const DevicePlan& plan, const std::string& place, const DeviceSlot& slot) {
  to.setName(plan.name);
  to.setPlugin(plan.plugin);
  to.setId(plan.id);
  to.setPlace(place);
  to.setQuarantined(slot.quarantined.load(std::memory_order_relaxed) != 0);
  const std::vector<Named> counters = {
      {"ioreqs", &slot.counters.ioreqs}, {"posted", &slot.counters.posted},
      {"local", &slot.counters.local},   {"runs", &slot.counters.runs},
      {"events", &slot.counters.events}, {"guest_errors", &slot.counters.guest_errors}};
  fill(to.initCounters(static_cast<u32>(counters.size())), counters);
}

} // namespace

void DomainService::describe(schema::Info::Builder info) const {
  const DomainPage& page = memory_.page();
  info.setName(plan_.name);
  info.setState(state_name(page.state.load(std::memory_order_relaxed)));
  info.setCpu(plan_.cpu);
  info.setCpuModel(plan_.cpu_model);
  info.setCpus(plan_.cpus);
  info.setMemory(plan_.memory);
  info.setUptimeNs(memory_.clock().now());
  auto vcpus = info.initVcpus(plan_.cpus);
  for (u32 v = 0; v < plan_.cpus; ++v) fill_vcpu(vcpus[v], page.vcpus[v]);
  auto devices = info.initDevices(static_cast<u32>(plan_.devices.size()));
  std::vector<u32> rank(plan_.servers.size() + 1, 0);
  for (u32 d = 0; d < plan_.devices.size(); ++d) {
    const DevicePlan& device = plan_.devices[d];
    const bool local = device.server == SERVER_HYPERVISOR;
    const u32 place = rank[local ? plan_.servers.size() : device.server]++;
    fill_device(devices[d], device, local ? "hypervisor" : plan_.servers[device.server].name,
                memory_.server(device.server).devices[place % MAX_DEVICES]);
  }
  auto processes = info.initProcesses(static_cast<u32>(processes_.size()));
  for (u32 i = 0; i < processes_.size(); ++i) {
    processes[i].setRole(processes_[i].first);
    processes[i].setPid(processes_[i].second);
  }
}

kj::Promise<void> DomainService::info(InfoContext context) {
  describe(context.getResults().initInfo());
  return kj::READY_NOW;
}

kj::Promise<void> DomainService::kill(KillContext) {
  kill_();
  return kj::READY_NOW;
}

} // namespace transom::control
