// New code comes by disk DMA, from another process and the kernel, over code that has just run; the guest polls.
#include "tests/guests/lib/guest.hpp"

namespace {

constexpr u16 COMMAND = 0x1f0, BUS_MASTER = 0xc000;
constexpr u32 TABLE = 0x500000, CODE = 0x600000;

u32 call(u64 address) {
  u32 result;
  asm volatile("call *%1" : "=a"(result) : "r"(address) : "memory", "rcx", "rdx", "cc");
  return result;
}

} // namespace

void guest_main() {
  pci_write(1, 1, 0x40, 0x80008000);
  pci_write(1, 1, 0x20, BUS_MASTER | 1);
  pci_write(1, 1, 0x04, 5);
  at<u32>(TABLE) = CODE;
  at<u32>(TABLE + 4) = 1u << 31 | 512;
  u64 stale = 0;
  for (u32 round = 0; round < 1000; ++round) {
    const u8 sector = static_cast<u8>(round % 64); // each holds: mov eax, 1000 + sector; ret
    out8(BUS_MASTER + 0, 8);
    out32(BUS_MASTER + 4, TABLE);
    out8(BUS_MASTER + 2, 6);
    out8(COMMAND + 6, 0xe0), out8(COMMAND + 2, 1);
    out8(COMMAND + 3, sector), out8(COMMAND + 4, 0), out8(COMMAND + 5, 0);
    out8(COMMAND + 7, 0xc8);
    out8(BUS_MASTER + 0, 9);
    if (!wait_until([] { return (in8(BUS_MASTER + 2) & 4) != 0; })) die("the disk does not answer");
    if (call(CODE) != 1000u + sector) ++stale;
    in8(COMMAND + 7);
  }
  check_equal(stale, 0, "what was read from the disk is what runs");
}
