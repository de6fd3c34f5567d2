// Function 00:01.3: 82371AB power management (PIIX4), and its I/O block. Source: Intel 82371AB data sheet (290562),
// chapters 7 and 11 (from memory; reset values also as observed).
#pragma once

#include "registers.hpp"
#include "vdev/cpp/field.hpp"

namespace piix::power {

enum Config : u32 {
  PMBA = 0x40,
  DEVACTB = 0x58,
  DEVRESA = 0x5c,
  DEVRESB = 0x60,
  DEVRESC = 0x64,
  PMREGMISC = 0x80,
  SMBBA = 0x90,
  SMBHSTCFG = 0xd2,
};

// Stored without effect: everything but PMBA and PMREGMISC.
inline constexpr Bank<0x40, 0xd6> CONFIG = {
    {PMBA, 0x01, 0xc0},
    {PMBA + 1, 0x00, 0xff},
    {0x44, 0x00, 0xff}, // CNTA
    {0x45, 0x00, 0xff},
    {0x46, 0x00, 0xff},
    {0x47, 0x00, 0xff},
    {0x48, 0x00, 0xff}, // CNTB
    {0x49, 0x00, 0xff},
    {0x4a, 0x00, 0xff},
    {0x4c, 0x00, 0xff}, // GPICTL
    {0x4d, 0x00, 0xff},
    {0x4e, 0x00, 0xff},
    {0x4f, 0x00, 0xff},
    {0x54, 0x00, 0xff}, // DEVACTA
    {0x55, 0x00, 0xff},
    {0x56, 0x00, 0xff},
    {0x57, 0x00, 0xff},
    {DEVACTB, 0x00, 0xff},
    {DEVACTB + 1, 0x00, 0xff},
    {DEVACTB + 2, 0x00, 0xff},
    // Observed on SeaBIOS 1.16: APMC_EN (bit 25) set means that SMM is done with, so it does not look for it.
    {DEVACTB + 3, 0x02, 0xff},
    {DEVRESA, 0x00, 0xff},
    {DEVRESA + 1, 0x00, 0xff},
    {DEVRESA + 2, 0x00, 0xff},
    {DEVRESA + 3, 0x10, 0xff}, // 10h, 60h, 08h: the board's keyboard, ports and COM1, as observed
    {DEVRESB, 0x00, 0xff},
    {DEVRESB + 1, 0x00, 0xff},
    {DEVRESB + 2, 0x00, 0xff},
    {DEVRESB + 3, 0x60, 0xff},
    {DEVRESC, 0x00, 0xff},
    {DEVRESC + 1, 0x00, 0xff},
    {DEVRESC + 2, 0x00, 0xff},
    {DEVRESC + 3, 0x08, 0xff},
    {PMREGMISC, 0x00, 0x01},
    {SMBBA, 0x01, 0xf0},
    {SMBBA + 1, 0x00, 0xff},
    {SMBHSTCFG, 0x00, 0x0f},
    {0xd3, 0x00, 0xff}, // SMBSLVC
    {0xd4, 0x00, 0xff}, // SMBSHDW1
    {0xd5, 0x00, 0xff}, // SMBSHDW2
};

constexpr u32 PMBA_MASK = 0xffc0;
constexpr u8 PMIOSE = 0x01;

enum Io : u32 {
  PMSTS = 0x00,
  PMEN = 0x02,
  PMCNTRL = 0x04,
  PMTMR = 0x08,
  GPEN = 0x0e,
  PCNTRL = 0x10,
  GLBEN = 0x20,
  GLBCTL = 0x28,
  DEVCTL = 0x2c,
  GPOREG = 0x34,
};
constexpr u32 IO_LENGTH = 64;

// Without a row, so zero: GPSTS, LVL2, LVL3, GLBSTS, DEVSTS, GPIREG. Stored without effect: GPEN, PCNTRL, GLBEN,
// GLBCTL, DEVCTL, GPOREG.
inline constexpr Bank<0, IO_LENGTH - 1> IO = {
    {PMSTS, 0x00, 0x00, 0x31}, {PMSTS + 1, 0x00, 0x00, 0x8d}, {PMEN, 0x00, 0x21},       {PMEN + 1, 0x00, 0x05},
    {PMCNTRL, 0x00, 0x03},     {PMCNTRL + 1, 0x00, 0x1c},     {GPEN, 0x00, 0x01},       {GPEN + 1, 0x00, 0x0f},
    {PCNTRL, 0x00, 0x1e},      {PCNTRL + 1, 0x00, 0x3e},      {GLBEN, 0x00, 0xff},      {GLBEN + 1, 0x00, 0x0f},
    {GLBCTL, 0x00, 0xfd},      {GLBCTL + 1, 0x00, 0xff},      {GLBCTL + 2, 0x00, 0x01}, {GLBCTL + 3, 0x00, 0x07},
    {DEVCTL, 0x00, 0xff},      {DEVCTL + 1, 0x00, 0xff},      {DEVCTL + 2, 0x00, 0xff}, {DEVCTL + 3, 0x00, 0x0f},
    {GPOREG, 0xff, 0xff},      {GPOREG + 1, 0xbf, 0xff},      {GPOREG + 2, 0xff, 0xff}, {GPOREG + 3, 0x7f, 0x7f},
};

namespace pmsts { // and the enables in PMEN at the same places
constexpr Field<0> TMROF;
constexpr Field<5> GBL;
constexpr Field<8> PWRBTN;
constexpr Field<10> RTC;
constexpr Field<11> PWRBTNOR;
constexpr Field<15> RSM;
} // namespace pmsts

namespace pmcntrl {
constexpr Field<0> SCI_EN;
constexpr Field<2, 3> SUS_TYP; // in the upper byte
constexpr Field<5> SUS_EN;     // in the upper byte; reads 0
constexpr u8 SOFT_OFF = 0;     // the SUS_TYP of S5
} // namespace pmcntrl

namespace glbctl {
constexpr Field<1> BIOS_RLS; // reads 0
}

constexpr u32 TIMER_BITS = 24;

enum Gpe0 : u64 { GPE0_STATUS = 0, GPE0_ENABLE = 2 };

} // namespace piix::power
