// Where gdb connects to.
#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "hypervisor/gdb/debugger.hpp"

namespace transom::gdb {

namespace {

constexpr int KIND = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

tl::unexpected<Error> failed(const std::string& what) {
  return error(fmt::format("debug.gdb: {}: {}", what, std::strerror(errno)));
}

Result<Listener> listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return error(fmt::format("debug.gdb: {}: the path is too long", path));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  {
    const FileDescriptor probe(::socket(AF_UNIX, KIND, 0));
    if (::connect(probe.get(), generic, sizeof address) == 0 || errno == EAGAIN)
      return error(fmt::format("debug.gdb: {}: another domain listens there; choose another path", path));
    struct stat st {};
    if (errno == ECONNREFUSED && ::lstat(path.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) ::unlink(path.c_str());
  }
  Listener listener{FileDescriptor(::socket(AF_UNIX, KIND, 0)), path};
  const int fd = listener.socket.get();
  // The mode of an unbound socket becomes that of its file.
  if (fd < 0 || ::fchmod(fd, 0600) != 0 || ::bind(fd, generic, sizeof address) != 0 || ::listen(fd, 1) != 0)
    return failed(path);
  return listener;
}

Result<Listener> listen_loopback(u16 port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  Listener listener{FileDescriptor(::socket(AF_INET, KIND, 0)), {}};
  const int fd = listener.socket.get(), on = 1;
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 1) != 0)
    return failed(fmt::format("127.0.0.1:{}", port));
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // accepted sockets inherit it
  return listener;
}

} // namespace

Result<Listener> listen_for_client(const DebuggerPlan& plan) {
  return plan.socket.empty() ? listen_loopback(plan.port) : listen_unix(plan.socket);
}

} // namespace transom::gdb
