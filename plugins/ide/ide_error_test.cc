// What goes wrong: media errors, bad addresses, resets at any moment, and a device that moves in mid-command.
#include "ide_bench.hpp"

namespace ide::test {
namespace {

constexpr u8 ACTIVE = 0x01, INTERRUPT = 0x04;

TEST(IdeError, AReadServesTheGoodSectorsThenNamesTheBadOne) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 100, 10);
  b.fail_after(3 * SECTOR);
  for (u64 i = 0; i < 3; ++i) {
    EXPECT_EQ(b.status(), st::TRANSFER);
    EXPECT_EQ(b.data(SECTOR), b.on_disk(100 + i, 1));
  }
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::UNC);
  EXPECT_EQ(b.lba28(), 103u);
  EXPECT_EQ(b.host.pending.size(), 0u);
}

TEST(IdeError, AReadWithoutAnyGoodSectorFailsAtOnce) {
  Ide b;
  b.host.block_fails_in = 1;
  b.command48(cmd::READ_SECTORS_EXT, 0x0a0b, 2);
  b.complete();
  EXPECT_TRUE(b.intrq());
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.get(ERROR_FEATURES), er::UNC);
  EXPECT_EQ(b.lba48(), 0x0a0bu);
  EXPECT_EQ(b.word(), 0xffff);
  b.command28(cmd::READ_SECTORS, 1, 1);
  b.complete();
  EXPECT_EQ(b.status(), st::TRANSFER) << "the next command clears the error";
}

TEST(IdeError, WritesReportAbortAndTheFirstSectorNotWritten) {
  for (const vdev_status error : {VDEV_IO_ERROR, VDEV_NO_SPACE, VDEV_READ_ONLY, VDEV_FAILED}) {
    Ide b;
    b.command28(cmd::WRITE_SECTORS, 100, 4);
    b.send(pattern(0, 4, 4));
    b.fail_after(2 * SECTOR, error);
    EXPECT_TRUE(b.intrq());
    EXPECT_EQ(b.status(), st::FAILED);
    EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
    EXPECT_EQ(b.lba28(), 102u);
  }
}

TEST(IdeError, DmaReportsTheBadSectorWithInterrupt) {
  for (const bool write : {false, true}) {
    Ide b;
    b.table({{MEMORY, 8 * SECTOR}});
    b.command28(write ? cmd::WRITE_DMA : cmd::READ_DMA, 0x0123, 8);
    b.set_bmicom(write ? 1 : 9);
    b.fail_after(5 * SECTOR);
    EXPECT_EQ(b.bmista(), ACTIVE | INTERRUPT) << "the table was not used up";
    EXPECT_EQ(b.status(), st::FAILED);
    EXPECT_EQ(b.get(ERROR_FEATURES), write ? er::ABRT : er::UNC);
    EXPECT_EQ(b.lba28(), 0x0128u);
  }
}

TEST(IdeError, ACompletionThatIsTooShortIsAnError) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 50, 4);
  b.fail_after(SECTOR, VDEV_OK);
  EXPECT_EQ(b.data(SECTOR), b.on_disk(50, 1));
  EXPECT_EQ(b.status(), st::FAILED);
  EXPECT_EQ(b.lba28(), 51u);
}

TEST(IdeError, AFlushThatFailsSaysSo) {
  for (const u8 code : {cmd::FLUSH_CACHE, cmd::FLUSH_CACHE_EXT, cmd::STANDBY_IMMEDIATE}) {
    Ide b;
    b.command(code);
    EXPECT_EQ(b.status(), st::WORKING);
    EXPECT_EQ(b.host.pending.at(0).op, VDEV_BLOCK_FLUSH);
    b.host.block_fails_in = 1;
    b.complete();
    EXPECT_TRUE(b.intrq());
    EXPECT_EQ(b.status(), st::FAILED);
    EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
    b.command(code);
    b.complete();
    EXPECT_EQ(b.status(), st::READY);
  }
}

