// Direct boot and the tables behind it, judged by a machine that is not ours: the guest memory, registers and port
// writes that a direct boot consists of are given to QEMU's PC (software CPU), and Debian's kernel has to find its
// hardware there without a complaint about its firmware.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>

#include "firmware/acpi.hpp"
#include "firmware/boot_kernel.hpp"
#include "firmware/boot_placer.hpp"
#include "firmware/fw_cfg_pc.hpp"
#include "firmware/tests/debian_kernel.hpp"
#include "firmware/tests/guest_ram.hpp"

namespace transom::firmware {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr u64 MIB = 1 << 20;
constexpr u64 BLOCK = 0x1b000, F_SEGMENT = 0xf0000, F_SEGMENT_STAGE = 0x30000, F_SEGMENT_SIZE = 0x10000;

// An initramfs ("newc" cpio) from files in memory.
class Initramfs {
 public:
  Initramfs& add(const std::string& name, u32 mode, ByteView content) {
    char header[111];
    std::snprintf(header, sizeof header, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++inode_, mode,
                  0, 0, 1, 0, static_cast<unsigned>(content.size()), 0, 0, 0, 0, static_cast<unsigned>(name.size() + 1),
                  0);
    append(bytes_, std::string_view(header, 110));
    append(bytes_, name);
    bytes_.push_back(0);
    bytes_.resize(align_up(bytes_.size(), 4));
    append(bytes_, content);
    bytes_.resize(align_up(bytes_.size(), 4));
    return *this;
  }
  Bytes finish() {
    add("TRAILER!!!", 0, {});
    return bytes_;
  }

 private:
  Bytes bytes_;
  u32 inode_ = 0;
};

Bytes file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

constexpr std::string_view INIT = R"sh(#!/bin/busybox sh
/bin/busybox mkdir /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
echo "INIT cpus $(/bin/busybox grep -c ^processor /proc/cpuinfo)"
for d in /sys/bus/acpi/devices/*; do echo "ACPI ${d##*/} status $(/bin/busybox cat $d/status 2>/dev/null)"; done
echo "DMI $(/bin/busybox cat /sys/class/dmi/id/sys_vendor) $(/bin/busybox cat /sys/class/dmi/id/product_name)"
/bin/busybox cat /proc/ioports /proc/interrupts
case "$(/bin/busybox cat /proc/cmdline)" in
  *acpi=off*) /bin/busybox reboot -f ;; # there is no way to power off: QEMU leaves at the reset
  *) /bin/busybox poweroff -f ;;
esac
)sh";

