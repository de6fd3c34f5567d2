// The interrupt and time part of a PC's south bridge: two 8259A in cascade, their ELCR, an 8254, and port 61h between
// it and the speaker. Models:  IR2 of the master from the slave's INT; counter gates 0 and 1 tied high, 2 from port
// 61h; OUT0 on "irq0". Missing: NMI sources (bits 6 and 7 of port 61h read 0), the speaker's sound. Ignored bits: none;
// port 61h 0-3 read back as written. Source:  i8259.hpp, i8254.hpp; Intel 290550-002, "82371FB (PIIX) and 82371SB
// (PIIX3)", 2.5 and 3.
#pragma once

#include "i8254.hpp"
#include "i8259.hpp"

namespace pic_pit {
using namespace vdev;

enum : u32 { MASTER, SLAVE, ELCR, PIT, PORT_61 }; // regions
enum : u32 { INTR, IRQ0 };                        // interrupt outputs
inline constexpr u8 CASCADE_INPUT = 2;
inline constexpr u8 ELCR_WRITABLE[] = {0xf8, 0xde}; // not IRQ 0, 1, 2, 8, 13: always edge [290550, ELCR1, ELCR2]

namespace port61 { // NMI Status and Control
inline constexpr Field<0> TIM_CNT2_EN;
inline constexpr Field<4> REF_TOGGLE;
inline constexpr Field<5> TMR2_OUT_STS;
inline constexpr u8 WRITABLE = 0x0f;
} // namespace port61

inline constexpr u64 REFRESH_TICKS = 18;    // refresh requests come every 15.09 µs and REF_TOGGLE follows them
inline constexpr u64 SHORTEST_PERIOD = 119; // ticks (100 µs) between two timer events of ours; faster edges coalesce

struct State {
  i8259::State master, slave;
  i8254::Pit::State counter = {idle_counter(true), idle_counter(true), idle_counter(false)};
  u8 port61 = 0;

  // The cascade is a wire: the master's input is what the slave's INT drives.
  bool valid() const {
    i8259::State copy = slave;
    const bool cascade = master.lines >> CASCADE_INPUT & 1;
    return master.valid() && slave.valid() && cascade == i8259::Pic(copy).interrupt() && counter[0].valid() &&
           counter[1].valid() && counter[2].valid();
  }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [master, slave, counter, port61] = s;
    f(1, "master", master), f(2, "slave", slave), f(3, "counter", counter), f(4, "port61", port61, port61::WRITABLE);
  }

 private:
  static constexpr i8254::CounterState idle_counter(bool gate) {
    i8254::CounterState counter;
    counter.gate = gate;
    return counter;
  }
};

class PicPit {
 public:
  using State = pic_pit::State;
  State& state;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "master", 0x20, 2, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "slave", 0xa0, 2, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "elcr", 0x4d0, 2, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "pit", 0x40, 4, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "port61", 0x61, 1, VDEV_WIDTH_1, 0},
  };
  static constexpr const char* irqs[] = {"intr", "irq0"};
  static constexpr vdev_descriptor descriptor = {sizeof(vdev_descriptor),
                                                 1,
                                                 "org.transom.pic-pit",
                                                 "8259A pair, 8254 and port 61h",
                                                 "Transom",
                                                 "1.0.0",
                                                 regions,
                                                 5,
                                                 2,
                                                 irqs};
  static constexpr u32 irq_inputs = 16; // input 2 is the cascade and not connected

  PicPit(State& s, const Host& host);

  u64 read(u32 region, u64 offset, u32 width);
  void write(u32 region, u64 offset, u32 width, u64 value);
  u64 peek(u32 region, u64 offset, u32 width) const;
  void irq_in(u32 input, bool level);
  u8 acknowledge();
  u64 next_event() const;
  void expire(u64 now);
  void reset();
  void sync();

 private:
  u8 read_port61() const;
  void write_port61(u8 value);
  void catch_up(u64 now);

  i8259::Pic master_, slave_;
  i8254::Pit pit_;
  Irq intr_, irq0_;
  Clock clock_;
};

} // namespace pic_pit
