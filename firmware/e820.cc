#include "firmware/e820.hpp"

namespace transom::firmware {

E820Map e820_for_firmware(const MachineDescription& machine) {
  E820Map map{{0, machine.low_ram, E820Type::ram}};
  if (machine.high_ram != 0) map.push_back({GuestMemory::HIGH_BASE, machine.high_ram, E820Type::ram});
  return map;
}

E820Map e820_for_direct_boot(const MachineDescription& machine, u64 tables_base) {
  E820Map map{
      {0, 0x9'fc00, E820Type::ram},
      {0x9'fc00, 0x400, E820Type::reserved},    // the extended BIOS data area's place
      {0xf'0000, 0x1'0000, E820Type::reserved}, // RSDP, SMBIOS and MP table
      {0x10'0000, tables_base - 0x10'0000, E820Type::ram},
      {tables_base, machine.low_ram - tables_base, E820Type::reserved},
      {0xfffc'0000, 0x4'0000, E820Type::reserved},
  };
  if (machine.high_ram != 0) map.push_back({GuestMemory::HIGH_BASE, machine.high_ram, E820Type::ram});
  return map;
}

Bytes e820_bytes(const E820Map& map) {
  Bytes bytes;
  for (const E820Entry& entry : map) {
    append_le(bytes, 8, entry.base);
    append_le(bytes, 8, entry.length);
    append_le(bytes, 4, static_cast<u32>(entry.type));
  }
  return bytes;
}

} // namespace transom::firmware
