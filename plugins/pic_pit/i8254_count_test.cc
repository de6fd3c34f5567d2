// The counter class, which goes to any later CLK pulse in constant time, against a model that takes one pulse at a
// time.
#include <random>

#include "pic_pit_bench.hpp"

namespace pic_pit {
namespace {

using i8254::CounterState;

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
