// Bare-metal guests and SeaBIOS on KVM. They are the software CPU's guests; where this machine's KVM is itself emulated
// (nested), they take their time, and what such an emulator is known to get wrong is left out by name in docs/kvm.md.
#include <chrono>
#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <thread>
#include <unistd.h>

#include "hypervisor/vcpu/kvm/split_irqchip.hpp"
#include "hypervisor/vcpu/kvm/test_guest.hpp"
#include "tests/guests/harness.hpp"

namespace transom::tests {
namespace {

const std::string PIC_HYPERVISOR = "[placement]\npic_pit = \"hypervisor\"\n";
const std::string PIC_DOM0 = "[placement]\npic_pit = \"dom0\"\n";

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

// With the local APICs in user space, and in the kernel.
class KvmGuests : public KvmGuest, public ::testing::WithParamInterface<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "kvm:split")
      if (const std::string why = split_irqchip_obstacle(); !why.empty()) GTEST_SKIP() << why;
    KvmGuest::SetUp();
  }
  static GuestResult result_of(GuestRun guest) {
    guest.cpu = GetParam();
    guest.timeout_s = 240;
    return run_guest(guest);
  }
  static void run_domain(const GuestRun& guest) { expect_passed(result_of(guest)); }
};

// Guests that wait for an interrupt with STI, NOP, CLI.
class KvmInterrupts : public KvmGuests {
 protected:
  void run_guest_of_interrupts(GuestRun guest) {
    if (misses_interrupt_windows()) guest.cmdline = "patient";
    run_domain(guest);
  }
};

TEST_P(KvmGuests, ATestDeviceAnswersEveryWidth) { run_domain({"mmio.elf", test_devices()}); }
TEST_P(KvmGuests, ItDoesSoInASingleProcess) {
  GuestRun guest{"mmio.elf", test_devices()};
  guest.single_process = true;
  run_domain(guest);
}
TEST_P(KvmGuests, HotCodeCopiedOverByADeviceIsAlwaysTheNewCode) { run_domain({"hot_code.elf", test_devices()}); }
TEST_P(KvmInterrupts, ThePicInTheHypervisorObeysEveryCommandWord) {
  run_guest_of_interrupts({"pic.elf", test_devices(3) + PIC_HYPERVISOR});
}
TEST_P(KvmInterrupts, ThePicInDom0ObeysEveryCommandWord) {
  run_guest_of_interrupts({"pic.elf", test_devices(3) + PIC_DOM0});
}
TEST_P(KvmInterrupts, TheApicTakesTimerEdgesAndLevels) { run_guest_of_interrupts({"apic.elf", test_devices(2)}); }
TEST_P(KvmInterrupts, TheUartInterrupts) { run_guest_of_interrupts({"uart.elf"}); }
TEST_P(KvmInterrupts, ThePitCountsInEveryMode) { run_guest_of_interrupts({"pit.elf"}); }
TEST_P(KvmInterrupts, AllDevicesInterruptAPicInDom0) {
  GuestRun guest{"devices.elf", test_devices() + PIC_DOM0};
  guest.disk = std::string(65536, 'd');
  run_guest_of_interrupts(guest);
}
TEST_P(KvmInterrupts, DmaOverHotCodeIsAlwaysTheNewCode) {
  GuestRun guest{"hot_disk.elf"};
  for (unsigned sector = 0; sector < 64; ++sector) { // mov eax, 1000 + sector; ret
    std::string text(512, '\xcc');
    const unsigned value = 1000 + sector;
    text[0] = '\xb8', text[5] = '\xc3';
    std::memcpy(text.data() + 1, &value, 4);
    guest.disk += text;
  }
  run_guest_of_interrupts(guest);
}
TEST_P(KvmGuests, TheResetVectorLeadsToRealAndProtectedMode) {
  if (hangs_on({0xcd, 0x80})) GTEST_SKIP() << "this KVM does not come back from INT 80h";
  GuestRun guest{"real_mode.bin"};
  guest.as_firmware = true;
  run_domain(guest);
}
TEST_P(KvmGuests, MultibootHandsOverModuleCommandLineAndMemoryMap) {
  GuestRun guest{"multiboot.elf"};
  guest.cmdline = "one=1 two \"three four\"";
  for (unsigned i = 0; i < 5000; ++i) guest.module += static_cast<char>(i * 7);
  run_domain(guest);
}
TEST_P(KvmInterrupts, TwoProcessorsStartInterruptEachOtherAndShareMemory) {
  GuestRun guest{"smp.elf"};
  guest.cpus = 2;
  guest.reboots = true;
  run_guest_of_interrupts(guest);
}

// The negative control: the run is the guest's, not the harness's.
TEST_P(KvmGuests, AFailedCheckIsSeen) {
  const GuestResult result = result_of({"failing.elf"});
  EXPECT_EQ(result.status, 17 << 1 | 1);
  EXPECT_NE(result.e9.find("2 checks, 1 failures"), std::string::npos);
}

TEST_P(KvmGuests, SeaBiosComesToItsBootDevices) {
  const Scratch folder;
  const auto file = folder / "vm.toml";
  std::FILE* out = std::fopen(file.c_str(), "w");
  ASSERT_NE(out, nullptr);
  fmt::print(out,
             "name = \"bios\"\nmemory = \"64M\"\ncpu = \"{}\"\n[debug]\nfirmware_log = \"file:seabios\"\n"
             "[[serial]]\nto = \"none\"\n",
             GetParam());
  std::fclose(out);
  const int pid = start_program({program("transom"), "run", file.string(), "--timeout", "300"}, folder);
  std::string log;
  for (int i = 0; i < 3000 && log.find("Booting from") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    log = read_file(folder / "seabios");
    if (log.find("No bootable device") != std::string::npos) break;
  }
  ::kill(pid, SIGTERM);
  wait_for_program(pid);
  EXPECT_NE(log.find("Booting from"), std::string::npos) << log << read_file(folder / "errors");
}

std::string way(const ::testing::TestParamInfo<std::string>& info) { return info.param == "kvm" ? "user" : "kernel"; }
INSTANTIATE_TEST_SUITE_P(Apics, KvmGuests, ::testing::Values("kvm", "kvm:split"), way);
INSTANTIATE_TEST_SUITE_P(Apics, KvmInterrupts, ::testing::Values("kvm", "kvm:split"), way);

} // namespace
} // namespace transom::tests
