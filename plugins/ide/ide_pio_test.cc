// PIO data commands: DRQ blocks, interrupts, the buffer's edges, and runs of string instructions.
#include "ide_bench.hpp"

namespace ide::test {
namespace {

TEST(IdePioRead, IsBusyUntilTheRequestCompletes) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 5, 1);
  EXPECT_EQ(b.status(), st::WORKING);
  EXPECT_EQ(b.word(), 0xffff) << "no DRQ, no data";
  EXPECT_FALSE(b.intrq());
  ASSERT_EQ(b.host.pending.size(), 1u);
  EXPECT_EQ(b.host.pending[0].sector, 5u);
  EXPECT_EQ(b.host.pending[0].bytes, SECTOR);
  b.complete();
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_TRUE(b.intrq()) << "alternate status leaves INTRQ alone";
  EXPECT_EQ(b.status(), st::TRANSFER);
  EXPECT_FALSE(b.intrq());
  EXPECT_EQ(b.data(SECTOR), b.on_disk(5, 1));
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_FALSE(b.intrq()) << "no interrupt after the last block";
  EXPECT_EQ(b.word(), 0xffff);
}

TEST(IdePioRead, RaisesAnInterruptForEverySector) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 0, 3);
  b.complete();
  for (u64 i = 0; i < 3; ++i) {
    EXPECT_TRUE(b.intrq());
    EXPECT_EQ(b.status(), st::TRANSFER);
    EXPECT_EQ(b.data(SECTOR), b.on_disk(i, 1));
  }
  EXPECT_EQ(b.rising_edges("irq14"), 3u);
  EXPECT_EQ(b.status(), st::READY);
}

TEST(IdePioRead, OneRequestServesAGrubCommandOf127Sectors) {
  Ide b;
  b.control(0x0a);
  b.command28(cmd::READ_SECTORS, 63, 127);
  EXPECT_EQ(b.complete(), 1u);
  for (u64 i = 0; i < 127; ++i) {
    ASSERT_EQ(b.status(), st::TRANSFER);
    ASSERT_EQ(b.data(SECTOR), b.on_disk(63 + i, 1));
    b.alternate();
  }
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.host.pending.size(), 0u);
  EXPECT_EQ(b.rising_edges("irq14"), 0u) << "nIEN";
}

TEST(IdePioRead, Count0Is256) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 10, 0);
  EXPECT_EQ(b.complete_all(), 1u);
  EXPECT_EQ(b.data(256 * SECTOR), b.on_disk(10, 256));
  EXPECT_EQ(b.status(), st::READY);
}

TEST(IdePioRead, ExtendedCommandsGoOnWithAFurtherRequest) {
  Ide b;
  b.command48(cmd::READ_SECTORS_EXT, 100, 700);
  std::vector<u8> all;
  for (const u32 sectors : {256u, 256u, 188u}) {
    EXPECT_EQ(b.status(), st::WORKING);
    EXPECT_EQ(b.complete(), 1u);
    const auto part = b.data(sectors * SECTOR);
    all.insert(all.end(), part.begin(), part.end());
  }
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(all, b.on_disk(100, 700));
}

TEST(IdePioRead, ChsCommandsUseTheTranslation) {
  Ide b;
  b.set(SECTOR_COUNT, 1), b.set(LBA_LOW, 63), b.set(LBA_MID, 2), b.set(LBA_HIGH, 0);
  b.set(DEVICE, 0xa5), b.set(STATUS_COMMAND, cmd::READ_SECTORS);
  EXPECT_EQ(b.host.pending.at(0).sector, (2u * 16 + 5) * 63 + 62);
  b.complete();
  b.data(SECTOR);
  b.set(LBA_LOW, 0), b.set(STATUS_COMMAND, cmd::READ_SECTORS); // sectors count from 1
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::IDNF);
}

TEST(IdePioRead, AFailedChsCommandNamesCylinderHeadAndSector) {
  Ide b;
  b.set(SECTOR_COUNT, 8), b.set(LBA_LOW, 60), b.set(LBA_MID, 1), b.set(LBA_HIGH, 0);
  b.set(DEVICE, 0xa3), b.set(STATUS_COMMAND, cmd::READ_SECTORS);
  b.fail_after(5 * SECTOR);
  b.data(5 * SECTOR);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(LBA_LOW), 2); // 60 + 5 - 63
  EXPECT_EQ(b.get(LBA_MID), 1);
  EXPECT_EQ(b.get(DEVICE), 0xa4);
}

TEST(IdePioRead, MultipleMovesBlocksOfThatManySectors) {
  Ide b;
  b.set(SECTOR_COUNT, 8), b.command(cmd::SET_MULTIPLE);
  b.status();
  b.clear_events();
  b.command28(cmd::READ_MULTIPLE, 40, 20);
  b.complete();
  for (const u32 sectors : {8u, 8u, 4u}) {
    EXPECT_TRUE(b.intrq());
    EXPECT_EQ(b.status(), st::TRANSFER);
    b.data(sectors * SECTOR);
  }
  EXPECT_EQ(b.rising_edges("irq14"), 3u);
  EXPECT_EQ(b.status(), st::READY);
  b.set(SECTOR_COUNT, 0), b.command(cmd::SET_MULTIPLE);
  b.command28(cmd::READ_MULTIPLE, 40, 20);
  EXPECT_EQ(b.status(), st::FAILED) << "count 0 turned it off";
}

