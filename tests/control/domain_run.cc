#include "domain_run.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utmp.h>

namespace transom::test {

namespace {
using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

// Field of /proc/PID/stat after the name: 0 is the state, 1 the parent.
std::string stat_field(pid_t pid, int n) {
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  const size_t end = stat.rfind(')');
  if (end == std::string::npos) return "";
  std::istringstream rest(stat.substr(end + 1));
  std::string field;
  for (int i = 0; i <= n; ++i) rest >> field;
  return field;
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> pids;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator("/proc", failure))
    if (const pid_t pid = std::atoi(entry.path().filename().c_str()); pid > 0) pids.push_back(pid);
  return pids;
}
} // namespace

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

void write_file(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

std::string guest(const std::string& name) { return std::string(CONTROL_GUESTS) + "/" + name + ".rom"; }
std::string plugin(const std::string& file) { return std::string(TRANSOM_PLUGIN_DIR) + "/" + file; }

// ---------------------------------------------------------------------------------------------------- Folder

Folder::Folder() {
  char name[] = "/tmp/transom-control-XXXXXX";
  path_ = ::mkdtemp(name);
}
Folder::~Folder() { fs::remove_all(path_); }

std::string Folder::write(const std::string& name, const std::string& content) const {
  write_file(path_ / name, content);
  return (path_ / name).string();
}

std::string Folder::image(const std::string& name, unsigned sectors) const {
  return write(name, std::string(size_t{sectors} * 512, '\0'));
}

std::vector<std::string> Folder::inventory() const {
  std::vector<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(path_)) {
    struct stat st {};
    ::lstat(entry.path().c_str(), &st);
    std::ostringstream line;
    line << fs::relative(entry.path(), path_).string() << ' ' << st.st_mode << ' ' << st.st_size;
    if (S_ISREG(st.st_mode))
      line << ' ' << st.st_mtim.tv_sec << '.' << st.st_mtim.tv_nsec << ' '
           << std::hash<std::string>()(read_file(entry.path()));
    lines.push_back(line.str());
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::vector<std::string> Folder::sockets() const {
  std::vector<std::string> names;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(path_ / "transom", failure)) names.push_back(entry.path().filename());
  return names;
}

// ---------------------------------------------------------------------------------------------------- Transom

Transom::Transom(const Folder& folder, const std::vector<std::string>& arguments, const Options& options)
    : folder_(folder) {
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2];
  [[maybe_unused]] int made = ::pipe2(err, O_CLOEXEC);
  int master = -1, slave = -1;
  if (options.terminal) {
    ::openpty(&master, &slave, nullptr, nullptr, nullptr);
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
  } else {
    made = ::pipe2(in, O_CLOEXEC);
    made = ::pipe2(out, O_CLOEXEC);
  }
  const std::string program = std::string(TRANSOM_BIN_DIR) + "/transom";
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    if (options.terminal) {
      ::login_tty(slave);                        // a session of its own, whose terminal it is
      if (options.background && ::fork() != 0) { // the session's leader stays in the foreground, and waits
        int status = 0;
        ::wait(&status);
        ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
      }
      if (options.background) ::setpgid(0, 0);
    } else {
      ::setsid();
      ::dup2(options.input.empty() ? in[0] : ::open(options.input.c_str(), O_RDONLY), 0);
      ::dup2(options.output.empty() ? out[1] : ::open(options.output.c_str(), O_WRONLY | O_CREAT, 0644), 1);
    }
    ::dup2(err[1], 2);
    for (const int fd : options.closed) ::close(fd);
    ::setenv("XDG_RUNTIME_DIR", folder.path().c_str(), 1);
    ::setenv("TRANSOM_PLUGIN_PATH", TRANSOM_PLUGIN_DIR, 1);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    [[maybe_unused]] const int moved = ::chdir(folder.path().c_str());
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  for (const int fd : {in[0], out[1], err[1], slave})
    if (fd >= 0) ::close(fd);
  in_ = options.terminal ? master : in[1];
  output_ = options.terminal ? ::fcntl(master, F_DUPFD_CLOEXEC, 0) : out[0];
  error_ = err[0];
}

