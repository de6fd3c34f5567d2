// Names of the 8254's control word, status byte and read-back command. Source: Intel 231164-005, "82C54 CHMOS
// Programmable Interval Timer" (same registers as 231244, "8254").
#pragma once

#include <vdev/cpp.hpp>

namespace i8254 {
using namespace vdev;

enum : u64 { COUNTER_0 = 0, COUNTER_1, COUNTER_2, CONTROL_WORD }; // A1, A0 [Figure 4]
inline constexpr u32 COUNTERS = 3;

namespace control { // [Figure 7]; bits 0-5 read back in the status byte as they were written
inline constexpr Field<0> BCD;
inline constexpr Field<1, 3> M;
inline constexpr Field<4, 2> RW;
inline constexpr Field<6, 2> SC;
inline constexpr u8 KEPT = 0x3f;
inline constexpr u8 SC_READ_BACK = 3;
enum : u8 { RW_LATCH = 0, RW_LSB = 1, RW_MSB = 2, RW_LSB_MSB = 3 };
} // namespace control

namespace status { // [Figure 11]
inline constexpr Field<6> NULL_COUNT;
inline constexpr Field<7> OUTPUT;
} // namespace status

namespace read_back { // [Figure 10]; a 0 in COUNT or STATUS latches
inline constexpr Field<1, 3> CNT;
inline constexpr Field<4> STATUS;
inline constexpr Field<5> COUNT;
} // namespace read_back

} // namespace i8254
