// The bench for the tests of this folder: a controller as firmware leaves it, and the dialogues of its drivers.
#pragma once

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ata_regs.hpp"
#include "piix_regs.hpp"
#include "vdev/testing/bench.hpp"

namespace ide::test {
using namespace vdev;
using namespace vdev::testing;
namespace st = ide::status;
namespace er = ide::error;
namespace cmd = ide::command;

constexpr u32 TABLE = 0x1000, MEMORY = 0x10000; // where tests put PRDs and data in guest RAM
constexpr u64 SECTORS = 4096;

// Every sector differs from every other, and no byte of it is 0.
inline std::vector<u8> pattern(u64 first, u64 sectors, u8 salt = 0) {
  std::vector<u8> data(sectors * SECTOR);
  for (u64 i = 0; i < data.size(); ++i) {
    const u64 at = first * SECTOR + i;
    data[i] = u8(1 + (at / SECTOR * 37 + at * 11 + at / 253 + salt) % 255);
  }
  return data;
}
inline DriveOptions disk(u64 sectors = SECTORS) {
  DriveOptions drive = blank_disk(sectors);
  drive.data = pattern(0, sectors);
  drive.write_cache = true;
  drive.serial = "TR-TEST-0001";
  return drive;
}
inline DriveOptions absent() {
  DriveOptions drive;
  drive.kind = VDEV_DRIVE_ABSENT;
  drive.data.clear();
  return drive;
}
inline Options drives(std::vector<DriveOptions> list) {
  Options options;
  options.drives = std::move(list);
  return options;
}

class Ide : public Bench {
 public:
  explicit Ide(Options options = drives({disk()})) : Bench("ide.so", std::move(options)) { firmware(); }
  void firmware() { // what SeaBIOS programs
    cfg_write(0, 0x20, 4, 0xc000);
    cfg_write(0, 0x40, 2, 0x8000);
    cfg_write(0, 0x42, 2, 0x8000);
    cfg_write(0, 0x04, 2, 0x0107);
  }
  void on_channel(u32 channel) { channel_ = channel; }

  u8 get(u32 reg) { return u8(in(2 * channel_, reg, 1)); }
  void set(u32 reg, u8 value) { out(2 * channel_, reg, 1, value); }
  u8 status() { return get(STATUS_COMMAND); }
  u8 alternate() { return u8(in(2 * channel_ + 1, 0, 1)); }
  void control(u8 value) { out(2 * channel_ + 1, 0, 1, value); }
  bool intrq() { return irq(channel_); }
  u16 word() { return u16(in(2 * channel_, DATA, 2)); }
  std::vector<u8> data(u32 bytes) { return in_run(2 * channel_, DATA, 2, bytes / 2); }
  void send(std::span<const u8> bytes) { out_run(2 * channel_, DATA, 2, bytes); }

  void command(u8 code, u32 unit = 0) { set(DEVICE, u8(0xa0 | unit << 4)), set(STATUS_COMMAND, code); }
  void command28(u8 code, u64 lba, u32 count, u32 unit = 0) {
    set(SECTOR_COUNT, u8(count));
    set(LBA_LOW, u8(lba)), set(LBA_MID, u8(lba >> 8)), set(LBA_HIGH, u8(lba >> 16));
    set(DEVICE, u8(0xe0 | unit << 4 | (lba >> 24 & 15)));
    set(STATUS_COMMAND, code);
  }
  void command48(u8 code, u64 lba, u32 count, u32 unit = 0) {
    set(SECTOR_COUNT, u8(count >> 8)), set(SECTOR_COUNT, u8(count));
    set(LBA_LOW, u8(lba >> 24)), set(LBA_MID, u8(lba >> 32)), set(LBA_HIGH, u8(lba >> 40));
    set(LBA_LOW, u8(lba)), set(LBA_MID, u8(lba >> 8)), set(LBA_HIGH, u8(lba >> 16));
    set(DEVICE, u8(0xe0 | unit << 4));
    set(STATUS_COMMAND, code);
  }
  void features(u8 feature, u8 count = 0, u32 unit = 0) {
    set(ERROR_FEATURES, feature), set(SECTOR_COUNT, count), command(cmd::SET_FEATURES, unit);
  }
  u64 lba28() { return get(LBA_LOW) | get(LBA_MID) << 8 | get(LBA_HIGH) << 16 | u64(get(DEVICE) & 15u) << 24; }
  u64 lba48() {
    control(0x88);
    const u64 high = get(LBA_LOW) | get(LBA_MID) << 8 | u64{get(LBA_HIGH)} << 16;
    control(0x08);
    return high << 24 | get(LBA_LOW) | get(LBA_MID) << 8 | u64{get(LBA_HIGH)} << 16;
  }
  std::vector<u16> identify(u32 unit = 0) {
    command(cmd::IDENTIFY_DEVICE, unit);
    const auto bytes = data(SECTOR);
    status();
    std::vector<u16> words(256);
    std::memcpy(words.data(), bytes.data(), SECTOR);
    return words;
  }

