// The 16550A at 3F8h: loopback, FIFOs, every interrupt source; IRQ 4.
#include "tests/guests/lib/guest.hpp"
#include "tests/guests/lib/pic.hpp"

namespace {

constexpr u16 BASE = 0x3f8;
enum : u16 {
  DATA = BASE,
  IER = BASE + 1,
  IIR = BASE + 2,
  FCR = BASE + 2,
  LCR = BASE + 3,
  MCR = BASE + 4,
  LSR = BASE + 5,
  MSR = BASE + 6,
  SCR = BASE + 7
};
enum : u8 { LOOP = 0x10, OUT2 = 8 };
enum : u8 { DR = 1, OE = 2, THRE = 0x20, TEMT = 0x40 };

void fresh(u8 fifo) {
  out8(LCR, 3), out8(MCR, LOOP), out8(IER, 0);
  out8(FCR, 0), out8(FCR, fifo);
  in8(LSR), in8(DATA), in8(MSR), in8(IIR);
}

void registers() {
  fresh(0);
  for (u32 v = 0; v < 256; v += 17) {
    out8(SCR, static_cast<u8>(v));
    check_equal(in8(SCR), v, "the scratch register");
  }
  out8(LCR, 0x83);
  out8(BASE, 0x0c), out8(BASE + 1, 0x01);
  check(in8(BASE) == 0x0c && in8(BASE + 1) == 0x01, "the divisor latch reads back");
  out8(LCR, 3);
  out8(IER, 0xff);
  check_equal(in8(IER), 0x0f, "IER has four bits");
  out8(IER, 0);
  out8(MCR, 0xff);
  check_equal(in8(MCR), 0x1f, "MCR has five");
  out8(MCR, LOOP);
  check_equal(in8(LSR) & (THRE | TEMT), THRE | TEMT, "an idle transmitter is empty");
}

void modem() {
  fresh(0);
  // DTR → DSR, RTS → CTS, OUT1 → RI, OUT2 → DCD
  constexpr struct { u8 mcr, msr; } WIRES[] = {{1, 0x20}, {2, 0x10}, {4, 0x40}, {8, 0x80}};
  for (const auto& wire : WIRES) {
    out8(MCR, static_cast<u8>(LOOP | wire.mcr));
    check_equal(in8(MSR) & 0xf0, wire.msr, "loopback wires a modem output to its input");
  }
  out8(MCR, LOOP);
  in8(MSR);
  check_equal(in8(MSR) & 0x0f, 0, "reading MSR clears the deltas");
  out8(MCR, LOOP | 1);
  check_equal(in8(MSR) & 0x0f, 2, "a change of DSR is remembered");
}

void without_fifo() {
  fresh(0);
  check_equal(in8(IIR) & 0xc0, 0, "no FIFO in IIR");
  out8(DATA, 0x5a);
  check(wait_until([] { return (in8(LSR) & DR) != 0; }), "a byte comes back in loopback");
  check_equal(in8(DATA), 0x5a, "the same byte");
  check_equal(in8(LSR) & DR, 0, "once");
  out8(DATA, 1);
  wait_until([] { return (in8(LSR) & DR) != 0; });
  out8(DATA, 2);
  check(wait_until([] { return (in8(LSR) & OE) != 0; }), "a second byte overruns");
  check_equal(in8(LSR) & OE, 0, "reading LSR clears the overrun");
  check_equal(in8(DATA), 2, "without FIFO the newer byte stays");
}

void with_fifo() {
  fresh(1);
  check_equal(in8(IIR) & 0xc0, 0xc0, "the FIFO shows in IIR");
  for (u8 i = 0; i < 16; ++i) out8(DATA, i);
  check_equal(in8(LSR) & OE, 0, "sixteen bytes fit");
  out8(DATA, 99);
  check_equal(in8(LSR) & OE, OE, "the seventeenth overruns");
  bool order = true;
  for (u8 i = 0; i < 16; ++i) order &= in8(DATA) == i;
  check(order, "in order; the FIFO keeps the older bytes");
  check_equal(in8(LSR) & DR, 0, "and is empty then");
  out8(DATA, 1), out8(DATA, 2);
  out8(FCR, 3);
  check_equal(in8(LSR) & DR, 0, "FCR bit 1 empties the receiver");
  constexpr u8 LEVELS[] = {1, 4, 8, 14};
  for (u8 n = 0; n < 4; ++n) { // trigger levels
    fresh(static_cast<u8>(1 | n << 6));
    out8(IER, 1);
    for (u8 i = 1; i < LEVELS[n]; ++i) out8(DATA, i);
    if (n != 0) check((in8(IIR) & 0x0f) != 4, "below the trigger level: no received-data interrupt");
    out8(DATA, 0);
    check_equal(in8(IIR) & 0x0f, 4, "at the trigger level: received data");
    for (u8 i = 0; i < LEVELS[n]; ++i) in8(DATA);
    check_equal(in8(IIR) & 0x0f, 1, "read empty: no interrupt");
  }
  fresh(0xc1);
  out8(LCR, 0x83), out8(BASE, 1), out8(BASE + 1, 0), out8(LCR, 3);
  out8(IER, 1);
  out8(DATA, 7);
  check(wait_until([] { return (in8(IIR) & 0x0f) == 0x0c; }), "below the level a byte times out");
  in8(DATA);
  check_equal(in8(IIR) & 0x0f, 1, "and reading it ends that");
}

void priorities() {
  fresh(0);
  out8(IER, 0x0f);
  in8(IIR); // transmitter empty, acknowledged
  out8(MCR, LOOP | 1);
  check_equal(in8(IIR), 0, "lowest: modem status");
  out8(DATA, 1);
  wait_until([] { return (in8(LSR) & DR) != 0; });
  check_equal(in8(IIR), 4, "before it: received data");
  out8(DATA, 2);
  check_equal(in8(IIR), 6, "before all: the line status");
  in8(LSR);
  check_equal(in8(IIR), 4, "received data again");
  in8(DATA);
  check_equal(in8(IIR), 2, "then the transmitter");
  check_equal(in8(IIR), 0, "whose interrupt the reading of IIR takes; modem status again");
  in8(MSR);
  check_equal(in8(IIR), 1, "nothing left");
}

void interrupts() {
  using pic::log;
  fresh(0);
  pic::handle_all();
  pic::start();
  pic::open(1 << 4);
  log.clear();
  pic::before_end = [](u8 irq) {
    if (irq == 4) in8(IIR);
  };
  out8(MCR, 0);
  out8(IER, 2);
  pic::let_in();
  check_equal(log.total, 0, "without OUT2 there is no IRQ 4");
  out8(IER, 0);
  out8(MCR, OUT2);
  for (u32 i = 1; i <= 20; ++i) {
    out8(IER, 2); // THRE is set: the interrupt comes at once
    pic::let_in();
    check_equal(log.count[4], i, "IRQ 4 by THRE, once each");
    out8(IER, 0);
  }
  out8(IER, 2);
  pic::let_in();
  log.clear();
  for (u32 i = 1; i <= 20; ++i) {
    out8(DATA, 'x');
    pic::let_in();
    check_equal(log.count[4], i, "IRQ 4 for each byte sent");
  }
  out8(MCR, OUT2 | LOOP);
  out8(DATA, 'x');
  pic::let_in();
  check_equal(log.total, 20, "in loopback there is no IRQ 4");
  out8(IER, 0);
}

} // namespace

void guest_main() {
  registers();
  modem();
  without_fifo();
  with_fifo();
  priorities();
  interrupts();
}