TEST(IdeError, AddressesPastTheEndAreNotFoundAndNothingMoves) {
  struct {
    u64 lba;
    u32 count;
    u64 missing;
  } const cases[] = {
      {SECTORS, 1, SECTORS}, {SECTORS - 1, 2, SECTORS}, {SECTORS - 255, 0, SECTORS}, {0x0fffffff, 1, 0x0fffffff}};
  for (const auto& c : cases) {
    for (const u8 code :
         {cmd::READ_SECTORS, cmd::READ_MULTIPLE, cmd::READ_DMA, cmd::WRITE_SECTORS, cmd::WRITE_DMA, cmd::READ_VERIFY}) {
      Ide b;
      b.command28(code, c.lba, c.count);
      EXPECT_TRUE(b.intrq());
      EXPECT_EQ(b.status(), st::FAILED);
      EXPECT_EQ(b.get(ERROR_FEATURES), er::IDNF);
      EXPECT_EQ(b.lba28(), c.missing);
      EXPECT_EQ(b.host.pending.size(), 0u);
    }
  }
  Ide b;
  for (const u64 lba : {u64{0xffffffffffff}, u64{0xffffffff0001}, u64{1} << 32, SECTORS}) {
    b.command48(cmd::READ_SECTORS_EXT, lba, 0);
    EXPECT_EQ(b.status(), st::FAILED);
    EXPECT_EQ(b.lba48(), lba);
  }
  b.command28(cmd::READ_SECTORS, SECTORS - 1, 1);
  EXPECT_EQ(b.status(), st::WORKING) << "the last sector exists";
}

TEST(IdeError, AReadOnlyDiskRefusesEveryWrite) {
  DriveOptions drive = disk();
  drive.read_only = true;
  Ide b(drives({drive}));
  b.table({{MEMORY, SECTOR}});
  b.set_bmicom(0x01);
  for (const u8 code : {cmd::WRITE_SECTORS, cmd::WRITE_SECTORS_NO_RETRY, cmd::WRITE_SECTORS_EXT, cmd::WRITE_MULTIPLE,
                        cmd::WRITE_MULTIPLE_EXT, cmd::WRITE_MULTIPLE_FUA_EXT, cmd::WRITE_DMA, cmd::WRITE_DMA_NO_RETRY,
                        cmd::WRITE_DMA_EXT, cmd::WRITE_DMA_FUA_EXT}) {
    b.command28(code, 0, 1);
    EXPECT_EQ(b.status(), st::FAILED) << int(code);
    EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT);
    b.send(pattern(0, 1, 1));
  }
  EXPECT_EQ(b.host.pending.size(), 0u);
  EXPECT_EQ(b.on_disk(0, SECTORS), pattern(0, SECTORS));
}

TEST(IdeError, UnknownCommandsAreAborted) {
  Ide b;
  const std::set<u8> known = {0x20, 0x21, 0x24, 0x25, 0x27, 0x29, 0x30, 0x31, 0x34, 0x35, 0x39, 0x3d, 0x40, 0x41,
                              0x42, 0x90, 0x91, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0xc4, 0xc5, 0xc6, 0xc8, 0xc9,
                              0xca, 0xcb, 0xce, 0xe0, 0xe1, 0xe2, 0xe3, 0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xf8};
  for (u32 code = 0; code < 256; ++code) {
    if (known.contains(u8(code)) || code >> 4 == 1 || code >> 4 == 7) continue;
    b.set(ERROR_FEATURES, 0);
    b.command(u8(code)); // SET FEATURES 00h among them
    EXPECT_TRUE(b.intrq()) << std::hex << code;
    EXPECT_EQ(b.status(), st::FAILED) << std::hex << code;
    EXPECT_EQ(b.get(ERROR_FEATURES), er::ABRT) << std::hex << code;
    EXPECT_EQ(b.host.pending.size(), 0u);
  }
}

// ---- resets

