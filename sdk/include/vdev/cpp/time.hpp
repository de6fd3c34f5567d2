// Exact clocks. A Rate is a frequency as a fraction in Hz; conversions go through 128 bits and never accumulate an
// error: convert the distance from one fixed origin, not step by step.
#pragma once

#include "../ext/clock.h"
#include "types.hpp"

namespace vdev {

inline constexpr u64 NS_PER_SECOND = 1'000'000'000;

struct Rate {
  u64 numerator = 1;   // ticks …
  u64 denominator = 1; // … in that many seconds

  // Whole ticks within `ns`, counted from an origin at which tick 0 falls.
  constexpr u64 ticks(u64 ns) const { return clamp(u128{ns} * numerator / (u128{denominator} * NS_PER_SECOND)); }
  // The first nanosecond at which that many ticks have passed: ticks(ns(n)) >= n, and ticks(ns(n) - 1) < n.
  constexpr u64 ns(u64 tick_count) const {
    if (tick_count > 0 && denominator * u128{NS_PER_SECOND} > ~u128{0} / tick_count) return VDEV_NEVER;
    const u128 product = u128{tick_count} * (u128{denominator} * NS_PER_SECOND);
    return clamp(product / numerator + (product % numerator != 0));
  }
  constexpr Rate operator/(u64 divisor) const { return {numerator, denominator * divisor}; }
  constexpr Rate operator*(u64 factor) const { return {numerator * factor, denominator}; }

 private:
  static constexpr u64 clamp(u128 value) { return value > VDEV_NEVER ? VDEV_NEVER : u64(value); }
};

constexpr Rate hertz(u64 hz) { return {hz, 1}; }

inline constexpr Rate OSC_14_318 = {315'000'000, 22};   // the PC's crystal: 14.31818… MHz = 315/22 MHz
inline constexpr Rate PIT_RATE = {105'000'000, 88};     // a twelfth of it: 1.1931818… MHz
inline constexpr Rate ACPI_PM_RATE = {315'000'000, 88}; // a quarter of it: 3.579545… MHz
inline constexpr Rate RTC_RATE = hertz(32'768);

// a + b, and VDEV_NEVER where that does not fit or either of them is VDEV_NEVER.
constexpr u64 time_add(u64 a, u64 b) { return a > VDEV_NEVER - b ? VDEV_NEVER : a + b; }

} // namespace vdev
