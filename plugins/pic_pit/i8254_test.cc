// 8254: the datasheet's figures as tables, latches and read-back, through the shipping library.
#include "pic_pit_bench.hpp"

namespace pic_pit {
namespace {

enum Do : u8 { CLK, GATE_0, GATE_1, WRITE };
struct Step {
  Do action;
  u32 value;   // WRITE: the byte
  i32 element; // expected LSB of CE afterwards; -1: not looked at
  i32 out;     // expected OUT
};
struct Figure {
  const char* name;
  u8 control; // for counter 0; the test uses counter 2, whose GATE a program controls
  std::vector<Step> steps;
};

// Figures 15-20 of 231164. The counter starts with GATE high.
const Figure FIGURES[] = {
    {"mode 0",
     0x10,
     {{WRITE, 4, -1, 0},
      {CLK, 0, 4, 0},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1},
      {CLK, 0, 0xff, 1},
      {CLK, 0, 0xfe, 1}}},
    {"mode 0, GATE low holds the count",
     0x10,
     {{WRITE, 3, -1, 0},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {GATE_0, 0, 2, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 2, 0},
      {GATE_1, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1}}},
    {"mode 0, written with GATE low: loaded all the same",
     0x10,
     {{GATE_0, 0, -1, 0},
      {WRITE, 2, -1, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 2, 0},
      {GATE_1, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1}}},
    {"mode 0, a new count while counting",
     0x10,
     {{WRITE, 3, -1, 0},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 1, 0},
      {WRITE, 2, 1, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1},
      {WRITE, 2, 0, 0},
      {CLK, 0, 2, 0}}},
    {"mode 1",
     0x12,
     {{GATE_0, 0, -1, 1},
      {WRITE, 3, -1, 1},
      {CLK, 0, -1, 1},
      {CLK, 0, -1, 1},
      {GATE_1, 0, -1, 1},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1},
      {CLK, 0, 0xff, 1},
      {GATE_0, 0, 0xff, 1},
      {GATE_1, 0, 0xff, 1},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0}}},
    {"mode 1, retriggered",
     0x12,
     {{GATE_0, 0, -1, 1},
      {WRITE, 3, -1, 1},
      {GATE_1, 0, -1, 1},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {GATE_0, 0, 2, 0},
      {CLK, 0, 1, 0},
      {GATE_1, 0, 1, 0},
      {CLK, 0, 3, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1}}},
    {"mode 1, a new count waits for the next trigger",
     0x12,
     {{GATE_0, 0, -1, 1},
      {WRITE, 2, -1, 1},
      {GATE_1, 0, -1, 1},
      {CLK, 0, 2, 0},
      {WRITE, 4, 2, 0},
      {CLK, 0, 1, 0},
      {CLK, 0, 0, 1},
      {CLK, 0, 0xff, 1},
      {GATE_0, 0, 0xff, 1},
      {GATE_1, 0, 0xff, 1},
      {CLK, 0, 4, 0},
      {CLK, 0, 3, 0}}},
    {"mode 2",
     0x14,
     {{WRITE, 3, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 0},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 0},
      {CLK, 0, 3, 1}}},
    {"mode 2, GATE low makes OUT high and a trigger reloads",
     0x14,
     {{WRITE, 3, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 0},
      {GATE_0, 0, 1, 1},
      {CLK, 0, 1, 1},
      {GATE_1, 0, 1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 0},
      {CLK, 0, 3, 1}}},
    {"mode 2, a new count at the end of the cycle",
     0x14,
     {{WRITE, 4, -1, 1},
      {CLK, 0, 4, 1},
      {CLK, 0, 3, 1},
      {WRITE, 5, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 0},
      {CLK, 0, 5, 1},
      {CLK, 0, 4, 1}}},
    {"mode 3, even",
     0x16,
     {{WRITE, 4, -1, 1},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 4, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 4, 0}}},
    {"mode 3, odd",
     0x16,
     {{WRITE, 5, -1, 1},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 0, 1},
      {CLK, 0, 4, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 0, 1},
      {CLK, 0, 4, 0}}},
    {"mode 3, GATE low makes OUT high and a trigger reloads",
     0x16,
     {{WRITE, 4, -1, 1},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 4, 0},
      {GATE_0, 0, 4, 1},
      {CLK, 0, 4, 1},
      {GATE_1, 0, 4, 1},
      {CLK, 0, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 4, 0}}},
    {"mode 3, a new count at the end of the half-cycle",
     0x16,
     {{WRITE, 4, -1, 1},
      {CLK, 0, 4, 1},
      {WRITE, 6, 4, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 6, 0},
      {CLK, 0, 4, 0},
      {CLK, 0, 2, 0},
      {CLK, 0, 6, 1}}},
    {"mode 4",
     0x18,
     {{WRITE, 3, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 1},
      {CLK, 0, 0, 0},
      {CLK, 0, 0xff, 1},
      {CLK, 0, 0xfe, 1}}},
    {"mode 4, GATE low holds the count",
     0x18,
     {{GATE_0, 0, -1, 1},
      {WRITE, 2, -1, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 2, 1},
      {GATE_1, 0, 2, 1},
      {CLK, 0, 1, 1},
      {CLK, 0, 0, 0},
      {CLK, 0, 0xff, 1}}},
    {"mode 4, a new count is loaded on the next CLK",
     0x18,
     {{WRITE, 3, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {WRITE, 2, 2, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 1},
      {CLK, 0, 0, 0},
      {CLK, 0, 0xff, 1}}},
    {"mode 5",
     0x1a,
     {{GATE_0, 0, -1, 1},
      {WRITE, 3, -1, 1},
      {CLK, 0, -1, 1},
      {GATE_1, 0, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 1},
      {CLK, 0, 0, 0},
      {CLK, 0, 0xff, 1}}},
    {"mode 5, retriggered",
     0x1a,
     {{GATE_0, 0, -1, 1},
      {WRITE, 3, -1, 1},
      {GATE_1, 0, -1, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {GATE_0, 0, 2, 1},
      {GATE_1, 0, 2, 1},
      {CLK, 0, 3, 1},
      {CLK, 0, 2, 1},
      {CLK, 0, 1, 1},
      {CLK, 0, 0, 0},
      {CLK, 0, 0xff, 1}}},
    {"mode 2 as 110", 0x1c, {{WRITE, 2, -1, 1}, {CLK, 0, 2, 1}, {CLK, 0, 1, 0}, {CLK, 0, 2, 1}}},
    {"mode 3 as 111", 0x1e, {{WRITE, 2, -1, 1}, {CLK, 0, 2, 1}, {CLK, 0, 2, 0}, {CLK, 0, 2, 1}}},
    {"mode 0, BCD", 0x11, {{WRITE, 0x10, -1, 0}, {CLK, 0, 0x10, 0}, {CLK, 0, 0x09, 0}, {CLK, 0, 0x08, 0}}},
    {"mode 0, BCD wraps to 9999", 0x11, {{WRITE, 1, -1, 0}, {CLK, 0, 1, 0}, {CLK, 0, 0, 1}, {CLK, 0, 0x99, 1}}},
};

TEST(I8254, EveryModeCountsAndDrivesOutAsItsFigureShows) {
  for (const Figure& figure : FIGURES) {
    PicPitBench b;
    b.gate2(true);
    b.control(u8(0x80 | figure.control));
    i32 index = 0;
    for (const Step& step : figure.steps) {
      switch (step.action) {
        case CLK: b.clk(); break;
        case GATE_0: b.gate2(false); break;
        case GATE_1: b.gate2(true); break;
        case WRITE: b.count(2, {step.value}); break;
      }
      SCOPED_TRACE(std::string(figure.name) + ", step " + std::to_string(index++));
      EXPECT_EQ(b.out_pin(2), step.out != 0);
      EXPECT_EQ(b.in(PORT_61, 0, 1) >> 5 & 1, u64(step.out));
      if (step.element >= 0) {
        EXPECT_EQ(b.counter(2), step.element);
      }
    }
  }
}

TEST(I8254, TheFirstByteOfACountStopsMode0AndLowersOut) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb0);
  b.count(2, {2, 0});
  b.clk(3);
  EXPECT_TRUE(b.out_pin(2));
  b.count(2, {9});
  EXPECT_FALSE(b.out_pin(2));
  const u16 held = b.counter16(2);
  b.clk(5);
  EXPECT_EQ(b.counter16(2), held);
  b.count(2, {0});
  b.clk(1);
  EXPECT_EQ(b.counter16(2), 9);
}

