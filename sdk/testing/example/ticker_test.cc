// The sample device's own tests: how a device's tests look.

#include <gtest/gtest.h>

#include "vdev/testing/bench.hpp"
#include "vdev/testing/properties.hpp"

using namespace vdev::testing;
using vdev::u64;

namespace {

enum : u64 { CTRL, STATUS, DATA, ID };
enum : u64 { RUN = 1, IRQ = 2, EXPIRED = 1 };
constexpr vdev::u32 PERIOD = 1; // the region

VDEV_PROPERTIES(Ticker, "ticker.so", "org.transom.example.ticker", .read_only = {{0, ID}}, .schema = "ticker.schema");

TEST(Ticker, RaisesItsInterruptAtTheFirstNanosecondOfAPeriod) {
  Bench b("ticker.so");
  b.out(PERIOD, 0, 4, 5);
  b.out(CTRL, RUN | IRQ);
  b.step(4999);
  EXPECT_FALSE(b.irq("tick"));
  b.step(1);
  EXPECT_TRUE(b.irq("tick"));
  EXPECT_EQ(b.in(STATUS), EXPIRED);
}

TEST(Ticker, LowersItWhenStatusIsWrittenWithAOne) {
  Bench b("ticker.so");
  b.out(PERIOD, 0, 4, 5);
  b.out(CTRL, RUN | IRQ);
  b.step(5000);
  b.out(STATUS, 0);
  EXPECT_TRUE(b.irq("tick"));
  b.out(STATUS, EXPIRED);
  EXPECT_FALSE(b.irq("tick"));
}

TEST(Ticker, CountsTheMissedPeriodsOfALateHostAsOne) {
  Bench b("ticker.so");
  b.out(PERIOD, 0, 4, 1);
  b.out(CTRL, RUN | IRQ);
  b.step_late(10'500);
  EXPECT_EQ(b.rising_edges("tick"), 1u);
  EXPECT_EQ(b.next_event(), 11'000u);
}

TEST(Ticker, SendsAndReceivesBytes) {
  Bench b("ticker.so");
  b.out(DATA, 'x');
  EXPECT_EQ(b.take_sent(), "x");
  EXPECT_EQ(b.send("ab"), 1u); // it has room for one
  EXPECT_EQ(b.in(DATA), u64{'a'});
  b.queue("cd");
  EXPECT_EQ(b.in(DATA), u64{'c'});
  EXPECT_EQ(b.in(DATA), u64{'d'});
  EXPECT_EQ(b.in(DATA), 0u);
}

} // namespace
