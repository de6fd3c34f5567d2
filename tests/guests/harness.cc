#include "tests/guests/harness.hpp"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <regex>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

namespace transom::tests {

namespace fs = std::filesystem;

Scratch::Scratch() {
  std::string name = (fs::temp_directory_path() / "transom-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) std::abort();
  path_ = name;
}
Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_file(const fs::path& file, const std::string& content) {
  std::ofstream(file, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

// Counters of the info JSON: lists of names and values, those of a device behind its name.
std::map<std::string, unsigned long long> counters_of(const std::string& json) {
  static const std::regex TOKEN(
      R"re("(exits|execution|counters)":\s*\[|"name":\s*"([^"]*)"(?:,\s*"value":\s*"?(\d+)"?)?|\])re");
  std::map<std::string, unsigned long long> counters;
  std::string device, scope;
  for (auto m = std::sregex_iterator(json.begin(), json.end(), TOKEN); m != std::sregex_iterator(); ++m) {
    if ((*m)[1].matched)
      scope = (*m)[1] == "counters" ? device : (*m)[1].str();
    else if ((*m)[3].matched)
      counters[scope + "." + (*m)[2].str()] = std::stoull((*m)[3]);
    else if ((*m)[2].matched)
      device = (*m)[2];
  }
  return counters;
}

fs::path write_domain(const GuestRun& run, const Scratch& folder) {
  std::string image = fmt::format("{} = \"{}/{}\"\n", run.as_firmware ? "firmware" : "kernel", GUEST_DIR, run.guest);
  if (!run.module.empty()) {
    write_file(folder / "module", run.module);
    image += "initrd = \"module\"\n";
  }
  if (!run.cmdline.empty()) image += fmt::format("cmdline = '{}'\n", run.cmdline);
  std::string disk;
  if (!run.disk.empty()) {
    write_file(folder / "disk0", run.disk);
    disk = "[[disk]]\npath = \"disk0\"\n";
  }
  std::string debug = "[debug]\nexit = true\ne9 = \"file:e9\"\n"; // a run's own table may add to it
  std::string rest = run.config;
  if (const size_t at = rest.find("[debug]\n"); at != std::string::npos) {
    const size_t end = std::min(rest.find("\n[", at), rest.size() - 1) + 1;
    debug += rest.substr(at + 8, end - at - 8);
    rest.erase(at, end - at);
  }
  write_file(folder / "vm.toml",
             fmt::format("name = \"{}\"\nmemory = \"32M\"\ncpus = {}\ncpu = \"{}\"\non_reboot = \"{}\"\n[boot]\n{}{}"
                         "[[serial]]\nto = \"none\"\n{}{}",
                         run.name, run.cpus, run.cpu, run.reboots ? "reset" : "exit", image, disk, debug, rest));
  return folder / "vm.toml";
}

std::string image(const std::string& name) { return std::string(GUEST_DIR) + "/" + name; }
std::string program(const std::string& name) {
  const char* const others = ::getenv("TRANSOM_TEST_BIN"); // mutate.py has programs of its own
  return std::string(others != nullptr ? others : TRANSOM_BIN_DIR) + "/" + name;
}

int start_program(const std::vector<std::string>& arguments, const Scratch& folder, const std::string& output) {
  const int pid = ::fork();
  if (pid != 0) return pid;
  ::setenv("XDG_RUNTIME_DIR", folder.path().c_str(), 1);
  ::setenv("TRANSOM_PLUGIN_PATH", TRANSOM_PLUGIN_DIR, 1);
  const int errors = ::open((folder / "errors").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(nothing, 0);
  ::dup2(errors, 2);
  if (!output.empty()) ::dup2(::open((folder / output).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), 1);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

int wait_for_program(int pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int wait_for_program(int pid, unsigned seconds) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::seconds(seconds);
  for (int status = 0;; ::usleep(10'000)) {
    const int answer = ::waitpid(pid, &status, WNOHANG);
    if (answer == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (answer != 0) return -1;
    if (Clock::now() > deadline) ::kill(pid, SIGKILL);
  }
}

std::string output_of(const std::vector<std::string>& arguments, const Scratch& folder) {
  wait_for_program(start_program(arguments, folder, "output"));
  return read_file(folder / "output");
}

GuestResult run_guest(const GuestRun& run, const Scratch& folder) {
  std::vector<std::string> arguments{program("transom"),
                                     "run",
                                     write_domain(run, folder).string(),
                                     "--info-at-end",
                                     (folder / "info.json").string(),
                                     "--timeout",
                                     std::to_string(run.timeout_s)};
  if (run.single_process) arguments.push_back("--single-process");
  GuestResult result;
  result.status = wait_for_program(start_program(arguments, folder));
  result.e9 = read_file(folder / "e9");
  result.errors = read_file(folder / "errors");
  result.counters = counters_of(read_file(folder / "info.json"));
  return result;
}

GuestResult run_guest(const GuestRun& run) {
  const Scratch folder;
  return run_guest(run, folder);
}

void expect_passed(const GuestResult& result) {
  EXPECT_EQ(result.status, GUEST_PASSED) << result.e9 << result.errors;
  EXPECT_NE(result.e9.find(" 0 failures"), std::string::npos) << result.e9;
  static const std::regex EXPECTED(R"(expect ([\w.]+) (\d+)\n)");
  for (auto m = std::sregex_iterator(result.e9.begin(), result.e9.end(), EXPECTED); m != std::sregex_iterator(); ++m) {
    const auto found = result.counters.find((*m)[1]);
    ASSERT_NE(found, result.counters.end()) << "no counter " << (*m)[1];
    EXPECT_EQ(found->second, std::stoull((*m)[2])) << (*m)[1];
  }
}

} // namespace transom::tests
