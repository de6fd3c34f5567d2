// Commands that move sectors: chains of block requests, and the data register.
#include <algorithm>
#include <cstring>

#include "ata_channel.hpp"

namespace ide {
namespace {

// UNC is the medium's; whatever else kept the host from it is ABRT [ATA 8: a write has no UNC].
u8 error_of(Kind kind, vdev_status status) {
  return kind != Kind::WRITE && status == VDEV_IO_ERROR ? error::UNC : error::ABRT;
}

} // namespace

// ---- requests

void Channel::next_request(bool first) {
  Command& c = s_.command;
  if (c.dma) return continue_dma();
  const u32 bytes = u32(std::min<u64>(u64{c.left} * SECTOR, BUFFER_BYTES));
  if (c.kind != Kind::WRITE) return submit_buffer(VDEV_BLOCK_READ, bytes);
  c.chunk = bytes, c.position = 0; // gathered first; the first block asks without an interrupt [ATA 9.6]
  present_block(Phase::DATA_OUT, !first);
}

void Channel::submit(u32 op, u32 bytes, std::span<const vdev_segment> segments) {
  Command& c = s_.command;
  enter(Phase::WORKING, status::WORKING);
  c.chunk = bytes, c.position = 0;
  c.tag = ++s_.last_tag;
  const vdev_status status = executing().disk().submit(op, c.tag, c.lba, bytes, segments);
  if (status != VDEV_OK) request_done(status, 0);
}

void Channel::submit_buffer(u32 op, u32 bytes) {
  const vdev_segment whole = buffer_.segment(0, bytes);
  submit(op, bytes, {&whole, 1});
}

// With the write cache off, a write is complete when it is durable.
u32 Channel::write_op() {
  const Drive& drive = executing();
  const bool durable = s_.command.fua || (drive.has_write_cache() && !drive.write_cache());
  return VDEV_BLOCK_WRITE | (durable ? VDEV_BLOCK_FUA : 0);
}

void Channel::done(u32 unit, u64 tag, vdev_status status, u64 bytes) {
  const Command& c = s_.command;
  if (c.phase != Phase::WORKING || tag != c.tag || unit != c.unit) return; // of a command that was cancelled
  const u64 good = std::min<u64>(bytes, c.chunk);
  const bool cut_short = status == VDEV_OK && good < c.chunk;
  request_done(cut_short ? VDEV_IO_ERROR : status, u32(good));
}

void Channel::request_done(vdev_status status, u32 good) {
  Command& c = s_.command;
  c.tag = 0;
  good = good / SECTOR * SECTOR;
  switch (c.kind) {
    case Kind::READ: return c.dma ? dma_done(status, good) : read_done(status, good);
    case Kind::WRITE: return c.dma ? dma_done(status, good) : write_done(status, good);
    case Kind::VERIFY: return verify_done(status, good);
    default: return status == VDEV_OK ? complete() : abort(); // FLUSH
  }
}

void Channel::advance(u32 bytes) {
  s_.command.lba += bytes / SECTOR;
  s_.command.left -= bytes / SECTOR;
}

// The sectors before a bad one are served: a host takes the reported address as the end of what it got.
void Channel::read_done(vdev_status status, u32 good) {
  Command& c = s_.command;
  c.failure = status == VDEV_OK ? u8{error::NONE} : error_of(c.kind, status);
  if (good == 0) return fail(c.failure);
  c.chunk = good;
  present_block(Phase::DATA_IN, true);
}

void Channel::write_done(vdev_status status, u32 good) {
  advance(good);
  if (status != VDEV_OK) return fail(error_of(Kind::WRITE, status));
  s_.command.left ? next_request() : complete();
}

void Channel::verify_done(vdev_status status, u32 good) {
  advance(good);
  if (status != VDEV_OK) return fail(error_of(Kind::VERIFY, status));
  s_.command.left ? next_request() : complete();
}

// ---- the data register

void Channel::present_block(Phase phase, bool interrupt) {
  enter(phase, status::TRANSFER);
  if (interrupt) raise(s_.command.unit);
}

u32 Channel::block_end() const {
  const Command& c = s_.command;
  return std::min((c.position / c.block + 1) * c.block, c.chunk);
}

void Channel::read_data(u8* to, u64 bytes) {
  Command& c = s_.command;
  while (bytes > 0 && c.phase == Phase::DATA_IN) {
    const u32 end = block_end();
    const u32 n = u32(std::min<u64>(bytes, end - c.position));
    buffer_.read(c.position, to, n);
    c.position += n, to += n, bytes -= n;
    if (c.position == end) block_read();
  }
  std::memset(to, 0xff, bytes); // no DRQ: nobody drives the bus
}

void Channel::peek_data(u8* to, u64 bytes) const {
  const Command& c = s_.command;
  const u64 n = c.phase == Phase::DATA_IN ? std::min<u64>(bytes, c.chunk - c.position) : 0;
  buffer_.read(c.position, to, n);
  std::memset(to + n, 0xff, bytes - n);
}

void Channel::block_read() {
  Command& c = s_.command;
  if (c.position < c.chunk) return present_block(Phase::DATA_IN, true);
  if (c.kind == Kind::REGISTERS) return end_of_data_in();
  advance(c.chunk);
  c.chunk = c.position = 0;
  if (c.failure) return fail(c.failure);
  c.left ? next_request() : end_of_data_in();
}

void Channel::write_data(const u8* from, u64 bytes) {
  Command& c = s_.command;
  while (bytes > 0 && c.phase == Phase::DATA_OUT) {
    const u32 end = block_end();
    const u32 n = u32(std::min<u64>(bytes, end - c.position));
    buffer_.write(c.position, from, n);
    c.position += n, from += n, bytes -= n;
    if (c.position == end) block_written();
  }
}

void Channel::block_written() {
  Command& c = s_.command;
  if (c.position < c.chunk) return present_block(Phase::DATA_OUT, true);
  submit_buffer(write_op(), c.chunk);
}

// ---- DMA: a request whenever a command and a running bus master meet, in whichever order they came

void Channel::wait_dma() { enter(Phase::WAIT_DMA, status::TRANSFER); }

void Channel::continue_dma() {
  Command& c = s_.command;
  if (c.left == 0) {
    bus_master_.retire(); // before INTRQ: active clear and interrupt set is the normal end [PIIX BMISTA]
    return complete();
  }
  if (!bus_master_.active()) return wait_dma();
  const Gathered regions = bus_master_.gather(u32(std::min<u64>(u64{c.left} * SECTOR, MAX_DMA_REQUEST)));
  if (regions.bytes == 0) {
    bus_master_.retire(); // nothing left, with the device still asking: neither active nor interrupt
    return bus_master_.active() ? bounce() : wait_dma();
  }
  c.bounce = false;
  submit(c.kind == Kind::READ ? VDEV_BLOCK_READ : write_op(), regions.bytes, {regions.segments.data(), regions.count});
}

// Regions so small that 64 of them hold no sector, or the odd bytes at the end of a table that is too short.
void Channel::bounce() {
  Command& c = s_.command;
  c.bounce = true;
  if (c.kind == Kind::READ) return submit_buffer(VDEV_BLOCK_READ, SECTOR);
  const u32 got = bus_master_.copy_from_guest(buffer_.data(), SECTOR);
  if (got == SECTOR) return submit_buffer(write_op(), SECTOR);
  bus_master_.retire(); // a sector that is not whole is not written
  wait_dma();
}

void Channel::dma_done(vdev_status status, u32 good) {
  Command& c = s_.command;
  if (status == VDEV_BUS_ERROR) { // the device does not know: it waits, until it is reset
    bus_master_.bus_error();
    return wait_dma();
  }
  if (status == VDEV_OK && c.bounce && c.kind == Kind::READ &&
      bus_master_.copy_to_guest(buffer_.data(), SECTOR) < SECTOR) {
    bus_master_.retire();
    return wait_dma();
  }
  advance(good);
  if (status != VDEV_OK) return fail(error_of(c.kind, status));
  continue_dma();
}

} // namespace ide
