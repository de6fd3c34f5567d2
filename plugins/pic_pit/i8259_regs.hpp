// Names of the 8259A's command words. Source: Intel 231468-003, "8259A Programmable Interrupt Controller"; figure and
// heading names as printed there.
#pragma once

#include <vdev/cpp.hpp>

namespace i8259 {
using namespace vdev;

enum : u64 { COMMAND = 0, DATA = 1 }; // address line A0

namespace icw1 { // [Figure 7] A0 = 0, D4 = 1
inline constexpr Field<0> IC4;
inline constexpr Field<1> SNGL;
inline constexpr Field<2> ADI; // call address interval: 1 = 4 bytes, 0 = 8 (MCS-80/85 only)
inline constexpr Field<3> LTIM;
inline constexpr Field<4> ICW1;
inline constexpr u8 A7_A5 = 0xe0;
} // namespace icw1

namespace icw2 {
inline constexpr u8 T7_T3 = 0xf8;
}

namespace icw3 {
inline constexpr Field<0, 3> ID; // a slave's own number; a master keeps one bit per input instead
}

namespace icw4 {
inline constexpr Field<0> UPM; // 1 = 8086 mode
inline constexpr Field<1> AEOI;
inline constexpr Field<4> SFNM;
inline constexpr u8 WRITABLE = 0x1f; // BUF and M/S are kept and have no effect: a PC has no data bus buffers to enable
} // namespace icw4

namespace ocw2 { // [Figure 8] A0 = 0, D4 = D3 = 0
inline constexpr Field<0, 3> L;
inline constexpr Field<5, 3> COMMAND; // R, SL, EOI
enum : u8 {
  ROTATE_AEOI_CLEAR = 0,
  NONSPECIFIC_EOI = 1,
  NO_OPERATION = 2,
  SPECIFIC_EOI = 3,
  ROTATE_AEOI_SET = 4,
  ROTATE_NONSPECIFIC_EOI = 5,
  SET_PRIORITY = 6,
  ROTATE_SPECIFIC_EOI = 7
};
} // namespace ocw2

namespace ocw3 { // [Figure 8] A0 = 0, D4 = 0, D3 = 1
inline constexpr Field<0> RIS;
inline constexpr Field<1> RR;
inline constexpr Field<2> P;
inline constexpr Field<3> OCW3;
inline constexpr Field<5> SMM;
inline constexpr Field<6> ESMM;
} // namespace ocw3

inline constexpr u8 POLL_REQUEST = 0x80; // I of the poll word

} // namespace i8259