Transom::~Transom() {
  if (pid_ > 0) {
    for (const pid_t child : children()) ::kill(child, SIGKILL);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {in_, output_, error_})
    if (fd >= 0) ::close(fd);
}

void Transom::type(const std::string& bytes) const {
  EXPECT_EQ(::write(in_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

void Transom::end_input() {
  ::close(in_);
  in_ = -1;
}

void Transom::close_output() {
  ::close(output_);
  output_ = -1;
}

void Transom::read_some(int milliseconds) {
  pollfd fds[2] = {{paused_ ? -1 : output_, POLLIN, 0}, {error_, POLLIN, 0}};
  ::poll(fds, 2, milliseconds);
  char buffer[16384];
  for (int i = 0; i < 2; ++i) {
    if (fds[i].fd < 0 || fds[i].revents == 0) continue;
    const ssize_t n = ::read(fds[i].fd, buffer, sizeof buffer);
    if (n > 0) (i == 0 ? out_ : err_).append(buffer, static_cast<size_t>(n));
    if (n <= 0) { // its end
      int& mine = i == 0 ? output_ : error_;
      ::close(mine);
      mine = -1;
    }
  }
}

bool Transom::shows(const std::string& text, int seconds) {
  const auto start = Clock::now();
  while (out_.find(text) == std::string::npos) {
    if (since(start) > seconds || output_ < 0) return false;
    read_some(50);
  }
  return true;
}

Finished Transom::finish(int seconds) {
  const auto start = Clock::now();
  int status = 0;
  bool ended = false;
  while (!ended && since(start) < seconds) {
    read_some(20);
    ended = ::waitpid(pid_, &status, WNOHANG) == pid_;
  }
  if (!ended) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status, 0);
  }
  pid_ = -1;
  for (int quiet = 0; quiet < 3 && (output_ >= 0 || error_ >= 0); ++quiet) { // what is left in the pipes
    const size_t before = out_.size() + err_.size();
    read_some(20);
    if (out_.size() + err_.size() != before) quiet = 0;
  }
  Finished f{-1, out_, err_};
  if (ended) f.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return f;
}

double Transom::seconds_until_end() {
  const auto start = Clock::now();
  siginfo_t info{};
  while (since(start) < 60) {
    read_some(5);
    if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_) break;
  }
  return since(start);
}

std::vector<pid_t> Transom::children() const {
  std::vector<pid_t> found;
  for (const pid_t pid : all_processes())
    if (stat_field(pid, 1) == std::to_string(pid_)) found.push_back(pid);
  return found;
}

std::optional<pid_t> Transom::child(const std::string& program) const {
  std::error_code failure;
  for (const pid_t pid : children())
    if (fs::read_symlink("/proc/" + std::to_string(pid) + "/exe", failure).filename() == program) return pid;
  return {};
}

Finished run_transom(const Folder& folder, const std::vector<std::string>& arguments, const Transom::Options& options) {
  Transom run(folder, arguments, options);
  if (!options.terminal) run.end_input();
  return run.finish();
}
Finished run_transom(const Folder& folder, const std::vector<std::string>& arguments) {
  return run_transom(folder, arguments, Transom::Options{});
}

// ---------------------------------------------------------------------------------------------------- what is left

bool alive(pid_t pid) {
  const std::string state = stat_field(pid, 0);
  return !state.empty() && state != "Z" && state != "X";
}

bool gone_within(pid_t pid, double seconds) {
  const auto start = Clock::now();
  while (alive(pid)) {
    if (since(start) > seconds) return false;
    nap();
  }
  return true;
}

std::vector<std::string> descriptors(pid_t pid) {
  std::vector<std::string> open;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd", failure))
    open.push_back(fs::read_symlink(entry.path(), failure).string());
  return open;
}

std::vector<pid_t> holders_of(const std::string& domain) {
  std::vector<pid_t> found;
  const std::string memory = "memfd:transom-" + domain + "-";
  for (const pid_t pid : all_processes()) {
    if (!alive(pid)) continue;
    bool holds = read_file("/proc/" + std::to_string(pid) + "/maps").find(memory) != std::string::npos;
    for (const std::string& open : descriptors(pid)) holds = holds || open.find(memory) != std::string::npos;
    if (holds) found.push_back(pid);
  }
  return found;
}

} // namespace transom::test
