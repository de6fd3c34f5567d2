// Guests that test the processor, each on the software CPU, on QEMU's emulator, and on KVM. What the others get wrong
// is listed check by check in accepted.txt; the software CPU has no such list.
#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <set>
#include <sstream>
#include <unistd.h>

#include "core/types.hpp"
#include "tests/guests/harness.hpp"

namespace transom::tests {
namespace {

constexpr unsigned RUN_SECONDS = 200, FATAL_SECONDS = 3; // how long a run may take; one that is known not to end

struct Accepted {
  bool nothing = false; // the guest as a whole ends early
  std::set<std::string> checks;
  std::vector<std::string> parts; // that end the run
};

std::string trimmed(const std::string& s) {
  const auto first = s.find_first_not_of(' '), last = s.find_last_not_of(' ');
  return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

Accepted accepted_on(const std::string& processor, const std::string& guest) {
  Accepted accepted;
  std::istringstream lines(read_file(ACCEPTED_FILE));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    std::string field[4];
    for (std::string& f : field) std::getline(fields, f, '|'), f = trimmed(f);
    EXPECT_NE(field[3], "") << "accepted.txt: no evidence: " << line;
    if (field[0] != processor || field[1] != guest) continue;
    if (field[2] == "!")
      accepted.nothing = true;
    else if (field[2].back() == '!')
      accepted.parts.push_back(field[2].substr(0, field[2].size() - 1));
    else
      accepted.checks.insert(field[2]);
  }
  return accepted;
}

// Names of the checks that failed: up to the values, which follow a colon.
std::set<std::string> failures_of(const std::string& e9) {
  std::set<std::string> names;
  std::istringstream lines(e9);
  for (std::string line; std::getline(lines, line);)
    if (line.rfind("FAILED: ", 0) == 0) names.insert(line.substr(8, line.find(": got ") - 8));
  return names;
}

bool completed(const GuestResult& r) {
  return (r.status == GUEST_PASSED || r.status == (17 << 1 | 1)) && r.e9.find(" failures\n") != std::string::npos &&
         r.e9.find("gives up") == std::string::npos;
}

using Run = GuestResult (*)(const std::string& guest, const std::string& cmdline, unsigned seconds);

GuestResult on_transom(const std::string& cpu, const std::string& guest, const std::string& cmdline, unsigned seconds) {
  GuestRun run{guest + ".elf"};
  run.cpu = cpu;
  run.cmdline = cmdline;
  run.timeout_s = seconds;
  return run_guest(run);
}
GuestResult on_software_cpu(const std::string& guest, const std::string& cmdline, unsigned seconds) {
  return on_transom("soft", guest, cmdline, seconds);
}
GuestResult on_interpreter(const std::string& guest, const std::string& cmdline, unsigned seconds) {
  return on_transom("soft:interp", guest, cmdline, seconds);
}
GuestResult on_kvm(const std::string& guest, const std::string& cmdline, unsigned seconds) {
  return on_transom("kvm", guest, cmdline, seconds);
}

// What lib/loader.asm hands over: flags, the command line's address, the entry point of the 32-bit ELF file.
std::string multiboot_information(const std::string& elf, const std::string& cmdline) {
  constexpr u32 ADDRESS = 0x90000, COMMAND_LINE = 128;
  u32 words[32] = {4};
  words[4] = ADDRESS + COMMAND_LINE;
  std::memcpy(&words[31], elf.data() + 24, 4); // e_entry
  return std::string(reinterpret_cast<const char*>(words), sizeof words) + cmdline + '\0';
}

GuestResult on_tcg(const std::string& guest, const std::string& cmdline, unsigned seconds) {
  const Scratch folder;
  write_file(folder / "info", multiboot_information(read_file(image(guest + ".elf32")), cmdline));
  std::vector<std::string> arguments{"/usr/bin/qemu-system-x86_64",
                                     "-bios",
                                     image("loader.bin"),
                                     "-device",
                                     "loader,file=" + image(guest + ".elf32"),
                                     "-device",
                                     "loader,force-raw=on,addr=0x90000,file=" + (folder / "info").string(),
                                     "-m",
                                     "32M",
                                     "-nodefaults",
                                     "-no-reboot",
                                     "-display",
                                     "none",
                                     "-debugcon",
                                     "file:" + (folder / "e9").string(),
                                     "-device",
                                     "isa-debug-exit,iobase=0xf4,iosize=4",
                                     "-accel",
                                     "tcg",
                                     "-cpu",
                                     "max"};
  GuestResult result;
  result.status = wait_for_program(start_program(arguments, folder), seconds);
  result.e9 = read_file(folder / "e9");
  result.errors = read_file(folder / "errors");
  return result;
}
// What is wrong with a guest's run on a processor of which that much is accepted.
std::vector<std::string> complaints(Run run, const std::string& guest, const Accepted& accepted) {
  std::vector<std::string> list;
  if (accepted.nothing) {
    if (completed(run(guest, "", FATAL_SECONDS))) list.push_back("accepted, and does not end early: " + guest);
    return list;
  }
  std::string cmdline;
  for (const std::string& part : accepted.parts) cmdline += (cmdline.empty() ? "skip=" : " skip=") + part;
  const GuestResult result = run(guest, cmdline, RUN_SECONDS);
  const std::set<std::string> failed = failures_of(result.e9);
  for (const std::string& check : failed)
    if (accepted.checks.count(check) == 0) list.push_back("fails: " + check);
  for (const std::string& check : accepted.checks)
    if (failed.count(check) == 0) list.push_back("accepted, and does not fail: " + check);
  if (!completed(result)) list.push_back(fmt::format("does not reach its end: exit status {}", result.status));
  if (!list.empty()) list.push_back(result.e9 + result.errors);
  for (const std::string& part : accepted.parts)
    if (completed(run(guest, "only=" + part, FATAL_SECONDS))) list.push_back("accepted, and ends: " + part);
  return list;
}
void expect_checks(Run run, const std::string& guest, const Accepted& accepted) {
  for (const std::string& complaint : complaints(run, guest, accepted)) ADD_FAILURE() << complaint;
}

bool kvm_opens() {
  const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}
bool have_qemu() { return ::access("/usr/bin/qemu-system-x86_64", X_OK) == 0; }

// A KVM that an emulator serves instead of a processor (clouds do that) has faults of its own, and another list. It is
// told by paging of two levels, which it cannot turn on.
std::string kind_of_kvm() {
  return completed(on_kvm("paging32", "only=accessed", RUN_SECONDS)) ? "kvm" : "kvm-emulated";
}

class Processor : public testing::TestWithParam<const char*> {};

TEST_P(Processor, OnTheSoftwareCpu) { expect_checks(on_software_cpu, GetParam(), {}); }
TEST_P(Processor, OnQemuTcg) {
  if (!have_qemu()) GTEST_SKIP() << "no qemu-system-x86_64";
  expect_checks(on_tcg, GetParam(), accepted_on("tcg", GetParam()));
}
TEST_P(Processor, OnKvm) {
  if (!kvm_opens()) GTEST_SKIP() << "/dev/kvm cannot be opened";
  expect_checks(on_kvm, GetParam(), accepted_on(kind_of_kvm(), GetParam()));
}

constexpr const char* GUESTS[] = {"paging32", "pae32",   "paging64", "gates64",  "segments32",
                                  "gates32",  "tasks32", "vm32",     "events64", "debug64",
                                  "modes64",  "calls32", "code64",   "fpu64",    "protection64"};
INSTANTIATE_TEST_SUITE_P(Cpu, Processor, testing::ValuesIn(GUESTS),
                         [](const auto& guest) { return std::string(guest.param); });

// The translator leaves to the interpreter what seldom runs, so these see most of it by themselves.
class Interpreter : public testing::TestWithParam<const char*> {};
TEST_P(Interpreter, AloneDoesAsTheProcessor) { expect_checks(on_interpreter, GetParam(), {}); }
INSTANTIATE_TEST_SUITE_P(Cpu, Interpreter, testing::Values("code64", "events64"),
                         [](const auto& guest) { return std::string(guest.param); });

// --- the driver itself
GuestResult canned(const std::string&, const std::string& cmdline, unsigned) {
  if (cmdline == "only=endless") return {124, "part endless\n", "", {}};
  return {17 << 1 | 1, "FAILED: a: b: got 0x1, expected 0x2\nFAILED: a: c\n9 checks, 2 failures\n", "", {}};
}
TEST(Driver, AcceptsWhatIsListedAndNothingElse) {
  EXPECT_TRUE(complaints(canned, "g", {false, {"a: b", "a: c"}, {"endless"}}).empty());
  EXPECT_EQ(complaints(canned, "g", {false, {"a: b"}, {}}).at(0), "fails: a: c");
  EXPECT_EQ(complaints(canned, "g", {false, {"a: b", "a: c", "a: d"}, {}}).at(0), "accepted, and does not fail: a: d");
  EXPECT_EQ(complaints(canned, "g", {false, {"a: b", "a: c"}, {"fine"}}).at(0), "accepted, and ends: fine");
  EXPECT_EQ(complaints(canned, "g", {true, {}, {}}).at(0), "accepted, and does not end early: g");
}
TEST(Driver, ReadsAcceptedEntriesOfKnownGuestsOnKnownProcessors) {
  std::istringstream lines(read_file(ACCEPTED_FILE));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::string processor = trimmed(line.substr(0, line.find('|')));
    line.erase(0, line.find('|') + 1);
    const std::string guest = trimmed(line.substr(0, line.find('|')));
    EXPECT_TRUE(processor == "tcg" || processor == "kvm" || processor == "kvm-emulated") << processor;
    EXPECT_NE(std::find(std::begin(GUESTS), std::end(GUESTS), guest), std::end(GUESTS)) << guest;
  }
}

// A fault that nothing can take any more ends the run: not by the guest's own exit, and not by a timeout.
class Shutdown : public testing::TestWithParam<const char*> {};

void expect_triple_fault(const GuestResult& result) {
  EXPECT_EQ(result.status, 3) << result.e9;
  EXPECT_NE(result.errors.find("triple fault"), std::string::npos) << result.errors;
  EXPECT_NE(result.e9.find("part "), std::string::npos);
  EXPECT_EQ(result.e9.find("survived"), std::string::npos);
}
TEST_P(Shutdown, OnTheSoftwareCpu) {
  expect_triple_fault(on_software_cpu("shutdown64", std::string("only=") + GetParam(), RUN_SECONDS));
}
TEST_P(Shutdown, OnKvm) {
  if (!kvm_opens()) GTEST_SKIP() << "/dev/kvm cannot be opened";
  expect_triple_fault(on_kvm("shutdown64", std::string("only=") + GetParam(), RUN_SECONDS));
}
TEST_P(Shutdown, OnQemuTcg) {
  if (!have_qemu()) GTEST_SKIP() << "no qemu-system-x86_64";
  const GuestResult result = on_tcg("shutdown64", std::string("only=") + GetParam(), RUN_SECONDS);
  EXPECT_EQ(result.status, 0) << result.errors; // -no-reboot
  EXPECT_NE(result.e9.find("part "), std::string::npos);
  EXPECT_EQ(result.e9.find("survived"), std::string::npos);
}
INSTANTIATE_TEST_SUITE_P(Cpu, Shutdown, testing::Values("no-table", "no-stack", "no-gate"), [](const auto& way) {
  std::string name = way.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

} // namespace
} // namespace transom::tests
