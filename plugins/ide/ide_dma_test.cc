// The bus master: Linux's order and the other one, the shapes of descriptor tables, and what its status says.
#include "ide_bench.hpp"

namespace ide::test {
namespace {

constexpr u8 TO_MEMORY = 0x08, FROM_MEMORY = 0x00, START = 0x01;
constexpr u8 ACTIVE = 0x01, ERROR = 0x02, INTERRUPT = 0x04;

// Every way in which one test starts a transfer.
void start_read(Ide& b, u64 lba, u32 sectors) {
  b.set_bmicom(TO_MEMORY);
  b.command28(cmd::READ_DMA, lba, sectors);
  b.set_bmicom(TO_MEMORY | START);
}
void start_write(Ide& b, u64 lba, u32 sectors) {
  b.set_bmicom(FROM_MEMORY);
  b.command28(cmd::WRITE_DMA, lba, sectors);
  b.set_bmicom(FROM_MEMORY | START);
}
// Whatever happened: after a reset the device works.
void expect_alive(Ide& b) {
  b.set_bmicom(0), b.set_bmista(0x06);
  b.control(0x0c), b.control(0x08);
  b.command28(cmd::READ_SECTORS, 3, 1);
  b.complete_all();
  EXPECT_EQ(b.status(), st::TRANSFER);
  EXPECT_EQ(b.data(SECTOR), b.on_disk(3, 1));
  b.set_bmista(0x06);
}

// The dialogue of Linux 6.1 with ata_piix, access for access.
TEST(IdeDma, LinuxReadsEightSectors) {
  Ide b;
  b.table({{MEMORY, 8 * SECTOR}});
  EXPECT_EQ(b.in(4, 4, 4), TABLE);
  EXPECT_EQ(b.bmicom(), 0);
  b.set_bmicom(0x08);
  b.command28(cmd::READ_DMA, 0, 8);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_EQ(b.bmicom(), 0x08);
  b.set_bmicom(0x09);
  EXPECT_EQ(b.bmista(), ACTIVE);
  b.complete();
  EXPECT_TRUE(b.irq("irq14"));
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.bmicom(), 0x09);
  b.set_bmicom(0x08);
  EXPECT_EQ(b.alternate(), st::READY);
  EXPECT_EQ(b.alternate(), st::READY);
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_FALSE(b.irq("irq14"));
  b.set_bmista(INTERRUPT);
  EXPECT_EQ(b.bmista(), 0);
  EXPECT_EQ(b.memory(MEMORY, 8 * SECTOR), b.on_disk(0, 8));
}

// [ATA 7.15, BSY]: while a DMA command transfers, BSY, DRQ or both are set. Here DRQ while the device waits for the bus
// master, BSY while the medium works.
TEST(IdeDma, StatusSaysWhoIsWaitedFor) {
  Ide b;
  b.table({{MEMORY, SECTOR}});
  b.command28(cmd::READ_DMA, 0, 1);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_EQ(b.bmista(), 0);
  EXPECT_EQ(b.host.pending.size(), 0u);
  b.set_bmicom(TO_MEMORY | START);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(b.alternate(), st::WORKING);
    EXPECT_EQ(b.bmista(), ACTIVE);
  }
  EXPECT_FALSE(b.intrq());
  b.complete();
  EXPECT_EQ(b.alternate(), st::READY);
  EXPECT_EQ(b.bmista(), INTERRUPT);
}

TEST(IdeDma, TheBusMasterMayStartBeforeTheCommand) {
  Ide b;
  b.table({{MEMORY, 2 * SECTOR}});
  b.set_bmicom(TO_MEMORY | START);
  EXPECT_EQ(b.bmista(), ACTIVE);
  b.command28(cmd::READ_DMA, 9, 2);
  EXPECT_EQ(b.alternate(), st::WORKING);
  b.complete();
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, 2 * SECTOR), b.on_disk(9, 2));
}

TEST(IdeDma, WritesFromManyRegions) {
  Ide b;
  const auto data = pattern(77, 8, 1);
  b.fill_memory(MEMORY, {data.begin(), data.begin() + 1000});
  b.fill_memory(MEMORY + 0x3002, {data.begin() + 1000, data.end()});
  b.table({{MEMORY, 1000}, {MEMORY + 0x3002, 3096}});
  start_write(b, 60, 8);
  ASSERT_EQ(b.host.pending.size(), 1u);
  EXPECT_EQ(b.host.pending[0].segments.size(), 2u);
  EXPECT_EQ(b.host.pending[0].op, VDEV_BLOCK_WRITE);
  b.complete();
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.on_disk(60, 8), data);
}

