#include "mmio_test.hpp"

#include <algorithm>
#include <cstring>

namespace mmio_test {
namespace {

constexpr u64 mask(u32 width) { return width >= 8 ? ~u64{0} : (u64{1} << 8 * width) - 1; }

} // namespace

u64 MmioTest::word(u64 offset) const {
  if (offset < SCRATCH_END) return state.scratch[offset / 8];
  if (offset >= POSTED && offset < POSTED_END) return state.posted[(offset - POSTED) / 8];
  switch (offset) {
    case ID: return ID_VALUE;
    case WRITES: return state.writes;
    case IRQ: return state.irq;
    case DMA_SOURCE: return state.dma_source;
    case DMA_TARGET: return state.dma_target;
    case DMA_LENGTH: return state.dma_length;
    case DMA_COMMAND: return state.dma_result;
    case TIMER: return state.deadline;
    case EXPIRED: return state.expired;
    case BLOCK_SECTOR: return state.block_sector;
    case BLOCK_ADDRESS: return state.block_address;
    case BLOCK_BYTES: return state.block_bytes;
    case BLOCK_STATUS: return state.block_status;
    case BLOCK_DONE: return state.block_done;
    case DOORBELL: return state.doorbell;
    case RINGS: return state.rings;
    default: return 0;
  }
}

void MmioTest::write_word(u64 offset, u64 value) {
  if (offset < SCRATCH_END) return void(state.scratch[offset / 8] = value);
  if (offset >= POSTED && offset < POSTED_END) return void(state.posted[(offset - POSTED) / 8] = value);
  switch (offset) {
    case IRQ: state.irq = value & 1; break;
    case DMA_SOURCE: state.dma_source = value; break;
    case DMA_TARGET: state.dma_target = value; break;
    case DMA_LENGTH: state.dma_length = value; break;
    case DMA_COMMAND: copy(); break;
    case TIMER: state.deadline = value ? time_add(clock_.now(), value) : 0; break;
    case BLOCK_SECTOR: state.block_sector = value; break;
    case BLOCK_ADDRESS: state.block_address = value; break;
    case BLOCK_BYTES: state.block_bytes = value; break;
    case BLOCK_COMMAND: submit(value); break;
    case DOORBELL: state.doorbell = value, state.rings++; break;
    default: break;
  }
}

u32 MmioTest::port(u64 offset) const {
  switch (offset & ~u64{3}) {
    case DATA: return state.next;
    case SUM: return state.sum;
    case RUNS: return state.runs;
    default: return state.elements;
  }
}

u64 MmioTest::peek(u32 region, u64 offset, u32 width) const {
  if (region == PIO) return port(offset) >> 8 * (offset & 3) & mask(width);
  return word(offset & ~u64{7}) >> 8 * (offset & 7) & mask(width);
}

u64 MmioTest::read(u32 region, u64 offset, u32 width) {
  const u64 value = peek(region, offset, width);
  if (region == PIO && offset == DATA) state.next++, state.elements++;
  return value;
}

void MmioTest::write(u32 region, u64 offset, u32 width, u64 value) {
  if (region == PIO) {
    if (offset == DATA) state.sum += u32(value & mask(width)), state.elements++;
    if (offset == SUM) state.next = state.sum = state.runs = state.elements = 0;
    return;
  }
  state.writes++;
  const u64 at = offset & ~u64{7}, bits = mask(width) << 8 * (offset & 7);
  write_word(at, (word(at) & ~bits) | (value << 8 * (offset & 7) & bits));
}

bool MmioTest::read_run(u32 region, u64 offset, u32 width, u32 count, u8* data) {
  if (region != PIO || offset != DATA) return false;
  state.runs++;
  for (u32 i = 0; i < count; i++) {
    const u64 value = read(region, offset, width);
    std::memcpy(data + std::size_t{i} * width, &value, width);
  }
  return true;
}

bool MmioTest::write_run(u32 region, u64 offset, u32 width, u32 count, const u8* data) {
  if (region != PIO || offset != DATA) return false;
  state.runs++;
  for (u32 i = 0; i < count; i++) {
    u64 value = 0;
    std::memcpy(&value, data + std::size_t{i} * width, width);
    write(region, offset, width, value);
  }
  return true;
}

void MmioTest::copy() {
  if (state.dma_length > DMA_LIMIT) return void(state.dma_result = DMA_TOO_LONG);
  state.dma_result = DMA_OK;
  u8 buffer[4096];
  for (u64 done = 0; done < state.dma_length && state.dma_result == DMA_OK;) {
    const u32 length = u32(std::min<u64>(sizeof buffer, state.dma_length - done));
    if (dma_.read(state.dma_source + done, buffer, length) || dma_.write(state.dma_target + done, buffer, length)) {
      state.dma_result = DMA_FAULT;
    }
    done += length;
  }
}

void MmioTest::submit(u64 command) {
  if (state.block_status == BLOCK_BUSY) return;
  const bool moves = command == VDEV_BLOCK_READ || command == VDEV_BLOCK_WRITE;
  const u64 bytes = moves ? state.block_bytes : 0;
  state.block_status = BLOCK_FAILED;
  if (!moves && command != VDEV_BLOCK_FLUSH) return;
  if (bytes > BLOCK_LIMIT || bytes % VDEV_SECTOR_BYTES || (moves && !bytes)) return;
  const vdev_segment segment = guest_segment(state.block_address, u32(bytes));
  const vdev_status status =
      disk_.submit(u32(command), 0, state.block_sector, bytes, {&segment, moves ? std::size_t{1} : 0});
  if (status == VDEV_OK) state.block_status = BLOCK_BUSY;
}

void MmioTest::block_done(u32, u64, vdev_status status, u64) {
  if (state.block_status != BLOCK_BUSY) return;
  state.block_status = status == VDEV_OK ? BLOCK_OK : BLOCK_FAILED;
  state.block_done++;
  state.irq = 1;
}

void MmioTest::expire(u64 now) {
  if (!state.deadline || now < state.deadline) return;
  state.deadline = 0;
  state.expired++;
  state.irq = 1;
}

void MmioTest::reset() {
  disk_.cancel();
  state = State{};
}

} // namespace mmio_test
