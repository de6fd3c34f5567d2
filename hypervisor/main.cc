// transom-hypervisor: one domain's vCPUs, board and hypervisor-placed devices. Started by `transom run` with a socket
// as descriptor 3, over which the plan and the shared memory arrive; the end of that socket is the order to stop.
#include <cstdio>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include "core/child_process.hpp"
#include "core/domain_plan.hpp"
#include "hypervisor/machine.hpp"

namespace {

using transom::CONTROL_SOCKET;

int report(const transom::Error& failure) {
  const std::string line = "failed " + failure.text + "\n";
  [[maybe_unused]] const auto sent = ::send(CONTROL_SOCKET, line.data(), line.size(), MSG_NOSIGNAL);
  return 1;
}

} // namespace

int main() {
  transom::begin_child_process();
  spdlog::set_default_logger(spdlog::stderr_logger_mt("transom-hypervisor"));
  spdlog::set_pattern("%n: %l: %v");
  spdlog::set_level(spdlog::level::warn);

  auto received = transom::receive_plan(CONTROL_SOCKET);
  if (!received) {
    std::fprintf(stderr, "transom-hypervisor: %s\n", received.error().text.c_str());
    return 1;
  }
  auto memory = transom::DomainMemory::attach(received->plan, std::move(received->descriptors));
  if (!memory) return report(memory.error());
  transom::Machine machine(received->plan, *memory);
  if (auto prepared = machine.prepare(); !prepared) return report(prepared.error());
  if (auto ran = machine.run(CONTROL_SOCKET); !ran) return report(ran.error());
  return 0;
}
