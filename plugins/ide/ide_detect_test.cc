// How firmware and kernels find disks: the dialogues of SeaBIOS 1.16 and of Linux's libata, and what IDENTIFY says.
#include "ide_bench.hpp"

namespace ide::test {
namespace {

TEST(IdeConfig, IsThePiix3IdeFunction) {
  Bench b("ide.so", drives({disk()}));
  EXPECT_EQ(b.cfg_read(0, 0x00, 4), 0x70108086u);
  EXPECT_EQ(b.cfg_read(0, 0x08, 4), 0x01018000u);
  EXPECT_EQ(b.cfg_read(0, 0x06, 2), 0x0280u);
  EXPECT_EQ(b.cfg_read(0, 0x20, 4), 0x00000001u);
  EXPECT_EQ(b.cfg_read(0, 0x3d, 1), 0u);
  EXPECT_EQ(b.cfg_read(0, 0x40, 4), 0u);
  EXPECT_EQ(b.cfg_read(0, 0x54, 4), 0u);
}

TEST(IdeConfig, KeepsTimingsAndIgnoresWhatThePiix3Lacks) {
  Ide b;
  b.cfg_write(0, 0x40, 2, 0xe307);
  b.cfg_write(0, 0x44, 1, 0x0b);
  b.cfg_write(0, 0x54, 4, 0xffffffff);
  EXPECT_EQ(b.cfg_read(0, 0x40, 4), 0x8000e307u);
  EXPECT_EQ(b.cfg_read(0, 0x41, 1), 0xe3u);
  EXPECT_EQ(b.cfg_read(0, 0x44, 4), 0x0bu);
  EXPECT_EQ(b.cfg_read(0, 0x54, 4), 0u);
}

TEST(IdeConfig, PortsAreNobodysUntilDecodeIsEnabled) {
  Ide b;
  b.cfg_write(0, 0x40, 2, 0x0000);
  EXPECT_EQ(b.status(), 0xff);
  EXPECT_EQ(b.alternate(), 0xff);
  EXPECT_EQ(b.word(), 0xffff);
  b.command(cmd::IDENTIFY_DEVICE);
  b.cfg_write(0, 0x40, 2, 0x8000);
  EXPECT_EQ(b.status(), st::READY); // that command went nowhere
}

// SeaBIOS: device select echo, the 55h/AAh test, SRST, IDENTIFY PACKET refused, IDENTIFY polled with nIEN.
TEST(IdeSeaBios, FindsADiskByPolling) {
  Ide b;
  b.control(0x0a);
  EXPECT_EQ(b.status(), st::READY);
  b.set(DEVICE, 0xa0);
  EXPECT_EQ(b.get(DEVICE), 0xa0);
  b.set(SECTOR_COUNT, 0x55), b.set(LBA_LOW, 0xaa);
  EXPECT_EQ(b.get(SECTOR_COUNT), 0x55);
  EXPECT_EQ(b.get(LBA_LOW), 0xaa);
  b.control(0x0e);
  EXPECT_EQ(b.alternate() & st::BSY, st::BSY);
  b.control(0x0a);
  EXPECT_EQ(b.status(), st::READY);
  b.command(cmd::IDENTIFY_PACKET_DEVICE);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
  b.command(cmd::IDENTIFY_DEVICE);
  EXPECT_EQ(b.status(), st::TRANSFER);
  std::vector<u16> words;
  for (int i = 0; i < 256; ++i) words.push_back(b.word());
  EXPECT_EQ(words[0], 0x0040);
  EXPECT_EQ(b.alternate(), st::READY);
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_FALSE(b.intrq());
}

TEST(IdeSeaBios, SkipsAChannelWithoutDrives) {
  Ide b;
  b.on_channel(1);
  EXPECT_EQ(b.status(), 0);
  for (const u8 device : {u8{0xa0}, u8{0xb0}}) {
    b.set(DEVICE, device), b.set(SECTOR_COUNT, 0x55), b.set(LBA_LOW, 0xaa);
    for (u32 reg = ERROR_FEATURES; reg <= STATUS_COMMAND; ++reg) EXPECT_EQ(b.get(reg), 0) << reg;
    b.control(0x0e);
    EXPECT_EQ(b.alternate(), 0); // never BSY: that would cost half a minute at boot
    b.control(0x0a);
    EXPECT_EQ(b.alternate(), 0);
  }
  b.command(cmd::IDENTIFY_DEVICE);
  b.command28(cmd::READ_SECTORS, 0, 1);
  EXPECT_EQ(b.status(), 0);
  EXPECT_EQ(b.host.pending.size(), 0u);
}

TEST(IdeSeaBios, SkipsAMissingDevice1) {
  Ide b;
  b.set(DEVICE, 0xb0), b.set(SECTOR_COUNT, 0x55), b.set(LBA_LOW, 0xaa);
  EXPECT_EQ(b.get(DEVICE), 0xb0);
  EXPECT_EQ(b.get(SECTOR_COUNT), 0x55);
  EXPECT_EQ(b.status(), 0);
  b.command(cmd::IDENTIFY_PACKET_DEVICE, 1);
  EXPECT_EQ(b.status(), 0);
  b.command(cmd::IDENTIFY_DEVICE, 1);
  EXPECT_EQ(b.status(), 0);
  EXPECT_FALSE(b.intrq());
  b.set(DEVICE, 0xa0);
  EXPECT_EQ(b.status(), st::READY);
}

// libata: patterns in both devices' registers, SRST, then the signature of each.
TEST(IdeLinux, SoftResetShowsTheSignatureOfADisk) {
  Ide b(drives({disk(), disk(100)}));
  for (const u8 device : {u8{0xa0}, u8{0xb0}}) {
    b.set(DEVICE, device);
    b.set(SECTOR_COUNT, 0x55), b.set(LBA_LOW, 0xaa), b.set(SECTOR_COUNT, 0xaa), b.set(LBA_LOW, 0x55);
    b.set(SECTOR_COUNT, 0x55), b.set(LBA_LOW, 0xaa);
    EXPECT_EQ(b.get(SECTOR_COUNT), 0x55);
    EXPECT_EQ(b.get(LBA_LOW), 0xaa);
  }
  b.set(LBA_MID, 0x12), b.set(LBA_HIGH, 0x34);
  b.control(0x0a), b.control(0x0e), b.control(0x0a);
  EXPECT_EQ(b.get(DEVICE) & 0x10, 0) << "device 0 is selected after a reset";
  for (const u8 device : {u8{0xa0}, u8{0xb0}}) {
    b.set(DEVICE, device);
    EXPECT_EQ(b.status(), st::READY);
    const std::vector<u8> signature = {b.get(1), b.get(2), b.get(3), b.get(4), b.get(5)};
    EXPECT_THAT(signature, ::testing::ElementsAre(1, 1, 1, 0, 0));
  }
}

TEST(IdeLinux, TakesAMissingDevice1ForNone) {
  Ide b;
  b.control(0x0e), b.control(0x0a);
  b.set(DEVICE, 0xb0);
  EXPECT_EQ(b.get(LBA_MID), 0);
  EXPECT_EQ(b.get(LBA_HIGH), 0);
  EXPECT_EQ(b.alternate(), 0); // a disk's signature with status 0: libata drops it without an IDENTIFY
}

TEST(IdeLinux, IdentifyIsReadAs128Dwords) {
  Ide b;
  b.control(0x0a);
  b.command(cmd::IDENTIFY_DEVICE);
  const auto bytes = b.in_run(0, DATA, 4, 128);
  EXPECT_EQ(b.status(), st::READY);
  b.command(cmd::IDENTIFY_DEVICE);
  EXPECT_EQ(b.data(SECTOR), bytes);
}

TEST(IdeLinux, SetsMultiwordDmaMode2AndSeesItInIdentify) {
  Ide b;
  EXPECT_EQ(b.identify()[63], 0x0007);
  b.features(feature::TRANSFER_MODE, 0x22);
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.identify()[63], 0x0407);
  b.features(feature::TRANSFER_MODE, 0x45); // Ultra DMA 5: not on this chip
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
  EXPECT_EQ(b.identify()[63], 0x0407);
}

std::string text(const std::vector<u16>& words, u32 first, u32 last) {
  std::string s;
  for (u32 i = first; i <= last; ++i) s += char(words[i] >> 8), s += char(words[i]);
  return s;
}

TEST(IdeIdentify, NamesModelAndSerial) {
  Ide b;
  const auto id = b.identify();
  EXPECT_EQ(text(id, 27, 46), "TRANSOM HARDDISK                        ");
  EXPECT_EQ(text(id, 10, 19), "TR-TEST-0001        ");
  EXPECT_EQ(text(id, 23, 26), "1.0     ");
}

TEST(IdeIdentify, DescribesTheDisk) {
  Ide b(drives({disk(20480), disk(100)}));
  const auto id = b.identify();
  EXPECT_EQ(id[1], 20480 / (16 * 63));
  EXPECT_EQ(id[3], 16);
  EXPECT_EQ(id[6], 63);
  EXPECT_EQ(id[47], 0x8010);
  EXPECT_EQ(id[49], 0x0f00);
  EXPECT_EQ(id[60] | id[61] << 16, 20480);
  EXPECT_EQ(id[100] | id[101] << 16, 20480);
  EXPECT_EQ(id[102] | id[103], 0);
  EXPECT_EQ(id[80], 0x00f0);
  EXPECT_EQ(id[83] & 0xf400, 0x7400); // valid, FLUSH EXT, FLUSH, LBA48
  EXPECT_EQ(id[86] & 0x3400, 0x3400);
  EXPECT_EQ(id[84], 0x4040);
  EXPECT_EQ(id[88], 0);
  EXPECT_EQ(id[93], 0x400b);
  EXPECT_EQ(b.identify(1)[93], 0x4b00);
  u8 sum = 0;
  for (const u16 w : id) sum = u8(sum + (w & 0xff) + (w >> 8));
  EXPECT_EQ(sum, 0) << "integrity word";
}

TEST(IdeIdentify, CapacityBeyond28BitsShowsInWords100) {
  Options options = drives({disk(1)});
  Ide b(std::move(options));
  b.host.drives[0].info.sectors = 0x123456789a;
  b.reset();
  b.firmware();
  const auto id = b.identify();
  EXPECT_EQ(id[60] | u32{id[61]} << 16, 0x0fffffffu);
  EXPECT_EQ(id[100] | u64{id[101]} << 16 | u64{id[102]} << 32 | u64{id[103]} << 48, 0x123456789au);
  EXPECT_EQ(id[1], 16383);
}

TEST(IdeIdentify, TellsTheTruthAboutTheWriteCache) {
  Ide b;
  EXPECT_EQ(b.identify()[82] & 0x20, 0x20);
  EXPECT_EQ(b.identify()[85] & 0x20, 0x20);
  b.features(feature::WRITE_CACHE_OFF);
  b.complete_all();
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.identify()[85] & 0x20, 0);
  b.features(feature::WRITE_CACHE_ON);
  EXPECT_EQ(b.identify()[85] & 0x20, 0x20);