  // Bus master.
  u8 bmicom() { return u8(in(4, 8 * channel_ + bm::COMMAND, 1)); }
  u8 bmista() { return u8(in(4, 8 * channel_ + bm::STATUS, 1)); }
  void set_bmicom(u8 value) { out(4, 8 * channel_ + bm::COMMAND, 1, value); }
  void set_bmista(u8 value) { out(4, 8 * channel_ + bm::STATUS, 1, value); }
  struct Region {
    u32 address, bytes;
  };
  // The last one gets the end mark. Bytes are put as they are: 0 and 10000h are both 64 KiB.
  void table(std::vector<Region> regions, bool end = true, u32 at = TABLE) {
    for (std::size_t i = 0; i < regions.size(); ++i) {
      const u16 flags = end && i + 1 == regions.size() ? 0x8000 : 0;
      const Prd entry{regions[i].address, u16(regions[i].bytes), flags};
      std::memcpy(host.ram.data() + at + 8 * i, &entry, 8);
    }
    out(4, 8 * channel_ + bm::TABLE, 4, at);
  }
  std::vector<u8> memory(u32 address, u32 bytes) const {
    return {host.ram.begin() + address, host.ram.begin() + address + bytes};
  }
  void fill_memory(u32 address, const std::vector<u8>& bytes) {
    std::copy(bytes.begin(), bytes.end(), host.ram.begin() + address);
  }
  std::vector<u8> on_disk(u64 lba, u64 sectors, u32 drive = 0) const {
    const auto& all = host.drives[drive].data;
    return {all.begin() + i64(lba * SECTOR), all.begin() + i64((lba + sectors) * SECTOR)};
  }

  // A completion that fails after `good` bytes, which it moved.
  void fail_after(u64 good, vdev_status error = VDEV_IO_ERROR) {
    const PendingRequest r = host.pending.front();
    host.pending.pop_front();
    u64 moved = 0;
    for (const vdev_segment& s : r.segments) {
      const u64 n = std::min<u64>(s.length, good - moved);
      u8* memory = s.kind == VDEV_SEGMENT_GUEST ? host.ram.data() + s.address
                                                : host.bulk.at(u32(s.address >> 32)).data() + u32(s.address);
      u8* medium = host.drives[r.drive].data.data() + r.sector * SECTOR + moved;
      (r.op & 0xff) == VDEV_BLOCK_READ ? std::memcpy(memory, medium, n) : std::memcpy(medium, memory, n);
      moved += n;
    }
    deliver(r.drive, r.tag, error, good);
  }
  void deliver(u32 drive, u64 tag, vdev_status result, u64 bytes) {
    const auto* block = static_cast<const vdev_block_done*>(extension(VDEV_BLOCK_DONE));
    const FakeHost::Entry entry(host, FakeHost::Phase::Dispatch, "block_done");
    block->done(device(), drive, tag, result, bytes);
  }

 private:
  u32 channel_ = 0;
};

} // namespace ide::test
