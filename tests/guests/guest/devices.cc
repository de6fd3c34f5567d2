// Touches devices in a fixed order, so that a test can say at which call the host shall die: the test device, the UART,
// the IDE controller, the PIC.
#include "tests/guests/lib/mmio_test.hpp"
#include "tests/guests/lib/pic.hpp"

void guest_main() {
  using namespace pic;
  handle_all();
  before_end = [](u8 irq) {
    if (irq == 5) mmio0.lower();
    if (irq == 14) in8(0x1f7);
    if (irq == 4) in8(0x3fa);
  };
  start();
  open(1 << 4 | 1 << 5 | 1 << 14);
  for (u32 i = 0; i < 10; ++i) {
    mmio0.raise();
    let_in();
  }
  check_equal(log.count[5], 10, "ten interrupts of the test device");

  out8(0x3fc, 0x08); // OUT2
  out8(0x3f9, 0x02); // transmitter empty
  for (u32 i = 0; i < 10; ++i) {
    out8(0x3f8, 'x');
    let_in();
  }
  check(log.count[4] >= 10, "an interrupt for each byte");

  pci_write(1, 1, 0x40, 0x80008000);
  out8(0x1f6, 0xe0);
  for (u32 i = 0; i < 5; ++i) {
    log.count[14] = 0;
    out8(0x1f2, 1);
    out8(0x1f3, 0), out8(0x1f4, 0), out8(0x1f5, 0);
    out8(0x1f7, 0x20);
    if (!wait_until([] {
          enable();
          disable();
          return log.count[14] != 0;
        }))
      die("the disk does not answer");
    check_equal(in16(0x1f0), 'd' | 'd' << 8, "its data");
    for (u32 n = 1; n < 256; ++n) in16(0x1f0);
  }
}
