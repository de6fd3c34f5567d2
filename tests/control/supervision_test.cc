// Whoever dies, the domain ends at once and as a whole.
#include <csignal>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include "domain_run.hpp"

namespace transom::test {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr double SOON_S = 2; // the promise, on a host that is not overloaded
constexpr const char* NAME = "supervised";

class Supervision : public testing::Test {
 protected:
  std::vector<std::string> arguments(std::vector<std::string> more = {}) {
    std::vector<std::string> all = {
        "run",  "--set", "boot.firmware=" + guest("halt"), "--memory", "16M", "--disk", disk_, "--cpu",
        "soft", "--set", std::string("name=") + unique()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string unique() const { return NAME + std::to_string(::getpid()); }
  void expect_nothing_left(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) EXPECT_TRUE(gone_within(pid, SOON_S)) << pid;
    EXPECT_THAT(holders_of(unique()), IsEmpty());
  }
  Folder folder_;
  std::string disk_ = folder_.image("disk.raw");
};

class Dies : public Supervision, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(, Dies, testing::Values("transom-dom0", "transom-hypervisor"),
                         [](const auto& about) { return std::string(about.param).substr(8); });

TEST_P(Dies, EverythingEndsWithOneLine) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const auto children = run.children();
  ASSERT_EQ(children.size(), 2u);
  EXPECT_THAT(holders_of(unique()), testing::SizeIs(3)); // the control: it would be seen
  const auto victim = run.child(GetParam());
  ASSERT_TRUE(victim);
  ::kill(*victim, SIGKILL);
  EXPECT_LT(run.seconds_until_end(), SOON_S);
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, std::string("transom: ") + GetParam() + " was killed by signal 9 (Killed); the domain ends here\n");
  expect_nothing_left(children);
  EXPECT_THAT(folder_.sockets(), IsEmpty());
}

TEST_F(Supervision, WhenTransomIsKilledItsProcessesEndByThemselves) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const auto children = run.children();
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.finish().status, 128 + SIGKILL);
  expect_nothing_left(children);
  // The disk is free, and the socket that was left is replaced.
  EXPECT_EQ(folder_.sockets().size(), 1u);
  EXPECT_THAT(run_transom(folder_, {"list"}).out, testing::Not(HasSubstr(unique())));
  Transom next(folder_, arguments());
  EXPECT_TRUE(next.shows("hello"));
  EXPECT_EQ(run_transom(folder_, {"kill", unique()}).status, 0);
  EXPECT_EQ(next.finish().status, 1);
  EXPECT_THAT(folder_.sockets(), IsEmpty());
}

class Signal : public Supervision, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(, Signal, testing::Values(SIGINT, SIGTERM, SIGHUP),
                         [](const auto& about) { return std::string(sigabbrev_np(about.param)); });

TEST_P(Signal, EndsTheDomainInOrder) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const auto children = run.children();
  ::kill(-::getpgid(run.pid()), GetParam()); // to all of the group, as a terminal or timeout(1) does
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, "transom: " + unique() + ": stopped before the guest powered off\n");
  expect_nothing_left(children);
  EXPECT_THAT(folder_.sockets(), IsEmpty());
}

TEST_F(Supervision, KillEndsTheDomainAndReturnsWhenItHas) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const auto children = run.children();
  EXPECT_EQ(run_transom(folder_, {"kill", unique()}).status, 0);
  EXPECT_THAT(folder_.sockets(), IsEmpty());
  EXPECT_EQ(run.finish().status, 1);
  expect_nothing_left(children);
}

TEST_F(Supervision, ASecondDomainOfTheNameIsRefused) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const Finished f = run_transom(folder_, {"run", "--set", "boot.firmware=" + guest("halt"), "--memory", "16M", "--cpu",
                                           "soft", "--set", "name=" + unique()});
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, "transom: a domain named " + unique() + " is running already; stop it with: transom kill " +
                       unique() + ", or set another name\n");
  EXPECT_THAT(run_transom(folder_, {"list"}).out, HasSubstr(unique())); // the first one's socket is still there
}

