// The parts of the C++ face that need no library: fields of registers, queues, clocks, lists of fields.
#include <gtest/gtest.h>

#include "vdev/cpp.hpp"

using namespace vdev;

namespace {

TEST(Field, ReadsAndSetsItsBitsAlone) {
  constexpr Field<2, 3> MIDDLE;
  u8 reg = 0xff;
  EXPECT_EQ(MIDDLE(reg), 7);
  MIDDLE.set(reg, 2);
  EXPECT_EQ(reg, 0xeb);
  MIDDLE.set(reg, 0xfd); // excess bits are dropped
  EXPECT_EQ(reg, 0xf7);
  EXPECT_EQ(MIDDLE.of(5), 0x14u);
  constexpr Field<0, 64> WHOLE;
  u64 wide = 0;
  WHOLE.set(wide, ~u64{0});
  EXPECT_EQ(WHOLE(wide), ~u64{0});
  u16 masked = 0x1234;
  write_masked(masked, 0xffff, 0x0f00);
  EXPECT_EQ(masked, 0x1f34);
}

TEST(Fifo, KeepsOrderAroundItsEndAndRefusesWhatDoesNotFit) {
  Fifo<u8, 3> fifo;
  for (u8 round = 0; round < 10; ++round) {
    EXPECT_TRUE(fifo.push(round));
    EXPECT_TRUE(fifo.push(u8(round + 100)));
    EXPECT_EQ(fifo.front(), round);
    EXPECT_EQ(fifo.back(), round + 100);
    EXPECT_EQ(fifo.pop(), round);
    EXPECT_EQ(fifo.pop(), round + 100);
  }
  EXPECT_EQ(fifo.pop(), 0);
  EXPECT_TRUE(fifo.push(1) && fifo.push(2) && fifo.push(3));
  EXPECT_FALSE(fifo.push(4));
  EXPECT_EQ(fifo.room(), 0u);
  EXPECT_EQ(fifo.front(), 1);
}

TEST(Fifo, WithDamagedIndicesIsInvalidAndTouchesNothingOutside) {
  Fifo<u8, 3> fifo;
  fifo.head = 0xffff;
  fifo.count = 0xffff;
  EXPECT_FALSE(fifo.valid());
  EXPECT_FALSE(fifo.push(1));
  EXPECT_EQ(fifo.room(), 0u);
  fifo.pop();
  fifo.head = 3;
  fifo.count = 1;
  EXPECT_FALSE(fifo.valid());
  fifo.head = 2;
  EXPECT_TRUE(fifo.valid());
}

TEST(Rate, ConvertsTicksAndTimeBackWithoutLoss) {
  for (const Rate rate : {PIT_RATE, OSC_14_318, ACPI_PM_RATE, RTC_RATE, hertz(1), hertz(4'000'000'000)}) {
    for (const u64 tick : {u64{0}, u64{1}, u64{2}, u64{65536}, u64{1193182}, u64{123456789012}}) {
      const u64 ns = rate.ns(tick);
      if (ns == VDEV_NEVER) continue; // later than the clock can say
      EXPECT_GE(rate.ticks(ns), tick);
      EXPECT_TRUE(ns == 0 || rate.ticks(ns - 1) < tick);
    }
  }
}

TEST(Rate, DoesNotDriftInAYear) {
  constexpr u64 YEAR = 365ull * 24 * 3600;
  EXPECT_EQ(PIT_RATE.ticks(YEAR * NS_PER_SECOND), 37'628'181'818'181u); // 31,536,000 s of 105/88 MHz, rounded down
  EXPECT_EQ(PIT_RATE.ns(105 * 1'000'000), 88 * NS_PER_SECOND);
  EXPECT_EQ((OSC_14_318 / 12).ns(105 * 1'000'000), 88 * NS_PER_SECOND);
}

TEST(Rate, SaturatesInsteadOfWrapping) {
  EXPECT_EQ(hertz(1).ns(~u64{0}), VDEV_NEVER);
  EXPECT_EQ(hertz(~u64{0}).ticks(~u64{0}), VDEV_NEVER);
  EXPECT_EQ((Rate{1, ~u64{0}}.ns(~u64{0})), VDEV_NEVER);
  EXPECT_EQ(time_add(VDEV_NEVER, 1), VDEV_NEVER);
  EXPECT_EQ(time_add(VDEV_NEVER - 1, 2), VDEV_NEVER);
  EXPECT_EQ(time_add(1, 2), 3u);
}

struct Sample {
  u32 wide = 1;
  bool flag = false;
  Fifo<u8, 4> fifo;
  bool valid() const { return fifo.valid(); }
  friend bool operator==(const Sample&, const Sample&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [wide, flag, fifo] = s;
    f(1, "wide", wide, 100);
    f(2, "flag", flag);
    f(3, "fifo", fifo);
  }
};

TEST(State, CheckRefusesEveryValueBeyondItsMaximum) {
  Sample sample;
  EXPECT_EQ(check_state<Sample>(&sample, sizeof sample), VDEV_OK);
  EXPECT_EQ(check_state<Sample>(&sample, sizeof sample - 1), VDEV_INVALID);
  sample.wide = 101;
  EXPECT_EQ(check_state<Sample>(&sample, sizeof sample), VDEV_INVALID);
  sample.wide = 100;
  u8 bytes[sizeof sample];
  std::memcpy(bytes, &sample, sizeof sample);
  bytes[offsetof(Sample, flag)] = 2; // a bool of 2 must not be looked at as a bool
  EXPECT_EQ(check_state<Sample>(bytes, sizeof sample), VDEV_INVALID);
  sample.fifo.head = 4;
  EXPECT_EQ(check_state<Sample>(&sample, sizeof sample), VDEV_INVALID);
}

TEST(State, CompareNamesWhatDiffers) {
  Sample a, b;
  b.flag = true;
  b.fifo.push(9);
  std::string report;
  compare_states(a, b, [&](const vdev_state_field& field, u32 index, u64 x, u64 y) {
    report += std::string(field.name) + "[" + std::to_string(index) + "] " + std::to_string(x) + " " +
              std::to_string(y) + "\n";
  });
  EXPECT_EQ(report, "flag[0] 0 1\nfifo.data[0] 0 9\nfifo.count[0] 0 1\n");
}

TEST(State, EveryMemberOfACompleteListIsListed) { EXPECT_EQ(first_unlisted_byte<Sample>(), -1); }

} // namespace