TEST(I8254, TheFirstByteOfACountDoesNotDisturbMode4) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb8);
  b.count(2, {5, 0});
  b.clk(2);
  b.count(2, {9});
  b.clk(1);
  EXPECT_EQ(b.counter16(2), 3);
}

TEST(I8254, TheFirstCountReadsAsWrittenEvenBeforeThePulseThatLoadsIt) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb0);
  b.count(2, {0xff, 0xff});
  EXPECT_EQ(b.counter16(2), 0xffff);
  EXPECT_EQ(b.status(2) & 0x40, 0x40) << "null count: not loaded yet";
  b.clk(1);
  EXPECT_EQ(b.counter16(2), 0xffff);
  b.clk(1);
  EXPECT_EQ(b.counter16(2), 0xfffe);
}

TEST(I8254, ZeroIsTheLargestCount) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb0);
  b.count(2, {0, 0});
  b.clk(65536);
  EXPECT_FALSE(b.out_pin(2));
  b.clk(1);
  EXPECT_TRUE(b.out_pin(2));
  b.control(0xb1); // BCD: 10000
  b.count(2, {0, 0});
  b.clk(10000);
  EXPECT_FALSE(b.out_pin(2));
  b.clk(1);
  EXPECT_TRUE(b.out_pin(2));
}

