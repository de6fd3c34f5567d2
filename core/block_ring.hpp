// The request ring between a device's host (wherever the device is placed) and the block service, which alone opens
// images. It is also the in-flight table: a request stays in its slot from submission to the delivered completion, so a
// new owner on either side finds everything that is under way.
//
//   host:    free → written → (the dispatch commits) → queued            service: queued → running → done
//   host:    done → completion delivered, or dropped when its generation is stale → free
//
// Slots are written by a peer: copy once, then check.
#pragma once

#include <atomic>

#include "core/types.hpp"
#include "vdev/ext/block.h"

namespace transom {

inline constexpr u32 BLOCK_SLOTS = VDEV_BLOCK_MAX_IN_FLIGHT;
inline constexpr u32 BLOCK_DRIVES = 4; // a device

enum class BlockSlotState : u32 { free = 0, written, queued, running, done };

struct BlockRequest {
  u32 drive, generation, op, segment_count;
  u64 tag, sector, bytes;
  u64 order; // of submission, by device
  vdev_segment segments[VDEV_BLOCK_MAX_SEGMENTS];
};

struct BlockSlot {
  std::atomic<BlockSlotState> state;
  i32 status;
  u64 transferred;
  BlockRequest request;
};

struct BlockRing {
  std::atomic<u32> queued; // hint: bit n says that slot n may be `queued`
  std::atomic<u32> done;   // hint: … may be `done`
  std::atomic<u32> generation[BLOCK_DRIVES];
  std::atomic<u64> next_order;
  std::atomic<u32> drive_sequence;      // raised when drives[] changed (medium change)
  vdev_block_info drives[BLOCK_DRIVES]; // written by the service before the device is created
  BlockSlot slots[BLOCK_SLOTS];
};

} // namespace transom
