#include "ata_drive.hpp"

namespace ide {

u8 Drive::read(u64 reg, bool hob) const {
  const auto byte = [hob](u16 two_deep) { return u8(hob ? two_deep >> 8 : two_deep); };
  switch (reg) {
    case ERROR_FEATURES: return s_.error;
    case SECTOR_COUNT: return byte(s_.sector_count);
    case LBA_LOW: return byte(s_.lba_low);
    case LBA_MID: return byte(s_.lba_mid);
    case LBA_HIGH: return byte(s_.lba_high);
    default: return 0;
  }
}

void Drive::write(u64 reg, u8 value) {
  const auto push = [value](u16& two_deep) { two_deep = u16(two_deep << 8 | value); };
  switch (reg) {
    case ERROR_FEATURES: return push(s_.features);
    case SECTOR_COUNT: return push(s_.sector_count);
    case LBA_LOW: return push(s_.lba_low);
    case LBA_MID: return push(s_.lba_mid);
    case LBA_HIGH: return push(s_.lba_high);
    default: return;
  }
}

bool Drive::address(u8 device, bool ext, u64& lba) const {
  const u64 low = u8(s_.lba_low), mid = u8(s_.lba_mid), high = u8(s_.lba_high);
  if (ext) { // [ATA 6.2]; only with the LBA bit
    lba = low | mid << 8 | high << 16 | u64(s_.lba_low >> 8) << 24 | u64(s_.lba_mid >> 8) << 32 |
          u64(s_.lba_high >> 8) << 40;
    return device::LBA(device);
  }
  const u64 head = device::HEAD(device);
  if (device::LBA(device)) {
    lba = low | mid << 8 | high << 16 | head << 24;
    return true;
  }
  const u64 cylinder = mid | high << 8;
  lba = (cylinder * heads() + head) * sectors_per_track() + low - 1;
  return low >= 1 && low <= sectors_per_track() && head < heads();
}

u32 Drive::count(bool ext) const {
  if (ext) return s_.sector_count ? s_.sector_count : 65536;
  return u8(s_.sector_count) ? u8(s_.sector_count) : 256;
}

void Drive::set_address(u8& device, u64 lba, bool ext, bool lba_mode) {
  if (ext) {
    s_.lba_low = u16((lba & 0xff) | (lba >> 24 & 0xff) << 8);
    s_.lba_mid = u16((lba >> 8 & 0xff) | (lba >> 32 & 0xff) << 8);
    s_.lba_high = u16((lba >> 16 & 0xff) | (lba >> 40 & 0xff) << 8);
    return;
  }
  const auto put = [](u16& two_deep, u64 value) { two_deep = u16((two_deep & 0xff00) | (value & 0xff)); };
  u64 head = lba >> 24, cylinder = lba >> 8, sector = lba;
  if (!lba_mode) {
    const u64 track = lba / sectors_per_track();
    sector = lba % sectors_per_track() + 1, head = track % heads(), cylinder = track / heads();
  }
  put(s_.lba_low, sector), put(s_.lba_mid, cylinder), put(s_.lba_high, cylinder >> 8);
  device::HEAD.set(device, head);
}

void Drive::set_signature() {
  s_.sector_count = 1, s_.lba_low = 1, s_.lba_mid = 0, s_.lba_high = 0;
  s_.error = error::PASSED, s_.status = status::READY;
  s_.interrupt = false, s_.standby = false;
}

} // namespace ide
