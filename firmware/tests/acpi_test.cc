// The ACPI tables after their loader script ran: every pointer, every checksum, and the reference disassembler's
// opinion.
#include "firmware/acpi.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "firmware/direct_tables.hpp"
#include "firmware/table_loader.hpp"
#include "firmware/tests/guest_ram.hpp"

namespace transom::firmware {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr u64 MIB = 1 << 20;

MachineDescription machine_with(u64 memory, u32 cpus) {
  MachineDescription machine = MachineDescription(GuestMemory(nullptr, memory));
  machine.cpus = cpus;
  return machine;
}

// A machine's tables in guest memory, found the way a kernel finds them.
struct Placed {
  explicit Placed(const MachineDescription& machine)
      : guest(machine.low_ram + machine.high_ram), tables(place_tables(guest.ram, machine)) {
    if (!tables) throw std::runtime_error(tables.error().text);
    rsdt = guest.number(tables->rsdp + 16, 4);
    for (u64 at = rsdt + 36; at < rsdt + length(rsdt); at += 4) entries.push_back(guest.number(at, 4));
  }
  u64 length(u64 table) const { return guest.number(table + 4, 4); }
  u64 find(const std::string& signature) const {
    for (const u64 table : entries)
      if (guest.text(table, 4) == signature) return table;
    return 0;
  }
  u64 facs() const { return guest.number(find("FACP") + 36, 4); }
  u64 dsdt() const { return guest.number(find("FACP") + 40, 4); }
  Bytes table(u64 at) const { return guest.bytes(at, length(at)); }

