#include <fmt/format.h>
#include <gtest/gtest.h>

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

} // namespace
} // namespace transom::tests
