#include "firmware/direct_tables.hpp"

#include "firmware/acpi.hpp"
#include "firmware/fw_cfg_pc.hpp"
#include "firmware/mptable.hpp"
#include "firmware/smbios.hpp"
#include "firmware/table_loader.hpp"

namespace transom::firmware {
namespace {

constexpr u64 F_SEGMENT = 0xf'0000, F_SEGMENT_END = 0x10'0000;
constexpr u64 HIGH_TABLES = 0x1'0000; // bytes at the end of low RAM

// Hands out addresses from a range, upwards.
class Zone {
 public:
  Zone(u64 begin, u64 end) : next_(begin), end_(end) {}
  u64 take(u64 size, u64 alignment) {
    const u64 at = align_up(next_, alignment);
    if (at + size > end_) return 0;
    next_ = at + size;
    return at;
  }

 private:
  u64 next_, end_;
};

constexpr u32 config_address(u32 device, u32 function, u32 reg) {
  return 0x8000'0000 | device << 11 | function << 8 | (reg & 0xfc);
}

} // namespace

Result<DirectTables> place_tables(const GuestMemory& ram, const MachineDescription& machine) {
  if (const auto fine = check(machine); !fine) return tl::unexpected(fine.error());
  if (ram.low_size() != machine.low_ram || ram.high_size() != machine.high_ram)
    return error("the machine's description is not that of its memory");

  const u64 high_base = machine.low_ram - HIGH_TABLES;
  Zone low(F_SEGMENT, F_SEGMENT_END), high(high_base, machine.low_ram);
  const AcpiFiles acpi = build_acpi(machine);
  const LoaderHost host{
      [&](std::string_view name) -> const Bytes* {
        return name == ACPI_RSDP_FILE ? &acpi.rsdp : name == ACPI_TABLES_FILE ? &acpi.tables : nullptr;
      },
      [&](u64 size, u32 alignment, LoaderZone zone) {
        return (zone == LoaderZone::f_segment ? low : high).take(size, alignment);
      }};
  const auto placed = run_table_loader(ram, acpi.loader, host);
  if (!placed) return tl::unexpected(placed.error());

  DirectTables tables;
  tables.rsdp = placed->at(ACPI_RSDP_FILE);
  Smbios smbios = build_smbios(machine, SmbiosBios::direct);
  tables.smbios = low.take(smbios.anchor.size(), 16);
  const u64 structures = low.take(smbios.tables.size(), 16);
  smbios_place(smbios.anchor, static_cast<u32>(structures));
  tables.mptable = low.take(16, 16);
  const Bytes mptable = build_mptable(machine, static_cast<u32>(tables.mptable));
  if (!ram.write(tables.smbios, smbios.anchor.data(), smbios.anchor.size()) ||
      !ram.write(structures, smbios.tables.data(), smbios.tables.size()) || low.take(mptable.size() - 16, 1) == 0 ||
      !ram.write(tables.mptable, mptable.data(), mptable.size()))
    return error("no room for the SMBIOS and MP tables in the F-segment");
  tables.e820 = e820_for_direct_boot(machine, high_base);
  return tables;
}

std::vector<PortWrite> direct_boot_ports() {
  std::vector<PortWrite> writes;
  const auto config = [&](u32 device, u32 function, u32 reg, u8 width, u32 value) {
    writes.push_back({0xcf8, 4, config_address(device, function, reg)});
    writes.push_back({static_cast<u16>(0xcfc + (reg & 3)), width, value});
  };
  // Host bridge: C0000–FFFFF is RAM, readable and writable.
  config(0, 0, 0x59, 1, 0x30);
  for (u32 pam = 0x5a; pam <= 0x5f; ++pam) config(0, 0, pam, 1, 0x33);
  config(0, 0, 0x04, 2, 0x0103);
  // ISA bridge: links A, B to IRQ 10, C, D to IRQ 11; both level triggered.
  config(1, 0, 0x60, 4, 0x0b0b'0a0a);
  writes.push_back({0x4d0, 1, 0x00});
  writes.push_back({0x4d1, 1, 0x0c});
  config(1, 0, 0x04, 2, 0x0103);
  // IDE: bus master ports at C000h, both channels decoded.
  config(1, 1, 0x20, 4, 0xc000);
  config(1, 1, 0x40, 2, 0x8000);
  config(1, 1, 0x42, 2, 0x8000);
  config(1, 1, 0x04, 2, 0x0103);
  // Power management: PM and SMBus blocks, enabled; the SCI.
  config(1, 3, 0x3c, 1, SCI_IRQ);
  config(1, 3, 0x40, 4, PM_BASE | 1);
  config(1, 3, 0x80, 1, 1);
  config(1, 3, 0x90, 4, SMBUS_BASE | 1);
  config(1, 3, 0xd2, 1, 9);
  config(1, 3, 0x04, 2, 0x0103);
  writes.push_back({0xcf8, 4, 0});
  // 8042 command byte: keyboard interrupt on, mouse off, scan codes translated to set 1 as every PC system expects.
  writes.push_back({0x64, 1, 0x60});
  writes.push_back({0x60, 1, 0x61});
  return writes;
}

} // namespace transom::firmware
