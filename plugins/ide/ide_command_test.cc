// Commands without data, the two-deep registers, and who of two devices listens.
#include "ide_bench.hpp"

namespace ide::test {
namespace {

TEST(IdeCommand, SimpleOnesCompleteWithInterrupt) {
  Ide b;
  for (const u8 code : {0x10, 0x1f, 0xe1, 0x95, 0xe3, 0x97}) {
    b.command(code);
    EXPECT_TRUE(b.intrq()) << int(code);
    EXPECT_EQ(b.status(), st::READY);
    EXPECT_EQ(b.get(ERROR_FEATURES), 0);
  }
}

TEST(IdeCommand, SeekChecksItsAddress) {
  Ide b;
  b.command28(cmd::SEEK, SECTORS - 1, 0);
  EXPECT_EQ(b.status(), st::READY);
  b.command28(0x7f, SECTORS, 0);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::IDNF);
}

TEST(IdeCommand, PowerModesCanBeAskedFor) {
  Ide b;
  const auto mode = [&] {
    b.command(cmd::CHECK_POWER);
    b.status();
    return b.get(SECTOR_COUNT);
  };
  EXPECT_EQ(mode(), 0xff);
  for (const u8 code : {0xe0, 0xe2, 0xe6, 0x94, 0x96, 0x99}) {
    b.command(code);
    EXPECT_EQ(b.status(), st::WORKING) << "what is cached is flushed first";
    b.complete();
    EXPECT_EQ(b.status(), st::READY);
    EXPECT_EQ(mode(), 0x00);
    b.command28(cmd::READ_SECTORS, 0, 1), b.complete(), b.data(SECTOR);
    EXPECT_EQ(mode(), 0xff) << "work wakes it";
  }
  b.command(cmd::STANDBY_IMMEDIATE), b.complete();
  b.command(cmd::IDLE_IMMEDIATE);
  EXPECT_EQ(mode(), 0xff);
}

TEST(IdeCommand, NativeMaxIsTheLastSector) {
  Ide b;
  b.set(DEVICE, 0xe0), b.set(STATUS_COMMAND, cmd::READ_NATIVE_MAX);
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.lba28(), SECTORS - 1);
  b.host.drives[0].info.sectors = 0x123456789a;
  b.reset(), b.firmware();
  b.set(DEVICE, 0xe0), b.set(STATUS_COMMAND, cmd::READ_NATIVE_MAX_EXT);
  EXPECT_EQ(b.lba48(), 0x1234567899u);
  b.set(DEVICE, 0xe0), b.set(STATUS_COMMAND, cmd::READ_NATIVE_MAX);
  EXPECT_EQ(b.lba28(), 0x0fffffffu);
}

TEST(IdeCommand, SetFeaturesKnowsItsModes) {
  Ide b;
  for (u32 mode = 0; mode < 256; ++mode) {
    b.features(feature::TRANSFER_MODE, u8(mode));
    const bool known = mode <= 1 || (mode >= 0x08 && mode <= 0x0c) || (mode >= 0x20 && mode <= 0x22);
    EXPECT_EQ(b.status(), known ? st::READY : st::FAILED) << std::hex << mode;
  }
  b.features(feature::KEEP_SETTINGS);
  EXPECT_EQ(b.status(), st::READY);
  for (const u8 feature : {0x00, 0x01, 0x05, 0x42, 0x55, 0x85, 0xaa, 0xcc}) {
    b.features(feature);
    EXPECT_EQ(b.status(), st::FAILED) << std::hex << int(feature);
  }
}

TEST(IdeCommand, SettingsSurviveASoftReset) {
  Ide b;
  b.features(feature::TRANSFER_MODE, 0x22);
  b.features(feature::WRITE_CACHE_OFF), b.complete();
  b.set(SECTOR_COUNT, 8), b.command(cmd::SET_MULTIPLE);
  b.control(0x0c), b.control(0x08);
  const auto id = b.identify();
  EXPECT_EQ(id[63], 0x0407);
  EXPECT_EQ(id[85] & 0x20, 0);
  EXPECT_EQ(id[59], 0x0108);
}

TEST(IdeRegisters, AreTwoDeepAndHobShowsTheOlderContent) {
  Ide b;
  for (u32 reg = SECTOR_COUNT; reg <= LBA_HIGH; ++reg) b.set(reg, u8(0x10 + reg)), b.set(reg, u8(0x20 + reg));
  b.control(0x88);
  for (u32 reg = SECTOR_COUNT; reg <= LBA_HIGH; ++reg) EXPECT_EQ(b.get(reg), 0x10 + reg);
  b.set(DEVICE, 0xe0); // any write to the command block ends it
  for (u32 reg = SECTOR_COUNT; reg <= LBA_HIGH; ++reg) EXPECT_EQ(b.get(reg), 0x20 + reg);
}