struct Running {
  const char* name;
  std::function<void(Ide&)> start;
};
const Running running[] = {
    {"PIO read in flight", [](Ide& b) { b.command28(cmd::READ_SECTORS, 9, 4); }},
    {"PIO read being served", [](Ide& b) { b.command28(cmd::READ_SECTORS, 9, 4), b.complete(), b.data(SECTOR + 100); }},
    {"PIO write being gathered", [](Ide& b) { b.command28(cmd::WRITE_SECTORS, 9, 4), b.send(pattern(0, 1, 9)); }},
    {"PIO write in flight", [](Ide& b) { b.command28(cmd::WRITE_SECTORS, 9, 1), b.send(pattern(0, 1, 9)); }},
    {"DMA read waiting", [](Ide& b) { b.command28(cmd::READ_DMA, 9, 4); }},
    {"DMA read in flight",
     [](Ide& b) {
       b.table({{MEMORY, 2048}}), b.command28(cmd::READ_DMA, 9, 4), b.set_bmicom(9);
     }},
    {"DMA write in flight",
     [](Ide& b) {
       b.table({{MEMORY, 2048}}), b.command28(cmd::WRITE_DMA, 9, 4), b.set_bmicom(1);
     }},
    {"DMA write through the buffer",
     [](Ide& b) {
       b.table(std::vector<Ide::Region>(256, {MEMORY, 2})), b.command28(cmd::WRITE_DMA, 9, 1), b.set_bmicom(1);
     }},
    {"verify", [](Ide& b) { b.command28(cmd::READ_VERIFY, 9, 4); }},
    {"flush", [](Ide& b) { b.command(cmd::FLUSH_CACHE); }},
    {"identify", [](Ide& b) { b.command(cmd::IDENTIFY_DEVICE), b.data(10); }},
};

// CVE-2023-5088: a reset in flight, and the completion then acted on the registers as the reset had left them.
TEST(IdeReset, SrstInFlightCancelsAndNothingIsWritten) {
  for (const Running& r : running) {
    SCOPED_TRACE(r.name);
    Ide b;
    r.start(b);
    const auto left = b.host.pending;
    b.control(0x0c);
    EXPECT_EQ(b.host.pending.size(), 0u);
    EXPECT_EQ(b.alternate(), st::BSY);
    b.set(STATUS_COMMAND, cmd::READ_SECTORS); // nobody listens while SRST is held
    b.control(0x08);
    EXPECT_EQ(b.status(), st::READY);
    EXPECT_EQ(b.get(SECTOR_COUNT), 1);
    EXPECT_EQ(b.get(LBA_LOW), 1);
    EXPECT_EQ(b.get(ERROR_FEATURES), er::PASSED);
    EXPECT_FALSE(b.intrq());
    for (const auto& request : left) b.deliver(request.drive, request.tag, VDEV_OK, request.bytes); // too late
    EXPECT_EQ(b.status(), st::READY);
    EXPECT_FALSE(b.intrq());
    b.complete_all();
    EXPECT_EQ(b.on_disk(0, SECTORS), pattern(0, SECTORS));
    b.command28(cmd::READ_SECTORS, 0, 1);
    b.complete_all();
    EXPECT_EQ(b.data(SECTOR), pattern(0, 1));
  }
}

TEST(IdeReset, ALateCompletionIsNotTakenForTheNextCommands) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 9, 1);
  const u64 old = b.host.pending.at(0).tag;
  b.control(0x0c), b.control(0x08);
  b.command28(cmd::READ_SECTORS, 10, 1);
  b.deliver(0, old, VDEV_OK, SECTOR);
  EXPECT_EQ(b.status(), st::WORKING);
  b.deliver(1, b.host.pending.at(0).tag, VDEV_OK, SECTOR); // another drive's
  EXPECT_EQ(b.status(), st::WORKING);
  b.complete();
  EXPECT_EQ(b.data(SECTOR), b.on_disk(10, 1));
}