TEST(I8254, LsbAndMsbOnlyCountsClearTheOtherByte) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb0);
  b.count(2, {0x34, 0x12});
  b.control(0x90); // LSB only
  b.count(2, {0x56});
  b.clk();
  b.counter(2);
  EXPECT_EQ(b.field("counter[2].element"), 0x56u);
  b.control(0xa0); // MSB only
  b.count(2, {0x78});
  b.clk();
  EXPECT_EQ(b.counter(2), 0x78);
  EXPECT_EQ(b.field("counter[2].element"), 0x7800u);
}

TEST(I8254, ALatchedCountStaysUntilBothBytesAreRead) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb4);
  b.count(2, {0x00, 0x80});
  b.clk(1);
  b.control(0x80);
  b.clk(0x123);
  b.control(0x80); // ignored: the first latch has not been read
  EXPECT_EQ(b.counter16(2), 0x8000);
  EXPECT_EQ(b.counter16(2), 0x8000 - 0x123);
}

TEST(I8254, ReadsAndWritesOfOneCounterMayBeInterleaved) { // ["Read Operations", Note]
  PicPitBench b;
  b.gate2(true);
  b.control(0xb4);
  b.count(2, {0x21, 0x43});
  b.clk(1);
  EXPECT_EQ(b.counter(2), 0x21);
  b.count(2, {0x65});
  EXPECT_EQ(b.counter(2), 0x43);
  b.count(2, {0x87});
  EXPECT_EQ(b.field("counter[2].cr"), 0x8765u);
}

// Figure 12 of 231164: six commands and what they latch.
TEST(I8254, ReadBackFollowsTheDatasheetsExample) {
  PicPitBench b;
  for (const u8 word : {0x34, 0x74, 0xb4}) b.control(word);
  const auto latched = [&] {
    std::string s;
    for (const char* i : {"0", "1", "2"}) {
      const std::string counter = std::string("counter[") + i + "].";
      s += b.field(counter + "count_latched") ? 'C' : '-';
      s += b.field(counter + "status_latched") ? 'S' : '-';
    }
    return s;
  };
  const std::pair<u8, const char*> example[] = {{0xc2, "CS----"}, {0xe4, "CS-S--"}, {0xec, "CS-S-S"},
                                                {0xd8, "CS-SCS"}, {0xc4, "CSCSCS"}, {0xe2, "CSCSCS"}};
  for (const auto& [command, expected] : example) {
    b.control(command);
    EXPECT_EQ(latched(), expected) << std::hex << u32(command);
  }
}

