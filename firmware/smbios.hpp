// SMBIOS 2.8 tables (DMTF DSP0134): what `dmidecode` and Linux's DMI line show.
#pragma once

#include "firmware/machine.hpp"

namespace transom::firmware {

inline constexpr const char* SMBIOS_ANCHOR_FILE = "etc/smbios/smbios-anchor";
inline constexpr const char* SMBIOS_TABLES_FILE = "etc/smbios/smbios-tables";

struct Smbios {
  Bytes anchor; // 31 bytes; its table address and checksums are set by whoever places the tables
  Bytes tables;
};

enum class SmbiosBios : u8 {
  from_firmware, // no type 0: SeaBIOS adds its own
  direct,        // a type 0 that names us: there is no firmware
};

Smbios build_smbios(const MachineDescription& machine, SmbiosBios bios);

// Sets the tables' address and both checksums.
void smbios_place(Bytes& anchor, u32 tables_address);

} // namespace transom::firmware
