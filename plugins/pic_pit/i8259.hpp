// Intel 8259A programmable interrupt controller: one chip. Two of them and a wire make a PC's pair (pic_pit.hpp).
// Models:  ICW1-ICW4 in any order, OCW1-OCW3, fixed and rotating priorities, every EOI, AEOI, special mask mode,
// special
//          fully nested mode, poll, edge and level inputs (LTIM, and the ELCR of the 82371 south bridges), spurious
//          level 7, MCS-80/85 vectors as far as two INTA cycles carry them.
// Missing: the third INTA byte of MCS-80/85 mode: an x86 processor makes two cycles.
// Ignored bits: ICW4 BUF, M/S.
// Source:  Intel 231468-003 (December 1988); ELCR: Intel 290550-002, "82371FB (PIIX) and 82371SB (PIIX3)", 2.5.
#pragma once

#include "i8259_regs.hpp"

namespace i8259 {

enum : u8 { READY = 0, EXPECT_ICW2 = 2, EXPECT_ICW3 = 3, EXPECT_ICW4 = 4, POWERED_UP = 5 }; // State::step

struct State {
  u8 step = POWERED_UP; // no interrupt passes before the chip has been initialised ["Initialization Command Words"]
  u8 icw1 = 0, icw2 = 0, icw3 = 0, icw4 = 0;
  u8 imr = 0, isr = 0;
  u8 lines = 0;  // the inputs' levels
  u8 edges = 0;  // rising edges not yet acknowledged whose line is still high ["Edge Sense Latch", Figure 9]
  u8 elcr = 0;   // 1 = level triggered; survives ICW1
  u8 lowest = 7; // the input of lowest priority
  bool read_isr = false, poll = false, special_mask = false, rotate_on_aeoi = false;

  bool valid() const { return step != 1 && !(edges & ~lines); } // a latched edge's line is high
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [step, icw1, icw2, icw3, icw4, imr, isr, lines, edges, elcr, lowest, read_isr, poll, special_mask,
           rotate_on_aeoi] = s;
    f(1, "step", step, POWERED_UP), f(2, "icw1", icw1), f(3, "icw2", icw2), f(4, "icw3", icw3), f(5, "icw4", icw4);
    f(6, "imr", imr), f(7, "isr", isr), f(8, "lines", lines), f(9, "edges", edges), f(10, "elcr", elcr);
    f(11, "lowest", lowest, 7), f(12, "read_isr", read_isr), f(13, "poll", poll);
    f(14, "special_mask", special_mask), f(15, "rotate_on_aeoi", rotate_on_aeoi);
  }
};

class Pic {
 public:
  explicit Pic(State& s) : state(s) {}
  State& state;

  void write(u64 a0, u8 value);
  u8 read(u64 a0);
  u8 elcr() const { return state.elcr; }
  void write_elcr(u8 value) { state.elcr = value; }

  void set_input(u32 input, bool level);
  bool interrupt() const { return request() >= 0; } // the INT pin

  // An acknowledge cycle as this chip sees it.
  struct Acknowledged {
    u8 vector;
    i32 cascade; // the CAS lines: which slave answers in this chip's place; < 0: none
  };
  Acknowledged acknowledge();
  bool answers(u8 cas) const { return icw3::ID(state.icw3) == cas; } // a slave compares its ID

  u8 irr() const;

 private:
  i32 request() const;                                                    // the input that INT stands for, or -1
  u8 rank(u32 input) const { return u8((input - state.lowest - 1) & 7); } // 0 = highest priority
  i32 highest(u8 inputs) const;                                           // of a set; -1 if empty
  u8 vector(u32 input) const;
  void take(u32 input);
  void write_icw1(u8 value);
  void write_icw(u8 value);
  void write_ocw2(u8 value);
  void write_ocw3(u8 value);
  void end_of_interrupt(i32 input, bool rotate);
  u8 read_poll();
};

} // namespace i8259
