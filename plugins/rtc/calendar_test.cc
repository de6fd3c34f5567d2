#include "calendar.hpp"

#include <ctime>
#include <gtest/gtest.h>
#include <random>

namespace rtc {
namespace {

std::tm host_date(i64 days) {
  const std::time_t seconds = std::time_t((days - DAYS_TO_1970) * SECONDS_PER_DAY);
  std::tm tm{};
  gmtime_r(&seconds, &tm);
  return tm;
}

TEST(Calendar, EveryDayOfFourCenturiesIsTheDateTheHostsLibraryGives) {
  for (i64 days = days_before_year(1800); days < days_before_year(2200); ++days) {
    const std::tm tm = host_date(days);
    const Date date = date_from_days(days);
    ASSERT_EQ(date, (Date{u32(tm.tm_year + 1900), u32(tm.tm_mon + 1), u32(tm.tm_mday)})) << days;
    ASSERT_EQ(weekday_of(days), u32(tm.tm_wday + 1)) << days;
    ASSERT_EQ(days_from_date(date), days);
  }
}

TEST(Calendar, DaysSampledOverAllTenThousandYearsComeBack) {
  for (i64 days = 0; days < DAYS_OF_CALENDAR; days += 97) ASSERT_EQ(days_from_date(date_from_days(days)), days);
}

TEST(Calendar, AfterYear9999ComesYear0) {
  EXPECT_EQ(date_from_days(DAYS_OF_CALENDAR - 1), (Date{9999, 12, 31}));
  EXPECT_EQ(date_from_days(DAYS_OF_CALENDAR), (Date{0, 1, 1}));
  EXPECT_EQ(date_from_days(-1), (Date{9999, 12, 31}));
}

TEST(Calendar, CenturiesAreLeapYearsOnlyEveryFourth) {
  EXPECT_TRUE(is_leap(2000));
  EXPECT_TRUE(is_leap(2024));
  EXPECT_FALSE(is_leap(1900));
  EXPECT_FALSE(is_leap(2100));
  EXPECT_FALSE(is_leap(2023));
}

TEST(Format, EveryHourComesBackInAllFourFormats) {
  for (const bool binary : {false, true}) {
    for (const bool hours24 : {false, true}) {
      const Format format{binary, hours24};
      for (u32 hour = 0; hour < 24; ++hour) EXPECT_EQ(format.decode_hour(format.encode_hour(hour)), hour);
    }
  }
}

TEST(Format, TwelveHourFormStartsTheDayAtTwelve) {
  const Format bcd{false, false}, binary{true, false};
  EXPECT_EQ(bcd.encode_hour(0), 0x12);
  EXPECT_EQ(bcd.encode_hour(11), 0x11);
  EXPECT_EQ(bcd.encode_hour(12), 0x92);
  EXPECT_EQ(bcd.encode_hour(23), 0x91);
  EXPECT_EQ(binary.encode_hour(23), 0x8b);
}

TEST(Format, WhatIsNoNumberDecodesToNothing) {
  const Format bcd{false, true}, twelve{false, false};
  EXPECT_EQ(bcd.decode(0x59), 59u);
  EXPECT_FALSE(bcd.decode(0x5a));
  EXPECT_FALSE(bcd.decode(0xa5));
  EXPECT_EQ(bcd.decode_hour(0x23), 23u);
  EXPECT_FALSE(bcd.decode_hour(0x24));
  EXPECT_FALSE(twelve.decode_hour(0x00));
  EXPECT_FALSE(twelve.decode_hour(0x13));
}

TEST(Alarm, NextMatchIsWhatSteppingThroughTheDayFinds) {
  std::mt19937 random(1);
  const auto part = [&](u32 limit) -> AlarmPart {
    const u32 kind = u32(random() % 8);
    if (kind == 0) return {AlarmPart::NEVER, 0};
    if (kind < 4) return {AlarmPart::ANY, 0};
    return {AlarmPart::EXACT, u32(random() % (limit + 3))}; // sometimes beyond every clock
  };
  const auto matches = [](const AlarmPart& p, u32 value) {
    return p.kind == AlarmPart::ANY || (p.kind == AlarmPart::EXACT && p.value == value);
  };
  for (int round = 0; round < 300; ++round) {
    const Alarm alarm{part(24), part(60), part(60)};
    const u32 now = u32(random() % u64(SECONDS_PER_DAY));
    std::optional<u32> expected;
    for (u32 wait = 1; wait <= SECONDS_PER_DAY && !expected; ++wait) {
      const u32 at = (now + wait) % u32(SECONDS_PER_DAY);
      if (matches(alarm.hour, at / 3600) && matches(alarm.minute, at / 60 % 60) && matches(alarm.second, at % 60)) {
        expected = wait;
      }
    }
    ASSERT_EQ(alarm.seconds_until(now), expected) << "round " << round << ", now " << now;
  }
}

} // namespace
} // namespace rtc
