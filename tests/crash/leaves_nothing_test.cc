// Dom0 is killed at each labelled point of a dispatch, under a running guest: `transom run` says so in one line, ends
// with status 1, and leaves no process, no socket and no shared memory behind.
#include <algorithm>
#include <dirent.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/guests/harness.hpp"

namespace transom::tests {
namespace {

namespace fs = std::filesystem;

// Orphans of this process come to it, wherever in the tree they were; so nothing that is left can hide.
std::vector<int> children() {
  std::vector<int> pids;
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    const std::string list = read_file(task.path() / "children");
    for (size_t at = 0; at < list.size();) {
      const size_t end = std::min(list.find(' ', at), list.size());
      if (end > at) pids.push_back(std::stoi(list.substr(at, end - at)));
      at = end + 1;
    }
  }
  return pids;
}

// Processes of this user that hold a descriptor or a mapping of a memfd of this domain.
std::vector<std::string> holders(const std::string& domain) {
  std::vector<std::string> found;
  std::error_code ignored;
  const std::string memfd = "memfd:transom-" + domain + "-";
  for (const auto& process : fs::directory_iterator("/proc", ignored)) {
    const std::string pid = process.path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    for (const auto& fd : fs::directory_iterator(process.path() / "fd", ignored))
      if (fs::read_symlink(fd.path(), ignored).string().find(memfd) != std::string::npos) found.push_back(fd.path());
    if (read_file(process.path() / "maps").find(memfd) != std::string::npos) found.push_back(process.path());
  }
  return found;
}

class LeavesNothing : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0); }

  GuestRun guest(const std::string& crash) {
    domain_ = fmt::format("crash-{}-{}", ::getpid(), ++runs_);
    GuestRun run{"devices.elf"};
    run.name = domain_;
    run.disk = std::string(65536, 'd');
    run.config =
        "[[device]]\nplugin = \"mmio_test\"\nname = \"mmio0\"\nconfig = { \"irq.intr\" = 5 }\n"
        "[placement]\npic_pit = \"dom0\"\n";
    if (!crash.empty()) run.config += fmt::format("[debug]\ncrash = \"{}\"\n", crash);
    return run;
  }
  void nothing_is_left(const Scratch& folder) {
    EXPECT_TRUE(children().empty()) << "a process is left";
    EXPECT_TRUE(holders(domain_).empty()) << holders(domain_).front();
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder / "transom", none))
      ADD_FAILURE() << entry.path() << " is left";
  }
  void crash(const std::string& where) {
    SCOPED_TRACE(where);
    const Scratch folder;
    const GuestResult result = run_guest(guest(where), folder);
    EXPECT_EQ(result.status, 1) << result.e9;
    EXPECT_EQ(std::count(result.errors.begin(), result.errors.end(), '\n'), 1) << result.errors;
    EXPECT_EQ(result.errors, "transom: transom-dom0 was killed by signal 9 (Killed); the domain ends here\n");
    nothing_is_left(folder);
  }
  void crash_everywhere(const std::string& device, unsigned dispatch) {
    for (const char* point : {"before-entry", "after-effect", "before-commit", "after-commit", "after-response"})
      crash(fmt::format("{}:{}:{}", device, point, dispatch));
  }

  std::string domain_;
  int runs_ = 0;
};

// The guest's accesses, and with them the numbers of the calls, are in tests/guests/guest/devices.cc; 1 is creation.
TEST_F(LeavesNothing, WhenTheTestDeviceTakesDom0Along) { crash_everywhere("mmio0", 4); }
TEST_F(LeavesNothing, WhenTheUartTakesDom0Along) {
  crash_everywhere("uart0", 4);
  crash("uart0:after-effect:4:2");
}
TEST_F(LeavesNothing, WhenThePicTakesDom0Along) { crash_everywhere("pic_pit", 19); }
TEST_F(LeavesNothing, WhenTheIdeControllerTakesDom0Along) { crash_everywhere("ide", 10); }
TEST_F(LeavesNothing, WhenDom0DiesBeforeItsDevicesAreThere) { crash("mmio0:before-commit:1"); }

// The negative control: the same guest ends well, and while it runs there is something to be found.
TEST_F(LeavesNothing, WhenNobodyDiesAndTheSearchFindsARunningDomain) {
  const Scratch folder;
  GuestRun run = guest("");
  const auto file = write_domain(run, folder);
  const int pid = start_program({program("transom"), "run", file.string()}, folder);
  bool seen = false;
  for (int i = 0; i < 2000 && !seen; ++i, ::usleep(1000)) seen = !holders(domain_).empty();
  EXPECT_TRUE(seen);
  EXPECT_EQ(children(), std::vector<int>{pid});
  EXPECT_EQ(wait_for_program(pid), GUEST_PASSED) << read_file(folder / "e9") << read_file(folder / "errors");
  nothing_is_left(folder);
}

// The supervisor itself is killed: its children see the end of their sockets.
TEST_F(LeavesNothing, WhenTheSupervisorIsKilled) {
  const Scratch folder;
  GuestRun run = guest("");
  run.guest = "forever.elf";
  const auto file = write_domain(run, folder);
  const int pid = start_program({program("transom"), "run", file.string()}, folder);
  for (int i = 0; i < 20'000 && read_file(folder / "e9").empty(); ++i) ::usleep(1000);
  ASSERT_FALSE(read_file(folder / "e9").empty());
  ::kill(pid, SIGKILL);
  EXPECT_EQ(wait_for_program(pid), 128 + SIGKILL);
  for (int i = 0; i < 20'000 && !children().empty(); ++i) {
    for (const int child : children()) ::waitpid(child, nullptr, WNOHANG);
    ::usleep(1000);
  }
  EXPECT_TRUE(children().empty());
  EXPECT_TRUE(holders(domain_).empty());
}

} // namespace
} // namespace transom::tests
