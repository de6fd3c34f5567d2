// PCI configuration mechanism #1, the router, the memory map (440FX PAM).
#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/shared_memory.hpp"
#include "hypervisor/memory_map.hpp"
#include "hypervisor/pci_host.hpp"
#include "hypervisor/router.hpp"
#include "vdev/ext/pci.h"

using namespace transom;

// ---------------------------------------------------------------------------------------------------- PCI

namespace {
class PciTest : public testing::Test {
 protected:
  struct Mapping {
    u64 base;
    bool on;
  };
  PciTest()
      : pci(
            [this](const PciFunction&, u32 region, u64 base, bool on) {
              maps[region] = {base, on};
            },
            [this](const PciFunction&, bool on) { master = on; }) {
    sheet.region_count = 3;
    sheet.regions[0].length = 16;
    sheet.regions[1].length = 0x1000;
    sheet.regions[2].length = 0x80;
    SheetFunction& f = sheet.functions[0];
    f.slot = 3;
    f.function = 0;
    f.vendor_id = 0x8086;
    f.device_id = 0x7010;
    f.class_code = 0x010180;
    f.status = 0x0280;
    f.interrupt_pin = 1;
    f.bar_count = 2;
    f.bars[0] = {4, 0, VDEV_BAR_IO, 0};
    f.bars[1] = {1, 1, VDEV_BAR_MEM32 | VDEV_BAR_PREFETCHABLE, 0};
  }
  bool add() { return pci.add(0, 5, 0, sheet.functions[0], sheet); }
  void select(u32 slot, u32 function, u32 reg) { pci.set_address(0x8000'0000 | slot << 11 | function << 8 | reg); }
  u32 read(u32 reg, u32 width = 4) {
    select(3, 0, reg);
    return pci.header_read(*pci.selected(), reg, width);
  }
  void write(u32 reg, u32 value, u32 width = 4) {
    select(3, 0, reg);
    pci.header_write(*pci.selected(), reg, width, value);
  }
  DeviceSheet sheet{};
  std::map<u32, Mapping> maps;
  bool master = false;
  PciHost pci;
};
} // namespace

TEST_F(PciTest, ConfigAddressSelectsByBusDeviceAndFunction) { // [PCI 2.1, 3.7.4.1]
  ASSERT_TRUE(add());
  select(3, 0, 0);
  ASSERT_NE(pci.selected(), nullptr);
  EXPECT_EQ(pci.selected()->device, 5);
  for (const u32 address : {0x0000'1800u, 0x8000'1900u, 0x8000'2000u, 0x8001'1800u, 0x80ff'1800u}) {
    pci.set_address(address); // enable clear, absent function, absent slot, other buses
    EXPECT_EQ(pci.selected(), nullptr) << std::hex << address;
  }
  pci.set_address(0xffff'ffff);
  EXPECT_EQ(pci.address(), 0x80ff'fffcu) << "reserved bits read as zero";
  pci.set_address(0x8000'1844);
  EXPECT_EQ(pci.register_offset(0xcfe), 0x46u);
}

TEST_F(PciTest, HeaderBytesAreThoseOfTheFunction) {
  ASSERT_TRUE(add());
  EXPECT_EQ(read(0), 0x7010'8086u);
  EXPECT_EQ(read(8), 0x0101'8000u);
  EXPECT_EQ(read(0x3d, 1), 1u);
  write(0, 0xffffffff);
  write(0x3d, 0xff, 1);
  EXPECT_EQ(read(0), 0x7010'8086u) << "read-only";
  EXPECT_EQ(read(0x3d, 1), 1u);
  write(0x3c, 11, 1);
  EXPECT_EQ(read(0x3c, 1), 11u);
}

TEST_F(PciTest, SizingABarShowsItsLengthAndMapsNothing) { // [PCI 2.1, 6.2.5.1]
  ASSERT_TRUE(add());
  write(4, 3, 2);
  write(0x20, 0xffff'ffff);
  EXPECT_EQ(read(0x20), 0xffff'fff1u);
  EXPECT_FALSE(maps[0].on);
  write(0x14, 0xffff'ffff);
  EXPECT_EQ(read(0x14), 0xffff'f008u);
  EXPECT_FALSE(maps[1].on);
  write(0x10, 0xffff'ffff);
  EXPECT_EQ(read(0x10), 0u) << "a BAR that does not exist";
}

TEST_F(PciTest, CommandBitsSwitchTheBarsOfTheirSpaceAndMastering) { // [6.2.2]
  ASSERT_TRUE(add());
  write(0x20, 0xc001);
  write(0x14, 0xfebf'0000);
  EXPECT_FALSE(maps[0].on);
  write(4, 1, 2);
  EXPECT_TRUE(maps[0].on);
  EXPECT_EQ(maps[0].base, 0xc000u);
  EXPECT_FALSE(maps[1].on);
  write(4, 0x0006, 2);
  EXPECT_FALSE(maps[0].on);
  EXPECT_TRUE(maps[1].on);
  EXPECT_TRUE(master);
  write(4, 0, 1);
  EXPECT_FALSE(maps[1].on);
  EXPECT_FALSE(master);
  write(4, 0xffff, 2);
  EXPECT_EQ(read(4, 2), 0x0547u);
  EXPECT_EQ(read(6, 2), 0x0280u) << "status is not the command";
}

TEST_F(PciTest, ByteWritesBuildABarAndPortBarsStayBelow64K) {
  ASSERT_TRUE(add());
  write(4, 1, 2);
  write(0x20, 0x40, 1);
  write(0x21, 0xd0, 1);
  EXPECT_TRUE(maps[0].on);
  EXPECT_EQ(maps[0].base, 0xd040u);
  write(0x22, 0x01, 1);
  EXPECT_FALSE(maps[0].on) << "1D040h is no port";
}

TEST_F(PciTest, ResetForgetsWhatWasWritten) {
  ASSERT_TRUE(add());
  write(4, 7, 2);
  write(0x20, 0xc000);
  pci.reset();
  EXPECT_EQ(pci.address(), 0u);
  EXPECT_EQ(read(4, 2), 0u);
  EXPECT_EQ(read(0x20), 1u);
  EXPECT_FALSE(maps[0].on);
  EXPECT_FALSE(master);
}

TEST_F(PciTest, AHostileSheetIsRefused) {
  const DeviceSheet good = sheet;
  sheet.functions[0].slot = 32;
  EXPECT_FALSE(add());
  sheet = good;
  sheet.functions[0].function = 8;
  EXPECT_FALSE(add());
  sheet = good;
  sheet.functions[0].bars[0].index = 6;
  EXPECT_FALSE(add());
  sheet = good;
  sheet.functions[0].bars[0].region = 3;
  EXPECT_FALSE(add());
  sheet = good;
  sheet.regions[0].length = 24;
  EXPECT_FALSE(add());
  sheet.regions[0].length = 0;
  EXPECT_FALSE(add());
  sheet = good;
  EXPECT_TRUE(add());
  EXPECT_FALSE(add()) << "the place is taken";
}

// ---------------------------------------------------------------------------------------------------- router

TEST(Router, OfTwoClaimsTheOlderWinsAndTheYoungerShowsAgainWhenItLeaves) {
  Router router;
  const u32 a = router.add(Claim::Owner::device, false, 0, 1, 0, 8, 1);
  const u32 b = router.add(Claim::Owner::device, false, 0, 2, 0, 16, 1);
  EXPECT_EQ(router.port(0x3f8, 1), nullptr);
  router.move(b, 0x3f0, true);
  EXPECT_EQ(router.port(0x3f8, 1)->device, 2);
  router.move(a, 0x3f8, true);
  EXPECT_EQ(router.port(0x3f8, 1)->device, 1);
  EXPECT_EQ(router.port(0x3f7, 1)->device, 2);
  EXPECT_EQ(router.port(0x3ff, 1)->device, 1);
  router.move(a, 0x2f8, true);
  EXPECT_EQ(router.port(0x3f8, 1)->device, 2);
  EXPECT_EQ(router.port(0x2f8, 1)->device, 1);
  router.move(a, 0x2f8, false);
  EXPECT_EQ(router.port(0x2f8, 1), nullptr);
}

TEST(Router, AnAccessOverTheBorderOfAClaimIsNobodys) {
  Router router;
  const u32 a = router.add(Claim::Owner::device, false, 0, 1, 0, 4, 7);
  router.move(a, 0x100, true);
  EXPECT_NE(router.port(0x100, 4), nullptr);
  EXPECT_EQ(router.port(0x102, 4), nullptr);
  EXPECT_EQ(router.port(0xfe, 4), nullptr);
  const u32 top = router.add(Claim::Owner::device, false, 0, 1, 1, 4, 7);
  router.move(top, 0xfffe, true);
  EXPECT_NE(router.port(0xffff, 1), nullptr);
  EXPECT_EQ(router.port(0xffff, 2), nullptr) << "ports end at FFFFh";
}

TEST(Router, BasesAndIndicesFromAPeerDoNoHarm) {
  Router router;
  const u32 a = router.add(Claim::Owner::device, false, 0, 1, 0, ~u64{0}, 7);
  router.move(~0u, 0, true);
  router.move(0, 0, true);
  router.move(a, ~u64{0} - 3, true);
  EXPECT_EQ(router.port(0, 1), nullptr);
  EXPECT_EQ(router.find(7, 1, 0), ~0u);
  EXPECT_EQ(router.find(0, 1, 0), a);
  u32 last = 0;
  for (u32 i = 0; i < Router::MAX_CLAIMS + 5; ++i) last = router.add(Claim::Owner::device, true, 0, 1, 2, 4, 7);
  EXPECT_EQ(last, ~0u);
}

TEST(Router, MemoryClaimsAreLookedUpByTheirWholeRange) {
  Router router;
  const u32 a = router.add(Claim::Owner::device, true, 0, 1, 0, 0x1000, 15);
  router.move(a, 0xfebf'0000, true);
  EXPECT_NE(router.mmio(0xfebf'0ff8, 8), nullptr);
  EXPECT_EQ(router.mmio(0xfebf'0ffc, 8), nullptr);
  EXPECT_EQ(router.port(0, 1), nullptr) << "memory is no port";
  router.move(a, 0xfebf'0000, false);
  EXPECT_EQ(router.mmio(0xfebf'0ff8, 8), nullptr);
}

// ---------------------------------------------------------------------------------------------------- memory map

namespace {
class MapTest : public testing::Test {
 protected:
  MapTest() : map(GuestMemory(host.data(), host.size())) {
    path = testing::TempDir() + "transom_rom_" + std::to_string(::getpid());
    std::vector<char> image(256 << 10);
    for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<char>(i >> 12);
    std::ofstream(path, std::ios::binary).write(image.data(), static_cast<std::streamsize>(image.size()));
  }
  ~MapTest() override { ::unlink(path.c_str()); }
  std::vector<u8> host = std::vector<u8>(4 << 20);
  std::string path;
  MemoryMap map;
};
} // namespace

TEST_F(MapTest, TheFirmwareShowsAtTheTopOf4GiBAndItsEndUnder1MiB) {
  ASSERT_TRUE(map.load_firmware(path));
  EXPECT_EQ(*map.page(0xffff'f000).read, 63);
  EXPECT_EQ(*map.page(0xfffc'0000).read, 0);
  EXPECT_EQ(map.page(0xfffb'f000).read, nullptr);
  EXPECT_EQ(map.page(0xf'f000).read, map.page(0xffff'f000).read);
  EXPECT_EQ(*map.page(0xe'0000).read, 32);
  EXPECT_EQ(map.page(0xd'f000).read, nullptr);
  for (const u64 rom : {u64{0xffff'f000}, u64{0xf'f000}}) {
    EXPECT_EQ(map.page(rom).write, nullptr);
    EXPECT_EQ(map.page(rom).ram_page, ~u64{0});
  }
}

TEST_F(MapTest, EachPamSegmentChoosesReadsAndWritesAlone) { // [440FX 3.2.18]
  ASSERT_TRUE(map.load_firmware(path));
  for (const bool read : {false, true})
    for (const bool write : {false, true}) {
      map.set_shadow(0xf0000, 0x10000, read, write);
      const PhysPage page = map.page(0xf'4000);
      EXPECT_EQ(page.read == host.data() + 0xf'4000, read);
      EXPECT_EQ(page.write, write ? host.data() + 0xf'4000 : nullptr);
      EXPECT_EQ(page.ram_page, read ? u64{0xf4} : ~u64{0});
      EXPECT_EQ(map.page(0xe'f000).write, nullptr) << "its neighbour";
    }
  map.set_shadow(0xc4000, 0x4000, true, true);
  EXPECT_EQ(map.page(0xc'3000).read, nullptr);
  EXPECT_NE(map.page(0xc'4000).read, nullptr);
  EXPECT_EQ(map.page(0xc'8000).read, nullptr);
  map.reset();
  EXPECT_EQ(map.page(0xc'4000).read, nullptr);
}

TEST_F(MapTest, NonsenseRangesOfADeviceDoNoHarm) {
  map.set_shadow(0, ~u64{0}, true, true);
  map.set_shadow(~u64{0}, ~u64{0}, true, true);
  map.set_shadow(0xf'ffff, 1 << 20, true, true);
  map.set_shadow(0xc0000, ~u64{0}, true, true);
  EXPECT_NE(map.page(0).read, nullptr);
}

TEST_F(MapTest, TheDisplayWindowAndWhatLiesBeyondRamAreNotRam) {
  EXPECT_EQ(map.page(0xa'0000).read, nullptr);
  EXPECT_EQ(map.page(0xb'f000).write, nullptr);
  EXPECT_NE(map.page(0x9'f000).read, nullptr);
  EXPECT_NE(map.page(0x3f'f000).read, nullptr);
  EXPECT_EQ(map.page(0x40'0000).read, nullptr);
}

TEST_F(MapTest, BadFirmwareImagesAreNamed) {
  EXPECT_NE(map.load_firmware("/nonexistent/bios.bin").error().text.find("/nonexistent/bios.bin"), std::string::npos);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << "short";
  EXPECT_FALSE(map.load_firmware(path));
}

TEST(GuestMemory, RamAbove4GiBFollowsTheHole) {
  constexpr u64 SIZE = u64{4} << 30; // reserved, not touched
  u8* const base = static_cast<u8*>(
      ::mmap(nullptr, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(base, MAP_FAILED);
  const GuestMemory ram(base, SIZE);
  EXPECT_EQ(ram.at(0xbfff'ffff, 1), base + 0xbfff'ffff);
  EXPECT_EQ(ram.at(0xbfff'ffff, 2), nullptr) << "into the hole";
  EXPECT_EQ(ram.at(0xc000'0000, 1), nullptr);
  EXPECT_EQ(ram.at(0x1'0000'0000, 1), base + 0xc000'0000);
  EXPECT_EQ(ram.at(0x1'3fff'ffff, 1), base + SIZE - 1);
  EXPECT_EQ(ram.at(0x1'3fff'ffff, 2), nullptr);
  EXPECT_EQ(ram.at(~u64{0}, ~u64{0}), nullptr);
  EXPECT_EQ(ram.page_span(), 0x14'0000u);
  MemoryMap map(ram);
  EXPECT_EQ(map.page(0x1'0000'0123).ram_page, 0x10'0000u);
  ::munmap(base, SIZE);
}
