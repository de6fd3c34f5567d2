// 8042 keyboard controller with a keyboard and a mouse behind it, at 60h and 64h.
//
// Models: status, command byte, output buffer and its two interrupts, the commands of i8042_regs.hpp, A20 and reset by
//   the output port, the auxiliary loopback, translation of what the keyboard answers.
// Missing: input events, so translation covers only the bytes of command answers; the other 31 bytes of controller RAM
//   (reads unanswered, writes taken and dropped); password; line faults; time (every byte moves at once).
// Ignored bits: command byte bit 3 (keylock override); outputs other than reset in PULSE.
// Source: see i8042_regs.hpp, keyboard.hpp, mouse.hpp.
#pragma once

#include "i8042_regs.hpp"
#include "keyboard.hpp"
#include "mouse.hpp"

namespace ps2 {

struct State {
  u8 ctr = ctr::RESET;
  u8 data = 0; // output buffer; keeps its last byte when empty
  bool obf = false, aux = false;
  bool sys = false, cd = false;
  u8 awaiting = 0; // the controller command whose parameter comes to 60h; 0 = none: the byte goes to the keyboard
  u8 answer = 0;   // the controller's own next byte: it goes before what the devices have to say
  bool answering = false, answer_aux = false;
  bool a20 = true; // open at reset, so that the reset vector is reached
  kbd::State kbd;
  mouse::State mouse;

  bool valid() const { return kbd.valid() && mouse.valid(); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [ctr, data, obf, aux, sys, cd, awaiting, answer, answering, answer_aux, a20, kbd, mouse] = s;
    f(1, "ctr", ctr, ctr::WRITABLE);
    f(2, "data", data);
    f(3, "obf", obf);
    f(4, "aux", aux);
    f(5, "sys", sys);
    f(6, "cd", cd);
    f(7, "awaiting", awaiting);
    f(8, "answer", answer);
    f(9, "answering", answering);
    f(10, "answer_aux", answer_aux);
    f(11, "a20", a20);
    f(12, "kbd", kbd);
    f(13, "mouse", mouse);
  }
};

class I8042 {
 public:
  using State = ps2::State;
  State& state; // the host's memory

  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "data", 0x60, 1, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "status_command", 0x64, 1, VDEV_WIDTH_1, 0}};
  static constexpr const char* irqs[] = {"irq1", "irq12"};
  static constexpr vdev_descriptor descriptor{sizeof(vdev_descriptor),
                                              1,
                                              "org.transom.ps2",
                                              "8042, keyboard and mouse",
                                              "Transom",
                                              "1.0.0",
                                              regions,
                                              2,
                                              2,
                                              irqs};

  I8042(State& s, const Host& host)
      : state(s), irq1_(host.required<Irq>(0)), irq12_(host.required<Irq>(1)), wire_(host.required<Wire>()) {}

  void reset();
  u64 read(u32 region, u64 offset, u32 width);
  void write(u32 region, u64 offset, u32 width, u64 value);
  u64 peek(u32 region, u64 offset, u32 width) const;
  void sync();

 private:
  u8 status() const;
  u8 read_data();
  void write_data(u8 value);
  void command(u8 value);
  void parameter(u8 command, u8 value);
  void respond(u8 value, bool aux = false);
  u8 read_outport() const;
  void write_outport(u8 value);
  void fill_output_buffer(); // with the next byte there is, when it is empty

  Irq irq1_, irq12_;
  Wire wire_;
  int a20_shown_ = -1; // what the wire was last told; -1 = nothing yet
};

} // namespace ps2
