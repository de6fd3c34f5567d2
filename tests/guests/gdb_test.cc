// Debian's gdb, in batch mode, against guests that run under `transom run --gdb`.
#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>

#include "tests/guests/harness.hpp"

namespace transom::tests {
namespace {

using testing::HasSubstr;
using testing::Not;

// A domain that waits for its debugger, and the debugger.
class DebuggedGuest {
 public:
  DebuggedGuest(const GuestRun& run, const std::string& script, bool wait = true) {
    std::vector<std::string> arguments{program("transom"), "run", write_domain(run, domain_).string()};
    arguments.insert(arguments.end(), {"--gdb", "unix:" + socket(), "--timeout", std::to_string(run.timeout_s)});
    if (wait) arguments.push_back("--wait");
    if (run.single_process) arguments.push_back("--single-process");
    domain_pid_ = start_program(arguments, domain_);
    while (!listening() && ::waitpid(domain_pid_, nullptr, WNOHANG) == 0) pause();
    struct stat st {};
    EXPECT_EQ(::stat(socket().c_str(), &st), 0) << read_file(domain_ / "errors");
    EXPECT_EQ(st.st_mode & 0777, 0600u);
    std::string symbols; // a ROM has none
    if (run.guest.ends_with(".elf")) symbols = fmt::format("file {}/{}\n", GUEST_DIR, run.guest);
    std::ofstream(folder_ / "script") << "set pagination off\nset confirm off\nset remotetimeout 60\n"
                                      << symbols << "target remote " << socket() << "\n"
                                      << script;
    gdb_pid_ = start_program({"/usr/bin/gdb", "-nx", "-batch", "-x", (folder_ / "script").string()}, folder_, "output");
  }
  ~DebuggedGuest() {
    for (const int pid : {gdb_pid_, domain_pid_})
      if (pid > 0) ::kill(pid, SIGTERM);
    finish_gdb();
    finish_domain();
  }

  // What gdb printed, once it is done.
  std::string finish_gdb() {
    if (gdb_pid_ > 0) wait_for_program(gdb_pid_);
    gdb_pid_ = 0;
    return read_file(folder_ / "output") + read_file(folder_ / "errors");
  }
  int finish_domain() {
    if (domain_pid_ > 0) status_ = wait_for_program(domain_pid_);
    domain_pid_ = 0;
    return status_;
  }
  std::string e9() const { return read_file(domain_ / "e9"); }
  void wait_for(const std::string& text) const {
    while (e9().find(text) == std::string::npos && ::kill(gdb_pid_, 0) == 0) pause();
  }
  void press_ctrl_c() const { ::kill(gdb_pid_, SIGINT); }
  std::string socket() const { return (domain_ / "gdb").string(); }

 private:
  // Its file is there a moment before the socket listens.
  bool listening() const {
    std::istringstream sockets(read_file("/proc/net/unix"));
    for (std::string line; std::getline(sockets, line);)
      if (line.ends_with(socket()) && line.find(" 00010000 ") != std::string::npos) return true;
    return false;
  }
  static void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

