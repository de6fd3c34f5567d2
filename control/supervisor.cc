#include "control/supervisor.hpp"

#include <algorithm>
#include <capnp/message.h>
#include <capnp/rpc-twoparty.h>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "control/children.hpp"
#include "control/client.hpp"
#include "control/domain_service.hpp"
#include "control/info_text.hpp"
#include "control/runtime_folder.hpp"
#include "core/domain_memory.hpp"

namespace transom::control {

namespace {

constexpr unsigned STOP_PATIENCE_MS = 2000;    // for the hypervisor
constexpr unsigned FINISH_PATIENCE_MS = 60000; // for a Dom0 that finishes disk requests and output
constexpr u64 LONGEST_TIMEOUT_S = 10ull * 365 * 24 * 3600;
constexpr int ENDING_SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};

void say(const std::string& line) { std::fprintf(stderr, "transom: %s\n", line.c_str()); }

// The user's terminal belongs to the guest while the domain runs: every key goes there, Ctrl-] ends the domain.
class RawTerminal {
 public:
  explicit RawTerminal(bool wanted) {
    // In the background the terminal is not ours to change.
    if (!wanted || ::tcgetpgrp(STDIN_FILENO) != ::getpgrp() || ::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    raw.c_oflag |= OPOST | ONLCR; // messages of ours still start at the left
    active_ = ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  }
  ~RawTerminal() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  bool active() const { return active_; }

 private:
  termios before_{};
  bool active_ = false;
};

void initialise(const DomainPlan& plan, const DomainMemory& memory) {
  DomainPage& page = memory.page();
  page.magic = DomainPage::MAGIC;
  page.vcpu_count = plan.cpus;
  page.server_count = static_cast<u32>(plan.servers.size());
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  memory.clock().set_calendar(i64{now.tv_sec} * 1'000'000'000 + now.tv_nsec + plan.calendar_offset_ns);
  for (u32 s = 0; s < plan.servers.size(); ++s) memory.server(s).magic = ServerPage::MAGIC;
  memory.server(SERVER_HYPERVISOR).magic = ServerPage::MAGIC;
}

// A listening socket under the domain's name, or why there is none. A socket that nobody answers is a dead domain's.
Result<FileDescriptor> listen_as(const std::string& path, const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  // Two that start at once: the lock on the folder lets one of them look and listen before the other.
  const FileDescriptor folder(
      ::open(std::filesystem::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder || ::flock(folder.get(), LOCK_EX) != 0) return error(fmt::format("{}: {}", path, std::strerror(errno)));
  if (is_running(name))
    return error(fmt::format("a domain named {} is running already; stop it with: transom kill {}, or set another name",
                             name, name));
  ::unlink(path.c_str());
  FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || ::bind(fd.get(), generic, sizeof address) != 0 || ::listen(fd.get(), 64) != 0)
    return error(fmt::format("{}: {}", path, std::strerror(errno)));
  return fd;
}

// Whether the user interrupted once more. What comes together with the first (timeout(1) signals the process and its
// group) is not meant.
bool interrupted_again(unsigned waited_ms) {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : ENDING_SIGNALS) ::sigaddset(&signals, signal);
  const timespec now{};
  return ::sigtimedwait(&signals, nullptr, &now) > 0 && waited_ms >= 1000;
}

bool wait_patiently(Child& child, unsigned milliseconds) {
  constexpr unsigned STEP = 50;
  for (unsigned waited = 0; waited < milliseconds; waited += STEP) {
    if (child.wait(STEP)) return true;
    if (interrupted_again(waited)) return false;
  }
  return false;
}

// Why the wait for the domain's end was over.
enum class Wake { child_ended, timeout, interrupted, killed, escape };

class Supervisor {
 public:
  Supervisor(const DomainPlan& plan, const RunOptions& options) : plan_(plan), options_(options) {}
  int run();

 private:
  Result<void> start();
  Wake wait_for_end();
  void wait_for_any();
  int end(Wake wake);
  int outcome(Wake wake, const std::string& death);
  ProcessList processes() const;
  void write_info() const;

