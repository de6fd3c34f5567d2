// 8254: the datasheet's figures as tables, through the shipping library; and the counter class against a model that
// takes one CLK pulse at a time.
#include <random>

#include "pic_pit_bench.hpp"

namespace pic_pit {
namespace {

using i8254::CounterState;

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

// A second counter, told one CLK pulse at a time and nothing else.
struct OneClk {
  u32 mode = 0, modulus = 65536, n = 0, current = 1, ce = 0;
  bool have = false, pending = false, loaded = false, out = true, gate = true, null = true, done = false;
  bool strobe = false, hold = false;
  u64 rises = 0;

  void control(u32 m, bool bcd) {
    *this = OneClk{.mode = m, .modulus = bcd ? 10000u : 65536u, .ce = ce, .out = out, .gate = gate, .rises = rises};
    set(m != 0);
  }
  void set(bool level) { rises += level && !out, out = level; }
  void first_byte() {
    if (mode == 0) hold = true, set(false);
  }
  void write(u32 count) {
    n = count, have = null = true, hold = false;
    if (mode == 0) set(false);
    if (mode == 0 || mode == 4 || ((mode == 2 || mode == 3) && !loaded)) pending = true;
  }
  void set_gate(bool level) {
    if (level && !gate && have && mode != 0 && mode != 4) pending = true;
    gate = level;
    if (!level && (mode == 2 || mode == 3)) set(true);
  }
  void load() {
    pending = null = done = false, loaded = true;
    current = n;
    ce = mode == 3 ? n - n % 2 : n;
  }
  void clk() {
    if (strobe) strobe = false, set(true);
    if (pending) {
      load();
      if (mode != 0) set(mode != 1);
    } else if (loaded && (gate || mode == 1 || mode == 5) && !hold) {
      count();
    }
  }
  void count() {
    if (mode == 2) {
      if (ce == 1)
        load(), set(true);
      else
        ce--;
      if (ce == 1 && current != 1) set(false);
    } else if (mode == 3) {
      const bool last = current == 1 || (current % 2 && out ? ce == 0 : ce == 2);
      if (!last) return void(ce -= 2);
      const bool from = out, was_illegal = current == 1;
      load();
      set(current == 1 || was_illegal ? true : !from);
    } else {
      ce = ce ? ce - 1 : modulus - 1;
      if (ce != 0 || done) return;
      done = true;
      strobe = mode >= 4;
      set(mode < 4);
    }
  }
};

TEST(I8254, ConstantTimeCountingEqualsCountingPulseByPulse) {
  std::mt19937 random(20260817);
  const auto pick = [&](u32 n) { return u32(random() % n); };
  for (int round = 0; round < 2000; round++) {
    CounterState state;
    i8254::Counter counter(state);
    OneClk one;
    u32 rises_seen = 0;
    for (int action = 0; action < 60; action++) {
      switch (action == 0 ? 0 : pick(6)) {
        case 0: {
          const u32 mode = pick(6), bcd = pick(2);
          counter.write_control(u8(0x30 | mode << 1 | bcd));
          one.control(mode, bcd != 0);
          break;
        }
        case 1:
        case 2: {
          const u32 count = pick(3) ? 1 + pick(12) : pick(10000);
          const bool bcd = one.modulus == 10000;
          const u32 raw = bcd ? count / 1000 << 12 | count / 100 % 10 << 8 | count / 10 % 10 << 4 | count % 10 : count;
          counter.write(u8(raw)), one.first_byte();
          if (pick(4) == 0) counter.advance(state.tick + 3), one.clk(), one.clk(), one.clk();
          counter.write(u8(raw >> 8)), one.write(count ? count : one.modulus);
          break;
        }
        case 3: {
          const bool level = pick(2) != 0;
          counter.set_gate(level), one.set_gate(level);
          break;
        }
        default: {
          const u32 pulses = pick(20) ? pick(40) : pick(40000);
          const bool illegal = state.loaded == 1; // an event without a change may come when a legal count replaces it
          const u64 edge = counter.next_edge(), end = state.tick + pulses;
          const u64 rise_before = state.rise, rises_before = one.rises;
          const bool out_before = one.out;
          u64 last_rise = state.rise, first_change = i8254::NEVER;
          for (u64 tick = state.tick + 1; tick <= end; tick++) {
            const u64 rises = one.rises;
            one.clk();
            if (one.rises != rises) last_rise = tick;
            if (one.out != out_before && first_change == i8254::NEVER) first_change = tick;
          }
          counter.advance(end);
          ASSERT_EQ(state.rise, last_rise) << "mode " << one.mode << " from " << rise_before;
          rises_seen += u32(one.rises - rises_before);
          // next_edge() is OUT's next change, but for a strobe, whose end it is.
          const u64 reported = one.mode == 2 || one.mode >= 4 ? edge - 1 : edge;
          if (first_change != i8254::NEVER && !illegal) {
            ASSERT_TRUE(edge == first_change || reported == first_change) << one.mode;
          }
          if (edge > end + 1) {
            ASSERT_EQ(first_change, i8254::NEVER) << "mode " << one.mode;
          }
        }
      }
      ASSERT_EQ(state.out, one.out) << "mode " << one.mode << " round " << round << " action " << action;
      ASSERT_EQ(state.null_count, one.null) << "mode " << one.mode;
      if (one.loaded) {
        ASSERT_EQ(state.element % one.modulus, one.ce % one.modulus) << "mode " << one.mode;
      }
    }
    if (round == 1999) {
      EXPECT_GT(rises_seen, 0u);
    }
  }
}

} // namespace
} // namespace pic_pit
