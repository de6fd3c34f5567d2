#include "control/client.hpp"

#include <capnp/rpc-twoparty.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <kj/async-io.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/runtime_folder.hpp"
#include "core/file_descriptor.hpp"

namespace transom::control {

namespace {

constexpr auto PATIENCE = 5 * kj::SECONDS;

Result<void> with_domain(const std::string& name,
                         const std::function<void(schema::Domain::Client, kj::WaitScope&, kj::Timer&)>& use) {
  auto path = socket_path(name);
  if (!path) return tl::unexpected(path.error());
  if (!is_running(name)) return error(fmt::format("no domain named {} is running; see: transom list", name));
  try {
    auto io = kj::setupAsyncIo();
    auto address = io.provider->getNetwork().parseAddress("unix:" + *path).wait(io.waitScope);
    auto connection = address->connect().wait(io.waitScope);
    capnp::TwoPartyClient client(*connection);
    use(client.bootstrap().castAs<schema::Domain>(), io.waitScope, io.provider->getTimer());
    return {};
  } catch (const kj::Exception& e) {
    return error(
        fmt::format("domain {} does not answer ({}); it may just have ended", name, e.getDescription().cStr()));
  }
}

} // namespace

Result<void> with_info(const std::string& domain, const std::function<void(schema::Info::Reader)>& use) {
  return with_domain(domain, [&](schema::Domain::Client client, kj::WaitScope& scope, kj::Timer& timer) {
    auto answer = timer.timeoutAfter(PATIENCE, client.infoRequest().send()).wait(scope);
    use(answer.getInfo());
  });
}

Result<void> kill_domain(const std::string& domain) {
  auto asked = with_domain(domain, [&](schema::Domain::Client client, kj::WaitScope& scope, kj::Timer& timer) {
    try {
      timer.timeoutAfter(PATIENCE, client.killRequest().send()).ignoreResult().wait(scope);
    } catch (const kj::Exception& e) { // it ended before its answer was sent
      if (e.getType() != kj::Exception::Type::DISCONNECTED) throw;
    }
  });
  if (!asked) return asked;
  for (int waited = 0; waited < 60'000; waited += 20) { // its disks may take their time
    if (!is_running(domain)) return {};
    ::usleep(20'000);
  }
  return error(fmt::format("domain {} was told to end and has not yet", domain));
}

bool is_running(const std::string& domain) {
  const auto path = socket_path(domain);
  if (!path) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path->c_str(), path->size() + 1);
  const FileDescriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
}

} // namespace transom::control
