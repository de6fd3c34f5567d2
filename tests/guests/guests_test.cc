#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "core/types.hpp"
#include "tests/guests/harness.hpp"

namespace transom::tests {
namespace {

const std::string PIC_HYPERVISOR = "[placement]\npic_pit = \"hypervisor\"\n";
const std::string PIC_DOM0 = "[placement]\npic_pit = \"dom0\"\n";
const std::string SLEEP = "[wake]\ndom0 = \"sleep\"\n", SPIN = "[wake]\ndom0 = \"spin\"\n";

// mmio0, mmio1, mmio2 on lines 5, 10 and 11.
std::string test_devices(unsigned count = 1) {
  static constexpr unsigned LINES[] = {5, 10, 11};
  std::string text;
  for (unsigned i = 0; i < count; ++i)
    text += fmt::format(
        "[[device]]\nplugin = \"mmio_test\"\nname = \"mmio{0}\"\nconfig = {{ \"irq.intr\" = {1}, "
        "\"base.mmio\" = \"0xd00{0}0000\", \"base.pio\" = \"0x10{0}0\" }}\n",
        i, LINES[i]);
  return text;
}
const std::string MMIO_IN_HYPERVISOR = "[placement]\nmmio0 = \"hypervisor\"\n";

void run(GuestRun guest) { expect_passed(run_guest(guest)); }

// ---------------------------------------------------------------------------------------------------- test device

TEST(TestDevice, AnswersEveryWidthAndAppliesPostedWritesInOrder) { run({"mmio.elf", test_devices()}); }
TEST(TestDevice, DoesSoWhenDom0SleepsAtOnce) { run({"mmio.elf", test_devices() + SLEEP}); }
TEST(TestDevice, DoesSoWhenDom0Spins) { run({"mmio.elf", test_devices() + SPIN}); }
TEST(TestDevice, DoesSoInASingleProcess) {
  GuestRun guest{"mmio.elf", test_devices()};
  guest.single_process = true;
  run(guest);
}

TEST(StringIo, IsOneRequestARunAndLosesNothingOverAFault) { run({"string_io.elf", test_devices()}); }
TEST(StringIo, IsTheSameOnADeviceInTheHypervisor) { run({"string_io.elf", test_devices() + MMIO_IN_HYPERVISOR}); }
TEST(StringIo, IsTheSameInASingleProcess) {
  GuestRun guest{"string_io.elf", test_devices()};
  guest.single_process = true;
  run(guest);
}

TEST(HotCode, CopiedOverByADeviceInDom0IsAlwaysTheNewCode) { run({"hot_code.elf", test_devices() + SLEEP}); }
TEST(HotCode, CopiedOverByADeviceInTheHypervisorIsAlwaysTheNewCode) {
  run({"hot_code.elf", test_devices() + MMIO_IN_HYPERVISOR});
}

// ---------------------------------------------------------------------------------------------------- 8259A

TEST(Pic, InTheHypervisorObeysEveryCommandWord) {
  const GuestResult result = run_guest({"pic.elf", test_devices(3) + PIC_HYPERVISOR});
  expect_passed(result);
  EXPECT_EQ(result.counters.at("exits.intack"), 0u);
}
TEST(Pic, InDom0ObeysEveryCommandWordAndIsAcknowledgedOverTheBorder) {
  const GuestResult result = run_guest({"pic.elf", test_devices(3) + PIC_DOM0});
  expect_passed(result);
  EXPECT_GT(result.counters.at("exits.intack"), 200u);
}
TEST(Pic, InASleepingDom0ObeysEveryCommandWord) { run({"pic.elf", test_devices(3) + PIC_DOM0 + SLEEP}); }
TEST(Pic, InASpinningDom0ObeysEveryCommandWord) { run({"pic.elf", test_devices(3) + PIC_DOM0 + SPIN}); }
TEST(Pic, InASingleProcessObeysEveryCommandWord) {
  GuestRun guest{"pic.elf", test_devices(3) + PIC_DOM0};
  guest.single_process = true;
  run(guest);
}

// ---------------------------------------------------------------------------------------------------- 8254

TEST(Pit, InTheHypervisorCountsInEveryMode) { run({"pit.elf", PIC_HYPERVISOR}); }
TEST(Pit, InDom0CountsInEveryMode) { run({"pit.elf", PIC_DOM0}); }
TEST(Pit, InASleepingDom0CountsInEveryMode) { run({"pit.elf", PIC_DOM0 + SLEEP}); }

// ---------------------------------------------------------------------------------------------------- other devices

TEST(Uart, AnswersEveryRegisterAndInterrupts) { run({"uart.elf", PIC_HYPERVISOR}); }
TEST(Uart, InterruptsAPicInDom0) { run({"uart.elf", PIC_DOM0}); }
TEST(Apic, TakesTimerEdgesAndLevels) { run({"apic.elf", test_devices(2)}); }
TEST(Apic, WorksWithAPicInDom0) { run({"apic.elf", test_devices(2) + PIC_DOM0 + SLEEP}); }
TEST(Devices, AllInterruptAPicInDom0) {
  GuestRun guest{"devices.elf", test_devices() + PIC_DOM0};
  guest.disk = std::string(65536, 'd');
  run(guest);
}

// ---------------------------------------------------------------------------------------------------- disk DMA

std::string numbered_disk() {
  std::string disk;
  for (u32 word = 0; word < 65536 / 4; ++word) disk.append(reinterpret_cast<const char*>(&word), 4);
  return disk;
}
TEST(DiskDma, LetsAMillionInstructionsRetireInItsFiftyMilliseconds) {
  GuestRun guest{"ide_dma.elf", "[debug]\nblock_delay_ms = 50\n"};
  guest.disk = numbered_disk();
  const GuestResult result = run_guest(guest);
  expect_passed(result);
  EXPECT_GT(result.counters.at("execution.instructions"), 1'000'000u);
}
TEST(DiskDma, OverHotCodeIsAlwaysTheNewCode) {
  GuestRun guest{"hot_disk.elf", SLEEP};
  for (u32 sector = 0; sector < 64; ++sector) {
    std::string code(512, '\xcc');
    const u32 value = 1000 + sector;
    code[0] = '\xb8', code[5] = '\xc3';
    std::memcpy(code.data() + 1, &value, 4);
    guest.disk += code;
  }
  run(guest);
}

// ---------------------------------------------------------------------------------------------------- CPU and boot

TEST(Cpu, RunsRealAndProtectedModeFromTheResetVector) {
  GuestRun guest{"real_mode.bin"};
  guest.as_firmware = true;
  run(guest);
}
TEST(Cpu, RunsLongModeWithExceptionsAndHypercalls) { run({"cpu64.elf"}); }
TEST(Cpu, RunsLongModeInASingleProcess) {
  GuestRun guest{"cpu64.elf"};
  guest.single_process = true;
  run(guest);
}

TEST(Boot, ByMultibootHandsOverModuleCommandLineAndMemoryMap) {
  GuestRun guest{"multiboot.elf"};
  guest.cmdline = "one=1 two \"three four\"";
  for (u32 i = 0; i < 5000; ++i) guest.module += static_cast<char>(i * 7);
  run(guest);
}

TEST(Boot, ByPvhHandsOverStartInfoModuleAndMemoryMap) {
  GuestRun guest{"pvh.bin"};
  guest.cmdline = "pvh=yes";
  for (u32 i = 0; i < 5000; ++i) guest.module += static_cast<char>(i * 7);
  run(guest);
}

// ---------------------------------------------------------------------------------------------------- processors

GuestRun processors(u32 count, const std::string& config = "") {
  GuestRun guest{"smp.elf", config};
  guest.cpus = count;
  guest.reboots = true;
  return guest;
}
TEST(Smp, TwoProcessorsStartInterruptEachOtherAndShareMemory) { run(processors(2)); }
TEST(Smp, FourProcessorsDo) { run(processors(4)); }
TEST(Smp, EightProcessorsDoWithAPicInASleepingDom0) { run(processors(8, PIC_DOM0 + SLEEP)); }
TEST(Smp, FourProcessorsDoInASingleProcess) {
  GuestRun guest = processors(4, PIC_DOM0);
  guest.single_process = true;
  run(guest);
}
TEST(Smp, AGuestOfOneProcessorIsToldSo) {
  const GuestResult result = run_guest(processors(1));
  EXPECT_NE(result.e9.find("wants 2 to 8 processors"), std::string::npos);
}

// ---------------------------------------------------------------------------------------------------- the harness

TEST(Harness, SeesAFailedCheckAndAWrongCounter) {
  const GuestResult result = run_guest({"failing.elf"});
  EXPECT_EQ(result.status, 17 << 1 | 1);
  EXPECT_NE(result.e9.find("FAILED: this cannot hold: got 0x1, expected 0x2\n"), std::string::npos);
  EXPECT_NE(result.e9.find("2 checks, 1 failures"), std::string::npos);
  EXPECT_NE(result.counters.at("debug.ioreqs"), 0u);
}

// The guest touches nothing after the doorbell, and Dom0 sleeps: the posted writes are taken all the same.
TEST(TestDevice, WakesDom0ByItsDoorbell) {
  const Scratch folder;
  const auto file = write_domain({"doorbell.elf", test_devices() + SLEEP}, folder);
  const int pid = start_program({program("transom"), "run", file.string(), "--timeout", "60"}, folder);
  bool taken = false;
  for (int i = 0; i < 600 && !taken; ++i) {
    const std::string info = output_of({program("transom"), "info", "guest", "--json"}, folder);
    taken = counters_of(info)["mmio0.posted"] == 6;
    if (!taken) ::usleep(50'000);
  }
  EXPECT_TRUE(taken);
  ::kill(pid, SIGTERM);
  EXPECT_EQ(wait_for_program(pid), 1);
}

} // namespace
} // namespace transom::tests
