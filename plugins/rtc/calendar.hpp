// Calendar arithmetic and the clock's number formats, as pure functions. Proleptic Gregorian calendar, years 0–9999.
#pragma once

#include <array>
#include <optional>

#include "vdev/cpp/types.hpp"

namespace rtc {

using namespace vdev;

inline constexpr i64 SECONDS_PER_DAY = 86'400;

struct Date {
  u32 year = 1970, month = 1, day = 1;
  friend constexpr bool operator==(const Date&, const Date&) = default;
};

constexpr bool is_leap(u32 year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

constexpr u32 days_in_month(u32 year, u32 month) {
  constexpr std::array<u8, 12> DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && is_leap(year) ? 29 : DAYS[(month - 1) % 12];
}

// Days from 0000-01-01 to the first of January of `year`.
constexpr i64 days_before_year(u32 year) {
  if (year == 0) return 0;
  const i64 y = i64{year} - 1; // years 0 … y are complete; year 0 is a leap year
  return i64{year} * 365 + y / 4 - y / 100 + y / 400 + 1;
}

constexpr i64 days_from_date(const Date& date) {
  i64 days = days_before_year(date.year) + i64{date.day} - 1;
  for (u32 month = 1; month < date.month; ++month) days += days_in_month(date.year, month);
  return days;
}

inline constexpr i64 DAYS_PER_CYCLE = days_before_year(400);          // 146 097
inline constexpr i64 DAYS_OF_CALENDAR = 25 * DAYS_PER_CYCLE;          // years 0–9999, then it starts again
inline constexpr i64 DAYS_TO_1970 = days_from_date(Date{1970, 1, 1}); // 719 528

constexpr i64 floor_mod(i64 value, i64 modulus) {
  const i64 rest = value % modulus;
  return rest < 0 ? rest + modulus : rest;
}

constexpr i64 floor_div(i64 value, i64 divisor) { return (value - floor_mod(value, divisor)) / divisor; }

constexpr Date date_from_days(i64 days) {
  days = floor_mod(days, DAYS_OF_CALENDAR);
  u32 year = u32(days / 366); // never too late, and at most 21 years early
  while (days_before_year(year + 1) <= days) ++year;
  i64 rest = days - days_before_year(year);
  u32 month = 1;
  while (rest >= days_in_month(year, month)) rest -= days_in_month(year, month++);
  return {year, month, u32(rest) + 1};
}

// 1 = Sunday … 7 = Saturday, as the clock counts. 0000-01-01 was a Saturday.
constexpr u32 weekday_of(i64 days) { return u32(floor_mod(days + 6, 7)) + 1; }

// How a register holds a number: register B's DM and 24/12 bits.
struct Format {
  bool binary = false;
  bool hours24 = true;

  constexpr u8 encode(u32 value) const { return binary ? u8(value) : u8(value / 10 % 10 << 4 | value % 10); }

  constexpr std::optional<u32> decode(u8 raw) const {
    if (binary) return raw;
    if ((raw & 0x0f) > 9 || (raw >> 4) > 9) return std::nullopt;
    return (raw >> 4) * 10u + (raw & 0x0fu);
  }

  // 12-hour form: 12, 1 … 11, with bit 7 for PM.
  constexpr u8 encode_hour(u32 hour) const {
    if (hours24) return encode(hour);
    const u32 twelve = hour % 12 == 0 ? 12 : hour % 12;
    return u8(encode(twelve) | (hour >= 12 ? 0x80 : 0));
  }

  constexpr std::optional<u32> decode_hour(u8 raw) const {
    const auto value = decode(hours24 ? raw : u8(raw & 0x7f));
    if (!value) return std::nullopt;
    if (hours24) return *value < 24 ? value : std::nullopt;
    if (*value < 1 || *value > 12) return std::nullopt;
    return *value % 12 + ((raw & 0x80) ? 12 : 0);
  }
};

// An alarm: each part is a number, any (don't care), or impossible.
struct AlarmPart {
  enum Kind : u8 { NEVER, EXACT, ANY } kind = NEVER;
  u32 value = 0;

  // The least matching value >= from, below limit; nothing when there is none.
  constexpr std::optional<u32> first(u32 from, u32 limit) const {
    if (kind == ANY) return from < limit ? std::optional(from) : std::nullopt;
    if (kind == EXACT && value >= from && value < limit) return value;
    return std::nullopt;
  }
};

struct Alarm {
  AlarmPart hour, minute, second;

  // The first second of the day >= from that matches.
  constexpr std::optional<u32> first(u32 from) const {
    const u32 h0 = from / 3600, m0 = from / 60 % 60, s0 = from % 60;
    for (auto h = hour.first(h0, 24); h; h = hour.first(*h + 1, 24)) {
      for (auto m = minute.first(*h == h0 ? m0 : 0, 60); m; m = minute.first(*m + 1, 60)) {
        if (const auto s = second.first(*h == h0 && *m == m0 ? s0 : 0, 60)) return *h * 3600 + *m * 60 + *s;
      }
    }
    return std::nullopt;
  }

  // Seconds (1 … 86 400) from second `now` of a day to the next match after it.
  constexpr std::optional<u32> seconds_until(u32 now) const {
    if (const auto today = first(now + 1)) return *today - now;
    if (const auto tomorrow = first(0)) return u32(SECONDS_PER_DAY) - now + *tomorrow;
    return std::nullopt;
  }
};

} // namespace rtc
