#include "control/children.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <functional>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "core/child_process.hpp"
#include "core/domain_memory.hpp"
#include "core/event_channel.hpp"
#include "core/file_descriptor.hpp"
#include "dom0/dom0.hpp"
#include "hypervisor/machine.hpp"

namespace transom::control {

namespace {

bool wait_readable(int fd, unsigned milliseconds) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(milliseconds)) > 0;
}

std::string read_failure(int socket) {
  std::string text;
  char buffer[1024];
  for (ssize_t n = 0; text.size() < 8192 && (n = ::recv(socket, buffer, sizeof buffer, MSG_DONTWAIT)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  const size_t at = text.find("failed ");
  if (at == std::string::npos) return "";
  text.erase(0, at + 7);
  return text.substr(0, text.find('\n'));
}

// ---------------------------------------------------------------------------------------------------- processes

class ProcessChild final : public Child {
 public:
  ProcessChild(std::string name, pid_t pid, FileDescriptor socket)
      : Child(std::move(name)),
        pid_(pid),
        pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
        socket_(std::move(socket)) {}
  ~ProcessChild() override {
    if (!reaped_) {
      kill();
      reap();
    }
  }
  int exit_event() const override { return pidfd_.get(); }
  int pid() const override { return pid_; }
  void ask_to_stop() override { ::shutdown(socket_.get(), SHUT_WR); }
  bool wait(unsigned milliseconds) override { return reaped_ || wait_readable(pidfd_.get(), milliseconds); }
  void kill() override {
    if (!reaped_) ::kill(pid_, SIGKILL);
  }
  std::string how_it_ended() override {
    reap();
    if (WIFSIGNALED(status_))
      return fmt::format("was killed by signal {} ({})", WTERMSIG(status_), strsignal(WTERMSIG(status_)));
    if (WIFEXITED(status_) && WEXITSTATUS(status_) != 0)
      return fmt::format("ended with status {}", WEXITSTATUS(status_));
    return "";
  }
  std::string reported_failure() override { return read_failure(socket_.get()); }
  int socket() const override { return socket_.get(); }

 private:
  void reap() {
    if (!reaped_) ::waitpid(pid_, &status_, 0);
    reaped_ = true;
  }
  pid_t pid_;
  FileDescriptor pidfd_, socket_;
  int status_ = 0;
  bool reaped_ = false;
};

// In the child, after fork: system calls only. It stays in the supervisor's process group, because a terminal lets no
// other group read; so what the terminal sends to the group is ignored, from before the first instruction of the
// program.
[[noreturn]] void become(const std::string& program, char* const* argv, int socket) {
  for (const int signal : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTTIN, SIGTTOU}) ::signal(signal, SIG_IGN);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr); // the supervisor's event loop blocks some
  if (socket == CONTROL_SOCKET)
    ::fcntl(CONTROL_SOCKET, F_SETFD, 0);
  else
    ::dup2(socket, CONTROL_SOCKET);
  ::close_range(CONTROL_SOCKET + 1, ~0u, 0); // also what the user's shell left open
  ::execv(program.c_str(), argv);
  ::_exit(127);
}

Result<std::unique_ptr<Child>> spawn(const std::string& program, const std::string& role,
                                     const std::vector<std::string>& arguments, const DomainPlan& plan,
                                     const DomainDescriptors& descriptors) {
  if (::access(program.c_str(), X_OK) != 0)
    return error(fmt::format("{}: {}; the installation is not complete", program, std::strerror(errno)));
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return error(fmt::format("socketpair: {}", std::strerror(errno)));
  FileDescriptor ours(pair[0]), theirs(pair[1]);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return error(fmt::format("fork: {}", std::strerror(errno)));
  if (pid == 0) become(program, argv.data(), theirs.get());
  auto child = std::make_unique<ProcessChild>(role, pid, std::move(ours));
  theirs.reset();
  if (auto sent = send_plan(child->socket(), plan, descriptors); !sent)
    return error(fmt::format("{} ({}): {}", role, program, sent.error().text));
  return child;
}

// ---------------------------------------------------------------------------------------------------- threads

class ThreadChild final : public Child {
 public:
  using Body = std::function<Result<void>(int control)>;
  ThreadChild(std::string name, FileDescriptor ours, FileDescriptor theirs, Body body)
      : Child(std::move(name)), socket_(std::move(ours)), theirs_(std::move(theirs)), done_(make_eventfd()) {
    thread_ = std::thread([this, run = std::move(body)] {
      if (auto result = run(theirs_.get()); !result) failure_ = result.error().text;
      const u64 one = 1;
      [[maybe_unused]] const auto n = ::write(done_.get(), &one, sizeof one);
    });
  }
  ~ThreadChild() override {
    ask_to_stop();
    thread_.join();
  }
  int exit_event() const override { return done_.get(); }
  int pid() const override { return ::getpid(); }
  void ask_to_stop() override { ::shutdown(socket_.get(), SHUT_WR); }
  bool wait(unsigned milliseconds) override { return wait_readable(done_.get(), milliseconds); }
  void kill() override {} // a thread cannot be
  std::string how_it_ended() override { return failure_.empty() ? "" : "failed"; }
  std::string reported_failure() override { return failure_; }
  int socket() const override { return socket_.get(); }

 private:
  FileDescriptor socket_, theirs_, done_;
  std::string failure_;
  std::thread thread_;
};

Result<std::unique_ptr<Child>> start_thread(const std::string& role, const DomainPlan& plan,
                                            const DomainDescriptors& descriptors, bool hypervisor, u32 server) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
    return error(fmt::format("socketpair: {}", std::strerror(errno)));
  auto copies = descriptors.duplicate();
  if (!copies) return tl::unexpected(copies.error());
  auto shared = std::make_shared<DomainDescriptors>(std::move(*copies));
  auto body = [&plan, shared, hypervisor, server](int control) -> Result<void> {
    auto memory = DomainMemory::attach(plan, std::move(*shared));
    if (!memory) return tl::unexpected(memory.error());
    if (hypervisor) {
      Machine machine(plan, *memory);
      if (auto prepared = machine.prepare(); !prepared) return prepared;
      return machine.run(control);
    }
    Dom0 dom0(plan, *memory, server);
    if (auto started = dom0.start(control); !started) return started;
    dom0.run();
    return {};
  };
  return std::make_unique<ThreadChild>(role, FileDescriptor(pair[0]), FileDescriptor(pair[1]), std::move(body));
}

} // namespace

Result<std::vector<std::unique_ptr<Child>>> start_children(const DomainPlan& plan, const DomainDescriptors& descriptors,
                                                           bool single_process) {
  std::error_code failure;
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", failure).parent_path();
  std::vector<std::unique_ptr<Child>> children;
  const auto start = [&](bool hypervisor, u32 server) -> Result<void> {
    const std::string role = hypervisor ? "transom-hypervisor" : "transom-" + plan.servers[server].name;
    const std::string program = (folder / (hypervisor ? "transom-hypervisor" : "transom-dom0")).string();
    std::vector<std::string> arguments;
    if (!hypervisor) arguments.push_back(std::to_string(server));
    auto child = single_process ? start_thread(role, plan, descriptors, hypervisor, server)
                                : spawn(program, role, arguments, plan, descriptors);
    if (!child) return tl::unexpected(child.error());
    children.push_back(std::move(*child));
    return {};
  };
  if (auto started = start(true, 0); !started) return tl::unexpected(started.error());
  for (u32 s = 0; s < plan.servers.size(); ++s)
    if (auto started = start(false, s); !started) return tl::unexpected(started.error());
  return children;
}

} // namespace transom::control
