#include "firmware/fw_cfg_pc.hpp"

#include "firmware/acpi.hpp"
#include "firmware/e820.hpp"
#include "firmware/smbios.hpp"

namespace transom::firmware {
namespace {

constexpr u64 MIN_RAM = 0x11'0000, RAM_UNIT = 0x1'0000; // tables take the last 64 KiB of low RAM in a direct boot

std::string rom_file(const OptionRom& rom) { return (rom.vga ? "vgaroms/" : "genroms/") + rom.name; }

void fill_numbers(FwCfg& fw_cfg, const MachineDescription& machine) {
  fw_cfg.set(FW_CFG_UUID, Bytes(machine.uuid.begin(), machine.uuid.end()));
  fw_cfg.set_number(FW_CFG_RAM_SIZE, 8, machine.low_ram + machine.high_ram);
  // 1 would silence the firmware on the screen, and a serial console is a screen to it (etc/sercon-port).
  fw_cfg.set_number(FW_CFG_NOGRAPHIC, 2, 0);
  fw_cfg.set_number(FW_CFG_NB_CPUS, 2, machine.cpus);
  fw_cfg.set_number(FW_CFG_MAX_CPUS, 2, machine.cpus);
  fw_cfg.set_number(FW_CFG_NUMA, 8, 0);
  fw_cfg.set_number(FW_CFG_BOOT_MENU, 2, 0);
  fw_cfg.set_number(FW_CFG_ACPI_TABLES, 2, 0);
  fw_cfg.set_number(FW_CFG_SMBIOS_ENTRIES, 2, 0);
  fw_cfg.set_number(FW_CFG_IRQ0_OVERRIDE, 4, 1); // MP table: the timer is on pin 2
}

// S3 and S4 are not offered: bit 7 = supported, low bits = SLP_TYP; indices are S0 … S5.
Bytes system_states() { return {0x80, 0, 0, 0x01, 0x02, 0x80}; }

// One device path a line, NUL-terminated.
Bytes boot_order_text(const std::vector<std::string>& paths) {
  Bytes text;
  for (const std::string& path : paths) {
    if (!text.empty()) text.push_back('\n');
    append(text, path);
  }
  text.push_back(0);
  return text;
}

} // namespace

Result<void> check(const MachineDescription& machine) {
  if (machine.cpus < 1 || machine.cpus > MAX_CPUS)
    return error("cpus = " + std::to_string(machine.cpus) + ": the tables describe 1 to " + std::to_string(MAX_CPUS));
  if (machine.low_ram < MIN_RAM || machine.low_ram % RAM_UNIT != 0 || machine.low_ram > GuestMemory::LOW_LIMIT ||
      machine.high_ram % RAM_UNIT != 0)
    return error("memory of " + std::to_string(machine.low_ram + machine.high_ram) +
                 " bytes: give at least 1088K, in units of 64K");
  if (machine.high_ram != 0 && machine.low_ram != GuestMemory::LOW_LIMIT)
    return error("memory above 4 GiB without all of it below");
  if (machine.serial_console != 0 && machine.serial_console != 0x3f8 && machine.serial_console != 0x2f8)
    return error("serial console on port " + std::to_string(machine.serial_console) + ": 3F8h or 2F8h is accepted");
  for (const OptionRom& rom : machine.option_roms)
    if (rom.name.empty() || rom_file(rom).size() > FwCfg::NAME_LENGTH)
      return error("option ROM \"" + rom.name + "\": a name has 1 to 47 characters");
  return {};
}

Result<void> fill_fw_cfg(FwCfg& fw_cfg, const MachineDescription& machine) {
  if (const auto fine = check(machine); !fine) return fine;
  fill_numbers(fw_cfg, machine);
  fw_cfg.add_file("etc/e820", e820_bytes(e820_for_firmware(machine)));
  const Smbios smbios = build_smbios(machine, SmbiosBios::from_firmware);
  fw_cfg.add_file(SMBIOS_ANCHOR_FILE, smbios.anchor);
  fw_cfg.add_file(SMBIOS_TABLES_FILE, smbios.tables);
  AcpiFiles acpi = build_acpi(machine);
  fw_cfg.add_file(ACPI_RSDP_FILE, std::move(acpi.rsdp));
  fw_cfg.add_file(ACPI_TABLES_FILE, std::move(acpi.tables));
  fw_cfg.add_file(TABLE_LOADER_FILE, std::move(acpi.loader));
  fw_cfg.add_file("etc/system-states", system_states());
  fw_cfg.add_file("etc/boot-fail-wait", le_bytes(4, machine.boot_fail_wait_ms.value_or(0xffff'ffff)));
  if (machine.serial_console != 0) fw_cfg.add_file("etc/sercon-port", le_bytes(2, machine.serial_console));
  if (!machine.boot_paths.empty()) fw_cfg.add_file("bootorder", boot_order_text(machine.boot_paths));
  for (const OptionRom& rom : machine.option_roms) fw_cfg.add_file(rom_file(rom), rom.image);
  return {};
}

} // namespace transom::firmware