TEST(IdeRegisters, ExtendedCommandsNeedTheLbaBit) {
  Ide b;
  b.set(DEVICE, 0xa0), b.set(STATUS_COMMAND, cmd::READ_SECTORS_EXT);
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
}

TEST(IdeRegisters, WiderAccessesBesideDataAreBytes) {
  Ide b;
  b.out(0, SECTOR_COUNT, 2, 0x5544);
  EXPECT_EQ(b.get(SECTOR_COUNT), 0x44);
  EXPECT_EQ(b.get(LBA_LOW), 0x55);
  EXPECT_EQ(b.in(0, SECTOR_COUNT, 2), 0x5544u);
  b.out(0, LBA_MID, 4, 0xec'a0'34'12); // LBA mid and high, device, command
  EXPECT_EQ(b.status(), st::TRANSFER);
}

TEST(IdeInterrupt, IsHeldBackByNienAndByDeselection) {
  Ide b(drives({disk(), disk(50)}));
  b.control(0x0a);
  b.command(cmd::RECALIBRATE);
  EXPECT_FALSE(b.intrq());
  b.control(0x08);
  EXPECT_TRUE(b.intrq());
  b.set(DEVICE, 0xb0);
  EXPECT_FALSE(b.intrq()) << "device 1 is selected";
  b.status();
  b.set(DEVICE, 0xa0);
  EXPECT_TRUE(b.intrq()) << "device 1's status does not acknowledge device 0";
  b.status();
  EXPECT_FALSE(b.intrq());
}

TEST(IdeInterrupt, OnlyTheStatusRegisterAcknowledges) {
  Ide b;
  b.command(cmd::RECALIBRATE);
  for (u32 reg = ERROR_FEATURES; reg <= DEVICE; ++reg) b.get(reg);
  b.alternate(), b.word();
  EXPECT_TRUE(b.intrq());
  b.status();
  EXPECT_FALSE(b.intrq());
}

TEST(IdeInterrupt, ACommandClearsTheOneBefore) {
  Ide b;
  b.command(cmd::RECALIBRATE);
  EXPECT_TRUE(b.intrq());
  b.command28(cmd::READ_SECTORS, 0, 1);
  EXPECT_FALSE(b.intrq());
}

TEST(IdeDevices, BothTakeRegistersButOnlyTheSelectedOneWorks) {
  Ide b(drives({disk(), disk(50)}));
  b.command28(cmd::READ_SECTORS, 49, 1, 1);
  EXPECT_EQ(b.host.pending.at(0).drive, 1u);
  b.complete();
  EXPECT_EQ(b.status(), st::TRANSFER);
  EXPECT_EQ(b.data(SECTOR), b.on_disk(49, 1, 1));
  b.set(DEVICE, 0xe0);
  EXPECT_EQ(b.get(LBA_LOW), 49);
  b.set(STATUS_COMMAND, cmd::READ_SECTORS);
  EXPECT_EQ(b.host.pending.at(0).drive, 0u);
}

TEST(IdeDevices, DiagnosticRunsOnBothAndSelectsDevice0) {
  Ide b(drives({disk(), disk(50)}));
  b.set(LBA_MID, 0x77);
  b.command(cmd::EXECUTE_DIAGNOSTIC, 1);
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.get(DEVICE), 0);
  for (const u8 device : {u8{0xa0}, u8{0xb0}}) {
    b.set(DEVICE, device);
    EXPECT_EQ(b.get(ERROR_FEATURES), er::PASSED);
    EXPECT_EQ(b.get(LBA_MID), 0);
  }
}

TEST(IdeDevices, ALoneDevice1IsFound) {
  Ide b(drives({absent(), disk(50)}));
  EXPECT_EQ(b.status(), 0);
  b.set(DEVICE, 0xb0);
  EXPECT_EQ(b.status(), st::READY);
  EXPECT_EQ(b.identify(1)[60], 50);
}

TEST(IdeDevices, ADriveWithoutSectorsIsNone) {
  DriveOptions none = disk();
  none.data.clear();
  Ide b(drives({none}));
  EXPECT_EQ(b.status(), 0);
  b.command(cmd::IDENTIFY_DEVICE);
  EXPECT_EQ(b.status(), 0);
}

TEST(IdePeek, ChangesNothingAndSeesWhatAReadWould) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 1, 2), b.complete();
  b.word();
  const Snapshot before = b.save();
  for (u32 region = 0; region < 5; ++region) {
    for (u64 offset = 0; offset < b.descriptor().regions[region].length; ++offset) b.peek(region, offset, 1);
  }
  EXPECT_EQ(b.peek(0, STATUS_COMMAND, 1), u64{st::TRANSFER});
  EXPECT_EQ(b.peek(0, DATA, 2), u64(b.on_disk(1, 1)[2] | b.on_disk(1, 1)[3] << 8));
  EXPECT_EQ(b.save(), before);
  EXPECT_TRUE(b.intrq());
}

} // namespace
} // namespace ide::test