class QemuBootTest : public ::testing::Test {
 protected:
  QemuBootTest() {
    folder_ = (std::filesystem::temp_directory_path() / "transom-qemu-XXXXXX").string();
    if (mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("mkdtemp");
    machine.cpus = 2;
  }
  ~QemuBootTest() override { std::filesystem::remove_all(folder_); }

  void save(const std::string& name, ByteView bytes) {
    std::ofstream(folder_ + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

  // The stub's parameter block.
  Bytes block(const BootState& state) {
    const auto ports = direct_boot_ports();
    Bytes b;
    append_le(b, 8, ports.size());
    for (const u64 value :
         {state.cr0, state.cr3, state.cr4, state.efer, state.gpr[RAX], state.gpr[RBX], state.gpr[RSI], state.gpr[RSP]})
      append_le(b, 8, value);
    append_le(b, 2, state.gdtr.limit);
    append_le(b, 6, state.gdtr.base);
    append_le(b, 4, state.rip);
    append_le(b, 4, state.cs.selector);
    append_le(b, 8, state.ds.selector);
    b.resize(0x80);
    for (const PortWrite& write : ports) {
      append_le(b, 2, write.port);
      append_le(b, 2, write.width);
      append_le(b, 4, write.value);
    }
    return b;
  }

  // Guest memory as files and the options that load them: runs of pages with content.
  std::string memory_options(const GuestRam& guest) {
    std::string options;
    u32 count = 0;
    const auto emit = [&](u64 begin, u64 end) {
      const std::string name = "ram" + std::to_string(count++);
      save(name, guest.bytes(begin, end - begin));
      options += " -device loader,force-raw=on,file=" + folder_ + "/" + name + ",addr=" + std::to_string(begin);
    };
    constexpr u64 GAP = 64;
    u64 begin = 0, end = 0;
    for (u64 page = 0; page < guest.ram.low_size(); page += PAGE_SIZE) {
      const u8* bytes = guest.ram.at(page, PAGE_SIZE);
      if (page >= F_SEGMENT && page < F_SEGMENT + F_SEGMENT_SIZE) continue;
      if (std::all_of(bytes, bytes + PAGE_SIZE, [](u8 b) { return b == 0; })) continue;
      const bool across = begin < MIB && page >= MIB;
      if (end != 0 && (across || page > end + GAP * PAGE_SIZE)) {
        emit(begin, end);
        end = 0;
      }
      if (end == 0) begin = page;
      end = page + PAGE_SIZE;
    }
    if (end != 0) emit(begin, end);
    return options;
  }

  // Runs the guest until it powers off; what it wrote to COM1.
  std::string run(const DirectBoot& boot) {
    GuestRam guest(machine.low_ram);
    const DirectTables tables = place_tables(guest.ram, machine).value();
    const BootState state = load_kernel(guest.ram, boot, tables).value();
    const Bytes parameters = block(state);
    guest.ram.write(BLOCK, parameters.data(), parameters.size());
    const Bytes segment = guest.bytes(F_SEGMENT, F_SEGMENT_SIZE);
    guest.ram.write(F_SEGMENT_STAGE, segment.data(), segment.size());

    const std::string command =
        "timeout 120 qemu-system-x86_64 -accel tcg -M pc,hpet=off,usb=off,vmport=off -nodefaults "
        "-display none -no-reboot -serial file:" +
        folder_ + "/serial -device pvpanic" + " -smp " + std::to_string(machine.cpus) + " -m " +
        std::to_string(machine.low_ram / MIB) + " -bios " QEMU_STUB + memory_options(guest) + " > " + folder_ +
        "/qemu.log 2>&1";
    const int status = std::system(command.c_str());
    const Bytes serial = file_bytes(folder_ + "/serial"), log = file_bytes(folder_ + "/qemu.log");
    EXPECT_EQ(status, 0) << std::string(log.begin(), log.end());
    return std::string(serial.begin(), serial.end());
  }

  // SeaBIOS under QEMU with these fw_cfg files instead of QEMU's own ACPI; its log. It finds nothing to boot.
  std::string seabios_log(const std::vector<std::string>& files) {
    FwCfg fw_cfg;
    EXPECT_TRUE(fill_fw_cfg(fw_cfg, machine));
    std::string options;
    for (const std::string& name : files) {
      const std::string path = folder_ + "/" + std::to_string(options.size());
      save(std::to_string(options.size()), *fw_cfg.file(name));
      options += " -fw_cfg name=" + name + ",file=" + path;
    }
    // Powered off by the time limit, which is what status 124 says.
    const std::string command =
        "timeout 4 qemu-system-x86_64 -accel tcg -M pc,acpi=off -nodefaults -display none -m 512 "
        "-chardev file,id=log,path=" +
        folder_ + "/firmware -device isa-debugcon,iobase=0x402,chardev=log" + options + " > " + folder_ +
        "/qemu.log 2>&1";
    const int status = std::system(command.c_str());
    const Bytes said = file_bytes(folder_ + "/qemu.log"), log = file_bytes(folder_ + "/firmware");
    EXPECT_EQ(status >> 8, 124) << std::string(said.begin(), said.end());
    return std::string(log.begin(), log.end());
  }

  DirectBoot debian(const std::string& cmdline) {
    DirectBoot boot = read_direct_boot(debian_vmlinuz(), "", cmdline).value();
    const Bytes busybox = file_bytes("/bin/busybox");
    boot.initrd = Initramfs()
                      .add("bin", 0040755, {})
                      .add("dev", 0040755, {})
                      .add("bin/busybox", 0100755, busybox)
                      .add("init", 0100755, view(INIT))
                      .finish();
    return boot;
  }

  static MachineDescription make_machine() {
    MachineDescription m;
    m.low_ram = 512 * MIB;
    m.pvpanic = true;
    return m;
  }

  MachineDescription machine = make_machine();

 private:
  std::string folder_;
};

TEST_F(QemuBootTest, DebiansKernelBootsAndHasNoComplaintAboutItsFirmware) {
  const std::string log = run(debian("console=ttyS0 rdinit=/init"));
  SCOPED_TRACE(log);
  for (const char* complaint : {"ACPI Error", "ACPI BIOS Error", "ACPI Warning", "ACPI BIOS Warning", "Firmware Bug",
                                "firmware bug", "No compatible ACPI", "can't be claimed", "invalid resource", "BUG:"})
    EXPECT_THAT(log, Not(HasSubstr(complaint)));
  EXPECT_THAT(log, ContainsRegex("ACPI: RSDP 0x00000000000F0000"));
  EXPECT_THAT(log, ContainsRegex("ACPI: Interpreter enabled"));
  EXPECT_THAT(log, HasSubstr("ACPI: PM: (supports S0 S5)"));
  EXPECT_THAT(log, HasSubstr("Interrupt link LNKA configured for IRQ 10"));
  EXPECT_THAT(log, HasSubstr("Interrupt link LNKD configured for IRQ 11"));
  EXPECT_THAT(log, HasSubstr("[mem 0x20000000-0xfebfffff window]"));
  EXPECT_THAT(log, HasSubstr("IOAPIC[0]: apic_id 0, version 32, address 0xfec00000, GSI 0-23"));
  EXPECT_THAT(log, HasSubstr("DMI Transom transom"));
  EXPECT_THAT(log, HasSubstr("AT Translated Set 2 keyboard"));
  EXPECT_THAT(log, HasSubstr("INIT cpus 2"));
  EXPECT_THAT(log, HasSubstr("reboot: Power down")) << "S5 by the DSDT";
}

TEST_F(QemuBootTest, TheSameKernelUnpackedStartsAtItsPvhEntry) {
  DirectBoot boot = debian("console=ttyS0 rdinit=/init");
  boot.kernel = debian_vmlinux();
  const std::string log = run(boot);
  SCOPED_TRACE(log);
  EXPECT_THAT(log, HasSubstr("Command line: console=ttyS0 rdinit=/init"));
  EXPECT_THAT(log, HasSubstr("ACPI: RSDP 0x00000000000F0000"));
  EXPECT_THAT(log, HasSubstr("INIT cpus 2"));
  EXPECT_THAT(log, HasSubstr("reboot: Power down"));
}

TEST_F(QemuBootTest, SeaBiosRunsTheLoaderScriptAndFindsTheKeyboardInTheDsdt) {
  const std::string log = seabios_log({ACPI_RSDP_FILE, ACPI_TABLES_FILE, TABLE_LOADER_FILE});
  SCOPED_TRACE(log);
  EXPECT_THAT(log, HasSubstr("Moving pm_base to 0x600"));
  EXPECT_THAT(log, ContainsRegex("table\\(50434146\\)=0x1ff[0-9a-f]+ \\(via rsdt\\)"));
  EXPECT_THAT(log, ContainsRegex("ACPI: parse DSDT at 0x1ff[0-9a-f]+ \\(len [0-9]+\\)"));
  EXPECT_THAT(log, HasSubstr("PS2 keyboard initialized"));
  EXPECT_THAT(log, Not(HasSubstr("no PS/2 keyboard present")));
  for (const char* complaint : {"romfile_loader", "parse_term", "FAIL"}) EXPECT_THAT(log, Not(HasSubstr(complaint)));
  EXPECT_THAT(seabios_log({}), Not(HasSubstr("Moving pm_base to 0x600"))) << "negative control: no script, no tables";
}

// Systems without ACPI find their interrupts in the MP table.
TEST_F(QemuBootTest, WithoutAcpiTheKernelUsesTheMpTable) {
  const std::string log = run(debian("console=ttyS0 rdinit=/init acpi=off"));
  SCOPED_TRACE(log);
  EXPECT_THAT(log, HasSubstr("Intel MultiProcessor Specification v1.4"));
  EXPECT_THAT(log, HasSubstr("INIT cpus 2"));
  EXPECT_THAT(log, Not(HasSubstr("IO-APIC + timer doesn't work")));
}

} // namespace
} // namespace transom::firmware
