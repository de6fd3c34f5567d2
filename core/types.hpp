// The fixed-width names used throughout Transom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace transom {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

inline constexpr u64 PAGE_SIZE = 4096;
inline constexpr u64 PAGE_SHIFT = 12;
inline constexpr u64 PAGE_MASK = ~(PAGE_SIZE - 1);

// A copy of something in shared memory that a peer may write at any time: read now, and never again behind the caller's
// back, so that what was checked is what is used.
template <class T>
T copy_once(const T& shared) {
  static_assert(std::is_trivially_copyable_v<T>);
  T copy;
  std::memcpy(static_cast<void*>(&copy), static_cast<const void*>(&shared), sizeof copy);
  asm volatile("" : "+m"(copy) : : "memory");
  return copy;
}

} // namespace transom
