// MC146818 registers. Source: Motorola MC146818 data sheet; names are its own.
#pragma once

#include "vdev/cpp/field.hpp"
#include "vdev/cpp/types.hpp"

namespace rtc {

using namespace vdev;

enum Port : u64 { INDEX = 0, DATA = 1 };

enum Register : u8 {
  SECONDS = 0x00,
  SECONDS_ALARM,
  MINUTES,
  MINUTES_ALARM,
  HOURS,
  HOURS_ALARM,
  DAY_OF_WEEK,
  DATE_OF_MONTH,
  MONTH,
  YEAR,
  REGISTER_A,
  REGISTER_B,
  REGISTER_C,
  REGISTER_D,
  FIRST_RAM = 0x0e,
  CENTURY = 0x32, // where the FADT's "century" points; beyond the MC146818 itself
};

namespace index {
constexpr Field<0, 7> ADDRESS;
constexpr Field<7> NMI_MASK; // stored: the board has no NMI source to gate
} // namespace index

namespace a {
constexpr Field<0, 4> RS;
constexpr Field<4, 3> DV;
constexpr Field<7> UIP;
constexpr u8 WRITABLE = 0x7f;
constexpr u8 RESET = 0x26; // 32.768 kHz, 1024 Hz: what PC firmware programs
constexpr u8 DV_RESET = 6; // 11x holds the divider chain
} // namespace a

namespace b {
constexpr Field<0> DSE;
constexpr Field<1> HOURS_24;
constexpr Field<2> DM;
constexpr Field<3> SQWE;
constexpr Field<4> UIE;
constexpr Field<5> AIE;
constexpr Field<6> PIE;
constexpr Field<7> SET;
constexpr u8 RESET = 0x02;
} // namespace b

namespace c { // UF, AF, PF stand where UIE, AIE, PIE stand in register B
constexpr Field<4> UF;
constexpr Field<5> AF;
constexpr Field<6> PF;
constexpr Field<7> IRQF;
constexpr u8 FLAGS = 0x70;
} // namespace c

namespace d {
constexpr u8 VRT = 0x80; // the battery is good
} // namespace d

constexpr u8 DONT_CARE = 0xc0; // an alarm byte with both top bits set matches always

} // namespace rtc
