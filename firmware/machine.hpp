// The PC as its firmware has to describe it. Everything in this folder that tells a guest about the machine starts from
// this one description, so that fw_cfg, ACPI, SMBIOS, the MP table, CMOS and e820 cannot contradict each other.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/guest_memory.hpp"
#include "firmware/bytes.hpp"

namespace transom::firmware {

inline constexpr u32 MAX_CPUS = 8; // processor objects in dsdt.asl

// The board's fixed addresses: what SeaBIOS programs when it finds our tables, and what the tables say.
inline constexpr u32 PM_BASE = 0x600;
inline constexpr u32 SMBUS_BASE = 0x700;
inline constexpr u32 SCI_IRQ = 9;
inline constexpr u32 LAPIC_BASE = 0xfee0'0000;
inline constexpr u32 IOAPIC_BASE = 0xfec0'0000;

enum class BootDevice : u8 { floppy = 1, disk = 2, cdrom = 3, network = 4 }; // values are CMOS boot nibbles

enum class FloppyType : u8 { none = 0, mb1_44 = 4, mb2_88 = 5 }; // values are CMOS register 10h nibbles

struct OptionRom {
  std::string name; // "pxe-e1000.rom": becomes genroms/NAME, or vgaroms/NAME
  Bytes image;
  bool vga = false;
};

struct MachineDescription {
  MachineDescription(); // no memory yet, one CPU, COM1, 8042; boots disk, CD-ROM, floppy
  explicit MachineDescription(const GuestMemory& ram);

  u64 low_ram = 0;  // bytes from address 0; a multiple of 64 KiB, at least 1 MiB + 64 KiB
  u64 high_ram = 0; // bytes from 4 GiB
  u32 cpus = 1;     // 1 … MAX_CPUS; APIC id = vCPU index

  bool vga = false;
  bool ps2 = true;
  std::array<bool, 2> serial{true, false}; // COM1 at 3F8h, COM2 at 2F8h
  std::array<FloppyType, 2> floppies{};
  bool pvpanic = false; // port 505h

  // SeaBIOS's console when there is no VGA: 3F8h, 2F8h, or 0 for none.
  u16 serial_console = 0;
  // Boot order by kind, and if wanted by device path (ide_path() …), which wins.
  std::vector<BootDevice> boot_order;
  std::vector<std::string> boot_paths;
  std::optional<u32> boot_fail_wait_ms; // none: SeaBIOS waits for ever when nothing boots
  std::vector<OptionRom> option_roms;

  std::string name = "transom"; // SMBIOS product
  std::array<u8, 16> uuid{};    // SMBIOS system UUID, in RFC 4122 byte order

  bool floppy_present() const { return floppies[0] != FloppyType::none || floppies[1] != FloppyType::none; }
};

// Device paths as SeaBIOS matches them in "bootorder".
inline std::string ide_path(u32 channel, u32 unit) { // hard disks and CD-ROMs alike
  return "/pci@i0cf8/*@1,1/drive@" + std::to_string(channel) + "/disk@" + std::to_string(unit);
}
inline std::string floppy_path(u32 unit) { return "/pci@i0cf8/isa@1/fdc@03f0/floppy@" + std::to_string(unit); }
inline std::string genrom_path(const std::string& name) { return "/rom@genroms/" + name; }

} // namespace transom::firmware