TEST_F(Supervision, OfManyThatStartAtOnceOneRuns) {
  std::vector<std::unique_ptr<Transom>> runs;
  for (int i = 0; i < 4; ++i)
    runs.push_back(std::make_unique<Transom>(
        folder_, std::vector<std::string>{"run", "--set", "boot.firmware=" + guest("halt"), "--memory", "16M", "--cpu",
                                          "soft", "--set", "name=" + unique(), "--timeout", "5"}));
  int timed_out = 0, refused = 0;
  for (const auto& run : runs) {
    const Finished f = run->finish();
    timed_out += f.status == 124;
    refused += f.status == 1 && f.err.find("is running already") != std::string::npos;
  }
  EXPECT_EQ(timed_out, 1);
  EXPECT_EQ(refused, 3);
}

TEST_F(Supervision, NoDescriptorOfTheCallerReachesTheProcesses) {
  const std::string secret = folder_.write("secret", "x");
  const int fd = ::open(secret.c_str(), O_RDONLY); // not close-on-exec
  ASSERT_GE(fd, 0);
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  EXPECT_THAT(descriptors(run.pid()), testing::Contains(secret)); // the control: it was inherited so far
  for (const pid_t child : run.children()) {
    EXPECT_THAT(descriptors(child), Each(testing::Ne(secret)));
    EXPECT_LT(descriptors(child).size(), 40u);
  }
  const auto hypervisor = run.child("transom-hypervisor");
  ASSERT_TRUE(hypervisor);
  EXPECT_THAT(descriptors(*hypervisor), Each(testing::Ne(disk_))); // images are Dom0's alone
  ::close(fd);
}

TEST_F(Supervision, AskingTwiceLeaksNoDescriptor) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  EXPECT_EQ(run_transom(folder_, {"info", unique()}).status, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const size_t before = descriptors(run.pid()).size();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(run_transom(folder_, {"info", unique()}).status, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(descriptors(run.pid()).size(), before);
}

TEST_F(Supervision, AStoppedHypervisorIsKilledAndTheRestEndsInOrder) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  const auto hypervisor = run.child("transom-hypervisor");
  ASSERT_TRUE(hypervisor);
  const auto children = run.children();
  ::kill(*hypervisor, SIGSTOP);
  ::kill(run.pid(), SIGTERM);
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_THAT(f.err, HasSubstr("transom-hypervisor does not stop; killed\n"));
  expect_nothing_left(children);
}

TEST_F(Supervision, ASecondInterruptDoesNotWaitForAReaderThatDoesNotRead) {
  Transom run(folder_, {"run", "--set", "boot.firmware=" + guest("flood"), "--memory", "16M", "--cpu", "soft"});
  ASSERT_TRUE(run.shows("0100...."));
  run.pause_reading(true);
  std::this_thread::sleep_for(std::chrono::seconds(1)); // everything up to the UART fills
  ::kill(run.pid(), SIGTERM);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  ::kill(run.pid(), SIGINT);
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_THAT(f.err, HasSubstr("transom-dom0 does not stop; killed: what it had not written is lost\n"));
}

TEST_F(Supervision, GarbageOnTheControlSocketHurtsNobody) {
  Transom run(folder_, arguments());
  ASSERT_TRUE(run.shows("hello"));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", (folder_ / "transom" / (unique() + ".sock")).c_str());
  for (int i = 0; i < 20; ++i) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const std::string garbage(static_cast<size_t>(i) * 37 + 1, static_cast<char>(i * 83 + 255));
    EXPECT_GT(::send(fd, garbage.data(), garbage.size(), MSG_NOSIGNAL), 0);
    ::close(fd);
  }
  EXPECT_EQ(run_transom(folder_, {"info", unique()}).status, 0);
}

} // namespace
} // namespace transom::test