TEST(IdeReset, DeviceResetAndOtherCommandsAreNotHeardMeanwhile) {
  for (const Running& r : running) {
    SCOPED_TRACE(r.name);
    Ide b;
    r.start(b);
    const Snapshot before = b.save();
    for (const u8 code : {cmd::DEVICE_RESET, cmd::EXECUTE_DIAGNOSTIC, cmd::WRITE_SECTORS, cmd::IDENTIFY_DEVICE}) {
      b.command28(code, 0, 1);
      EXPECT_EQ(b.save(), before);
    }
  }
}

TEST(IdeReset, TheResetPinMakesItNew) {
  for (const Running& r : running) {
    SCOPED_TRACE(r.name);
    Ide b;
    r.start(b);
    b.reset();
    EXPECT_EQ(differences(b.save(), Bench("ide.so", drives({disk()})).save()), "");
    EXPECT_FALSE(b.intrq());
    EXPECT_EQ(b.host.pending.size(), 0u);
  }
}

TEST(IdeReset, AThousandResetsInFlightLeaveNothingBehind) {
  Ide b;
  for (int i = 0; i < 1000; ++i) {
    running[std::size_t(i) % std::size(running)].start(b);
    b.control(0x0c), b.control(0x08), b.set_bmicom(0);
    EXPECT_LE(b.host.pending.size(), 0u);
  }
  EXPECT_EQ(b.on_disk(0, SECTORS), pattern(0, SECTORS));
}

// ---- a device that moves

TEST(IdeMove, EveryCommandGoesOnAfterSaveAndLoad) {
  for (const Running& r : running) {
    SCOPED_TRACE(r.name);
    Ide stays, moves;
    for (Ide* b : {&stays, &moves}) {
      r.start(*b);
      if (b == &moves) b->migrate();
      b->set_bmicom(u8(b->bmicom() | 1));
      b->complete();
      b->send(pattern(0, 4, 9));
      b->complete_all();
    }
    EXPECT_EQ(stays.data(3000), moves.data(3000));
    EXPECT_EQ(differences(stays.save(), moves.save()), "");
    EXPECT_EQ(stays.intrq(), moves.intrq());
    EXPECT_EQ(stays.on_disk(0, 20), moves.on_disk(0, 20));
  }
}

TEST(IdeMove, ARestartFindsItsStateInPlace) {
  for (const Running& r : running) {
    SCOPED_TRACE(r.name);
    Ide b;
    r.start(b);
    const Snapshot before = b.save();
    b.restart();
    EXPECT_EQ(differences(before, b.save()), "");
    b.complete_all();
  }
}

TEST(IdeMove, StatesThatNoCommandCouldLeaveAreRefused) {
  Ide b;
  b.command28(cmd::READ_SECTORS, 9, 4), b.complete();
  const Snapshot good = b.save();
  const std::pair<const char*, u64> bad[] = {
      {"channel[0].command.position", 2048},  {"channel[0].command.chunk", 0x20200}, {"channel[0].command.block", 0},
      {"channel[0].command.block", 768},      {"channel[0].command.left", 3},        {"channel[0].command.tag", 1},
      {"channel[0].command.kind", 2},         {"channel[0].drive0.multiple", 5},     {"channel[0].command.unit", 2},
      {"channel[0].bus_master.bytes", 65537}, {"channel[0].drive0.heads", 17},       {"channel[0].command.phase", 9},
      {"channel[0].command.phase", 4}};
  for (const auto& [name, value] : bad) {
    Snapshot damaged = good;
    damaged.at(name).values[0] = value;
    EXPECT_NE(b.restore(damaged), VDEV_OK) << name;
    EXPECT_EQ(differences(b.save(), good), "");
  }
  EXPECT_EQ(b.restore(good), VDEV_OK);
  EXPECT_EQ(b.data(4 * SECTOR), b.on_disk(9, 4));
}

} // namespace
} // namespace ide::test