TEST(IdePioRead, ARunEqualsSingleAccesses) {
  for (const u32 width : {2u, 4u}) {
    Ide run, single;
    for (Ide* b : {&run, &single}) b->command48(cmd::READ_SECTORS_EXT, 3, 300), b->complete();
    const u32 count = 257 * SECTOR / width; // a sector past what one request brought
    const auto bytes = run.in_run(0, DATA, width, count);
    std::vector<u8> expected;
    for (u32 i = 0; i < count; ++i) {
      const u64 v = single.in(0, DATA, width);
      for (u32 k = 0; k < width; ++k) expected.push_back(u8(v >> 8 * k));
    }
    EXPECT_EQ(bytes, expected);
    EXPECT_EQ(bytes.back(), 0xff) << "the next request was not complete";
    EXPECT_EQ(run.save(), single.save());
  }
}

TEST(IdePioRead, AByteAccessTakesAWholeWord) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 0, 1);
  b.complete();
  const auto sector = b.on_disk(0, 1);
  EXPECT_EQ(b.in(0, DATA, 1), sector[0]);
  EXPECT_EQ(b.word(), sector[2] | sector[3] << 8);
}

TEST(IdePioWrite, AsksForTheFirstBlockWithoutInterrupt) {
  Ide b;
  const auto data = pattern(9, 3, 77);
  b.command28(cmd::WRITE_SECTORS, 20, 3);
  EXPECT_EQ(b.alternate(), st::TRANSFER);
  EXPECT_FALSE(b.intrq());
  for (u32 i = 0; i < 3; ++i) {
    EXPECT_EQ(b.status(), st::TRANSFER);
    b.send(std::span(data).subspan(i * SECTOR, SECTOR));
    EXPECT_EQ(b.intrq(), i < 2);
  }
  EXPECT_EQ(b.status(), st::WORKING);
  ASSERT_EQ(b.host.pending.size(), 1u);
  EXPECT_EQ(b.host.pending[0].op, VDEV_BLOCK_WRITE);
  EXPECT_NE(b.on_disk(20, 3), data) << "complete means written, not received";
  b.complete();
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.on_disk(20, 3), data);
  EXPECT_EQ(b.on_disk(19, 1), pattern(19, 1));
  EXPECT_EQ(b.on_disk(23, 1), pattern(23, 1));
}

TEST(IdePioWrite, LongCommandsAreSeveralRequests) {
  Ide b;
  const auto data = pattern(1000, 600, 3);
  b.command48(cmd::WRITE_SECTORS_EXT, 200, 600);
  for (const auto& [from, sectors] : {std::pair{0u, 256u}, {256u, 256u}, {512u, 88u}}) {
    b.send(std::span(data).subspan(from * SECTOR, sectors * SECTOR));
    EXPECT_EQ(b.status(), st::WORKING);
    EXPECT_EQ(b.complete(), 1u);
    EXPECT_TRUE(b.intrq());
  }
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.on_disk(200, 600), data);
}

TEST(IdePioWrite, ARunEqualsSingleAccesses) {
  Ide run, single;
  const auto data = pattern(0, 5, 9);
  for (Ide* b : {&run, &single}) b->command28(cmd::WRITE_MULTIPLE, 8, 4);
  run.out_run(0, DATA, 4, data); // a sector more than asked for
  for (u32 i = 0; i < data.size(); i += 4) {
    u32 v = 0;
    std::memcpy(&v, &data[i], 4);
    single.out(0, DATA, 4, v);
  }
  EXPECT_EQ(run.save(), single.save());
  run.complete(), single.complete();
  EXPECT_EQ(run.on_disk(8, 5), single.on_disk(8, 5));
  EXPECT_EQ(run.on_disk(12, 1), pattern(12, 1));
}

TEST(IdePioWrite, WithTheWriteCacheOffAWriteIsDurableAtCompletion) {
  Ide b;
  b.features(feature::WRITE_CACHE_OFF);
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_FLUSH) << "what is cached goes to the medium first";
  b.complete();
  b.command28(cmd::WRITE_SECTORS, 0, 1), b.send(pattern(0, 1));
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_WRITE | VDEV_BLOCK_FUA);
  b.complete();
  b.features(feature::WRITE_CACHE_ON);
  b.command28(cmd::WRITE_SECTORS, 0, 1), b.send(pattern(0, 1));
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_WRITE);
  b.complete();
  b.command48(cmd::WRITE_MULTIPLE_FUA_EXT, 0, 1), b.send(pattern(0, 1));
  EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_WRITE | VDEV_BLOCK_FUA);
}

TEST(IdePio, RegistersDoNotMoveUnderARunningCommand) {
  Ide b;
  b.command28(cmd::WRITE_SECTORS, 30, 1);
  b.set(LBA_LOW, 0), b.set(LBA_MID, 0), b.set(DEVICE, 0xf0), b.set(STATUS_COMMAND, cmd::READ_SECTORS);
  EXPECT_EQ(b.get(LBA_LOW), 30);
  EXPECT_EQ(b.get(DEVICE), 0xe0);
  b.send(pattern(0, 1, 5));
  b.set(LBA_LOW, 0), b.set(STATUS_COMMAND, cmd::DEVICE_RESET);
  b.complete();
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.on_disk(30, 1), pattern(0, 1, 5));
  EXPECT_EQ(b.on_disk(0, 1), pattern(0, 1));
}

TEST(IdeVerify, ReadsTheMediumAndMovesNothing) {
  Ide b;
  b.command48(cmd::READ_VERIFY_EXT, 0, 300);
  EXPECT_EQ(b.complete_all(), 2u);
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::READY);
  b.command28(cmd::READ_VERIFY, 50, 10);
  b.fail_after(4 * SECTOR);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::UNC);
  EXPECT_EQ(b.lba28(), 54u);
}

} // namespace
} // namespace ide::test
