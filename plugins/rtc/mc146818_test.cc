#include <gtest/gtest.h>

#include "mc146818_regs.hpp"
#include "vdev/testing/properties.hpp"

namespace rtc {
namespace {

using namespace vdev::testing;

constexpr u64 SECOND = 1'000'000'000;

// The bench's calendar starts at 2001-09-09, a Sunday, 01:46:40.
struct Rtc : Bench {
  explicit Rtc(const std::string& cmos = "", u64 start_ns = 0) : Bench("rtc.so", options(cmos, start_ns)) {}
  static Options options(const std::string& cmos, u64 start_ns) {
    Options o;
    o.start_ns = start_ns;
    if (!cmos.empty()) o.config["cmos"] = cmos;
    return o;
  }
  u8 get(u8 address) {
    out(INDEX, address);
    return u8(in(DATA));
  }
  void set(u8 address, u8 value) {
    out(INDEX, address);
    out(DATA, value);
  }
  // hh:mm:ss, weekday, yyyy-mm-dd as the raw bytes in order of significance.
  std::string time() {
    char text[64];
    std::snprintf(text, sizeof text, "%02x:%02x:%02x %x %02x%02x-%02x-%02x", get(HOURS), get(MINUTES), get(SECONDS),
                  get(DAY_OF_WEEK), get(CENTURY), get(YEAR), get(MONTH), get(DATE_OF_MONTH));
    return text;
  }
  void set_time(std::array<u8, 8> v) { // h m s weekday century year month date
    const std::array<u8, 8> where = {HOURS, MINUTES, SECONDS, DAY_OF_WEEK, CENTURY, YEAR, MONTH, DATE_OF_MONTH};
    for (std::size_t i = 0; i < v.size(); ++i) set(where[i], v[i]);
  }
};

// With all three interrupts enabled, and an alarm each minute.
VDEV_PROPERTIES(
    Mc146818, "rtc.so", "org.transom.rtc",
    .prepare =
        [](Bench& b) {
          for (const auto& [address, value] :
               {std::pair<u8, u8>{HOURS_ALARM, 0xff}, {MINUTES_ALARM, 0xff}, {REGISTER_B, 0x72}}) {
            b.out(INDEX, address);
            b.out(DATA, value);
          }
          b.out(INDEX, REGISTER_C);
        },
    .reset_keeps = {"index", "cells", "seen", "next_update"}, .schema = "rtc.schema");

TEST(Mc146818, StartsWithTheHostsCalendarInBcdAnd24Hours) {
  Rtc b;
  EXPECT_EQ(b.time(), "01:46:40 1 2001-09-09");
  EXPECT_EQ(b.get(REGISTER_A), a::RESET);
  EXPECT_EQ(b.get(REGISTER_B), b::RESET);
  EXPECT_EQ(b.get(REGISTER_D), d::VRT);
}

TEST(Mc146818, TimesBefore1970Count) {
  Options o;
  o.calendar_ns = -1;
  Bench b("rtc.so", o);
  const auto get = [&](u8 address) {
    b.out(INDEX, address);
    return u8(b.in(DATA));
  };
  EXPECT_EQ(get(CENTURY), 0x19);
  EXPECT_EQ(get(YEAR), 0x69);
  EXPECT_EQ(get(SECONDS), 0x59);
  b.step(1);
  EXPECT_EQ(get(YEAR), 0x70);
  EXPECT_EQ(get(DAY_OF_WEEK), 5); // Thursday
}

TEST(Mc146818, IndexPortReadsAllOnesAndItsNmiMaskIsNoAddress) {
  Rtc b("0f=5a");
  b.out(INDEX, 0x8f);
  EXPECT_EQ(b.in(INDEX), 0xffu);
  EXPECT_EQ(b.in(DATA), 0x5au);
}

TEST(Mc146818, UipIsHighForTheLast244MicrosecondsOfASecond) {
  Rtc b;
  b.step(SECOND - 244'141);
  EXPECT_EQ(b.get(REGISTER_A), a::RESET);
  b.step(1);
  EXPECT_EQ(b.get(REGISTER_A), a::RESET | 0x80);
  b.step(244'139);
  EXPECT_EQ(b.get(REGISTER_A), a::RESET | 0x80);
  EXPECT_EQ(b.get(SECONDS), 0x40);
  b.step(1);
  EXPECT_EQ(b.get(REGISTER_A), a::RESET);
  EXPECT_EQ(b.get(SECONDS), 0x41);
}

TEST(Mc146818, SecondsOfTheCalendarAndTheClockAreInStepWhereverTheClockStarts) {
  Rtc b("", SECOND / 2);
  EXPECT_EQ(b.get(SECONDS), 0x40);
  b.step(SECOND / 2);
  EXPECT_EQ(b.get(SECONDS), 0x41);
}

TEST(Mc146818, SetHoldsTheTimeButNotTheDivider) {
  Rtc b;
  b.step(SECOND / 4);
  b.set(REGISTER_B, 0x82);
  b.step(5 * SECOND - SECOND / 4 - 1'000);
  EXPECT_EQ(b.get(REGISTER_A) & 0x80, 0); // UIP is low with SET, even now
  b.step(SECOND / 4);
  EXPECT_EQ(b.time(), "01:46:40 1 2001-09-09");
  b.set(REGISTER_B, 0x02);
  b.step(SECOND / 2 + 1'000);
  EXPECT_EQ(b.get(SECONDS), 0x40);
  b.step(SECOND / 4); // whole again
  EXPECT_EQ(b.get(SECONDS), 0x41);
}

TEST(Mc146818, DividerResetStopsTimeAndTheFirstUpdateComesHalfASecondAfterItsRelease) {
  Rtc b;
  b.step(900'000'000);
  b.set(REGISTER_A, 0x76);
  b.step(10 * SECOND);
  EXPECT_EQ(b.get(SECONDS), 0x40);
  b.set(REGISTER_A, 0x26);
  b.step(SECOND / 2 - 1);
  EXPECT_EQ(b.get(SECONDS), 0x40);
  b.step(1);
  EXPECT_EQ(b.get(SECONDS), 0x41);
}

TEST(Mc146818, AHeldDividerLeavesAStateThatLoads) {
  Rtc b;
  b.set(REGISTER_A, 0x76);
  b.step(10 * SECOND);
  b.get(REGISTER_A);
  EXPECT_EQ(b.restore(b.save()), VDEV_OK);
}

TEST(Mc146818, LinuxSetsTheTimeWithSetAndDividerReset) {
  Rtc b;
  b.set(REGISTER_B, 0x82);
  b.set(REGISTER_A, 0x76);
  b.set_time({0x23, 0x59, 0x59, 0x06, 0x19, 0x99, 0x12, 0x31});
  b.set(REGISTER_B, 0x02);
  b.set(REGISTER_A, 0x26);
  EXPECT_EQ(b.time(), "23:59:59 6 1999-12-31");
  b.step(SECOND / 2);
  EXPECT_EQ(b.time(), "00:00:00 7 2000-01-01");
}

TEST(Mc146818, BinaryModeCountsInBinary) {
  Rtc b;
  b.set(REGISTER_B, 0x06);
  b.set_time({23, 59, 59, 7, 20, 99, 12, 31});
  b.step(SECOND);
  EXPECT_EQ(b.time(), "00:00:00 1 1500-01-01"); // 15h = century 21
}

TEST(Mc146818, TwelveHourModeTurnsFromElevenPmToTwelveAm) {
  Rtc b;
  b.set(REGISTER_B, 0x00);
  b.set_time({0x91, 0x59, 0x59, 0x01, 0x20, 0x24, 0x02, 0x28});
  b.step(SECOND);
  EXPECT_EQ(b.time(), "12:00:00 2 2024-02-29");
  b.step(12 * 3600 * SECOND);
  EXPECT_EQ(b.time(), "92:00:00 2 2024-02-29");
}

TEST(Mc146818, LeapDayIsSkippedInACenturyYear) {
  Rtc b;
  b.set_time({0x23, 0x59, 0x59, 0x01, 0x21, 0x00, 0x02, 0x28});
  b.step(SECOND);
  EXPECT_EQ(b.time(), "00:00:00 2 2100-03-01");
  b.set_time({0x23, 0x59, 0x59, 0x01, 0x20, 0x00, 0x02, 0x28});
  b.step(SECOND);
  EXPECT_EQ(b.time(), "00:00:00 2 2000-02-29");
}

TEST(Mc146818, ALongStepIsTheSameAsManyShortOnes) {
  Rtc one, many;
  one.step(40 * 86'400 * SECOND);
  for (int day = 0; day < 40; ++day) {
    many.step(86'400 * SECOND);
    many.get(SECONDS);
  }
  EXPECT_EQ(one.time(), many.time());
  EXPECT_EQ(one.time(), "01:46:40 6 2001-10-19");
}

TEST(Mc146818, NonsenseInTimeRegistersReadsBackAndCountsFromTheLeastValueAtTheNextUpdate) {
  Rtc b;
  b.set_time({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
  EXPECT_EQ(b.get(MINUTES), 0xff);
  b.step(SECOND);
  EXPECT_EQ(b.time(), "00:00:01 1 0000-01-01");
}

TEST(Mc146818, UpdateEndedInterruptComesWithTheUpdateAndReadingCClearsIt) {
  Rtc b;
  b.set(REGISTER_B, 0x12);
  b.step(SECOND - 1);
  EXPECT_FALSE(b.irq("irq8"));
  b.step(1);
  EXPECT_TRUE(b.irq("irq8"));
  EXPECT_EQ(b.get(REGISTER_C) & 0xb0, 0x90);
  EXPECT_FALSE(b.irq("irq8"));
  EXPECT_EQ(b.get(REGISTER_C), 0x00);
}

TEST(Mc146818, FlagsRiseWithoutTheirEnablesButInterruptNobody) {
  Rtc b;
  b.step(SECOND);
  EXPECT_EQ(b.get(REGISTER_C), 0x50); // UF, and PF at the 1024 Hz of reset
  EXPECT_EQ(b.rising_edges("irq8"), 0u);
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
}

TEST(Mc146818, SetClearsUie) {
  Rtc b;
  b.set(REGISTER_B, 0x92);
  EXPECT_EQ(b.get(REGISTER_B), 0x82);
  b.set(REGISTER_B, 0x12);
  EXPECT_EQ(b.get(REGISTER_B), 0x12);
}

TEST(Mc146818, AlarmInterruptsAtItsSecond) {
  Rtc b;
  b.set(HOURS_ALARM, 0x01);
  b.set(MINUTES_ALARM, 0x47);
  b.set(SECONDS_ALARM, 0x05);
  b.set(REGISTER_B, 0x22);
  b.step(25 * SECOND - 1);
  EXPECT_FALSE(b.irq("irq8"));
  b.step(1);
  EXPECT_TRUE(b.irq("irq8"));
  EXPECT_EQ(b.get(REGISTER_C) & 0xa0, 0xa0);
  b.clear_events();
  b.step(86'400 * SECOND - 1);
  EXPECT_EQ(b.rising_edges("irq8"), 0u);
  b.step(1); // and again a day later
  EXPECT_EQ(b.rising_edges("irq8"), 1u);
}

TEST(Mc146818, DontCareAlarmBytesMatchEverySecondMinuteOrHour) {
  struct Case {
    u8 hour, minute, second;
    u64 first, then;
  };
  for (const Case& c : {Case{0xff, 0xff, 0xff, 1, 1}, Case{0xc0, 0xff, 0x00, 20, 60}, Case{0xff, 0x50, 0x30, 230, 3600},
                        Case{0x02, 0xff, 0x59, 859, 60}}) {
    Rtc b;
    b.set(HOURS_ALARM, c.hour);
    b.set(MINUTES_ALARM, c.minute);
    b.set(SECONDS_ALARM, c.second);
    b.set(REGISTER_B, 0x22);
    EXPECT_EQ(b.next_event(), c.first * SECOND);
    b.step(c.first * SECOND);
    EXPECT_EQ(b.get(REGISTER_C) & 0xa0, 0xa0);
    EXPECT_EQ(b.next_event(), (c.first + c.then) * SECOND);
  }
}

TEST(Mc146818, AnImpossibleAlarmNeverComes) {
  Rtc b;
  b.set(SECONDS_ALARM, 0x75);
  b.set(MINUTES_ALARM, 0xff);
  b.set(HOURS_ALARM, 0xff);
  b.set(REGISTER_B, 0x22);
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.step(2 * 86'400 * SECOND);
  EXPECT_EQ(b.get(REGISTER_C) & 0x20, 0);
}

TEST(Mc146818, SetHoldsTheAlarmToo) {
  Rtc b;
  for (const u8 alarm : {SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM}) b.set(alarm, 0xff);
  b.set(REGISTER_B, 0xa2);
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.set(REGISTER_B, 0x22);
  EXPECT_EQ(b.next_event(), SECOND);
}

TEST(Mc146818, PeriodicRatesAreTheTableOfRegisterA) { // [periodic interrupt rate, 32.768 kHz]
  constexpr std::array<u32, 16> HERTZ = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
  for (u8 rs = 0; rs < 16; ++rs) {
    Rtc b;
    b.set(REGISTER_A, u8(0x20 | rs));
    b.set(REGISTER_B, 0x42);
    u32 ticks = 0;
    while (b.next_event() <= SECOND) {
      b.step(b.next_event() - b.now());
      EXPECT_EQ(b.get(REGISTER_C) & 0xc0, 0xc0);
      ++ticks;
    }
    EXPECT_EQ(ticks, HERTZ[rs]) << "RS " << int(rs);
  }
}

TEST(Mc146818, PeriodicTicksThatNobodyTakesAreOnePendingInterruptAndNoMoreTimers) {
  Rtc b;
  b.set(REGISTER_A, 0x23); // 8192 Hz
  b.set(REGISTER_B, 0x42);
  b.step(10 * SECOND);
  EXPECT_EQ(b.rising_edges("irq8"), 1u);
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  EXPECT_EQ(b.get(REGISTER_C) & 0xc0, 0xc0);
  EXPECT_GE(b.next_event() - b.now(), 1u);
  EXPECT_LE(b.next_event() - b.now(), 122'071u);
}

TEST(Mc146818, ALateTimerIsOneTick) {
  Rtc b;
  b.set(REGISTER_A, 0x23);
  b.set(REGISTER_B, 0x42);
  b.step_late(SECOND / 10);
  EXPECT_EQ(b.rising_edges("irq8"), 1u);
}

TEST(Mc146818, RegistersCAndDAreReadOnly) {
  Rtc b;
  b.set(REGISTER_D, 0x00);
  b.set(REGISTER_C, 0xf0);
  EXPECT_EQ(b.get(REGISTER_D), d::VRT);
  EXPECT_EQ(b.get(REGISTER_C), 0x00);
}

TEST(Mc146818, ConfiguredCellsAreThereAtPowerOnAndTheRestIsZero) {
  Rtc b("10=00,34=00,35=1F,3d=12,7f=aa");
  EXPECT_EQ(b.get(0x35), 0x1f);
  EXPECT_EQ(b.get(0x3d), 0x12);
  EXPECT_EQ(b.get(0x7f), 0xaa);
  EXPECT_EQ(b.get(0x5f), 0x00);
  b.set(0x35, 0x77);
  EXPECT_EQ(b.get(0x35), 0x77);
}

// RESET# [MC146818A, RESET pin]: clock, calendar and memory go on; interrupts and the square wave are off.
TEST(Mc146818, ResetKeepsTimeAndMemoryAndTurnsInterruptsOff) {
  Rtc b("35=1f");
  b.set(0x35, 0x77);
  b.set(REGISTER_B, 0x86); // SET, binary, 24 hours
  b.set(0x09, 31);         // a year that nothing else would give
  b.set(0x00, 0);
  b.set(REGISTER_B, 0x7e); // PIE, AIE, UIE, SQWE
  b.step(2 * SECOND);
  b.reset();
  EXPECT_EQ(b.get(0x35), 0x77);
  EXPECT_EQ(b.get(0x09), 31);
  EXPECT_EQ(b.get(REGISTER_B), 0x06);
  EXPECT_EQ(b.get(REGISTER_C), 0x00);
  EXPECT_EQ(b.get(0x00), 2) << "the clock did not stop";
}

TEST(Mc146818, RefusesCmosTextThatIsNotPairsOfHexNumbers) {
  for (const char* bad : {"3=1f", "34=1", "34=1f,", ",34=1f", "34:1f", "34=1f 35=00", "34=xy", "0d=00", "32=20",
                          "80=00", "34=1f,34=1f", "34=1f0", "34", "34="}) {
    EXPECT_THROW(Rtc{bad}, CreationFailed) << bad;
  }
  EXPECT_NO_THROW(Rtc("34=1f,35=00"));
}

TEST(Mc146818, RefusesASnapshotWithImpossibleRegisters) {
  Rtc b;
  b.step(SECOND / 2);
  Snapshot good = b.save();
  EXPECT_EQ(b.restore(good), VDEV_OK);
  for (const auto& [field, index, value] : {std::tuple<const char*, u32, u64>{"next_update", 0, 0},
                                            {"next_update", 0, ~u64{0}},
                                            {"seen", 0, ~u64{0}},
                                            {"cells", REGISTER_C, 0x80},
                                            {"cells", REGISTER_A, 0xa6},
                                            {"cells", REGISTER_D, 0x00}}) {
    Snapshot bad = good;
    bad.at(field).values.at(index) = value;
    EXPECT_NE(b.restore(bad), VDEV_OK) << field;
  }
  EXPECT_EQ(b.save(), good);
}

} // namespace
} // namespace rtc
