// Byte strings in the order a format asks for: appending, overwriting in place, and reading without alignment.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/types.hpp"

namespace transom::firmware {

using Bytes = std::vector<u8>;
using ByteView = std::span<const u8>;

inline ByteView view(std::string_view text) { return {reinterpret_cast<const u8*>(text.data()), text.size()}; }

// Reads: the caller has checked that offset + width lies inside.
inline u64 le_at(ByteView from, u64 offset, u32 width) {
  u64 value = 0;
  for (u32 i = 0; i < width; ++i) value |= u64{from[offset + i]} << (8 * i);
  return value;
}
inline u16 le16_at(ByteView from, u64 offset) { return static_cast<u16>(le_at(from, offset, 2)); }
inline u32 le32_at(ByteView from, u64 offset) { return static_cast<u32>(le_at(from, offset, 4)); }
inline u64 le64_at(ByteView from, u64 offset) { return le_at(from, offset, 8); }

inline u64 be_at(ByteView from, u64 offset, u32 width) {
  u64 value = 0;
  for (u32 i = 0; i < width; ++i) value = value << 8 | from[offset + i];
  return value;
}

inline void set_le(std::span<u8> to, u64 offset, u32 width, u64 value) {
  for (u32 i = 0; i < width; ++i) to[offset + i] = static_cast<u8>(value >> (8 * i));
}
inline void set_be(std::span<u8> to, u64 offset, u32 width, u64 value) {
  for (u32 i = 0; i < width; ++i) to[offset + i] = static_cast<u8>(value >> (8 * (width - 1 - i)));
}

inline void append_le(Bytes& to, u32 width, u64 value) {
  for (u32 i = 0; i < width; ++i) to.push_back(static_cast<u8>(value >> (8 * i)));
}
inline void append_be(Bytes& to, u32 width, u64 value) {
  for (u32 i = 0; i < width; ++i) to.push_back(static_cast<u8>(value >> (8 * (width - 1 - i))));
}
inline void append(Bytes& to, ByteView bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }
inline void append(Bytes& to, std::string_view text) { append(to, view(text)); }
// Text in a field of fixed width, cut or padded.
inline void append_field(Bytes& to, std::string_view text, u64 width, u8 pad = 0) {
  const u64 taken = text.size() < width ? text.size() : width;
  append(to, text.substr(0, taken));
  to.insert(to.end(), width - taken, pad);
}

inline Bytes le_bytes(u32 width, u64 value) {
  Bytes bytes;
  append_le(bytes, width, value);
  return bytes;
}

// What a checksum byte must hold so that the range sums to zero, given that it is zero now.
inline u8 checksum_of(ByteView range) {
  u8 sum = 0;
  for (const u8 byte : range) sum = static_cast<u8>(sum + byte);
  return static_cast<u8>(-sum);
}

constexpr u64 align_up(u64 value, u64 alignment) { return (value + alignment - 1) & ~(alignment - 1); }
constexpr u64 align_down(u64 value, u64 alignment) { return value & ~(alignment - 1); }

} // namespace transom::firmware