  DriveOptions through = disk();
  through.write_cache = false;
  Ide without(drives({through}));
  EXPECT_EQ(without.identify()[82] & 0x20, 0);
  without.features(feature::WRITE_CACHE_ON);
  EXPECT_EQ(without.status(), st::FAILED);
}

TEST(IdeIdentify, FollowsSetMultipleAndTheTranslation) {
  Ide b;
  EXPECT_EQ(b.identify()[59], 0x0110);
  b.set(SECTOR_COUNT, 4), b.command(cmd::SET_MULTIPLE);
  EXPECT_EQ(b.identify()[59], 0x0104);
  b.set(SECTOR_COUNT, 3), b.command(cmd::SET_MULTIPLE);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.identify()[59], 0x0104);
  b.set(SECTOR_COUNT, 32), b.set(DEVICE, 0xa7), b.set(STATUS_COMMAND, cmd::INITIALIZE_PARAMETERS);
  EXPECT_EQ(b.status(), st::READY);
  const auto id = b.identify();
  EXPECT_EQ(id[54], SECTORS / (8 * 32));
  EXPECT_EQ(id[55], 8);
  EXPECT_EQ(id[56], 32);
  EXPECT_EQ(id[57] | id[58] << 16, int(SECTORS));
}

TEST(IdeChannels, AreIndependent) {
  Ide b(drives({disk(), absent(), disk(200)}));
  b.command28(cmd::READ_SECTORS, 1, 1);
  EXPECT_EQ(b.alternate() & st::BSY, st::BSY);
  b.on_channel(1);
  EXPECT_EQ(b.status(), st::READY);
  b.command28(cmd::READ_SECTORS, 7, 1);
  ASSERT_EQ(b.host.pending.size(), 2u);
  EXPECT_EQ(b.host.pending[1].drive, 2u);
  b.complete_at(1);
  EXPECT_TRUE(b.irq("irq15"));
  EXPECT_FALSE(b.irq("irq14"));
  EXPECT_EQ(b.status(), st::TRANSFER);
  EXPECT_EQ(b.data(SECTOR), b.on_disk(7, 1, 2));
  b.on_channel(0);
  EXPECT_EQ(b.alternate() & st::BSY, st::BSY);
  b.complete_all();
  EXPECT_EQ(b.data(SECTOR), b.on_disk(1, 1));
}

} // namespace
} // namespace ide::test
