// Physical memory maps in the BIOS's E820h form.
#pragma once

#include "firmware/machine.hpp"

namespace transom::firmware {

enum class E820Type : u32 { ram = 1, reserved = 2, acpi = 3 };

struct E820Entry {
  u64 base = 0;
  u64 length = 0;
  E820Type type = E820Type::ram;
  friend bool operator==(const E820Entry&, const E820Entry&) = default;
};
using E820Map = std::vector<E820Entry>;

// What the firmware is told (fw_cfg etc/e820): where RAM is. It adds its own reservations.
E820Map e820_for_firmware(const MachineDescription& machine);

// What a directly booted kernel is told: a PC's map with `tables_base` … end of low RAM reserved for ACPI tables.
E820Map e820_for_direct_boot(const MachineDescription& machine, u64 tables_base);

// 20 bytes an entry: LE64 base, LE64 length, LE32 type.
Bytes e820_bytes(const E820Map& map);

} // namespace transom::firmware
