#include "identify.hpp"

#include <algorithm>
#include <cstring>

namespace ide {
namespace {

class Words {
 public:
  void set(u32 word, u64 value) {
    bytes_[2 * word] = u8(value);
    bytes_[2 * word + 1] = u8(value >> 8);
  }
  void set32(u32 word, u64 value) { set(word, value), set(word + 1, value >> 16); }
  // ASCII, two characters a word, the first in the high byte, padded with blanks.
  void text(u32 first, u32 words, const char* text, std::size_t length) {
    for (u32 i = 0; i < 2 * words; ++i) {
      const char c = i < length ? text[i] : ' ';
      bytes_[(2 * first + i) ^ 1] = u8(c >= 0x20 && c <= 0x7e ? c : '_');
    }
  }
  // Integrity word: signature A5h, and the two's complement of the sum of all other bytes.
  std::array<u8, SECTOR> finish() {
    bytes_[510] = 0xa5, bytes_[511] = 0;
    u8 sum = 0;
    for (const u8 b : bytes_) sum = u8(sum + b);
    bytes_[511] = u8(-sum);
    return bytes_;
  }

 private:
  std::array<u8, SECTOR> bytes_{};
};

void geometry(Words& id, const Drive& drive) {
  const u32 current = drive.current_cylinders() * drive.heads() * drive.sectors_per_track();
  id.set(1, drive.default_cylinders()), id.set(3, 16), id.set(6, 63);
  id.set(53, 0x0003); // words 54-58 and 64-70 are valid; 88 is not: there is no Ultra DMA
  id.set(54, drive.current_cylinders()), id.set(55, drive.heads()), id.set(56, drive.sectors_per_track());
  id.set32(57, current);
  id.set32(60, std::min(drive.sectors(), LBA28_LIMIT - 1));
  id.set32(100, drive.sectors()), id.set32(102, drive.sectors() >> 32);
}

// What is supported stands in 82-84, what is enabled in 85-87. Every bit here has its command in ata_commands.cc.
void features(Words& id, const Drive& drive) {
  constexpr u16 NOP_CMD = 1 << 14, WRITE_CACHE = 1 << 5, POWER_MANAGEMENT = 1 << 3;
  constexpr u16 VALID = 1 << 14, FLUSH_EXT = 1 << 13, FLUSH = 1 << 12, LBA48 = 1 << 10, FUA_EXT = 1 << 6;
  constexpr u16 base = NOP_CMD | POWER_MANAGEMENT;
  id.set(82, base | (drive.has_write_cache() ? WRITE_CACHE : 0));
  id.set(83, VALID | FLUSH_EXT | FLUSH | LBA48);
  id.set(84, VALID | FUA_EXT);
  id.set(85, base | (drive.write_cache() ? WRITE_CACHE : 0));
  id.set(86, FLUSH_EXT | FLUSH | LBA48);
  id.set(87, VALID | FUA_EXT);
}

} // namespace

std::array<u8, SECTOR> identify(const Drive& drive, u32 drive_index) {
  Words id;
  id.set(0, 0x0040); // an ATA device, not removable
  geometry(id, drive);

  const vdev_block_info& info = drive.info();
  std::size_t length = 0;
  while (length < sizeof info.serial && info.serial[length]) ++length;
  char fallback[] = "TRANSOM-IDE-0";
  fallback[sizeof fallback - 2] = char('0' + drive_index);
  if (length == 0) {
    id.text(10, 10, fallback, std::strlen(fallback));
  } else {
    id.text(10, 10, info.serial, length);
  }
  id.text(23, 4, "1.0", 3);
  id.text(27, 20, "TRANSOM HARDDISK", 16);

  const DriveState& s = drive.state();
  id.set(47, 0x8000 | MAX_MULTIPLE);
  id.set(49, 0x0f00); // standby timer values aside: IORDY and its disabling, LBA, DMA
  id.set(50, 0x4000);
  id.set(59, s.multiple ? 0x0100 | s.multiple : 0);
  const bool mwdma = (s.transfer_mode & 0xf8) == 0x20;
  id.set(63, 0x0007 | (mwdma ? 0x100 << (s.transfer_mode & 7) : 0)); // multiword DMA 0-2
  id.set(64, 0x0003);                                                // PIO 3, 4
  for (u32 word = 65; word <= 68; ++word) id.set(word, 120);         // cycle times in ns: MWDMA 2 and PIO 4
  id.set(80, 0x00f0);                                                // ATA/ATAPI-4 to -7
  features(id, drive);
  // Hardware reset result: this device found by jumper, and passed [ATA 8.15].
  id.set(93, drive_index % 2 == 0 ? 0x400b : 0x4b00);
  return id.finish();
}

} // namespace ide
