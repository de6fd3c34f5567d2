#include "control/info_text.hpp"

#include <capnp/compat/json.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <vector>

namespace transom::control {

namespace {

std::string text(capnp::Text::Reader from) { return {from.begin(), from.size()}; }

// A JSON string.
std::string quoted(capnp::Text::Reader from) {
  std::string out = "\"";
  for (const char c : from) {
    if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + '"';
}

template <class List, class Format>
std::string array(List list, Format&& format, const char* indent) {
  std::vector<std::string> elements;
  for (auto element : list) elements.push_back(format(element));
  return elements.empty()
             ? "[]"
             : fmt::format("[\n{0}  {1}\n{0}]", indent, fmt::join(elements, fmt::format(",\n{}  ", indent)));
}

std::string counters(capnp::List<schema::Counter>::Reader list) {
  std::string line;
  for (auto counter : list)
    if (counter.getValue() != 0)
      line += fmt::format("{}{} {}", line.empty() ? "" : ", ", text(counter.getName()), counter.getValue());
  return line.empty() ? "nothing yet" : line;
}

} // namespace

// By the schema: counters are arrays of {name, value}, and 64-bit numbers are strings, as JSON's own lose digits.
std::string info_json(schema::Info::Reader info) {
  capnp::JsonCodec codec;
  codec.setPrettyPrint(true);
  return std::string(codec.encode(info).cStr()) + "\n";
}

std::string list_json(schema::Info::Reader info) {
  return fmt::format(R"({{"name": {}, "state": {}, "cpu": {}, "uptimeSeconds": {:.3f}}})", quoted(info.getName()),
                     quoted(info.getState()), quoted(info.getCpu()), static_cast<double>(info.getUptimeNs()) / 1e9);
}

std::string list_text(schema::Info::Reader info) {
  return fmt::format("{:24} {:10} {:14} {:.1f} s", text(info.getName()), text(info.getState()), text(info.getCpu()),
                     static_cast<double>(info.getUptimeNs()) / 1e9);
}

std::string placement_json(schema::Info::Reader info) {
  const auto row = [](schema::Device::Reader d) {
    return fmt::format(R"({{"name": {}, "place": {}, "id": {}, "plugin": {}, "quarantined": {}}})", quoted(d.getName()),
                       quoted(d.getPlace()), quoted(d.getId()), quoted(d.getPlugin()), d.getQuarantined());
  };
  return array(info.getDevices(), row, "") + "\n";
}

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
