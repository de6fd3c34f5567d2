#include "firmware/cmos.hpp"

#include <algorithm>

namespace transom::firmware {
namespace {

constexpr u64 KIB = 1024, MIB = 1024 * KIB;

// Memory above `from`, in `unit`s, as far as a field of this many bits can say.
u64 above(u64 ram, u64 from, u64 unit, u64 limit) { return ram <= from ? 0 : std::min((ram - from) / unit, limit); }

// The IBM AT's equipment byte: floppy drives, an FPU, and mice; the display field 0 is "VGA or none".
u8 equipment(const MachineDescription& machine) {
  u8 drives = 0;
  for (const FloppyType type : machine.floppies) drives = static_cast<u8>(drives + (type != FloppyType::none));
  return static_cast<u8>(0x06 | (drives != 0 ? 0x01 | (drives - 1) << 6 : 0));
}

} // namespace

std::vector<CmosValue> cmos_defaults(const MachineDescription& machine) {
  std::vector<CmosValue> values;
  const auto byte = [&](u8 index, u64 value) { values.push_back({index, static_cast<u8>(value)}); };
  const auto word = [&](u8 index, u64 value) {
    byte(index, value);
    byte(static_cast<u8>(index + 1), value >> 8);
  };
  const auto order = [&](u64 place) {
    return place < machine.boot_order.size() ? static_cast<u32>(machine.boot_order[place]) : 0u;
  };

  byte(0x0f, 0); // shutdown code: cold boot
  byte(0x10, static_cast<u32>(machine.floppies[0]) << 4 | static_cast<u32>(machine.floppies[1]));
  byte(0x14, equipment(machine));
  word(0x15, 640);                                      // KiB of base memory
  word(0x17, above(machine.low_ram, MIB, KIB, 0xffff)); // KiB above 1 MiB, to 64 MiB
  word(0x30, above(machine.low_ram, MIB, KIB, 0xffff)); // the same, as POST found it
  word(0x34, above(machine.low_ram, 16 * MIB, 64 * KIB, 0xffff));
  byte(0x38, order(2) << 4 | 1); // third boot device; bit 0: boot floppies without 55AAh too
  byte(0x39, 0x55);              // LBA translation for all four IDE disks
  byte(0x3d, order(1) << 4 | order(0));
  const u64 high = above(machine.high_ram, 0, 64 * KIB, 0xff'ffff);
  word(0x5b, high);
  byte(0x5d, high >> 16);
  byte(0x5f, machine.cpus - 1);
  return values;
}

} // namespace transom::firmware