TEST(IdeDma, FuaAndTheWriteCacheDecideDurability) {
  Ide b;
  b.table({{MEMORY, SECTOR}});
  b.command48(cmd::WRITE_DMA_FUA_EXT, 5, 1);
  b.set_bmicom(START);
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_WRITE | VDEV_BLOCK_FUA);
  b.complete();
  b.set_bmicom(0);
  b.features(feature::WRITE_CACHE_OFF);
  b.complete();
  start_write(b, 5, 1);
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_WRITE | VDEV_BLOCK_FUA);
}

TEST(IdeDma, ByteCount0Is64KiB) {
  Ide b;
  b.table({{MEMORY, 0}, {MEMORY + 0x10000, 0x10000}});
  start_read(b, 100, 0); // 256 sectors
  ASSERT_EQ(b.host.pending.size(), 1u);
  EXPECT_EQ(b.host.pending[0].segments.size(), 1u) << "regions that touch are one segment";
  b.complete();
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, 256 * SECTOR), b.on_disk(100, 256));
}

TEST(IdeDma, LongCommandsAreRequestsInSequence) {
  Options options = drives({disk(8192)});
  options.ram_bytes = 8 << 20;
  Ide b(std::move(options));
  std::vector<Ide::Region> regions;
  for (u32 i = 0; i < 512; ++i) regions.push_back({0x100000 + i * 0x2000, 0x1000}); // 2 MiB in pages that do not touch
  b.table(regions);
  b.command48(cmd::READ_DMA_EXT, 1000, 4096);
  b.set_bmicom(TO_MEMORY | START);
  EXPECT_EQ(b.host.pending.at(0).segments.size(), 64u);
  EXPECT_EQ(b.host.pending.at(0).bytes, 64u * 4096);
  EXPECT_EQ(b.complete_all(), 8u);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  for (u32 i = 0; i < 512; ++i) {
    ASSERT_EQ(b.memory(regions[i].address, 0x1000), b.on_disk(1000 + 8 * i, 8)) << i;
  }
}

TEST(IdeDma, SectorsMayStraddleRegionsAndRequests) {
  Ide b;
  std::vector<Ide::Region> regions; // 100 regions of 514 bytes, then the rest: no request ends with one
  for (u32 i = 0; i < 100; ++i) regions.push_back({MEMORY + i * 0x400, 514});
  regions.push_back({MEMORY + 0x20000, 40000});
  regions.push_back({MEMORY + 0x30000, 156 * SECTOR - 200 - 40000});
  b.table(regions);
  start_read(b, 0, 0);
  EXPECT_EQ(b.host.pending.at(0).bytes % SECTOR, 0u);
  EXPECT_EQ(b.complete_all(), 2u);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  const auto want = b.on_disk(0, 256);
  std::vector<u8> got;
  for (const auto& r : regions) {
    const auto part = b.memory(r.address, r.bytes);
    got.insert(got.end(), part.begin(), part.end());
  }
  EXPECT_EQ(got, want);
}

TEST(IdeDma, RegionsOfTwoBytesWorkBothWays) {
  Ide b;
  std::vector<Ide::Region> regions;
  for (u32 i = 0; i < 512; ++i) regions.push_back({MEMORY + i * 4, 2});
  b.table(regions);
  start_read(b, 40, 2);
  EXPECT_EQ(b.complete_all(), 2u);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  const auto want = b.on_disk(40, 2);
  for (u32 i = 0; i < 512; ++i) ASSERT_EQ(b.memory(MEMORY + i * 4, 2), std::vector<u8>(&want[2 * i], &want[2 * i] + 2));

  b.set_bmicom(0), b.set_bmista(0x06), b.status();
  start_write(b, 80, 2);
  EXPECT_EQ(b.complete_all(), 2u);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.on_disk(80, 2), want);
}

// [PIIX BMISTA]: interrupt and active both set: the table had more room than the command.
TEST(IdeDma, ALongTableStaysActive) {
  Ide b;
  b.table({{MEMORY, 4 * SECTOR}});
  start_read(b, 1, 2);
  b.complete();
  EXPECT_EQ(b.bmista(), ACTIVE | INTERRUPT);
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.memory(MEMORY, 2 * SECTOR), b.on_disk(1, 2));
  EXPECT_EQ(b.memory(MEMORY + 2 * SECTOR, 2), std::vector<u8>(2)) << "and not a byte more";
  b.set_bmicom(0);
  EXPECT_EQ(b.bmista(), INTERRUPT);
}

