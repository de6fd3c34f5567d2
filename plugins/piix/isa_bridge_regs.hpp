// Function 00:01.0: 82371SB PCI-to-ISA bridge (PIIX3), and its ports. Source: Intel 82371FB/82371SB data sheet
// (290550), register descriptions (from memory; reset values also as observed).
#pragma once

#include "registers.hpp"
#include "vdev/cpp/field.hpp"

namespace piix::isa_bridge {

enum Register : u32 {
  IORT = 0x4c,
  XBCS = 0x4e,
  PIRQRCA = 0x60,
  PIRQRCD = 0x63,
  TOM = 0x69,
  MSTAT = 0x6a,
  MBIRQ0 = 0x70,
  MBDMA0 = 0x76,
  MBDMA1 = 0x77,
  PCSC = 0x78,
  APICBASE = 0x80,
  DLC = 0x82,
  SMICNTL = 0xa0,
  SMIEN = 0xa2,
  SEE = 0xa4,
  FTMR = 0xa8,
  CTLTMR = 0xac,
  CTHTMR = 0xae,
};

// Stored without effect: everything but PIRQRC.
inline constexpr Bank<0x4c, 0xaf> BANK = {
    {IORT, 0x4d, 0xff},        {XBCS, 0x03, 0xff},        {XBCS + 1, 0x00, 0x01},  {PIRQRCA, 0x80, 0x8f},
    {PIRQRCA + 1, 0x80, 0x8f}, {PIRQRCA + 2, 0x80, 0x8f}, {PIRQRCD, 0x80, 0x8f},   {TOM, 0x02, 0xfe},
    {MSTAT, 0x00, 0xd1},       {MBIRQ0, 0x80, 0xef},      {MBDMA0, 0x0c, 0x8f},    {MBDMA1, 0x0c, 0x8f},
    {PCSC, 0x02, 0xff},        {PCSC + 1, 0x00, 0xff},    {APICBASE, 0x00, 0x7f},  {DLC, 0x00, 0x0f},
    {SMICNTL, 0x08, 0x1f},     {SMIEN, 0x00, 0xff},       {SMIEN + 1, 0x00, 0x01}, {SEE, 0x00, 0xfb},
    {SEE + 1, 0x00, 0xff},     {SEE + 3, 0x00, 0xa0},     {FTMR, 0x0f, 0xff},      {CTLTMR, 0x00, 0xff},
    {CTHTMR, 0x00, 0xff},
};

namespace pirqrc {
constexpr Field<0, 4> IRQ;
constexpr Field<7> DISABLED;
constexpr u16 ALLOWED = 0xdef8; // IRQ 0–2, 8, 13 are reserved
} // namespace pirqrc

namespace port92 {
constexpr Field<0> INIT;
constexpr Field<1> A20;
constexpr u8 WRITABLE = 0x03;
} // namespace port92

namespace rcr {          // CF9h, reset control
constexpr Field<1> SRST; // what kind: 1 = hard reset, 0 = INIT
constexpr Field<2> RCPU; // 0 → 1 resets
constexpr u8 WRITABLE = 0x06;
} // namespace rcr

namespace apm {
enum Port : u64 { APMC = 0, APMS = 1 };
// What the FADT names as ACPI_ENABLE and ACPI_DISABLE. There is no SMM handler, so the chip acts itself.
constexpr u8 ACPI_ENABLE = 0xf1, ACPI_DISABLE = 0xf0;
} // namespace apm

} // namespace piix::isa_bridge
