// The board's part: OUT0 as IRQ 0, port 61h, late hosts, hostile reload values.
#include "pic_pit_bench.hpp"
#include "vdev/testing/properties.hpp"

namespace pic_pit {
namespace {

// Both 8259A initialised and every counter running, so that random actions reach interrupts.
void set_up(vdev::testing::Bench& b) {
  for (const u32 pic : {MASTER, SLAVE}) {
    b.out(pic, 0, 1, 0x11), b.out(pic, 1, 1, pic ? 0x28 : 0x20), b.out(pic, 1, 1, pic ? 2 : 4), b.out(pic, 1, 1, 1);
  }
  for (const u32 counter : {0u, 1u, 2u}) {
    b.out(PIT, 3, 1, counter << 6 | 0x34), b.out(PIT, counter, 1, 0x50), b.out(PIT, counter, 1, 0);
  }
}

VDEV_PROPERTIES(PicPit, "pic_pit.so", "org.transom.pic-pit", .prepare = set_up,
                .reset_keeps = {"master.lines", "slave.lines"}, .schema = "pic_pit.schema");

TEST(PicPit, Mode2InterruptsOncePerPeriodAtExactTimes) {
  PicPitBench b;
  b.control(0x34);
  b.count(0, {0xa5, 0x12}); // 4773: Linux's 250 Hz
  b.clear_events();
  b.step(1'000'000'000);
  EXPECT_EQ(b.rising_edges("irq0"), 249u); // floor((1193181 - 1) / 4773)
  u64 edges = 0;
  for (const auto& event : b.events()) {
    if (event.kind != vdev::testing::EventKind::Irq || event.a != IRQ0 || event.b != 1) continue;
    EXPECT_EQ(event.time, PIT_RATE.ns(++edges * 4773 + 1));
  }
}

TEST(PicPit, Mode3KeepsIrq0HighForHalfThePeriod) {
  PicPitBench b;
  b.control(0x36);
  b.count(0, {0xe8, 0x03}); // 1000
  b.clk(1 + 499);
  EXPECT_TRUE(b.irq("irq0"));
  b.clk();
  EXPECT_FALSE(b.irq("irq0"));
  b.clk(499);
  EXPECT_FALSE(b.irq("irq0"));
  b.clk();
  EXPECT_TRUE(b.irq("irq0"));
}

TEST(PicPit, Mode0InterruptsOnceAndStaysHigh) {
  PicPitBench b;
  b.control(0x30);
  EXPECT_FALSE(b.irq("irq0"));
  b.count(0, {0xe8, 0x03});
  b.clk(1000);
  EXPECT_FALSE(b.irq("irq0"));
  b.clk();
  EXPECT_TRUE(b.irq("irq0"));
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.control(0x30); // how Linux stops it
  EXPECT_FALSE(b.irq("irq0"));
  b.step(1'000'000'000);
  EXPECT_FALSE(b.irq("irq0"));
}

TEST(PicPit, ALateHostDeliversOneEdgeForManyPeriods) {
  PicPitBench b;
  b.control(0x34);
  b.count(0, {0xa5, 0x12});
  b.clear_events();
  b.step_late(40'500'000); // ten periods
  EXPECT_EQ(b.rising_edges("irq0"), 1u);
  EXPECT_TRUE(b.irq("irq0"));
  b.step(4'000'000); // and the next one is where it would have been
  EXPECT_EQ(b.rising_edges("irq0"), 2u);
  EXPECT_EQ(PIT_RATE.ticks(b.events().back().time) % 4773, 1u);
}

TEST(PicPit, APendingEdgeIsDeliveredBeforeAnAccessReportsTheTimeAfterIt) {
  PicPitBench b;
  b.control(0x30);
  b.count(0, {100, 0});
  b.host.now += 1'000'000; // the host has not fired the timer yet
  EXPECT_TRUE(b.out_pin(0));
  EXPECT_TRUE(b.irq("irq0"));
}

TEST(PicPit, TheFastestReloadCostsNoMoreThanTenThousandEventsASecond) { // hostile guest: reload 2, never acknowledged
  for (const u8 mode : {0x34, 0x36}) {
    PicPitBench b;
    b.polls_purely = false;
    b.control(mode);
    b.count(0, {2, 0});
    b.clear_events();
    b.step(100'000'000);
    EXPECT_LE(b.rising_edges("irq0"), 1020u);
    EXPECT_GE(b.rising_edges("irq0"), 900u);
  }
}

TEST(PicPit, OneShotsCloserTogetherThanThatAreStillOneEdgeEach) {
  PicPitBench b;
  b.clear_events();
  for (int i = 0; i < 50; i++) {
    b.control(0x38); // mode 4, as a one-shot clock
    b.count(0, {15, 0});
    b.step(200'000);
  }
  EXPECT_EQ(b.rising_edges("irq0"), 50u);
}

TEST(PicPit, Port61GatesCounter2AndShowsItsOutput) {
  PicPitBench b;
  b.out(PORT_61, 0, 1, 0x02); // speaker data, gate off
  b.control(0xb0);
  b.count(2, {100, 0});
  b.clk(300);
  EXPECT_EQ(b.in(PORT_61, 0, 1) & ~0x10u, 0x02u);
  b.out(PORT_61, 0, 1, 0x01);
  b.clk(99);
  EXPECT_EQ(b.in(PORT_61, 0, 1) & ~0x10u, 0x01u);
  b.clk(1);
  EXPECT_EQ(b.in(PORT_61, 0, 1) & ~0x10u, 0x21u);
}

TEST(PicPit, Port61KeepsItsFourWritableBits) {
  PicPitBench b;
  b.out(PORT_61, 0, 1, 0xff);
  EXPECT_EQ(b.in(PORT_61, 0, 1) & 0xcfu, 0x0fu);
}

TEST(PicPit, TheRefreshBitTogglesEveryFifteenMicroseconds) {
  PicPitBench b;
  u32 toggles = 0;
  u64 last = b.in(PORT_61, 0, 1) & 0x10;
  for (int i = 0; i < 1000; i++) {
    b.step(1000);
    const u64 bit = b.in(PORT_61, 0, 1) & 0x10;
    toggles += bit != last, last = bit;
  }
  EXPECT_EQ(toggles, 66u); // 1 ms / 15.09 µs
}

// Linux's fast TSC calibration: counter 2 in mode 0, LSB and MSB read in turns while it counts down from FFFFh.
TEST(PicPit, CalibrationLoopsSeeACounterThatRunsEvenly) {
  PicPitBench b;
  b.out(PORT_61, 0, 1, 0x01);
  b.control(0xb0);
  b.count(2, {0xff, 0xff});
  b.clk();
  u16 expected = 0xffff;
  for (int i = 0; i < 500; i++) {
    EXPECT_EQ(b.counter16(2), expected);
    b.clk(20);
    expected = u16(expected - 20);
  }
}

TEST(PicPit, ASnapshotInTheMiddleOfAPeriodGoesOnWithoutAnEdge) {
  PicPitBench b;
  b.control(0x34);
  b.count(0, {0xa5, 0x12});
  b.step(10'000'000);
  b.clear_events();
  b.migrate();
  EXPECT_EQ(b.rising_edges("irq0"), 0u);
  b.step(4'000'000);
  EXPECT_EQ(b.rising_edges("irq0"), 1u);
}

TEST(PicPit, ResetStopsTheTimerAndKeepsTheInputLevels) {
  PicPitBench b;
  b.control(0x34);
  b.count(0, {0xa5, 0x12});
  b.irq_in(11, true);
  b.step(10'000'000);
  b.reset();
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.initialize();
  b.write(ELCR, 1, 0x08);
  EXPECT_TRUE(b.irq("intr"));
}

} // namespace
} // namespace pic_pit
