// What the tests of this folder share: the device on a bench, in the words of its datasheets.
#pragma once

#include <gtest/gtest.h>
#include <initializer_list>

#include "pic_pit.hpp"
#include "vdev/testing/bench.hpp"

namespace pic_pit {

struct PicPitBench : vdev::testing::Bench {
  PicPitBench() : Bench("pic_pit.so") {}

  // 8254. Time advances in CLK pulses.
  void clk(u64 pulses = 1) {
    const u64 tick = PIT_RATE.ticks(now()) + pulses;
    step(PIT_RATE.ns(tick) - now());
  }
  void control(u8 word) { out(PIT, i8254::CONTROL_WORD, 1, word); }
  void count(u32 counter, std::initializer_list<u32> bytes) {
    for (const u32 byte : bytes) out(PIT, counter, 1, byte);
  }
  u8 counter(u32 index) { return u8(in(PIT, index, 1)); }
  u16 counter16(u32 index) {
    const u8 lsb = counter(index);
    return u16(lsb | counter(index) << 8);
  }
  u8 status(u32 index) {
    control(u8(0xe0 | 2u << index)); // read-back, status only
    return counter(index);
  }
  bool out_pin(u32 index) { return i8254::status::OUTPUT(status(index)) != 0; }
  void gate2(bool level) { out(PORT_61, 0, 1, level); }

  // 8259A.
  void write(u32 pic, u64 a0, u32 value) { out(pic, a0, 1, value); }
  void initialize(u8 icw4 = 0x01, u8 icw1_value = 0x11) {
    for (const u32 pic : {MASTER, SLAVE}) {
      write(pic, 0, icw1_value);
      write(pic, 1, pic == MASTER ? 0x20 : 0x28);
      write(pic, 1, pic == MASTER ? 0x04 : 0x02);
      write(pic, 1, icw4);
    }
  }
  u8 irr(u32 pic) { return write(pic, 0, 0x0a), u8(in(pic, 0, 1)); }
  u8 isr(u32 pic) { return write(pic, 0, 0x0b), u8(in(pic, 0, 1)); }
  u8 imr(u32 pic) { return u8(in(pic, 1, 1)); }
  void edge(u32 input) { irq_in(input, false), irq_in(input, true); }
};

} // namespace pic_pit