// Neither active, nor interrupt, nor error: the table was too short. What it had room for was moved.
TEST(IdeDma, AShortTableEndsWithNeitherInterruptNorActive) {
  for (const u32 bytes : {2u, 510u, 512u, 514u, 1024u, 1500u}) {
    Ide b;
    b.table({{MEMORY, bytes}});
    start_read(b, 30, 4);
    b.complete_all();
    EXPECT_EQ(b.bmista(), 0) << bytes;
    EXPECT_FALSE(b.intrq());
    EXPECT_EQ(b.alternate(), st::TRANSFER) << "the device still wants to send";
    const auto want = b.on_disk(30, 4);
    EXPECT_EQ(b.memory(MEMORY, bytes), std::vector<u8>(want.begin(), want.begin() + bytes));
    EXPECT_EQ(b.memory(MEMORY + bytes, 2), std::vector<u8>(2)) << "exact bytes only";
    expect_alive(b);
  }
}

TEST(IdeDma, AShortTableWritesWholeSectorsOnly) {
  Ide b;
  const auto data = pattern(500, 4, 8);
  b.fill_memory(MEMORY, data);
  b.table({{MEMORY, 1500}});
  start_write(b, 30, 4);
  b.complete_all();
  EXPECT_EQ(b.bmista(), 0);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_EQ(b.on_disk(30, 2), std::vector<u8>(data.begin(), data.begin() + 1024));
  EXPECT_EQ(b.on_disk(32, 2), pattern(32, 2));
  expect_alive(b);
}

TEST(IdeDma, AShortTransferGoesOnWithTheNextTable) {
  Ide b;
  b.table({{MEMORY, 2 * SECTOR}});
  start_read(b, 30, 4);
  b.complete_all();
  b.set_bmicom(TO_MEMORY);
  b.table({{MEMORY + 2 * SECTOR, 2 * SECTOR}});
  b.set_bmicom(TO_MEMORY | START);
  b.complete_all();
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, 4 * SECTOR), b.on_disk(30, 4));
}

TEST(IdeDma, Bit0OfAddressAndCountDoesNotExist) {
  Ide b;
  b.table({{MEMORY + 1, SECTOR + 1}});
  start_read(b, 2, 1);
  b.complete_all();
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, SECTOR), b.on_disk(2, 1));
  b.set_bmicom(0), b.status();
  b.table({{MEMORY, 1}}); // bit 0 aside this is 0: 64 KiB
  start_read(b, 7, 128);
  b.complete_all();
  EXPECT_EQ(b.memory(MEMORY, 128 * SECTOR), b.on_disk(7, 128));
}

TEST(IdeDma, ATableOutsideRamIsABusError) {
  for (const u32 at : {0x00100000u, 0xfec00000u, 0xfffffffcu}) { // past 1 MiB of RAM; the IOAPIC; the last dword
    Ide b;
    b.out(4, bm::TABLE, 4, at);
    EXPECT_EQ(b.in(4, bm::TABLE, 4), at);
    start_read(b, 0, 1);
    b.complete_all();
    EXPECT_EQ(b.bmista(), ERROR) << std::hex << at;
    EXPECT_FALSE(b.intrq()) << "the controller makes no interrupt of it";
    EXPECT_EQ(b.alternate(), st::TRANSFER);
    b.set_bmista(ERROR);
    EXPECT_EQ(b.bmista(), 0);
    expect_alive(b);
  }
}

TEST(IdeDma, ARegionOutsideRamIsABusError) {
  for (const u32 at : {0x000ffffeu, 0x00200000u, 0xfee00000u, 0xfffffffeu}) {
    for (const bool write : {false, true}) {
      Ide b;
      b.table({{MEMORY, SECTOR}, {at, SECTOR}});
      write ? start_write(b, 12, 2) : start_read(b, 12, 2);
      b.complete_all();
      EXPECT_EQ(b.bmista(), ERROR) << std::hex << at;
      EXPECT_FALSE(b.intrq());
      expect_alive(b);
    }
  }
}

TEST(IdeDma, SmallRegionsOutsideRamAreABusErrorToo) {
  Ide b;
  std::vector<Ide::Region> regions;
  for (u32 i = 0; i < 256; ++i) regions.push_back({i < 200 ? MEMORY + 4 * i : 0xfee00000u, 2});
  b.table(regions);
  start_read(b, 0, 1);
  b.complete_all();
  EXPECT_EQ(b.bmista(), ERROR);
  expect_alive(b);
  b.table(regions);
  start_write(b, 5, 1);
  b.complete_all();
  EXPECT_EQ(b.bmista(), ERROR);
  EXPECT_EQ(b.on_disk(5, 1), pattern(5, 1));
  expect_alive(b);
}

