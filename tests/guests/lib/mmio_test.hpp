// The test device (plugins/mmio_test/README.md), as guests program it. Instances mmio0, mmio1, mmio2 lie 64 KiB and 16
// ports apart, their interrupts on lines 5, 10 and 11.
#pragma once

#include "tests/guests/lib/guest.hpp"

struct TestDevice {
  u64 base;
  u16 port;

  enum : u64 {
    SCRATCH = 0,
    ID = 0x100,
    WRITES = 0x108,
    IRQ = 0x110,
    DMA_SOURCE = 0x118,
    DMA_TARGET = 0x120,
    DMA_LENGTH = 0x128,
    DMA_COMMAND = 0x130,
    TIMER = 0x138,
    EXPIRED = 0x140,
    POSTED = 0x180,
    DOORBELL = 0x1c0,
    RINGS = 0x1c8
  };
  enum : u16 { DATA = 0, SUM = 4, RUNS = 8, ELEMENTS = 12 };

  template <class T = u64>
  volatile T& reg(u64 offset) const {
    return at<T>(base + offset);
  }
  void raise() const { reg(IRQ) = 1; }
  void lower() const { reg(IRQ) = 0; }
};

inline constexpr TestDevice mmio0{0xd0000000, 0x1000}, mmio1{0xd0010000, 0x1010}, mmio2{0xd0020000, 0x1020};
