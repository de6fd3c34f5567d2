// Byte streams between a device's host and the character service: one single-producer single-consumer ring each way.
// Indices run freely and are masked; a peer's index is checked before use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/types.hpp"

namespace transom {

struct ByteRing {
  static constexpr u32 BYTES = 8192;
  std::atomic<u32> head; // consumer
  std::atomic<u32> tail; // producer
  u8 data[BYTES];

  // Bytes that wait, clamped: a hostile peer's indices never lead outside the buffer.
  u32 used() const {
    return std::min(tail.load(std::memory_order_acquire) - head.load(std::memory_order_acquire), BYTES);
  }
  // Producer: copies as much as fits behind `at` (a tail not yet published); returns how much.
  u32 put(u32 at, const u8* bytes, u32 length) {
    const u32 taken = std::min(length, BYTES - std::min(at - head.load(std::memory_order_acquire), BYTES));
    for (u32 done = 0; done < taken;) {
      const u32 where = (at + done) % BYTES, run = std::min(taken - done, BYTES - where);
      std::memcpy(data + where, bytes + done, run);
      done += run;
    }
    return taken;
  }
  // Consumer: copies up to `length` waiting bytes without consuming them; returns how many.
  u32 peek(u8* bytes, u32 length) const {
    const u32 from = head.load(std::memory_order_relaxed), given = std::min(length, used());
    for (u32 done = 0; done < given;) {
      const u32 where = (from + done) % BYTES, run = std::min(given - done, BYTES - where);
      std::memcpy(bytes + done, data + where, run);
      done += run;
    }
    return given;
  }
};

inline constexpr u32 STREAMS = 2; // a device

struct StreamPair {
  ByteRing out; // device → outside
  ByteRing in;  // outside → device
  std::atomic<u32> connected;
};

} // namespace transom
