// A small deterministic generator (xorshift64*), and values that arithmetic finds interesting.
#pragma once

#include "core/types.hpp"

namespace transom::cpu_test {

class Random {
 public:
  explicit Random(u64 seed) : state_(seed * 0x9e37'79b9'7f4a'7c15 + 0x1234'5678'9abc'def1) {
    if (state_ == 0) state_ = 1;
    for (int n = 0; n < 4; ++n) next();
  }
  u64 next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545'f491'4f6c'dd1d;
  }
  u32 below(u32 n) { return static_cast<u32>((next() >> 32) * n >> 32); }
  bool percent(u32 p) { return below(100) < p; }
  u8 byte() { return static_cast<u8>(next() >> 56); }

 private:
  u64 state_;
};

u64 interesting_integer(Random& r);
u32 interesting_float(Random& r);
u64 interesting_double(Random& r);
void interesting_extended(Random& r, u8* ten_bytes);

} // namespace transom::cpu_test
