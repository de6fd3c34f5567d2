// The machine's ACPI tables, as the three fw_cfg files from which firmware builds them.
//
// RSDP (revision 0), RSDT, FACP (revision 1), FACS, DSDT (dsdt.asl), APIC (MADT). No HPET, MCFG or SSDT: there is no
// such hardware. The FADT stays at revision 1, the form that every PC system since 1998 reads: its PM blocks are plain
// ports, and reboot goes through the 8042 (64h ← FEh). A reset register would need revision 2 with the X_ fields and
// makes Linux read the RTC's century on every clock access; the machine answers CF9h for those who look there anyway.
#pragma once

#include "firmware/machine.hpp"

namespace transom::firmware {

inline constexpr const char* ACPI_RSDP_FILE = "etc/acpi/rsdp";
inline constexpr const char* ACPI_TABLES_FILE = "etc/acpi/tables";
inline constexpr const char* TABLE_LOADER_FILE = "etc/table-loader";

struct AcpiFiles {
  Bytes rsdp;   // to be placed in the F-segment, 16-byte aligned
  Bytes tables; // to be placed in reserved high memory, 64-byte aligned
  Bytes loader; // the script that places and links the two
};

AcpiFiles build_acpi(const MachineDescription& machine);

} // namespace transom::firmware