TEST(IdeDma, WithoutBusMasteringNothingIsReadOrWritten) {
  Ide b;
  b.table({{MEMORY, SECTOR}});
  b.cfg_write(0, 0x04, 2, 0x0103);
  start_read(b, 0, 1);
  b.complete_all();
  EXPECT_EQ(b.bmista(), ERROR);
  EXPECT_EQ(b.memory(MEMORY, 2), std::vector<u8>(2));
}

TEST(IdeDma, AnEndlessTableIsWalkedNoFurtherThan8192Entries) {
  Options options = drives({disk()});
  options.ram_bytes = 4 << 20;
  Ide b(std::move(options));
  std::vector<Ide::Region> regions;
  for (u32 i = 0; i < 100'000; ++i) regions.push_back({MEMORY + (i & 1) * 4, 2}); // the same two words, for ever
  b.table(regions, false, 0x100000);
  start_read(b, 0, 0);
  const u32 requests = b.complete_all();
  EXPECT_EQ(b.bmista(), ERROR);
  EXPECT_LE(requests, 33u);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  expect_alive(b);
}

TEST(IdeDma, ATableWithoutEndIsEnoughWhenTheCommandEndsFirst) {
  Ide b;
  b.table({{MEMORY, 0}, {MEMORY, 0}}, false);
  start_read(b, 0, 128);
  b.complete_all();
  EXPECT_EQ(b.bmista(), ACTIVE | INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, 128 * SECTOR), b.on_disk(0, 128));
}

TEST(IdeDma, StoppingInMidTransferCancels) {
  Ide b;
  b.table({{MEMORY, SECTOR}});
  start_read(b, 8, 1);
  const u64 tag = b.host.pending.at(0).tag;
  b.set_bmicom(TO_MEMORY);
  EXPECT_EQ(b.bmista(), 0);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_EQ(b.host.pending.size(), 0u);
  b.deliver(0, tag, VDEV_OK, SECTOR); // a host that forgot
  b.migrate();
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_FALSE(b.intrq());
  b.set_bmicom(TO_MEMORY | START);
  EXPECT_EQ(b.complete_all(), 1u);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.memory(MEMORY, SECTOR), b.on_disk(8, 1));
}

TEST(IdeDma, StatusBitsAreReadWriteOrWriteOneToClear) {
  Ide b;
  b.set_bmista(0xff);
  EXPECT_EQ(b.bmista(), 0x60);
  b.set_bmista(0x20);
  EXPECT_EQ(b.bmista(), 0x20);
  b.set_bmista(0x00);
  b.set_bmicom(0xfe);
  EXPECT_EQ(b.bmicom(), 0x08);
  b.out(4, bm::TABLE, 4, 0xffffffff);
  EXPECT_EQ(b.in(4, bm::TABLE, 4), 0xfffffffcu);
  b.out(4, bm::TABLE + 1, 1, 0x12);
  EXPECT_EQ(b.in(4, bm::TABLE, 2), 0x12fcu);
  EXPECT_EQ(b.in(4, 1, 1), 0u);
  EXPECT_EQ(b.in(4, 3, 1), 0u);
}

// [PIIX BMISTA]: cleared while INTRQ is still high, the bit waits for the next rising edge.
TEST(IdeDma, InterruptStatusFollowsTheRisingEdgeOfAnyInterrupt) {
  Ide b;
  b.command(cmd::RECALIBRATE);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  b.set_bmista(INTERRUPT);
  EXPECT_EQ(b.bmista(), 0);
  EXPECT_TRUE(b.intrq());
  b.command(cmd::RECALIBRATE);
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_EQ(b.rising_edges("irq14"), 2u) << "the edge between two commands is seen by the interrupt controller";
  b.set_bmista(INTERRUPT), b.status();
  EXPECT_EQ(b.bmista(), 0) << "and not the falling one";
  b.control(0x0a);
  b.command(cmd::RECALIBRATE);
  EXPECT_EQ(b.bmista(), 0) << "nIEN: the wire does not move";
  b.control(0x08);
  EXPECT_EQ(b.bmista(), INTERRUPT) << "it was pending";
}

TEST(IdeDma, TheSecondChannelHasItsOwnRegisters) {
  Ide b(drives({disk(), absent(), disk(300)}));
  b.on_channel(1);
  b.table({{MEMORY, SECTOR}});
  start_read(b, 299, 1);
  EXPECT_EQ(b.in(4, 8, 1), 0x09u);
  EXPECT_EQ(b.in(4, 0, 1), 0u);
  b.complete();
  EXPECT_EQ(b.bmista(), INTERRUPT);
  EXPECT_TRUE(b.irq("irq15"));
  EXPECT_EQ(b.memory(MEMORY, SECTOR), b.on_disk(299, 1, 2));
}

} // namespace
} // namespace ide::test
