// How a run ends, and with which status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "domain_run.hpp"

namespace transom::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> run_of(const std::string& rom, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {
      "run", "--set", "boot.firmware=" + guest(rom), "--memory", "16M", "--cpu", "soft", "--timeout", "100"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

class Modes : public testing::TestWithParam<std::vector<std::string>> {
 protected:
  Finished run(const std::string& rom, std::vector<std::string> more = {}) {
    more.insert(more.end(), GetParam().begin(), GetParam().end());
    const Finished f = run_transom(folder_, run_of(rom, more));
    EXPECT_THAT(folder_.sockets(), IsEmpty());
    return f;
  }
  Folder folder_;
};

INSTANTIATE_TEST_SUITE_P(, Modes,
                         testing::Values(std::vector<std::string>{}, std::vector<std::string>{"--single-process"}),
                         [](const auto& about) { return about.param.empty() ? "Processes" : "SingleProcess"; });

TEST_P(Modes, PowerOffIsZero) {
  const Finished f = run("off");
  EXPECT_EQ(f.status, 0);
  EXPECT_EQ(f.out, "hello from the guest\n");
  EXPECT_EQ(f.err, "");
}

TEST_P(Modes, APanicIsThree) {
  const Finished f = run("panic");
  EXPECT_EQ(f.status, 3);
  EXPECT_EQ(f.err, "transom: domain: the guest reported a panic\n");
}

TEST_P(Modes, ATripleFaultIsThreeWhenRebootExits) {
  const Finished f = run("triple", {"--set", "on_reboot=exit"});
  EXPECT_EQ(f.status, 3);
  EXPECT_EQ(f.err, "transom: domain: triple fault\n");
}

TEST_P(Modes, TheDebugPortsCodeIsTheStatus) {
  EXPECT_EQ(run("exit17", {"--set", "debug.exit=true"}).status, (17 << 1) | 1);
  const Finished small = run("exit3", {"--set", "debug.exit=true"});
  EXPECT_EQ(small.status, 1);
  EXPECT_EQ(small.err, "transom: domain: the guest ended the run with code 3\n");
}

TEST_P(Modes, TheTimeIsOver) {
  const Finished f = run("halt", {"--timeout", "1"});
  EXPECT_EQ(f.status, 124);
  EXPECT_EQ(f.err, "transom: domain: the time of 1 s is over\n");
  EXPECT_EQ(f.out, "hello from the guest\n");
}

TEST(Run, WithoutTheDebugPortItsCodeIsNoStatus) {
  const Folder folder;
  EXPECT_EQ(run_transom(folder, run_of("exit17", {"--timeout", "1"})).status, 124);
}

TEST(Run, ATripleFaultResetsUnlessRebootExits) {
  const Folder folder;
  EXPECT_EQ(run_transom(folder, run_of("triple", {"--timeout", "1"})).status, 124);
}

TEST(Run, AResetStartsTheGuestAgainUnlessRebootExits) {
  const Folder folder;
  EXPECT_EQ(run_transom(folder, run_of("reset", {"--set", "on_reboot=exit"})).out, "hello from the guest\n");
  const Finished f = run_transom(folder, run_of("reset", {"--timeout", "1"}));
  EXPECT_EQ(f.status, 124);
  EXPECT_THAT(f.out, HasSubstr("hello from the guest\nhello from the guest\n"));
}

TEST(Run, AnImageThatIsLockedIsOneLine) {
  const Folder folder;
  const std::string image = folder.image("disk.raw");
  Transom first(folder, run_of("halt", {"--disk", image, "--set", "name=first"}));
  ASSERT_TRUE(first.shows("hello"));
  const Finished f = run_transom(folder, run_of("halt", {"--disk", image, "--set", "name=second"}));
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, "transom: disk0: " + image + ": is in use by another program that has locked it\n");
  EXPECT_EQ(run_transom(folder, {"kill", "first"}).status, 0);
}

TEST(Run, SeaBiosFindsNothingToBoot) {
  const Folder folder;
  Transom run(folder, {"run", "--memory", "32M", "--cpu", "soft", "--timeout", "200"});
  EXPECT_TRUE(run.shows("SeaBIOS (version"));
  EXPECT_TRUE(run.shows("No bootable device", 100));
}

TEST(Run, ADomainIsNamedLikeItsFile) {
  const Folder folder;
  const std::string file =
      folder.write("my machine.toml", "memory = \"16M\"\n[boot]\nfirmware = \"" + guest("panic") + "\"\n");
  EXPECT_THAT(run_transom(folder, {"run", file}).err, HasSubstr("my-machine: the guest reported a panic"));
}

} // namespace
} // namespace transom::test