  const DomainPlan& plan_;
  const RunOptions& options_;
  kj::AsyncIoContext io_ = kj::setupAsyncIo();
  std::string socket_path_;
  FileDescriptor listener_;
  DomainDescriptors descriptors_;
  DomainMemory memory_;
  std::vector<std::unique_ptr<Child>> children_;
};

Result<void> Supervisor::start() {
  auto path = socket_path(plan_.name);
  if (!path) return tl::unexpected(path.error());
  auto listener = listen_as(*path, plan_.name);
  if (!listener) return tl::unexpected(listener.error());
  socket_path_ = *path;
  listener_ = std::move(*listener);
  auto descriptors = create_descriptors(plan_);
  if (!descriptors) return tl::unexpected(descriptors.error());
  descriptors_ = std::move(*descriptors);
  auto copies = descriptors_.duplicate();
  if (!copies) return tl::unexpected(copies.error());
  auto memory = DomainMemory::attach(plan_, std::move(*copies));
  if (!memory) return tl::unexpected(memory.error());
  memory_ = std::move(*memory);
  initialise(plan_, memory_);
  auto children = start_children(plan_, descriptors_, options_.single_process);
  if (!children) return tl::unexpected(children.error());
  children_ = std::move(*children);
  return {};
}

int Supervisor::run() {
  const auto cleanup = [&] {
    if (!socket_path_.empty()) ::unlink(socket_path_.c_str()); // while we listen: nobody else has made his own
    listener_.reset();
  };
  if (auto started = start(); !started) {
    children_.clear();
    cleanup();
    say(started.error().text);
    return 1;
  }
  int status = 1;
  {
    const bool console = std::any_of(plan_.devices.begin(), plan_.devices.end(), [](const DevicePlan& d) {
      return std::any_of(d.streams.begin(), d.streams.end(), [](const auto& s) { return s.kind == StreamKind::stdio; });
    });
    const RawTerminal terminal(console);
    status = end(wait_for_end());
    write_info();
  }
  cleanup();
  return status;
}

ProcessList Supervisor::processes() const {
  ProcessList list{{"transom", ::getpid()}};
  if (!options_.single_process)
    for (const auto& child : children_) list.emplace_back(child->role, child->pid());
  return list;
}

void Supervisor::write_info() const {
  if (options_.info_at_end.empty()) return;
  capnp::MallocMessageBuilder message;
  auto info = message.initRoot<schema::Info>();
  DomainService(plan_, memory_, processes(), [] {}).describe(info);
  std::ofstream out(options_.info_at_end);
  out << info_json(info.asReader());
  if (!out.flush()) say(fmt::format("{}: cannot be written", options_.info_at_end));
}

Wake Supervisor::wait_for_end() {
  auto killed = kj::newPromiseAndFulfiller<Wake>();
  capnp::TwoPartyServer server(
      kj::heap<DomainService>(plan_, memory_, processes(), [&] { killed.fulfiller->fulfill(Wake::killed); }));
  auto receiver = io_.lowLevelProvider->wrapListenSocketFd(listener_.get());
  auto serving = server.listen(*receiver).eagerlyEvaluate([](kj::Exception&&) {});

  kj::Promise<Wake> end = kj::mv(killed.promise);
  kj::Vector<kj::Own<kj::UnixEventPort::FdObserver>> observers;
  for (const auto& child : children_) {
    observers.add(kj::heap<kj::UnixEventPort::FdObserver>(io_.unixEventPort, child->exit_event(),
                                                          kj::UnixEventPort::FdObserver::OBSERVE_READ));
    end = end.exclusiveJoin(observers.back()->whenBecomesReadable().then([] { return Wake::child_ended; }));
    observers.add(kj::heap<kj::UnixEventPort::FdObserver>(io_.unixEventPort, child->socket(),
                                                          kj::UnixEventPort::FdObserver::OBSERVE_READ));
    // A byte from a child that lives: the user typed the escape key. (A dying one makes its exit event readable too.)
    const Child* who = child.get();
    end = end.exclusiveJoin(observers.back()->whenBecomesReadable().then([who] {
      char byte = 0;
      return ::recv(who->socket(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && byte == 'e' ? Wake::escape
                                                                                          : Wake::child_ended;
    }));
  }
  for (const int signal : ENDING_SIGNALS)
    end = end.exclusiveJoin(io_.unixEventPort.onSignal(signal).then([](siginfo_t) { return Wake::interrupted; }));
  if (options_.timeout_s != 0)
    end = end.exclusiveJoin(
        io_.provider->getTimer().afterDelay(std::min(options_.timeout_s, LONGEST_TIMEOUT_S) * kj::SECONDS).then([] {
          return Wake::timeout;
        }));
  return end.wait(io_.waitScope);
}

void Supervisor::wait_for_any() {
  for (unsigned waited = 0; waited < STOP_PATIENCE_MS; ++waited)
    for (const auto& child : children_)
      if (child->wait(waited == 0 ? 0 : 1)) return;
}

// Hypervisor first, so that no new request comes; then the servers finish what they have.
int Supervisor::end(Wake wake) {
  std::string death;
  bool crashed = false; // a process was killed: that is the cause, whatever the others say about it
  const auto note = [&](Child& child, bool asked) {
    const std::string how = child.how_it_ended();
    const std::string failure = child.reported_failure();
    const bool killed = how.starts_with("was killed");
    if (crashed || (!death.empty() && !killed)) return; // the first is the reason, what follows is its consequence
    crashed = killed;
    if (!failure.empty() && !killed)
      death = failure;
    else if (!how.empty() && !asked)
      death = fmt::format("{} {}; the domain ends here", child.role, how);
  };
  DomainPage& page = memory_.page();
  if (wake == Wake::child_ended) wait_for_any(); // its socket ends a moment before it does
  bool early = false;                            // a child ended before it was asked to
  for (const auto& child : children_)
    if (child->wait(0) && page.stop_reason.load() == StopReason::none) {
      note(*child, false);
      early = true;
    }
  if (early || wake != Wake::child_ended) {
    auto none = StopReason::none;
    page.stop_reason.compare_exchange_strong(none, early ? StopReason::failed : StopReason::killed);
    page.state.store(DomainState::stopped, std::memory_order_seq_cst);
  }
  for (size_t i = 0; i < children_.size(); ++i) {
    Child& child = *children_[i];
    const bool ended = child.wait(0);
    child.ask_to_stop();
    if (i == 0) { // whoever sleeps in the hypervisor
      memory_.device_thread_event().notify();
      for (u32 v = 0; v < plan_.cpus; ++v) {
        page.vcpus[v].exit_flag.fetch_or(EXIT_LEAVE);
        memory_.vcpu_event(v).notify();
      }
    }
    if (!wait_patiently(child, i == 0 ? STOP_PATIENCE_MS : FINISH_PATIENCE_MS)) {
      say(fmt::format("{} does not stop; killed{}", child.role, i == 0 ? "" : ": what it had not written is lost"));
      child.kill();
      child.wait(1000);
      continue;
    }
    if (!ended) note(child, false);
  }
  return outcome(wake, death);
}

int Supervisor::outcome(Wake wake, const std::string& death) {
  const DomainPage& page = memory_.page();
  const StopReason reason = page.stop_reason.load();
  const u32 value = page.stop_value.load();
  if (wake == Wake::timeout) {
    say(fmt::format("{}: the time of {} s is over", plan_.name, options_.timeout_s));
    if (!death.empty()) say(death);
    return 124;
  }
  switch (reason) {
    case StopReason::power_off:
    case StopReason::reset: break;
    case StopReason::panic: say(fmt::format("{}: the guest reported a panic", plan_.name)); return 3;
    case StopReason::triple_fault: say(fmt::format("{}: triple fault", plan_.name)); return 3;
    case StopReason::debug_exit:
      if (value >= 16) return static_cast<int>((value << 1 | 1) & 0xff);
      say(fmt::format("{}: the guest ended the run with code {}", plan_.name, value));
      return 1;
    case StopReason::killed: say(fmt::format("{}: stopped before the guest powered off", plan_.name)); return 1;
    case StopReason::failed:
    case StopReason::none: {
      const std::string said(page.failure, strnlen(page.failure, sizeof page.failure));
      say(!death.empty() ? death : !said.empty() ? said : "the domain ended without a reason; this is a bug");
      return 1;
    }
  }
  if (!death.empty()) { // the guest is done, but somebody could not finish: data may be missing
    say(death);
    return 1;
  }
  return 0;
}

} // namespace

int supervise(const DomainPlan& plan, const RunOptions& options) {
  for (const int signal : ENDING_SIGNALS) kj::UnixEventPort::captureSignal(signal);
  ::signal(SIGPIPE, SIG_IGN);
  return Supervisor(plan, options).run();
}

} // namespace transom::control