TEST(I8254, EveryReadBackCommandLatchesWhatItsBitsName) {
  PicPitBench b;
  for (u32 command = 0xc0; command <= 0xff; command++) {
    for (const u8 word : {0x34, 0x74, 0xb4}) b.control(word); // unlatches
    b.control(u8(command));
    for (u32 i = 0; i < 3; i++) {
      const std::string counter = "counter[" + std::to_string(i) + "].";
      const bool selected = command >> (i + 1) & 1;
      EXPECT_EQ(b.field(counter + "count_latched"), selected && !(command & 0x20)) << command;
      EXPECT_EQ(b.field(counter + "status_latched"), selected && !(command & 0x10)) << command;
    }
  }
}

TEST(I8254, StatusIsReadBeforeTheCountAndShowsTheControlWordAsWritten) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xbd); // mode 110, BCD, both bytes
  b.count(2, {0x34, 0x12});
  b.control(0xc8); // count and status of counter 2
  b.clk(2);
  EXPECT_EQ(b.counter(2), 0x80 | 0x40 | 0x3d); // OUT, null count
  b.counter16(2);
  EXPECT_EQ(b.counter16(2), 0x1233);
  EXPECT_EQ(b.status(2), 0x80 | 0x3d);
}

TEST(I8254, ALatchedStatusStaysUntilItIsRead) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb0);
  b.count(2, {2, 0});
  b.control(0xe8);
  b.clk(3);
  b.control(0xe8); // ignored
  EXPECT_EQ(b.counter(2), 0x40 | 0x30);
  EXPECT_EQ(b.status(2), 0x80 | 0x30);
}

TEST(I8254, AControlWordForgetsHalfReadAndHalfWrittenCounts) {
  PicPitBench b;
  b.gate2(true);
  b.control(0xb4);
  b.count(2, {0x11, 0x22});
  b.clk();
  b.counter(2);
  b.count(2, {0x33});
  b.control(0xb4);
  b.count(2, {0x44, 0x55});
  b.clk();
  EXPECT_EQ(b.counter16(2), 0x5544);
}

TEST(I8254, NullCountGoesFromTheWriteToTheLoad) { // [Figure 13]
  PicPitBench b;
  b.gate2(true);
  const auto null_count = [&] { return b.status(2) >> 6 & 1; };
  b.control(0xb4);
  EXPECT_EQ(null_count(), 1);
  b.clk(2);
  b.count(2, {8});
  EXPECT_EQ(null_count(), 1);
  b.count(2, {0});
  EXPECT_EQ(null_count(), 1);
  b.clk();
  EXPECT_EQ(null_count(), 0);
  b.count(2, {6}); // the first byte alone does not
  EXPECT_EQ(null_count(), 0);
  b.count(2, {0});
  EXPECT_EQ(null_count(), 1);
  b.clk(8); // the new count is loaded at the end of the cycle
  EXPECT_EQ(null_count(), 0);
}

TEST(I8254, IllegalCountOf1LeavesOutHighWithoutEvents) {
  for (const u8 word : {0x14, 0x16}) {
    PicPitBench b;
    b.control(word);
    b.count(0, {1});
    b.clk(10);
    b.clear_events();
    b.clk(1000);
    EXPECT_EQ(b.next_event(), VDEV_NEVER);
    EXPECT_EQ(b.rising_edges("irq0"), 0u);
    EXPECT_TRUE(b.out_pin(0));
    b.count(0, {200}); // and a legal count brings it back
    b.clk(1000);
    EXPECT_GE(b.rising_edges("irq0"), 4u);
  }
}

TEST(I8254, TheControlWordAddressReadsAllOnes) {
  PicPitBench b;
  EXPECT_EQ(b.in(PIT, 3, 1), 0xffu);
}

} // namespace
} // namespace pic_pit
