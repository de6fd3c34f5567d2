// The 8042 keyboard controller as the PC sees it. Source: IBM PS/2 Hardware Interface Technical Reference, Keyboard and
// Auxiliary Device Controller (from memory); names are its own, shortened.
#pragma once

#include "vdev/cpp/field.hpp"
#include "vdev/cpp/types.hpp"

namespace ps2 {

using namespace vdev;

enum Region : u32 { DATA = 0, STATUS_COMMAND = 1 }; // 60h, 64h

namespace status {
constexpr Field<0> OBF;     // output buffer full: 60h has a byte
constexpr Field<1> IBF;     // never: a write is done when it returns
constexpr Field<2> SYS;     // self-test passed
constexpr Field<3> CD;      // the last write went to 64h
constexpr Field<4> KEYLOCK; // 1 = not locked
constexpr Field<5> AUX;     // the byte came from the mouse
} // namespace status

namespace ctr { // the command byte, controller RAM 0
constexpr Field<0> KBD_INT;
constexpr Field<1> AUX_INT;
constexpr Field<2> SYS;
constexpr Field<4> KBD_DISABLE;
constexpr Field<5> AUX_DISABLE;
constexpr Field<6> TRANSLATE;
constexpr u8 WRITABLE = 0x7f;
constexpr u8 RESET = 0x03;
} // namespace ctr

namespace outport {
constexpr Field<0> RESET_N; // low resets the processor
constexpr Field<1> A20;
constexpr Field<4> KBD_OBF;
constexpr Field<5> AUX_OBF;
constexpr u8 PULLED_UP = 0xcc; // bits 2, 3, 6, 7 read as one
} // namespace outport

constexpr u8 INPORT = 0x80; // keyboard not locked

enum Command : u8 {
  READ_CTR = 0x20,
  WRITE_CTR = 0x60,
  READ_RAM_LAST = 0x3f,
  WRITE_RAM_LAST = 0x7f,
  AUX_DISABLE = 0xa7,
  AUX_ENABLE = 0xa8,
  AUX_TEST = 0xa9,
  SELF_TEST = 0xaa,
  KBD_TEST = 0xab,
  KBD_DISABLE = 0xad,
  KBD_ENABLE = 0xae,
  READ_INPORT = 0xc0,
  READ_OUTPORT = 0xd0,
  WRITE_OUTPORT = 0xd1,
  WRITE_KBD_OBUF = 0xd2,
  WRITE_AUX_OBUF = 0xd3,
  WRITE_AUX = 0xd4,
  DISABLE_A20 = 0xdd,
  ENABLE_A20 = 0xdf,
  READ_TEST_INPUTS = 0xe0,
  PULSE = 0xf0, // F0h–FFh: a zero in bits 0–3 pulses that output low
};

constexpr u8 SELF_TEST_OK = 0x55;
constexpr u8 LINE_TEST_OK = 0x00;

} // namespace ps2
