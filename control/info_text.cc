#include "control/info_text.hpp"

#include <algorithm>
#include <capnp/compat/json.h>
#include <fmt/format.h>

namespace transom::control {

namespace {

std::string text(capnp::Text::Reader from) { return {from.begin(), from.size()}; }

capnp::JsonCodec& codec() {
  static capnp::JsonCodec json;
  json.setPrettyPrint(true);
  return json;
}

std::string counters(capnp::List<schema::Counter>::Reader list) {
  std::string line;
  for (auto counter : list)
    if (counter.getValue() != 0)
      line += fmt::format("{}{} {}", line.empty() ? "" : ", ", text(counter.getName()), counter.getValue());
  return line.empty() ? "nothing yet" : line;
}

} // namespace

std::string info_json(schema::Info::Reader info) { return codec().encode(info).cStr(); }

std::string placement_json(schema::Info::Reader info) { return codec().encode(info.getDevices()).cStr(); }

std::string info_text(schema::Info::Reader info) {
  std::string out = fmt::format("{}: {}, {} vCPU ({}, model {}), {} MiB, up {:.1f} s\n", text(info.getName()),
                                text(info.getState()), info.getCpus(), text(info.getCpu()), text(info.getCpuModel()),
                                info.getMemory() >> 20, static_cast<double>(info.getUptimeNs()) / 1e9);
  for (auto process : info.getProcesses())
    out += fmt::format("  {} pid {}\n", text(process.getRole()), process.getPid());
  unsigned n = 0;
  for (auto vcpu : info.getVcpus()) {
    out += fmt::format("vCPU {}\n  ran: {}\n  left the guest: {}\n", n++, counters(vcpu.getExecution()),
                       counters(vcpu.getExits()));
  }
  for (auto device : info.getDevices())
    out += fmt::format("{} in {}{}\n  {}\n", text(device.getName()), text(device.getPlace()),
                       device.getQuarantined() ? ", QUARANTINED" : "", counters(device.getCounters()));
  return out;
}

std::string placement_text(schema::Info::Reader info) {
  std::string out = fmt::format("{:12} {:12} {:28} {}\n", "DEVICE", "PLACE", "ID", "PLUGIN");
  for (auto device : info.getDevices())
    out += fmt::format("{:12} {:12} {:28} {}{}\n", text(device.getName()), text(device.getPlace()),
                       text(device.getId()), text(device.getPlugin()), device.getQuarantined() ? " (quarantined)" : "");
  return out;
}

} // namespace transom::control
