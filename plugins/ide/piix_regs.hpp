// PIIX3 IDE function: configuration space from 40h, and the bus master's I/O registers. Source: Intel 290550-002,
// 82371FB (PIIX) and 82371SB (PIIX3) PCI ISA IDE Xcelerator, "[PIIX x]" = what it says of register or topic x;
// SFF-8038i rev. 1.0.
#pragma once

#include "vdev/cpp.hpp"

namespace ide {
using namespace vdev;

// Configuration space [PIIX IDE configuration].
namespace config {
enum : u8 { IDETIM = 0x40 /* word, one a channel */, SIDETIM = 0x44 /* byte */, IOCFG = 0x54 /* PIIX4 and later */ };
}
namespace idetim {
constexpr Field<15> DECODE; // IDE decode enable: the channel answers at its legacy ports
constexpr Field<14> SITRE;  // slave timing from SIDETIM
} // namespace idetim

// Bus master registers of one channel, at 0 or 8 of the BAR [PIIX bus master registers].
namespace bm {
enum : u8 { COMMAND = 0, STATUS = 2, TABLE = 4 /* dword */ };
}
namespace bmicom {
constexpr Field<0> START;
constexpr Field<3> TO_MEMORY; // read/write control; the drive's command decides the direction, as both must agree
constexpr u8 WRITABLE = START.MASK | TO_MEMORY.MASK;
} // namespace bmicom
namespace bmista {
constexpr Field<0> ACTIVE;
constexpr Field<1> ERROR;     // write 1 to clear
constexpr Field<2> INTERRUPT; // write 1 to clear; set by the rising edge of INTRQ only
constexpr u8 WRITE_CLEAR = ERROR.MASK | INTERRUPT.MASK;
constexpr u8 WRITABLE = 0x60; // drive 0/1 DMA capable: notes of the software to itself
} // namespace bmista

// Physical region descriptor [PIIX bus master operation]: {u32 address, u16 bytes (0 = 64 KiB), u16 flags}. Bit 0 of
// address and count is hardwired to 0.
struct Prd {
  u32 address;
  u16 bytes;
  u16 flags;
};
static_assert(sizeof(Prd) == 8);
namespace prd {
constexpr Field<15> END_OF_TABLE;
constexpr u32 MAX_ENTRIES = 8192; // 64 KiB, beyond which a table may not reach; a walk ends there
} // namespace prd

} // namespace ide
