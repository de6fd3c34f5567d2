// SMBIOS, MP table, memory maps, CMOS, and what fw_cfg holds for a whole PC.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/acpi.hpp"
#include "firmware/cmos.hpp"
#include "firmware/direct_tables.hpp"
#include "firmware/fw_cfg_pc.hpp"
#include "firmware/mptable.hpp"
#include "firmware/smbios.hpp"
#include "firmware/tests/guest_ram.hpp"

namespace transom::firmware {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr u64 MIB = 1 << 20, GIB = 1 << 30;

MachineDescription machine_with(u64 memory, u32 cpus = 1) {
  MachineDescription machine = MachineDescription(GuestMemory(nullptr, memory));
  machine.cpus = cpus;
  return machine;
}

std::vector<u8> structure_types(const Bytes& tables) {
  std::vector<u8> types;
  for (u64 at = 0; at + 4 <= tables.size();) {
    types.push_back(tables[at]);
    u64 end = at + tables[at + 1]; // then strings, up to two zeros
    while (end + 1 < tables.size() && (tables[end] != 0 || tables[end + 1] != 0)) ++end;
    at = end + 2;
  }
  return types;
}

TEST(Smbios, StructuresAreThoseThatFirmwareExpects) {
  const Smbios smbios = build_smbios(machine_with(6 * GIB, 2), SmbiosBios::from_firmware);
  EXPECT_EQ(structure_types(smbios.tables), (std::vector<u8>{1, 3, 4, 4, 16, 17, 19, 19, 32, 127}));
  EXPECT_EQ(le16_at(smbios.anchor, 0x1c), 10u) << "their number";
  EXPECT_EQ(le16_at(smbios.anchor, 0x16), smbios.tables.size());
  EXPECT_EQ(structure_types(build_smbios(machine_with(64 * MIB), SmbiosBios::direct).tables).front(), 0);
}

TEST(Smbios, AnchorSumsToZeroInBothParts) {
  Bytes anchor = build_smbios(machine_with(512 * MIB), SmbiosBios::direct).anchor;
  ASSERT_EQ(anchor.size(), 31u);
  smbios_place(anchor, 0xf1234);
  EXPECT_EQ(le32_at(anchor, 0x18), 0xf1234u);
  EXPECT_EQ(sum_of(anchor), 0);
  EXPECT_EQ(sum_of(ByteView(anchor).subspan(0x10)), 0);
  EXPECT_EQ(anchor[6], 2);
  EXPECT_EQ(anchor[7], 8);
}

TEST(Smbios, FormattedPartsHaveTheirSpecifiedLength) {
  const Smbios smbios = build_smbios(machine_with(512 * MIB), SmbiosBios::direct);
  const std::map<u8, u8> lengths{{0, 24}, {1, 27}, {3, 22}, {4, 42}, {16, 23}, {17, 40}, {19, 31}, {32, 11}, {127, 4}};
  for (u64 at = 0; at + 4 <= smbios.tables.size();) {
    EXPECT_EQ(smbios.tables[at + 1], lengths.at(smbios.tables[at])) << "type " << int{smbios.tables[at]};
    u64 end = at + smbios.tables[at + 1];
    while (smbios.tables[end] != 0 || smbios.tables[end + 1] != 0) ++end;
    at = end + 2;
  }
}

TEST(MpTable, SumsToZeroAndCountsItsEntries) {
  const Bytes table = build_mptable(machine_with(512 * MIB, 4), 0xf1230);
  const ByteView pointer = ByteView(table).subspan(0, 16), config = ByteView(table).subspan(16);
  EXPECT_EQ(sum_of(pointer), 0);
  EXPECT_EQ(le32_at(pointer, 4), 0xf1240u);
  EXPECT_EQ(le16_at(config, 4), config.size());
  EXPECT_EQ(sum_of(config), 0);
  u64 at = 44;
  u32 entries = 0, cpus = 0, pit_pins = 0;
  std::map<u8, u8> pci; // slot << 2 | pin: IOAPIC pin
  for (; at < config.size(); ++entries) {
    cpus += config[at] == 0;
    if (config[at] == 3 && config[at + 4] == 1 && config[at + 5] == 0) pit_pins += config[at + 7];
    if (config[at] == 3 && config[at + 4] == 0) pci[config[at + 5]] = config[at + 7];
    at += config[at] == 0 ? 20 : 8;
  }
  EXPECT_EQ(at, config.size());
  EXPECT_EQ(entries, le16_at(config, 34));
  EXPECT_EQ(cpus, 4u);
  EXPECT_EQ(pit_pins, 2u) << "ISA IRQ 0 arrives on pin 2";
  EXPECT_EQ(pci.size(), 128u);
  EXPECT_EQ(pci[1 << 2], 9) << "power management: the SCI";
  EXPECT_EQ(pci[2 << 2], 10) << "slot 2 pin A: link B";
  EXPECT_EQ(pci[3 << 2], 11) << "slot 3 pin A: link C";
  EXPECT_EQ(pci[3 << 2 | 2], 10) << "slot 3 pin C: link A";
}

TEST(E820, FirmwareIsToldRamAloneAndInTwentyByteEntries) {
  const E820Map map = e820_for_firmware(machine_with(5 * GIB));
  EXPECT_EQ(map, (E820Map{{0, 3 * GIB, E820Type::ram}, {4 * GIB, 2 * GIB, E820Type::ram}}));
  const Bytes bytes = e820_bytes(map);
  ASSERT_EQ(bytes.size(), 40u);
  EXPECT_EQ(le64_at(bytes, 20), 4 * GIB);
  EXPECT_EQ(le32_at(bytes, 36), 1u);
}

TEST(E820, DirectBootMapIsSortedAndCoversAllRamOnce) {
  for (const u64 memory : {32 * MIB, 512 * MIB, 3 * GIB, 6 * GIB}) {
    const MachineDescription machine = machine_with(memory);
    const E820Map map = e820_for_direct_boot(machine, machine.low_ram - 0x10000);
    u64 end = 0, ram = 0;
    for (const E820Entry& entry : map) {
      EXPECT_NE(entry.length, 0u);
      if (entry.base >= GuestMemory::HIGH_BASE) end = GuestMemory::HIGH_BASE;
      EXPECT_GE(entry.base, end);
      end = entry.base + entry.length;
      if (entry.type == E820Type::ram) ram += entry.length;
    }
    EXPECT_EQ(ram, memory - (0x10'0000 - 0x9'fc00) - 0x1'0000) << "all but the legacy hole and the tables";
    EXPECT_EQ(map[4].base + map[4].length, machine.low_ram);
  }
}

TEST(Cmos, MemoryAppearsInAllItsFields) {
  const auto values = cmos_defaults(machine_with(512 * MIB));
  // 512 MiB: 496 MiB above 16 MiB in 64 KiB units is 1F00h; above 1 MiB in KiB is more than the field holds.
  for (const CmosValue expected : {CmosValue{0x34, 0x00}, CmosValue{0x35, 0x1f}, CmosValue{0x30, 0xff},
                                   CmosValue{0x31, 0xff}, CmosValue{0x5b, 0}, CmosValue{0x5c, 0}, CmosValue{0x5d, 0}})
    EXPECT_THAT(values, Contains(expected)) << int{expected.index};
  const auto high = cmos_defaults(machine_with(6 * GIB));
  EXPECT_THAT(high, Contains(CmosValue{0x5c, 0xc0})); // 3 GiB above 4 GiB in 64 KiB units: C000h
  EXPECT_THAT(high, Contains(CmosValue{0x5b, 0x00}));
}

TEST(Cmos, BootOrderIsOneNibbleADevice) {
  MachineDescription machine = machine_with(64 * MIB, 3);
  machine.boot_order = {BootDevice::disk, BootDevice::floppy, BootDevice::cdrom};
  const auto values = cmos_defaults(machine);
  EXPECT_THAT(values, Contains(CmosValue{0x3d, 0x12}));
  EXPECT_THAT(values, Contains(CmosValue{0x38, 0x31}));
  EXPECT_THAT(values, Contains(CmosValue{0x5f, 2}));
  machine.boot_order = {BootDevice::cdrom};
  EXPECT_THAT(cmos_defaults(machine), Contains(CmosValue{0x3d, 0x03}));
}

TEST(Cmos, FloppyTypesFillTheirNibbles) {
  MachineDescription machine = machine_with(64 * MIB);
  EXPECT_THAT(cmos_defaults(machine), Contains(CmosValue{0x10, 0}));
  machine.floppies = {FloppyType::mb1_44, FloppyType::mb2_88};
  const auto values = cmos_defaults(machine);
  EXPECT_THAT(values, Contains(CmosValue{0x10, 0x45}));
  EXPECT_THAT(values, Contains(CmosValue{0x14, 0x47})) << "two drives";
}

TEST(Cmos, NoIndexAppearsTwiceOrBelongsToTheClock) {
  std::vector<u8> seen;
  for (const CmosValue& value : cmos_defaults(machine_with(64 * MIB))) {
    EXPECT_THAT(seen, Not(Contains(value.index)));
    seen.push_back(value.index);
    EXPECT_GE(value.index, 0x0e);
    EXPECT_LE(value.index, 0x7f);
    EXPECT_NE(value.index, 0x32) << "the century";
  }
}

TEST(FwCfgPc, HoldsWhatSeaBiosAsksFor) {
  FwCfg fw_cfg;
  MachineDescription machine = machine_with(512 * MIB, 2);
  machine.serial_console = 0x3f8;
  machine.boot_paths = {ide_path(0, 0), genrom_path("pv.rom")};
  machine.option_roms = {{"pv.rom", Bytes(512, 0x55), false}, {"vga.rom", Bytes(1024, 0xaa), true}};
  ASSERT_TRUE(fill_fw_cfg(fw_cfg, machine));
  EXPECT_EQ(*fw_cfg.item(FW_CFG_NB_CPUS), (Bytes{2, 0}));
  EXPECT_EQ(*fw_cfg.item(FW_CFG_MAX_CPUS), (Bytes{2, 0}));
  EXPECT_EQ(*fw_cfg.item(FW_CFG_NOGRAPHIC), (Bytes{0, 0}));
  EXPECT_EQ(*fw_cfg.item(FW_CFG_IRQ0_OVERRIDE), (Bytes{1, 0, 0, 0}));
  EXPECT_EQ(*fw_cfg.file("etc/sercon-port"), (Bytes{0xf8, 0x03}));
  EXPECT_EQ(fw_cfg.file("etc/e820")->size(), 20u);
  EXPECT_EQ(*fw_cfg.file("etc/boot-fail-wait"), Bytes(4, 0xff));
  EXPECT_EQ(fw_cfg.file("genroms/pv.rom")->size(), 512u);
  EXPECT_EQ(fw_cfg.file("vgaroms/vga.rom")->size(), 1024u);
  EXPECT_EQ(fw_cfg.file("etc/smbios/smbios-anchor")->size(), 31u);
  EXPECT_EQ(fw_cfg.file(TABLE_LOADER_FILE)->size() % 128, 0u);
  const Bytes order = *fw_cfg.file("bootorder");
  EXPECT_STREQ(reinterpret_cast<const char*>(order.data()), "/pci@i0cf8/*@1,1/drive@0/disk@0\n/rom@genroms/pv.rom");
  EXPECT_EQ(order.back(), 0);
}

TEST(FwCfgPc, WhatIsNotWantedIsNotThere) {
  FwCfg fw_cfg;
  ASSERT_TRUE(fill_fw_cfg(fw_cfg, machine_with(512 * MIB)));
  for (const char* name : {"etc/sercon-port", "bootorder", "genroms/pv.rom"})
    EXPECT_EQ(fw_cfg.file(name), nullptr) << name;
}

TEST(FwCfgPc, MachinesThatCannotBeDescribedAreRefusedWithAReason) {
  const auto refusal = [](const MachineDescription& machine) {
    FwCfg fw_cfg;
    const auto filled = fill_fw_cfg(fw_cfg, machine);
    EXPECT_EQ(fw_cfg.file("etc/e820"), nullptr) << "nothing is registered";
    return filled ? std::string("accepted") : filled.error().text;
  };
  EXPECT_THAT(refusal(machine_with(64 * MIB, 9)), HasSubstr("cpus = 9"));
  EXPECT_THAT(refusal(machine_with(64 * MIB, 0)), HasSubstr("cpus = 0"));
  EXPECT_THAT(refusal(machine_with(MIB)), HasSubstr("at least 1088K"));
  EXPECT_THAT(refusal(machine_with(64 * MIB + 4096)), HasSubstr("64K"));
  MachineDescription machine = machine_with(64 * MIB);
  machine.serial_console = 0x3e8;
  EXPECT_THAT(refusal(machine), HasSubstr("serial console"));
  machine = machine_with(64 * MIB);
  machine.option_roms = {{std::string(48, 'r'), {}, false}};
  EXPECT_THAT(refusal(machine), HasSubstr("option ROM"));
  machine.option_roms = {{std::string(47, 'r'), {}, false}};
  FwCfg fw_cfg;
  EXPECT_TRUE(fill_fw_cfg(fw_cfg, machine));
}

TEST(DirectTables, FSegmentHoldsAllThreePointers) {
  const MachineDescription machine = machine_with(512 * MIB, MAX_CPUS);
  GuestRam guest(512 * MIB);
  const auto tables = place_tables(guest.ram, machine);
  ASSERT_TRUE(tables) << tables.error().text;
  EXPECT_EQ(guest.text(tables->rsdp, 8), "RSD PTR ");
  EXPECT_EQ(guest.text(tables->smbios, 4), "_SM_");
  EXPECT_EQ(guest.text(tables->mptable, 4), "_MP_");
  for (const u64 at : {tables->rsdp, tables->smbios, tables->mptable}) {
    EXPECT_EQ(at % 16, 0u);
    EXPECT_GE(at, 0xf0000u);
    EXPECT_LT(at, 0x100000u);
  }
  const u64 structures = guest.number(tables->smbios + 0x18, 4);
  EXPECT_EQ(guest.number(structures, 1), 0u) << "type 0 comes first";
  const u64 config = guest.number(tables->mptable + 4, 4);
  EXPECT_EQ(guest.text(config, 4), "PCMP");
  EXPECT_LE(config + guest.number(config + 4, 2), 0x100000u);
}

TEST(DirectTables, ADescriptionOfAnotherMachineIsRefused) {
  GuestRam guest(64 * MIB);
  EXPECT_TRUE(place_tables(guest.ram, machine_with(64 * MIB)));
  EXPECT_FALSE(place_tables(guest.ram, machine_with(128 * MIB)));
}

// The chipset's state after the writes, by a config space that only remembers.
TEST(DirectTables, PortWritesLeaveTheChipsetAsFirmwareWould) {
  std::map<u32, u8> config;
  std::map<u16, u32> ports;
  u32 address = 0;
  for (const PortWrite& write : direct_boot_ports()) {
    if (write.port == 0xcf8) {
      EXPECT_EQ(write.width, 4);
      address = write.value;
    } else if (write.port >= 0xcfc && write.port <= 0xcff) {
      ASSERT_LE(write.port + write.width, 0xd00);
      for (u32 i = 0; i < write.width; ++i)
        config[(address & 0xfffffc) + (write.port & 3u) + i] = static_cast<u8>(write.value >> (8 * i));
    } else {
      ports[write.port] = write.value;
    }
  }
  EXPECT_EQ(config[0x59], 0x30) << "F0000h: RAM, read and write";
  EXPECT_EQ(config[0x5f], 0x33);
  EXPECT_EQ(config[0x800 + 0x60], 10);
  EXPECT_EQ(config[0x800 + 0x63], 11);
  EXPECT_EQ(config[0x900 + 0x41], 0x80) << "IDE channel 0 decodes";
  EXPECT_EQ(config[0x900 + 0x43], 0x80);
  EXPECT_EQ(config[0x900 + 0x21], 0xc0);
  EXPECT_EQ(config[0xb00 + 0x40] | config[0xb00 + 0x41] << 8, 0x601) << "PM base";
  EXPECT_EQ(config[0xb00 + 0x80], 1);
  EXPECT_EQ(ports[0x4d1], 0x0cu);
  EXPECT_EQ(ports[0x60], 0x61u) << "keyboard on, translated";
}

} // namespace
} // namespace transom::firmware
