// The registers and command codes of an ATA device. Source: T13/1410D, AT Attachment with Packet Interface - 6
// (ATA/ATAPI-6), "[ATA n.n]" = its clause.
#pragma once

#include "vdev/cpp.hpp"

namespace ide {
using namespace vdev;

// Command block, at 1F0h or 170h [ATA 7]. What a write means stands second where it differs.
enum Reg : u8 { DATA, ERROR_FEATURES, SECTOR_COUNT, LBA_LOW, LBA_MID, LBA_HIGH, DEVICE, STATUS_COMMAND };
// Control block, at 3F6h or 376h: alternate status, device control.

namespace device {          // [ATA 7.7]
constexpr Field<0, 4> HEAD; // or LBA bits 27:24
constexpr Field<4> DEV;
constexpr Field<6> LBA;
} // namespace device

namespace control { // [ATA 7.8]
constexpr Field<1> nIEN;
constexpr Field<2> SRST;
constexpr Field<7> HOB; // shows the previous content of the two-deep registers; any command block write clears it
constexpr u8 WRITABLE = nIEN.MASK | SRST.MASK | HOB.MASK;
} // namespace control

namespace status { // [ATA 7.15]; bit 4 is DSC of ATA-3, which older drivers still look at
enum : u8 { ERR = 0x01, DRQ = 0x08, DSC = 0x10, DF = 0x20, DRDY = 0x40, BSY = 0x80 };
constexpr u8 READY = DRDY | DSC;
constexpr u8 TRANSFER = READY | DRQ;
constexpr u8 FAILED = READY | ERR;
constexpr u8 WORKING = READY | BSY;
} // namespace status

namespace error { // [ATA 7.9]
enum : u8 { NONE = 0, PASSED = 0x01 /* diagnostic code */, ABRT = 0x04, IDNF = 0x10, UNC = 0x40 };
}

namespace command { // [ATA 8]; those marked (3) left the standard after ATA-3 and are still used
enum : u8 {
  NOP = 0x00,
  DEVICE_RESET = 0x08,
  RECALIBRATE = 0x10, // (3) and 11h-1Fh
  READ_SECTORS = 0x20,
  READ_SECTORS_NO_RETRY = 0x21, // (3)
  READ_SECTORS_EXT = 0x24,
  READ_DMA_EXT = 0x25,
  READ_NATIVE_MAX_EXT = 0x27,
  READ_MULTIPLE_EXT = 0x29,
  WRITE_SECTORS = 0x30,
  WRITE_SECTORS_NO_RETRY = 0x31, // (3)
  WRITE_SECTORS_EXT = 0x34,
  WRITE_DMA_EXT = 0x35,
  WRITE_MULTIPLE_EXT = 0x39,
  WRITE_DMA_FUA_EXT = 0x3d, // ATA-7
  READ_VERIFY = 0x40,
  READ_VERIFY_NO_RETRY = 0x41, // (3)
  READ_VERIFY_EXT = 0x42,
  SEEK = 0x70, // and 71h-7Fh (3)
  EXECUTE_DIAGNOSTIC = 0x90,
  INITIALIZE_PARAMETERS = 0x91, // (3)
  STANDBY_IMMEDIATE_OLD = 0x94, // (3), as the other 9xh of power management
  IDLE_IMMEDIATE_OLD = 0x95,
  STANDBY_OLD = 0x96,
  IDLE_OLD = 0x97,
  CHECK_POWER_OLD = 0x98,
  SLEEP_OLD = 0x99,
  PACKET = 0xa0,
  IDENTIFY_PACKET_DEVICE = 0xa1,
  READ_MULTIPLE = 0xc4,
  WRITE_MULTIPLE = 0xc5,
  SET_MULTIPLE = 0xc6,
  READ_DMA = 0xc8,
  READ_DMA_NO_RETRY = 0xc9, // (3)
  WRITE_DMA = 0xca,
  WRITE_DMA_NO_RETRY = 0xcb,     // (3)
  WRITE_MULTIPLE_FUA_EXT = 0xce, // ATA-7
  STANDBY_IMMEDIATE = 0xe0,
  IDLE_IMMEDIATE = 0xe1,
  STANDBY = 0xe2,
  IDLE = 0xe3,
  CHECK_POWER = 0xe5,
  SLEEP = 0xe6,
  FLUSH_CACHE = 0xe7,
  FLUSH_CACHE_EXT = 0xea,
  IDENTIFY_DEVICE = 0xec,
  SET_FEATURES = 0xef,
  READ_NATIVE_MAX = 0xf8,
};
}

namespace feature { // subcommands of SET FEATURES [ATA 8.46]
enum : u8 { WRITE_CACHE_ON = 0x02, TRANSFER_MODE = 0x03, KEEP_SETTINGS = 0x66, WRITE_CACHE_OFF = 0x82 };
}

constexpr u32 SECTOR = VDEV_SECTOR_BYTES;
constexpr u8 MAX_MULTIPLE = 16;       // sectors a DRQ block of READ/WRITE MULTIPLE
constexpr u64 LBA28_LIMIT = 1u << 28; // sectors that 28-bit commands reach

} // namespace ide
