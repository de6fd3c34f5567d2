// Everything that a PC's firmware finds in fw_cfg.
#pragma once

#include "core/result.hpp"
#include "firmware/fw_cfg.hpp"
#include "firmware/machine.hpp"

namespace transom::firmware {

// Numeric keys that firmware reads (QEMU's FW_CFG_*).
enum FwCfgKey : u16 {
  FW_CFG_UUID = 0x02,
  FW_CFG_RAM_SIZE = 0x03,
  FW_CFG_NOGRAPHIC = 0x04,
  FW_CFG_NB_CPUS = 0x05,
  FW_CFG_NUMA = 0x0d,
  FW_CFG_BOOT_MENU = 0x0e,
  FW_CFG_MAX_CPUS = 0x0f,
  FW_CFG_ACPI_TABLES = 0x8000,
  FW_CFG_SMBIOS_ENTRIES = 0x8001,
  FW_CFG_IRQ0_OVERRIDE = 0x8002,
};

// Is this a machine that the firmware can describe? (CPU count, memory sizes, serial console, ROM names.)
Result<void> check(const MachineDescription& machine);

// Registers all items. An error names what cannot be described; nothing is registered then.
Result<void> fill_fw_cfg(FwCfg& fw_cfg, const MachineDescription& machine);

} // namespace transom::firmware
