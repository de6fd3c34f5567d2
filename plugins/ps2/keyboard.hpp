// The keyboard at the far end of the PS/2 cable: its command dialogue, scan code set 2.
//
// Models: the commands below with their answers, typematic and LED parameters, scan code set selection.
// Missing: keys (nothing presses them yet), the set-3 key type commands FBh–FDh (answered RESEND), the BAT code at
// power-on. Source: IBM PS/2 Hardware Interface Technical Reference, Keyboard (from memory).
#pragma once

#include "vdev/cpp.hpp"

namespace ps2 {

using namespace vdev;

// What both devices say.
namespace reply {
enum : u8 { BAT_OK = 0xaa, ECHO = 0xee, ACK = 0xfa, RESEND = 0xfe };
}

namespace kbd {

enum Command : u8 {
  SET_LEDS = 0xed,
  ECHO = 0xee,
  SCAN_CODE_SET = 0xf0,
  IDENTIFY = 0xf2,
  SET_TYPEMATIC = 0xf3,
  ENABLE = 0xf4,
  DISABLE = 0xf5, // and defaults
  SET_DEFAULTS = 0xf6,
  ALL_TYPEMATIC = 0xf7, // F7h–FAh: key types, of consequence in set 3 only
  ALL_MAKE_BREAK_TYPEMATIC = 0xfa,
  RESEND = 0xfe,
  RESET = 0xff,
};

constexpr u8 TYPEMATIC_DEFAULT = 0x2b; // 10.9 a second after 500 ms

struct State {
  Fifo<u8, 16> out; // to the controller
  u8 awaiting = 0;  // the command whose parameter comes next; 0 = none
  u8 last = 0;      // byte that RESEND repeats
  u8 leds = 0;
  u8 typematic = TYPEMATIC_DEFAULT;
  u8 scan_set = 2;
  bool scanning = true;

  bool valid() const { return out.valid() && scan_set >= 1 && scan_set <= 3; }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [out, awaiting, last, leds, typematic, scan_set, scanning] = s;
    f(1, "out", out);
    f(2, "awaiting", awaiting);
    f(3, "last", last);
    f(4, "leds", leds, 7);
    f(5, "typematic", typematic, 0x7f);
    f(6, "scan_set", scan_set, 3);
    f(7, "scanning", scanning);
  }
};

void receive(State& state, u8 byte); // from the controller

} // namespace kbd
} // namespace ps2
