// Function 00:00.0: 82441FX PCI and memory controller (i440FX). Source: Intel 82441FX data sheet (290549), register
// descriptions (from memory).
#pragma once

#include "registers.hpp"
#include "vdev/cpp/field.hpp"

namespace piix::host_bridge {

enum Register : u32 { PMCCFG = 0x50, DRAMC = 0x57, DRAMT = 0x58, PAM0 = 0x59, PAM6 = 0x5f, DRB0 = 0x60, SMRAM = 0x72 };

// Stored without effect: everything but the PAM registers. SMRAM's window needs SMM, which the board lacks.
inline constexpr Bank<0x50, 0x93> BANK = {
    {PMCCFG, 0x00, 0xff},   {PMCCFG + 1, 0x00, 0xff}, {0x52, 0x00, 0xff},     {0x53, 0x80, 0x73},
    {0x54, 0x00, 0xff},     {0x55, 0x00, 0xff},       {0x56, 0x00, 0xff},     {DRAMC, 0x01, 0xff},
    {DRAMT, 0x00, 0xff},    {PAM0, 0x00, 0x30},       {PAM0 + 1, 0x00, 0x33}, {PAM0 + 2, 0x00, 0x33},
    {PAM0 + 3, 0x00, 0x33}, {PAM0 + 4, 0x00, 0x33},   {PAM0 + 5, 0x00, 0x33}, {PAM6, 0x00, 0x33},
    {DRB0, 0x01, 0xff},     {DRB0 + 1, 0x01, 0xff},   {DRB0 + 2, 0x01, 0xff}, {DRB0 + 3, 0x01, 0xff},
    {DRB0 + 4, 0x01, 0xff}, {DRB0 + 5, 0x01, 0xff},   {DRB0 + 6, 0x01, 0xff}, {DRB0 + 7, 0x01, 0xff},
    {0x68, 0x00, 0xc0},     {0x70, 0x00, 0xf8},       {0x71, 0x10, 0x1f},     {SMRAM, 0x02, 0x78},
    {0x90, 0x00, 0x1b},
};

namespace pam { // in each half of a byte
constexpr Field<0> RE;
constexpr Field<1> WE;
} // namespace pam

namespace smram {
constexpr Field<4> D_LCK;
constexpr Field<6> D_OPEN;
} // namespace smram

// The shadow areas in the order of the address map. PAM0's low half is reserved; its high half is the BIOS area.
struct ShadowArea {
  u32 base, length;
  u8 offset, shift; // of the attributes in configuration space
};
constexpr u32 KIB = 1024;
inline constexpr std::array<ShadowArea, 13> SHADOW = {{
    {0xc0000, 16 * KIB, 0x5a, 0},
    {0xc4000, 16 * KIB, 0x5a, 4},
    {0xc8000, 16 * KIB, 0x5b, 0},
    {0xcc000, 16 * KIB, 0x5b, 4},
    {0xd0000, 16 * KIB, 0x5c, 0},
    {0xd4000, 16 * KIB, 0x5c, 4},
    {0xd8000, 16 * KIB, 0x5d, 0},
    {0xdc000, 16 * KIB, 0x5d, 4},
    {0xe0000, 16 * KIB, 0x5e, 0},
    {0xe4000, 16 * KIB, 0x5e, 4},
    {0xe8000, 16 * KIB, 0x5f, 0},
    {0xec000, 16 * KIB, 0x5f, 4},
    {0xf0000, 64 * KIB, 0x59, 4},
}};

} // namespace piix::host_bridge