  Scratch domain_, folder_;
  int domain_pid_ = 0, gdb_pid_ = 0, status_ = -1;
};

TEST(Gdb, BreaksStepsReadsAndWritesUntilTheGuestEnds) {
  DebuggedGuest guest({"debugged.elf"}, R"(
printf "paging at the start: %d\n", ($cr0 >> 31) & 1
break *meeting
continue
printf "first: %d %d, in 64-bit mode: %d\n", $rdi, $rsi, ($efer >> 10) & 1
set $rsi = 1000
stepi
printf "stepped: %d\n", $pc > (unsigned long)&meeting && $pc < (unsigned long)&meeting + 16
continue
printf "second: %d\n", $rdi
printf "told is %d\n", *(unsigned long *)&told
set *(unsigned long *)&told = 77
delete
break *never_called
continue
)");
  const std::string said = guest.finish_gdb();
  EXPECT_EQ(guest.finish_domain(), GUEST_PASSED) << said;
  EXPECT_THAT(said, HasSubstr("paging at the start: 0"));
  EXPECT_THAT(said, HasSubstr("first: 1 10, in 64-bit mode: 1"));
  EXPECT_THAT(said, HasSubstr("stepped: 1"));
  EXPECT_THAT(said, HasSubstr("second: 2"));
  EXPECT_THAT(said, HasSubstr("told is 1\n"));
  EXPECT_THAT(said, HasSubstr("exited normally"));
  EXPECT_THAT(said, Not(HasSubstr("Breakpoint 2, "))); // never_called has no hit
  EXPECT_EQ(guest.e9().substr(0, guest.e9().find("1 checks")),
            "meeting 1001\nmeeting 12\nmeeting 13\ncounted 1000\ntold 77\n");
}

TEST(Gdb, CountsTheHitsInAHotLoopAndGoesOnWithoutThem) {
  DebuggedGuest guest({"debugged.elf"}, R"(
break *counting
ignore 1 99
continue
info breakpoints
delete
detach
)");
  const std::string said = guest.finish_gdb();
  EXPECT_EQ(guest.finish_domain(), GUEST_PASSED) << said;
  EXPECT_THAT(said, HasSubstr("already hit 100 times"));
  EXPECT_THAT(guest.e9(), HasSubstr("counted 1000\ntold 1\n")); // detaching let it run to its end
}

TEST(Gdb, InterruptsASpinningGuestAndKillsIt) {
  DebuggedGuest guest({"forever.elf"}, R"(
continue
info symbol $pc
monitor info registers
monitor translate 100000
kill
)");
  guest.wait_for("hello");
  guest.press_ctrl_c();
  const std::string said = guest.finish_gdb();
  EXPECT_THAT(said, HasSubstr("received signal SIGINT"));
  EXPECT_THAT(said, HasSubstr("guest_main()"));
  EXPECT_THAT(said, HasSubstr("0x100000 is at physical 0x100000"));
  EXPECT_THAT(said, HasSubstr("idtr "));
  EXPECT_EQ(guest.finish_domain(), 1);
  EXPECT_FALSE(std::filesystem::exists(guest.socket()));
}

TEST(Gdb, ComesAndGoesWhileTheGuestRuns) {
  DebuggedGuest guest({"forever.elf"}, "info symbol $pc\ndetach\n", false);
  EXPECT_THAT(guest.finish_gdb(), HasSubstr("detached"));
  const Scratch folder;
  std::ofstream(folder / "script") << "target remote " << guest.socket() << "\nstepi\nstepi\nkill\n";
  const std::string said = output_of({"/usr/bin/gdb", "-nx", "-batch", "-x", (folder / "script").string()}, folder);
  EXPECT_THAT(said, HasSubstr("killed")) << read_file(folder / "errors");
  EXPECT_EQ(guest.finish_domain(), 1);
}

TEST(Gdb, DebugsADomainInASingleProcess) {
  GuestRun run{"debugged.elf"};
  run.single_process = true;
  DebuggedGuest guest(run, "break *meeting\ncontinue\nset $rdi = 5\ndelete\ncontinue\n");
  const std::string said = guest.finish_gdb();
  EXPECT_EQ(guest.finish_domain(), GUEST_PASSED) << said;
  EXPECT_THAT(guest.e9(), HasSubstr("meeting 15\nmeeting 12\n"));
}

TEST(Gdb, SeesRealModeByItsLinearAddresses) {
  GuestRun run{"real_mode.bin"};
  run.as_firmware = true;
  run.config = "[debug]\ngdb_architecture = \"i8086\"\n";
  DebuggedGuest guest(run, R"(
printf "reset vector: %x:%x\n", $cs, $eip
x/i 0xffff0
stepi
printf "afterwards: %x\n", $eip
continue
)");
  const std::string said = guest.finish_gdb();
  EXPECT_THAT(said, HasSubstr("reset vector: f000:fff0"));
  EXPECT_THAT(said, HasSubstr("0xffff0:\tljmp")); // 16-bit code
  EXPECT_THAT(said, Not(HasSubstr("afterwards: fff0")));
  EXPECT_EQ(guest.finish_domain(), GUEST_PASSED) << said;
}

TEST(Gdb, HasAThreadForEveryProcessor) {
  GuestRun run{"smp.elf"};
  run.cpus = 2;
  run.reboots = true;
  DebuggedGuest guest(run, R"(
info threads
break *0x8000
continue
printf "\nstarted at %x:%x\n", $cs, $rip
info threads
thread 1
printf "in 64-bit mode: %d\n", ($efer >> 10) & 1
thread 2
delete
stepi
printf "stepped to %x:%x\n", $cs, $rip
set scheduler-locking on
stepi
printf "alone to %x:%x\n", $cs, $rip
set scheduler-locking off
continue
)");
  const std::string said = guest.finish_gdb();
  EXPECT_EQ(guest.finish_domain(), GUEST_PASSED) << said;
  EXPECT_THAT(said, HasSubstr("vCPU 1: waits for a start-up IPI"));
  EXPECT_THAT(said, HasSubstr("Thread 2 received signal SIGTRAP"));
  EXPECT_THAT(said, HasSubstr("\nstarted at 800:0\n"));
  EXPECT_THAT(said, HasSubstr("vCPU 1: started"));
  EXPECT_THAT(said, HasSubstr("in 64-bit mode: 1"));
  EXPECT_THAT(said, HasSubstr("stepped to 800:1"));
  EXPECT_THAT(said, HasSubstr("alone to 800:3"));
}

TEST(WithoutGdb, TheGuestSaysSomethingElse) { // the negative control of what gdb changed
  const GuestResult result = run_guest({"debugged.elf"});
  expect_passed(result);
  EXPECT_THAT(result.e9, HasSubstr("meeting 11\nmeeting 12\nmeeting 13\ncounted 1000\ntold 1\n"));
}

} // namespace
} // namespace transom::tests
