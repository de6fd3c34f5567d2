// transom-dom0: one ioreq server of a domain. Started by `transom run` with a socket as descriptor 3, over which the
// plan and the shared memory arrive; the end of that socket is the order to finish and leave. Argument: the server's
// index.
#include <cstdio>
#include <cstdlib>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "core/child_process.hpp"
#include "core/domain_plan.hpp"
#include "dom0/dom0.hpp"

namespace {
using transom::CONTROL_SOCKET;

int report(const transom::Error& failure) {
  const std::string line = "failed " + failure.text + "\n";
  [[maybe_unused]] const auto sent = ::send(CONTROL_SOCKET, line.data(), line.size(), MSG_NOSIGNAL);
  return 1;
}
} // namespace

int main(int argc, char** argv) {
  transom::begin_child_process();
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  spdlog::set_default_logger(spdlog::stderr_logger_mt("transom-dom0"));
  spdlog::set_pattern("%n: %l: %v");
  spdlog::set_level(spdlog::level::warn);

  auto received = transom::receive_plan(CONTROL_SOCKET);
  if (!received) {
    std::fprintf(stderr, "transom-dom0: %s\n", received.error().text.c_str());
    return 1;
  }
  const transom::u32 index = argc > 1 ? static_cast<transom::u32>(std::strtoul(argv[1], nullptr, 10)) : 0;
  if (index >= received->plan.servers.size()) return report({"started for a server that the plan does not have"});
  auto memory = transom::DomainMemory::attach(received->plan, std::move(received->descriptors));
  if (!memory) return report(memory.error());
  transom::Dom0 dom0(received->plan, *memory, index);
  if (auto started = dom0.start(CONTROL_SOCKET); !started) return report(started.error());
  dom0.run();
  return 0;
}
