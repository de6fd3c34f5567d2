#include "piix_ide.hpp"

namespace ide {
namespace {

constexpr bool is_command(u32 region) { return region == PiixIde::COMMAND0 || region == PiixIde::COMMAND1; }

u64 from_bytes(const u8* bytes, u32 width) {
  u64 value = 0;
  for (u32 i = 0; i < width; ++i) value |= u64{bytes[i]} << 8 * i;
  return value;
}

} // namespace

PiixIde::PiixIde(State& s, const Host& host)
    : state(s), channel_{Channel(s.channel[0], host, 0, bulk[0]), Channel(s.channel[1], host, 1, bulk[1])} {}

void PiixIde::reset() {
  for (Channel& channel : channel_) channel.reset();
  state = State{};
}

void PiixIde::sync() {
  for (Channel& channel : channel_) channel.sync();
}

// ---- I/O. The data register takes words; an 8-bit access there is still one cycle of the device, so a whole word.
// Wider accesses elsewhere are byte after byte, as the bridge makes them.

u64 PiixIde::read(u32 region, u64 offset, u32 width) {
  u8 bytes[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  if (!decoded(region)) return from_bytes(bytes, width);
  if (is_command(region) && offset == DATA) {
    channel_[region / 2].read_data(bytes, width == 1 ? 2 : width);
  } else {
    for (u32 i = 0; i < width; ++i) bytes[i] = read_byte(region, offset + i);
  }
  return from_bytes(bytes, width);
}

void PiixIde::write(u32 region, u64 offset, u32 width, u64 value) {
  if (!decoded(region)) return;
  u8 bytes[8];
  for (u32 i = 0; i < 8; ++i) bytes[i] = u8(value >> 8 * i);
  if (is_command(region) && offset == DATA) {
    channel_[region / 2].write_data(bytes, width == 1 ? 2 : width);
  } else {
    for (u32 i = 0; i < width; ++i) write_byte(region, offset + i, bytes[i]);
  }
}

u64 PiixIde::peek(u32 region, u64 offset, u32 width) const {
  u8 bytes[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  if (!decoded(region)) return from_bytes(bytes, width);
  if (is_command(region) && offset == DATA) {
    channel_[region / 2].peek_data(bytes, width == 1 ? 2 : width);
  } else {
    for (u32 i = 0; i < width; ++i) bytes[i] = peek_byte(region, offset + i);
  }
  return from_bytes(bytes, width);
}

u8 PiixIde::read_byte(u32 region, u64 offset) {
  if (is_command(region)) return channel_[region / 2].read(offset);
  return peek_byte(region, offset);
}

u8 PiixIde::peek_byte(u32 region, u64 offset) const {
  if (region == BUS_MASTER) return channel_[offset / 8].read_bus_master(offset % 8);
  return is_command(region) ? channel_[region / 2].peek(offset) : channel_[region / 2].alternate_status();
}

void PiixIde::write_byte(u32 region, u64 offset, u8 value) {
  if (region == BUS_MASTER) return channel_[offset / 8].write_bus_master(offset % 8, value);
  is_command(region) ? channel_[region / 2].write(offset, value) : channel_[region / 2].write_control(value);
}

// A REP INSW or OUTSW of whole sectors is one copy.
bool PiixIde::read_run(u32 region, u64 offset, u32 width, u32 count, u8* data) {
  if (!is_command(region) || offset != DATA || width == 1 || !decoded(region)) return false;
  channel_[region / 2].read_data(data, u64{width} * count);
  return true;
}

bool PiixIde::write_run(u32 region, u64 offset, u32 width, u32 count, const u8* data) {
  if (!is_command(region) || offset != DATA || width == 1 || !decoded(region)) return false;
  channel_[region / 2].write_data(data, u64{width} * count);
  return true;
}

// ---- configuration space from 40h; what is not named reads 0

u8 PiixIde::config_byte(u32 offset) const {
  if (offset >= config::IDETIM && offset < config::IDETIM + 4) {
    return u8(state.idetim[(offset - config::IDETIM) / 2] >> 8 * (offset % 2));
  }
  return offset == config::SIDETIM ? state.sidetim : u8{0};
}

void PiixIde::write_config_byte(u32 offset, u8 value) {
  if (offset >= config::IDETIM && offset < config::IDETIM + 4) {
    u16& timing = state.idetim[(offset - config::IDETIM) / 2];
    write_masked(timing, u64{value} << 8 * (offset % 2), u64{0xff} << 8 * (offset % 2));
  } else if (offset == config::SIDETIM) {
    state.sidetim = value;
  }
}

u32 PiixIde::read_config(u32, u32 offset, u32 width) {
  u32 value = 0;
  for (u32 i = 0; i < width; ++i) value |= u32{config_byte(offset + i)} << 8 * i;
  return value;
}

void PiixIde::write_config(u32, u32 offset, u32 width, u32 value) {
  for (u32 i = 0; i < width; ++i) write_config_byte(offset + i, u8(value >> 8 * i));
}

// ---- the block service

void PiixIde::block_done(u32 drive, u64 tag, vdev_status status, u64 bytes) {
  if (drive < drive_count) channel_[drive / 2].done(drive % 2, tag, status, bytes);
}

void PiixIde::medium_changed(u32 drive) {
  if (drive < drive_count) channel_[drive / 2].medium_changed(drive % 2);
}

} // namespace ide
