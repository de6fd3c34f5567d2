#include "bus_master.hpp"

#include <algorithm>

namespace ide {

u8 BusMaster::read(u64 offset) const {
  switch (offset) {
    case bm::COMMAND: return s_.command;
    case bm::STATUS: return s_.status;
    case bm::TABLE:
    case bm::TABLE + 1:
    case bm::TABLE + 2:
    case bm::TABLE + 3: return u8(s_.table >> 8 * (offset - bm::TABLE));
    default: return 0;
  }
}

void BusMaster::write_status(u8 value) {
  write_masked(s_.status, value, bmista::WRITABLE);
  s_.status = u8(s_.status & ~(value & bmista::WRITE_CLEAR));
}

void BusMaster::write_table(u64 byte, u8 value) {
  s_.table = (s_.table & ~(0xffu << 8 * byte)) | u32{value} << 8 * byte;
  s_.table &= ~u32{3};
}

void BusMaster::write_command(u8 value) {
  const bool was = bmicom::START(s_.command), now = bmicom::START(value);
  write_masked(s_.command, value, bmicom::WRITABLE);
  if (was == now) return;
  bmista::ACTIVE.set(s_.status, now);
  if (!now) return;
  s_.next = s_.table;
  s_.address = s_.bytes = s_.entries = 0;
  s_.last = false;
  fetch(); // the first descriptor is read at once [PIIX bus master operation]
}

bool BusMaster::fetch() {
  if (s_.bytes > 0) return true;
  if (s_.last) return false;
  Prd region{};
  const u64 end = u64{s_.next} + sizeof region;
  if (s_.entries >= prd::MAX_ENTRIES || end > u64{1} << 32 || !dma_.get(s_.next, region)) {
    bus_error();
    return false;
  }
  s_.next += u32{sizeof region};
  ++s_.entries;
  s_.address = region.address & ~u32{1};
  s_.bytes = region.bytes & 0xfffe ? region.bytes & 0xfffe : 0x10000;
  s_.last = prd::END_OF_TABLE(region.flags);
  if (u64{s_.address} + s_.bytes > u64{1} << 32) { // no bus has an address there
    s_.bytes = 0;
    bus_error();
    return false;
  }
  return true;
}

Gathered BusMaster::gather(u32 limit) {
  Gathered all;
  struct {
    BusMasterState state;
    u32 count = 0, last_length = 0, bytes = 0;
  } boundary{s_}; // as it stood at the last whole sector
  while (all.bytes < limit && fetch()) {
    const u32 n = std::min(s_.bytes, limit - all.bytes);
    vdev_segment* last = all.count ? &all.segments[all.count - 1] : nullptr;
    if (last && last->address + last->length == s_.address) {
      last->length += n; // regions that touch become one segment
    } else if (all.count < all.segments.size()) {
      last = &all.segments[all.count++];
      *last = guest_segment(s_.address, n);
    } else {
      break;
    }
    all.bytes += n, s_.address += n, s_.bytes -= n;
    const u32 over = all.bytes % SECTOR;
    if (over >= n) continue;
    boundary = {s_, all.count, last->length - over, all.bytes - over};
    boundary.state.address -= over, boundary.state.bytes += over;
  }
  // A descriptor that could not be read is an error only once the sectors before it are through.
  if (boundary.bytes == 0) boundary.state.status = s_.status;
  s_ = boundary.state;
  all.count = boundary.count, all.bytes = boundary.bytes;
  if (all.count) all.segments[all.count - 1].length = boundary.last_length;
  return all;
}

template <class Move>
u32 BusMaster::copy(u32 length, Move move) {
  u32 done = 0;
  while (done < length && fetch()) {
    const u32 n = std::min(s_.bytes, length - done);
    if (move(done, s_.address, n) != VDEV_OK) {
      bus_error();
      break;
    }
    done += n, s_.address += n, s_.bytes -= n;
  }
  return done;
}

u32 BusMaster::copy_to_guest(const u8* data, u32 length) {
  return copy(length, [&](u32 at, u32 address, u32 n) { return dma_.write(address, data + at, n); });
}
u32 BusMaster::copy_from_guest(u8* data, u32 length) {
  return copy(length, [&](u32 at, u32 address, u32 n) { return dma_.read(address, data + at, n); });
}

} // namespace ide
