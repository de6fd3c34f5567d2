// A bank of byte registers described by one table: offset, reset value, which bits a write changes, which bits a one
// clears. What no row names reads as zero and takes no write.
#pragma once

#include <initializer_list>

#include "vdev/cpp/types.hpp"

namespace piix {

using namespace vdev;

struct Row {
  u8 offset;
  u8 reset;
  u8 writable;
  u8 write_one_clears = 0;
};

// Offsets First … Last, the span that rows may name; only that is stored.
template <u8 First, u8 Last>
class Bank {
 public:
  static constexpr u32 SIZE = Last - First + 1;
  using Bytes = std::array<u8, SIZE>;

  consteval Bank(std::initializer_list<Row> rows) {
    for (const Row& row : rows) {
      if (row.offset < First || row.offset > Last) throw "a row lies outside its bank";
      const u32 i = row.offset - First;
      reset_[i] = row.reset;
      writable_[i] = row.writable;
      clears_[i] = row.write_one_clears;
    }
  }

  constexpr const Bytes& reset() const { return reset_; }

  constexpr u8 read(const Bytes& bytes, u32 offset) const { return holds(offset) ? bytes[offset - First] : 0; }

  constexpr void write(Bytes& bytes, u32 offset, u8 value) const {
    if (!holds(offset)) return;
    const u32 i = offset - First;
    bytes[i] = u8((bytes[i] & ~writable_[i] & ~(value & clears_[i])) | (value & writable_[i]));
  }

  // Whether resets and writes can lead there: fixed bits have their reset value.
  constexpr bool valid(const Bytes& bytes) const {
    for (u32 i = 0; i < SIZE; ++i) {
      const u8 fixed = u8(~(writable_[i] | clears_[i]));
      if ((bytes[i] & fixed) != (reset_[i] & fixed)) return false;
    }
    return true;
  }

  // A register of several bytes, little-endian.
  constexpr u32 word(const Bytes& bytes, u32 offset, u32 width) const {
    u32 value = 0;
    for (u32 i = 0; i < width; ++i) value |= u32{read(bytes, offset + i)} << (8 * i);
    return value;
  }

 private:
  static constexpr bool holds(u32 offset) { return offset >= First && offset <= Last; }

  Bytes reset_{}, writable_{}, clears_{};
};

} // namespace piix
