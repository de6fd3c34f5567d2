#include "control/client.hpp"

#include <capnp/rpc-twoparty.h>
#include <fmt/format.h>
#include <kj/async-io.h>
#include <sys/stat.h>

#include "control/runtime_folder.hpp"

namespace transom::control {

namespace {

constexpr auto PATIENCE = 5 * kj::SECONDS;

Result<void> with_domain(const std::string& name,
                         const std::function<void(schema::Domain::Client, kj::WaitScope&, kj::Timer&)>& use) {
  auto path = socket_path(name);
  if (!path) return tl::unexpected(path.error());
  struct stat st {};
  if (::stat(path->c_str(), &st) != 0)
    return error(fmt::format("no domain named {} is running; see: transom list", name));
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
  return with_domain(domain, [&](schema::Domain::Client client, kj::WaitScope& scope, kj::Timer& timer) {
    timer.timeoutAfter(PATIENCE, client.killRequest().send()).ignoreResult().wait(scope);
  });
}

} // namespace transom::control