  GuestRam guest;
  Result<DirectTables> tables;
  u64 rsdt = 0;
  std::vector<u64> entries;
};

// What iasl makes of a table, and what it said.
struct Disassembly {
  int status;
  std::string source, messages;
};

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Disassembly disassemble(const Bytes& table) {
  std::string folder = (std::filesystem::temp_directory_path() / "transom-acpi-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("mkdtemp");
  const std::filesystem::path base = std::filesystem::path(folder) / "table";
  std::ofstream(base.string() + ".aml", std::ios::binary)
      .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
  const std::string command =
      std::string(IASL) + " -p " + base.string() + " -d " + base.string() + ".aml > " + base.string() + ".log 2>&1";
  Disassembly result;
  result.status = std::system(command.c_str());
  result.source = slurp(base.string() + ".dsl");
  result.messages = slurp(base.string() + ".log");
  std::filesystem::remove_all(folder);
  return result;
}

class AcpiTest : public ::testing::TestWithParam<std::pair<u64, u32>> {
 protected:
  MachineDescription machine_ = machine_with(GetParam().first * MIB, GetParam().second);
};
INSTANTIATE_TEST_SUITE_P(Machines, AcpiTest,
                         ::testing::Values(std::pair<u64, u32>{32, 1}, std::pair<u64, u32>{512, 1},
                                           std::pair<u64, u32>{3072, 4}, std::pair<u64, u32>{6144, 8}),
                         [](const auto& p) {
                           return std::to_string(p.param.first) + "MiB" + std::to_string(p.param.second) + "Cpus";
                         });

TEST_P(AcpiTest, EveryTableIsReachableAndSumsToZero) {
  const Placed placed(machine_);
  const u64 rsdp = placed.tables->rsdp;
  EXPECT_EQ(placed.guest.text(rsdp, 8), "RSD PTR ");
  EXPECT_EQ(rsdp % 16, 0u);
  EXPECT_GE(rsdp, 0xf0000u);
  EXPECT_EQ(sum_of(placed.guest.bytes(rsdp, 20)), 0);
  EXPECT_EQ(placed.guest.text(placed.rsdt, 4), "RSDT");
  EXPECT_EQ(placed.entries.size(), 2u);
  for (const u64 table : {placed.rsdt, placed.find("FACP"), placed.find("APIC"), placed.dsdt()}) {
    ASSERT_NE(table, 0u);
    EXPECT_EQ(sum_of(placed.table(table)), 0) << placed.guest.text(table, 4);
  }
  EXPECT_EQ(placed.guest.text(placed.dsdt(), 4), "DSDT");
  EXPECT_EQ(placed.guest.text(placed.facs(), 4), "FACS");
  EXPECT_EQ(placed.facs() % 64, 0u);
  EXPECT_EQ(placed.length(placed.facs()), 64u);
}

TEST_P(AcpiTest, TablesLieInReservedMemory) {
  const Placed placed(machine_);
  const auto reserved = [&](u64 at, u64 length) {
    for (const E820Entry& entry : placed.tables->e820)
      if (entry.type == E820Type::reserved && at >= entry.base && at + length <= entry.base + entry.length) return true;
    return false;
  };
  EXPECT_TRUE(reserved(placed.tables->rsdp, 20));
  EXPECT_TRUE(reserved(placed.facs(), 64));
  for (const u64 table : {placed.rsdt, placed.find("FACP"), placed.find("APIC"), placed.dsdt()})
    EXPECT_TRUE(reserved(table, placed.length(table))) << placed.guest.text(table, 4);
  EXPECT_FALSE(reserved(0x100000, 1)) << "negative control: ordinary RAM is not reserved";
}

TEST_P(AcpiTest, FadtDescribesThePmBlockThatFirmwarePrograms) {
  const Placed placed(machine_);
  const u64 fadt = placed.find("FACP");
  EXPECT_EQ(placed.length(fadt), 116u);
  EXPECT_EQ(placed.guest.number(fadt + 8, 1), 1u) << "revision";
  EXPECT_EQ(placed.guest.number(fadt + 46, 2), 9u) << "SCI";
  EXPECT_EQ(placed.guest.number(fadt + 48, 4), 0xb2u) << "SMI_CMD";
  EXPECT_EQ(placed.guest.number(fadt + 52, 2), 0xf0f1u) << "enable, disable";
  EXPECT_EQ(placed.guest.number(fadt + 56, 4), 0x600u) << "PM1a event";
  EXPECT_EQ(placed.guest.number(fadt + 64, 4), 0x604u) << "PM1a control";
  EXPECT_EQ(placed.guest.number(fadt + 76, 4), 0x608u) << "PM timer";
  EXPECT_EQ(placed.guest.number(fadt + 80, 4), 0xafe0u) << "GPE0";
  EXPECT_EQ(placed.guest.bytes(fadt + 88, 6), (Bytes{4, 2, 0, 4, 4, 0})) << "block lengths";
  EXPECT_EQ(placed.guest.number(fadt + 96, 2), 0xfffu) << "C2 latency";
  EXPECT_EQ(placed.guest.number(fadt + 108, 1), 0x32u) << "century";
  EXPECT_EQ(placed.guest.number(fadt + 112, 4) & 1 << 4, 0u) << "the power button is fixed hardware";
}

TEST_P(AcpiTest, MadtListsEveryCpuOnce) {
  const Placed placed(machine_);
  const Bytes madt = placed.table(placed.find("APIC"));
  EXPECT_EQ(le32_at(madt, 36), 0xfee00000u);
  EXPECT_EQ(le32_at(madt, 40), 1u);
  u32 cpus = 0, overrides = 0;
  u64 at = 44;
  for (; at + 2 <= madt.size() && madt[at + 1] >= 2; at += madt[at + 1]) {
    if (madt[at] == 0) {
      EXPECT_EQ(madt[at + 2], cpus) << "processor UID: _UID in the DSDT";
      EXPECT_EQ(madt[at + 3], cpus) << "APIC id";
      EXPECT_EQ(le32_at(madt, at + 4), 1u);
      ++cpus;
    }
    overrides += madt[at] == 2;
  }
  EXPECT_EQ(at, madt.size()) << "the entries' lengths add up";
  EXPECT_EQ(cpus, machine_.cpus);
  EXPECT_EQ(overrides, 5u);
}

TEST_P(AcpiTest, IaslDisassemblesEveryTableWithoutErrors) {
  const Placed placed(machine_);
  for (const u64 at : {placed.rsdt, placed.find("FACP"), placed.find("APIC"), placed.dsdt(), placed.facs()}) {
    const Disassembly d = disassemble(placed.table(at));
    EXPECT_EQ(d.status, 0) << d.messages;
    EXPECT_FALSE(d.source.empty()) << d.messages;
    for (const char* complaint : {"Error", "Warning", "Invalid", "Unknown", "Incorrect checksum"}) {
      EXPECT_THAT(d.messages, Not(HasSubstr(complaint)));
      EXPECT_THAT(d.source, Not(HasSubstr(complaint)));
    }
  }
}

// Negative control for the test above.
TEST(AcpiTables, IaslNoticesABrokenTable) {
  const Placed placed(machine_with(64 * MIB, 1));
  Bytes madt = placed.table(placed.find("APIC"));
  madt[45] = 0; // an entry of length 0
  const Disassembly d = disassemble(madt);
  EXPECT_THAT(d.messages + d.source, ::testing::AnyOf(HasSubstr("Invalid"), HasSubstr("Error"), HasSubstr("checksum")));
}

TEST_P(AcpiTest, DsdtHoldsTheMachinesSizes) {
  machine_.floppies[0] = FloppyType::mb1_44;
  const Placed placed(machine_);
  const std::string source = disassemble(placed.table(placed.dsdt())).source;
  char memory[64], cpus[64];
  std::snprintf(memory, sizeof memory, "Name (RAMT, 0x%08X)", static_cast<u32>(machine_.low_ram));
  std::snprintf(cpus, sizeof cpus, "Name (CPUS, 0x%08X)", machine_.cpus);
  EXPECT_THAT(source, HasSubstr(memory));
  EXPECT_THAT(source, HasSubstr(cpus));
  EXPECT_THAT(source, HasSubstr("Name (DEVS, 0x0000000D)")) << "COM1, 8042, floppy controller";
}

TEST(AcpiTables, EveryMarkerOfTheDsdtIsReplaced) {
  const AcpiFiles files = build_acpi(machine_with(64 * MIB, 2));
  const std::string tables(files.tables.begin(), files.tables.end());
  for (const char marker : {1, 2, 3}) {
    EXPECT_EQ(tables.find(std::string("\x0c") + marker + "MRT"), std::string::npos) << int{marker};
  }
  for (const char* name : {"\x08RAMT\x0c",
                           "\x08"
                           "CPUS\x0c",
                           "\x08"
                           "DEVS\x0c"}) {
    EXPECT_NE(tables.find(name), std::string::npos);
    EXPECT_EQ(tables.find(name), tables.rfind(name)) << "one place only";
  }
}

// SeaBIOS walks the DSDT for PNP0303 and skips the 8042 if there is none.
TEST(AcpiTables, DsdtNamesTheKeyboardByItsEisaId) {
  const AcpiFiles files = build_acpi(machine_with(64 * MIB, 1));
  const std::string tables(files.tables.begin(), files.tables.end());
  EXPECT_NE(tables.find("\x08_HID\x0c\x41\xd0\x03\x03"), std::string::npos);
}

class TableLoaderTest : public ::testing::Test {
 protected:
  Result<std::map<std::string, u64>> run(const Bytes& script) {
    const LoaderHost host{[&](std::string_view name) -> const Bytes* {
                            return name == "a" ? &a_ : name == "b" ? &b_ : nullptr;
                          },
                          [&](u64 size, u32 alignment, LoaderZone) {
                            const u64 at = align_up(next_, alignment);
                            next_ = at + size;
                            return at;
                          }};
    return run_table_loader(guest_.ram, script, host);
  }
  LoaderScript both() {
    LoaderScript script;
    script.allocate("a", 16, LoaderZone::high);
    script.allocate("b", 64, LoaderZone::f_segment);
    return script;
  }

  Bytes a_ = Bytes(20, 1), b_ = Bytes(10, 2);
  u64 next_ = 0x5001;
  GuestRam guest_{1 << 20};
};

TEST_F(TableLoaderTest, EntriesHaveTheDocumentedLayout) {
  LoaderScript script;
  script.allocate("etc/acpi/rsdp", 16, LoaderZone::f_segment);
  script.add_pointer("dest", 0x1234, 4, "source");
  script.add_checksum("file", 9, 8, 36);
  const Bytes& bytes = script.bytes();
  ASSERT_EQ(bytes.size(), 3u * 128);
  EXPECT_EQ(le32_at(bytes, 0), 1u);
  EXPECT_STREQ(reinterpret_cast<const char*>(bytes.data() + 4), "etc/acpi/rsdp");
  EXPECT_EQ(le32_at(bytes, 0x3c), 16u);
  EXPECT_EQ(bytes[0x40], 2u);
  const ByteView pointer = ByteView(bytes).subspan(128);
  EXPECT_EQ(le32_at(pointer, 0), 2u);
  EXPECT_STREQ(reinterpret_cast<const char*>(pointer.data() + 4), "dest");
  EXPECT_STREQ(reinterpret_cast<const char*>(pointer.data() + 0x3c), "source");
  EXPECT_EQ(le32_at(pointer, 0x74), 0x1234u);
  EXPECT_EQ(pointer[0x78], 4u);
  const ByteView checksum = ByteView(bytes).subspan(256);
  EXPECT_EQ(le32_at(checksum, 0), 3u);
  EXPECT_EQ(le32_at(checksum, 0x3c), 9u);
  EXPECT_EQ(le32_at(checksum, 0x40), 8u);
  EXPECT_EQ(le32_at(checksum, 0x44), 36u);
}

TEST_F(TableLoaderTest, PointersAndChecksumsAreAppliedInOrder) {
  set_le(a_, 4, 4, 6);
  a_[0] = 0;
  LoaderScript script = both();
  script.add_pointer("a", 4, 4, "b");
  script.add_checksum("a", 0, 0, 20);
  const auto placed = run(script.bytes());
  ASSERT_TRUE(placed) << placed.error().text;
  EXPECT_EQ(placed->at("a"), 0x5010u);
  EXPECT_EQ(placed->at("b"), 0x5040u);
  EXPECT_EQ(guest_.number(0x5014, 4), 0x5046u);
  EXPECT_EQ(sum_of(guest_.bytes(0x5010, 20)), 0);
}

TEST_F(TableLoaderTest, WhatLeavesAFileIsRefused) {
  const auto refused = [&](auto&& add) {
    LoaderScript script = both();
    add(script);
    const auto result = run(script.bytes());
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().text, HasSubstr("table-loader entry 2"));
  };
  refused([](LoaderScript& s) { s.add_pointer("a", 17, 4, "b"); });
  refused([](LoaderScript& s) { s.add_pointer("a", 0xffff'ffff, 8, "b"); });
  refused([](LoaderScript& s) { s.add_pointer("a", 0, 3, "b"); });
  refused([](LoaderScript& s) { s.add_pointer("a", 0, 4, "c"); });
  refused([](LoaderScript& s) { s.add_checksum("a", 20, 0, 4); });
  refused([](LoaderScript& s) { s.add_checksum("a", 0, 4, 17); });
  refused([](LoaderScript& s) { s.add_checksum("a", 0, 0xffff'ffff, 2); });
  refused([](LoaderScript& s) { s.allocate("c", 1, LoaderZone::high); });
  next_ = 0xffff0;
  EXPECT_FALSE(run(both().bytes())) << "no RAM there";
}

} // namespace
} // namespace transom::firmware
