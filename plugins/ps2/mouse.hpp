// The standard two-button PS/2 mouse (device ID 00h): its command dialogue.
//
// Models: the commands below with their answers, resolution, scaling, rate, wrap, remote and stream mode.
// Missing: movement (nothing moves it yet: READ_DATA reports none), the wheel's knock sequence, ERROR (FCh) after two
// RESENDs. Source: IBM PS/2 Hardware Interface Technical Reference, Mouse (from memory).
#pragma once

#include "keyboard.hpp"

namespace ps2::mouse {

enum Command : u8 {
  SCALING_1_1 = 0xe6,
  SCALING_2_1 = 0xe7,
  SET_RESOLUTION = 0xe8,
  STATUS_REQUEST = 0xe9,
  STREAM_MODE = 0xea,
  READ_DATA = 0xeb,
  RESET_WRAP_MODE = 0xec,
  WRAP_MODE = 0xee,
  REMOTE_MODE = 0xf0,
  IDENTIFY = 0xf2,
  SET_SAMPLE_RATE = 0xf3,
  ENABLE = 0xf4,
  DISABLE = 0xf5,
  SET_DEFAULTS = 0xf6,
  RESEND = 0xfe,
  RESET = 0xff,
};

constexpr u8 DEVICE_ID = 0x00;

namespace status { // first byte of the answer to STATUS_REQUEST
constexpr Field<4> SCALING_2_1;
constexpr Field<5> ENABLED;
constexpr Field<6> REMOTE;
} // namespace status

namespace packet { // first byte of a movement report
constexpr u8 ALWAYS_ONE = 0x08;
}

struct State {
  Fifo<u8, 16> out;  // to the controller
  u8 awaiting = 0;   // the command whose parameter comes next; 0 = none
  u8 last = 0;       // byte that RESEND repeats
  u8 resolution = 2; // 4 counts a millimetre
  u8 sample_rate = 100;
  bool scaling_2_1 = false, enabled = false, remote = false, wrap = false;

  bool valid() const { return out.valid(); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [out, awaiting, last, resolution, sample_rate, scaling_2_1, enabled, remote, wrap] = s;
    f(1, "out", out);
    f(2, "awaiting", awaiting);
    f(3, "last", last);
    f(4, "resolution", resolution, 3);
    f(5, "sample_rate", sample_rate);
    f(6, "scaling_2_1", scaling_2_1);
    f(7, "enabled", enabled);
    f(8, "remote", remote);
    f(9, "wrap", wrap);
  }
};

void receive(State& state, u8 byte); // from the controller

} // namespace ps2::mouse
