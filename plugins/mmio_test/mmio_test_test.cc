#include "mmio_test.hpp"

#include "vdev/testing/properties.hpp"

namespace mmio_test {
namespace {

using vdev::testing::Bench;
using vdev::testing::blank_disk;
using vdev::testing::Options;

Options with_disk() {
  Options options;
  options.drives = {blank_disk(64)};
  return options;
}

VDEV_PROPERTIES(MmioTest, "mmio_test.so", "org.transom.mmio-test", .bench = with_disk(), .schema = "mmio_test.schema");

TEST(MmioTest, ScratchTakesEveryWidth) {
  Bench b("mmio_test.so");
  b.out(MMIO, 8, 8, 0x8877665544332211);
  EXPECT_EQ(b.in(MMIO, 8, 8), 0x8877665544332211u);
  EXPECT_EQ(b.in(MMIO, 12, 4), 0x88776655u);
  EXPECT_EQ(b.in(MMIO, 10, 2), 0x4433u);
  EXPECT_EQ(b.in(MMIO, 15, 1), 0x88u);
  b.out(MMIO, 11, 1, 0xaa);
  b.out(MMIO, 14, 2, 0xbbbb);
  EXPECT_EQ(b.in(MMIO, 8, 8), 0xbbbb6655aa332211u);
  EXPECT_EQ(b.in(MMIO, WRITES, 8), 3u);
}

TEST(MmioTest, DmaCopiesAcrossPages) {
  Bench b("mmio_test.so");
  for (u32 i = 0; i < 10000; i++) b.host.ram[0x1003 + i] = u8(i * 7);
  b.out(MMIO, DMA_SOURCE, 8, 0x1003), b.out(MMIO, DMA_TARGET, 8, 0x8001), b.out(MMIO, DMA_LENGTH, 8, 10000);
  b.out(MMIO, DMA_COMMAND, 1, 1);
  EXPECT_EQ(b.in(MMIO, DMA_COMMAND, 8), DMA_OK);
  for (u32 i = 0; i < 10000; i++) ASSERT_EQ(b.host.ram[0x8001 + i], u8(i * 7));
}

TEST(MmioTest, DmaOutsideOfRamAndTooLongDmaAreReported) {
  Bench b("mmio_test.so");
  b.out(MMIO, DMA_SOURCE, 8, 0xd0000000), b.out(MMIO, DMA_LENGTH, 8, 16), b.out(MMIO, DMA_COMMAND, 1, 1);
  EXPECT_EQ(b.in(MMIO, DMA_COMMAND, 8), DMA_FAULT);
  b.out(MMIO, DMA_LENGTH, 8, DMA_LIMIT + 1), b.out(MMIO, DMA_COMMAND, 1, 1);
  EXPECT_EQ(b.in(MMIO, DMA_COMMAND, 8), DMA_TOO_LONG);
}

TEST(MmioTest, TheTimerInterruptsOnce) {
  Bench b("mmio_test.so");
  b.out(MMIO, TIMER, 8, 5000);
  b.step(4999);
  EXPECT_FALSE(b.irq("intr"));
  b.step(1);
  EXPECT_TRUE(b.irq("intr"));
  b.out(MMIO, IRQ, 1, 0);
  b.step(100'000);
  EXPECT_FALSE(b.irq("intr"));
  EXPECT_EQ(b.in(MMIO, EXPIRED, 8), 1u);
}

TEST(MmioTest, ABlockRequestMovesSectorsAndInterrupts) {
  Bench b("mmio_test.so", with_disk());
  b.host.drives[0].data[3 * 512 + 5] = 0x42;
  b.out(MMIO, BLOCK_SECTOR, 8, 3), b.out(MMIO, BLOCK_ADDRESS, 8, 0x2000), b.out(MMIO, BLOCK_BYTES, 8, 1024);
  b.out(MMIO, BLOCK_COMMAND, 4, VDEV_BLOCK_READ);
  EXPECT_EQ(b.in(MMIO, BLOCK_STATUS, 8), BLOCK_BUSY);
  b.complete();
  EXPECT_EQ(b.in(MMIO, BLOCK_STATUS, 8), BLOCK_OK);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.host.ram[0x2005], 0x42);
}

TEST(MmioTest, AStringRunIsOneCall) {
  Bench b("mmio_test.so");
  EXPECT_EQ(b.in(PIO, DATA, 2), 0u);
  const auto data = b.in_run(PIO, DATA, 2, 100);
  for (u32 i = 0; i < 100; i++) EXPECT_EQ(data[2 * i], i + 1);
  EXPECT_EQ(b.in(PIO, RUNS, 4), 1u);
  EXPECT_EQ(b.in(PIO, ELEMENTS, 4), 101u);
  b.out_run(PIO, DATA, 1, data);
  EXPECT_EQ(b.in(PIO, SUM, 4), 5050u);
  EXPECT_EQ(b.in(PIO, RUNS, 4), 2u);
  b.out(PIO, SUM, 4, 0);
  EXPECT_EQ(b.in(PIO, ELEMENTS, 4), 0u);
}

TEST(MmioTest, ItsPostedRangesStoreAndCount) {
  Bench b("mmio_test.so");
  for (u32 i = 0; i < 8; i++) b.out(MMIO, POSTED + 8 * i, 8, i + 1);
  b.out(MMIO, DOORBELL, 4, 7), b.out(MMIO, DOORBELL, 4, 9);
  EXPECT_EQ(b.in(MMIO, POSTED + 56, 8), 8u);
  EXPECT_EQ(b.in(MMIO, DOORBELL, 8), 9u);
  EXPECT_EQ(b.in(MMIO, RINGS, 8), 2u);
  EXPECT_EQ(b.in(MMIO, WRITES, 8), 10u);
}

} // namespace
} // namespace mmio_test
