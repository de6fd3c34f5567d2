// Effects: what a device does outside its own state, and how both are committed together.
//
// While a device call runs, its effects are written behind the committed tail of a ring. When it returns, one release
// store of `commit` (dispatch sequence and ring tail in one word) makes state, effects and response true at once. A
// host that dies before the store leaves the undo copy; one that dies after it leaves everything to be applied. Owners
// apply effects in order, once: the hypervisor takes those of lines, wires, maps and routes; the device's own host
// publishes queue submissions and stream bytes, which are idempotent.
//
// One host dispatches one device at a time, so each server has one journal.
#pragma once

#include <atomic>
#include <cstring>

#include "core/types.hpp"

namespace transom {

enum class EffectKind : u16 {
  none = 0,
  line,         // a: interrupt output of the device, b: level
  wire,         // a: VDEV_WIRE_*, b: value
  shadow,       // a: bit 0 reads reach RAM, bit 1 writes reach RAM; b: base, c: length
  map_region,   // a: region, b: base, c: enabled
  route,        // a: PIRQ link, b: line or VDEV_ROUTE_NONE
  block_submit, // a: slot of the device's block ring. Host's own
  block_cancel, // a: drive, b: new generation. Host's own
  block_free,   // a: slot whose completion the device has seen. Host's own
  stream_out,   // a: stream, b: new tail. Host's own
  stream_in,    // a: stream, b: new head. Host's own
};

struct Effect {
  EffectKind kind = EffectKind::none;
  u16 device = 0;
  u32 a = 0;
  u64 b = 0, c = 0, d = 0;
};
static_assert(sizeof(Effect) == 32);

inline constexpr u32 EFFECT_SLOTS = 1024;
inline constexpr u32 EFFECTS_PER_DISPATCH = 64; // more is a broken device
inline constexpr u32 STATE_BYTES = 512;         // of one device (VDEV_STATE_MAX_BYTES)

// In shared memory.
struct EffectRing {
  std::atomic<u64> commit{0};               // sequence of the last committed dispatch << 32 | tail
  alignas(64) std::atomic<u32> head{0};     // how far the hypervisor has applied
  alignas(64) std::atomic<u32> own_head{0}; // how far the device's host has applied its own kinds
  alignas(64) Effect slot[EFFECT_SLOTS];

  u32 tail() const { return static_cast<u32>(commit.load(std::memory_order_acquire)); }
  u32 sequence() const { return static_cast<u32>(commit.load(std::memory_order_acquire) >> 32); }
};

// What the running dispatch would change, for whoever finds the memory after a crash.
struct Journal {
  std::atomic<u32> begun{0}; // == EffectRing::sequence(): no dispatch is under way
  u32 device = 0;
  u32 slot = ~0u; // the ioreq that is served, ~0 for timers and completions
  u32 undo_bytes = 0;
  u64 request_id = 0;
  // Written right before the commit, and left alone when the next dispatch begins: with which answer which request was
  // committed last. (`request_id` is the running one's; a crash while it is filled in must not pair it with an old
  // answer.)
  u64 answered_id = 0;
  u64 response = 0;
  // Likewise: dispatch `posted_sequence` served the record before `posted_head` of the posted ring.
  u32 posted_sequence = 0;
  u32 posted_head = 0;
  alignas(64) u8 undo[STATE_BYTES];
};

} // namespace transom
