// The serial line: complete outwards, whatever the reader does, and inwards from whatever standard input is.
#include <csignal>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <thread>
#include <unistd.h>

#include "domain_run.hpp"

namespace transom::test {
namespace {

using testing::HasSubstr;

std::vector<std::string> run_of(const std::string& rom, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {
      "run",   "--set",       "boot.firmware=" + guest(rom), "--memory", "16M", "--cpu", "soft", "--timeout", "300",
      "--set", "name=console"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string flood() {
  std::string text;
  char line[8];
  for (int i = 0; i < 16384; ++i) {
    std::snprintf(line, sizeof line, "%04x", i);
    text += line + std::string(59, '.') + "\n";
  }
  return text;
}

TEST(Console, AMebibyteArrivesCompleteThroughAReaderThatPauses) {
  const Folder folder;
  Transom run(folder, run_of("flood"));
  ASSERT_TRUE(run.shows("0100...."));
  run.pause_reading(true); // pipe, queue and ring fill; the UART has to wait
  std::this_thread::sleep_for(std::chrono::seconds(2));
  run.pause_reading(false);
  const Finished f = run.finish(300);
  EXPECT_EQ(f.status, 0) << f.err;
  EXPECT_TRUE(f.out == flood()) << f.out.size() << " bytes";
}

TEST(Console, AMebibyteArrivesCompleteInAFile) {
  const Folder folder;
  const std::string log = (folder / "log").string();
  const Finished f = run_transom(folder, run_of("flood", {"--set", "serial.0.to=file:" + log}));
  EXPECT_EQ(f.status, 0) << f.err;
  EXPECT_EQ(f.out, "");
  EXPECT_TRUE(read_file(log) == flood());
}

TEST(Console, StandardOutputMayBeAFile) {
  const Folder folder;
  Transom::Options options;
  options.output = (folder / "out").string();
  EXPECT_EQ(run_transom(folder, run_of("off"), options).status, 0);
  EXPECT_EQ(read_file(folder / "out"), "hello from the guest\n");
}

TEST(Console, AReaderThatGoesAwayIsHarmless) {
  const Folder folder;
  Transom run(folder, run_of("flood"));
  ASSERT_TRUE(run.shows("0010...."));
  run.close_output();
  const Finished f = run.finish(300);
  EXPECT_EQ(f.status, 0) << f.err;
}

TEST(Console, ClosedStandardStreamsAreHarmless) {
  const Folder folder;
  Transom::Options options;
  options.closed = {0, 1};
  EXPECT_EQ(run_transom(folder, run_of("off"), options).status, 0);
}

TEST(Console, TypedBytesReachTheGuest) {
  const Folder folder;
  Transom run(folder, run_of("echo"));
  ASSERT_TRUE(run.shows("ready"));
  run.type("hello, ");
  EXPECT_TRUE(run.shows("HELLO, "));
  run.type("guest.");
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 0) << f.err;
  EXPECT_EQ(f.out, "ready\nHELLO, GUEST");
}

TEST(Console, InputComesFromAFileWhole) {
  const Folder folder;
  Transom::Options options;
  options.input = folder.write("input", std::string(20'000, 'a') + "z.");
  const Finished f = run_transom(folder, run_of("echo"), options);
  EXPECT_EQ(f.status, 0) << f.err;
  EXPECT_EQ(f.out, "ready\n" + std::string(20'000, 'A') + "Z");
}

TEST(Console, EndOfInputIsNoEndOfTheDomain) {
  const Folder folder;
  Transom::Options options;
  options.input = "/dev/null";
  EXPECT_EQ(run_transom(folder, run_of("echo", {"--timeout", "1"}), options).status, 124);
}

TEST(Console, InputGoesToTheSerialLineAlsoWhenTheDebugConsoleIsOnStdio) {
  const Folder folder;
  Transom run(folder, run_of("echo", {"--set", "debug.e9=stdio"}));
  ASSERT_TRUE(run.shows("ready"));
  for (int i = 0; i < 20; ++i) {
    run.type("x");
    ASSERT_TRUE(run.shows("ready\n" + std::string(static_cast<size_t>(i) + 1, 'X')));
  }
}

// O_NONBLOCK belongs to the open file: whoever shares it (a shell, and the messages of transom itself) must not see it.
TEST(Console, TheCallersPipesStayBlocking) {
  const Folder folder;
  Transom run(folder, run_of("halt")); // its pipes are those of transom-dom0
  ASSERT_TRUE(run.shows("hello"));
  for (const char* fd : {"0", "1"}) {
    const std::string info = read_file("/proc/" + std::to_string(run.pid()) + "/fdinfo/" + fd);
    const unsigned long flags = std::stoul(info.substr(info.find("flags:") + 6), nullptr, 8);
    EXPECT_EQ(flags & O_NONBLOCK, 0u) << info;
  }
}

TEST(Console, ASocketServesOnePeerAfterAnother) {
  const Folder folder;
  const std::string path = (folder / "line").string();
  Transom run(folder, run_of("echo", {"--set", "serial.0.to=unix:" + path}));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
  const auto talk = [&](const std::string& say, const std::string& hear) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < 2000 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(::write(fd, say.data(), say.size()), static_cast<ssize_t>(say.size()));
    std::string heard;
    const timeval patience{60, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (char c; heard.find(hear) == std::string::npos && ::read(fd, &c, 1) == 1;) heard += c;
    ::close(fd);
    return heard;
  };
  EXPECT_THAT(talk("one", "ONE"), HasSubstr("ONE"));
  EXPECT_THAT(talk("two", "TWO"), HasSubstr("TWO"));
  talk(".", "\n\n"); // until it hangs up
  EXPECT_EQ(run.finish().status, 0);
  EXPECT_FALSE(fs::exists(path));
}

// --------------------------------------------------------------------------------------------------- terminals

Transom::Options on_a_terminal() {
  Transom::Options options;
  options.terminal = true;
  return options;
}

TEST(Terminal, KeysReachTheGuestAndControlCIsOne) {
  const Folder folder;
  Transom run(folder, run_of("echo"), on_a_terminal());
  ASSERT_TRUE(run.shows("ready"));
  run.type(
      "ab\x03"
      "c");
  EXPECT_TRUE(
      run.shows("AB\x03"
                "C"))
      << run.output();
  run.type(".");
  EXPECT_EQ(run.finish().status, 0);
}

TEST(Terminal, ItsModeIsRestored) {
  const Folder folder;
  Transom run(folder, run_of("echo"), on_a_terminal());
  termios during{}, after{};
  ASSERT_TRUE(run.shows("ready"));
  ASSERT_EQ(::tcgetattr(run.terminal(), &during), 0);
  EXPECT_EQ(during.c_lflag & (ICANON | ECHO | ISIG), 0u); // the control: it is the guest's now
  run.type(".");
  run.seconds_until_end();
  ASSERT_EQ(::tcgetattr(run.terminal(), &after), 0);
  EXPECT_EQ(after.c_lflag & (ICANON | ECHO | ISIG), unsigned{ICANON | ECHO | ISIG});
}

// A job in the background may not read the terminal (SIGTTIN would stop it) nor change its mode.
TEST(Terminal, ADomainInTheBackgroundRunsWithoutInput) {
  const Folder folder;
  Transom::Options options = on_a_terminal();
  options.background = true;
  Transom run(folder, run_of("echo", {"--timeout", "3"}), options);
  ASSERT_TRUE(run.shows("ready"));
  termios mode{};
  ASSERT_EQ(::tcgetattr(run.terminal(), &mode), 0);
  EXPECT_EQ(mode.c_lflag & (ICANON | ISIG), unsigned{ICANON | ISIG});
  run.type("not for the guest\n");
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 124) << f.err;
  EXPECT_EQ(f.out.find("NOT FOR"), std::string::npos);
}

TEST(Terminal, ControlBracketEndsTheDomain) {
  const Folder folder;
  Transom run(folder, run_of("echo"), on_a_terminal());
  ASSERT_TRUE(run.shows("ready"));
  run.type("\x1d");
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_THAT(f.err, HasSubstr("stopped before the guest powered off"));
}

TEST(Terminal, ControlCEndsADomainWithoutConsoleInOrder) {
  const Folder folder;
  Transom run(folder, run_of("halt", {"--console", "none"}), on_a_terminal());
  for (int i = 0; i < 2000 && run_transom(folder, {"info", "console"}).status != 0; ++i) {
  }
  run.type("\x03");
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, "transom: console: stopped before the guest powered off\n"); // no process was killed by the signal
}

TEST(Terminal, AHangUpEndsTheDomainInOrder) {
  const Folder folder;
  Transom run(folder, run_of("halt"), on_a_terminal());
  ASSERT_TRUE(run.shows("hello"));
  run.close_output();
  run.end_input(); // the last master: the session gets SIGHUP
  const Finished f = run.finish();
  EXPECT_EQ(f.status, 1);
  EXPECT_EQ(f.err, "transom: console: stopped before the guest powered off\n");
}

} // namespace
} // namespace transom::test
