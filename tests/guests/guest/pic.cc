// The 8259A pair: every ICW and OCW, with interrupts from the test devices (lines 5, 10, 11; exact) and the PIT.
#include "tests/guests/lib/pic.hpp"

#include "tests/guests/lib/mmio_test.hpp"

namespace {
using namespace pic;

constexpr u16 IRQ5 = 1 << 5, IRQ10 = 1 << 10, IRQ11 = 1 << 11, ALL = IRQ5 | IRQ10 | IRQ11;

const TestDevice& source(u8 irq) { return irq == 5 ? mmio0 : irq == 10 ? mmio1 : mmio2; }
void quiet() {
  mmio0.lower();
  mmio1.lower();
  mmio2.lower();
}
void pulse(const TestDevice& d) {
  d.lower();
  d.raise();
}
void lower_source(u8 irq) {
  if (irq == 5 || irq == 10 || irq == 11) source(irq).lower();
}
void fresh(u8 icw4_master = UPM, u8 icw4_slave = UPM) {
  quiet();
  level_triggered(0);
  start(icw4_master, icw4_slave);
  log.clear();
  before_end = nullptr;
}

void initialisation() {
  fresh();
  open(ALL);
  check_equal(in8(MASTER + 1), 0xdb, "OCW1 reads back: master");
  check_equal(in8(SLAVE + 1), 0xf3, "OCW1 reads back: slave");
  out8(MASTER, ICW1 | IC4); // clears IMR; reading IRR is selected
  mmio0.raise();
  check_equal(in8(MASTER) & 0x20, 0x20, "ICW1 selects IRR for reading");
  out8(MASTER + 1, BASE), out8(MASTER + 1, 4), out8(MASTER + 1, UPM);
  check_equal(in8(MASTER + 1), 0, "ICW1 clears the mask");
  check_equal(irr(MASTER) & 0x20, 0x20, "an edge after ICW1 is a request");
  out8(MASTER, ICW1 | IC4);
  out8(MASTER + 1, BASE), out8(MASTER + 1, 4), out8(MASTER + 1, UPM);
  check_equal(irr(MASTER) & 0x20, 0, "ICW1 resets edge detection: a high line needs a new edge");
  out8(MASTER, ICW1 | IC4 | SNGL); // ICW3 is left out
  out8(MASTER + 1, BASE), out8(MASTER + 1, UPM), out8(MASTER + 1, 0x5a);
  check_equal(in8(MASTER + 1), 0x5a, "SNGL: after ICW2 and ICW4 comes OCW1");
  out8(MASTER, ICW1); // ICW4 is left out
  out8(MASTER + 1, BASE), out8(MASTER + 1, 4), out8(MASTER + 1, 0xa5);
  check_equal(in8(MASTER + 1), 0xa5, "IC4 = 0: after ICW3 comes OCW1");
}

void vectors_and_masks() {
  fresh();
  open(ALL);
  mmio0.raise(), mmio1.raise(), mmio2.raise();
  check_equal(irr(MASTER), 0x24, "IRR of the master: line 5 and the cascade");
  check_equal(irr(SLAVE), 0x0c, "IRR of the slave: lines 10 and 11");
  let_in();
  check_equal(log.total, 3, "three edges are three interrupts");
  check(log.order[0] == 10 && log.order[1] == 11 && log.order[2] == 5, "in order of priority: 10, 11, 5");
  check(irr(MASTER) == 0 && irr(SLAVE) == 0 && isr(MASTER) == 0 && isr(SLAVE) == 0, "nothing is left");
  let_in();
  check_equal(log.total, 3, "an edge counts once, however long the line is high");

  fresh();
  open(IRQ10);
  pulse(mmio0), pulse(mmio1);
  let_in();
  check(log.total == 1 && log.count[10] == 1, "a masked request waits");
  check_equal(irr(MASTER) & 0x20, 0x20, "in IRR");
  open(ALL);
  let_in();
  check_equal(log.count[5], 1, "and comes when it is unmasked");
  start(UPM, UPM);
  out8(SLAVE, ICW1 | IC4); // another base, slave alone
  out8(SLAVE + 1, 0x50), out8(SLAVE + 1, 2), out8(SLAVE + 1, UPM);
  static volatile u32 moved;
  moved = 0;
  handle(0x52, [](Frame&) {
    moved = moved + 1;
    end(10);
  });
  open(IRQ10);
  pulse(mmio1);
  let_in();
  check_equal(moved, 1, "ICW2 moves the slave's vectors");
}

// ISR, nested interrupts and both kinds of EOI, by poll mode: exact, no interrupt is delivered.
void polled() {
  fresh();
  open(ALL);
  check_equal(poll(MASTER) & 0x80, 0, "a poll without a request says so");
  pulse(mmio0);
  check_equal(poll(MASTER), 0x85, "a poll names line 5");
  check_equal(isr(MASTER), 0x20, "and puts it in service");
  check_equal(irr(MASTER) & 0x20, 0, "and takes its request");
  pulse(mmio0);
  check_equal(poll(MASTER) & 0x80, 0, "a line in service holds back itself");
  pulse(mmio1);
  check_equal(poll(MASTER), 0x82, "but not a higher one");
  check_equal(poll(SLAVE), 0x82, "the slave's poll names its line 2");
  check_equal(isr(MASTER), 0x24, "both are in service");
  out8(MASTER, NONSPECIFIC);
  check_equal(isr(MASTER), 0x20, "a nonspecific EOI ends the highest");
  out8(MASTER, SPECIFIC | 5);
  check_equal(isr(MASTER), 0, "a specific EOI ends its level");
  check_equal(isr(SLAVE), 4, "the slave's ISR is its own");
  out8(SLAVE, SPECIFIC | 2);
  check_equal(isr(SLAVE), 0, "and needs its own EOI");
  check_equal(poll(MASTER), 0x85, "the edge that came meanwhile was kept");
  out8(MASTER, NONSPECIFIC);
}

void rotation() {
  fresh();
  open(ALL);
  out8(MASTER, SET_PRIORITY | 4); // 5 is the highest now
  pulse(mmio0), pulse(mmio1);
  check_equal(poll(MASTER), 0x85, "set priority: 5 before 2");
  out8(MASTER, ROTATE); // nonspecific EOI; 5 becomes the lowest
  check_equal(isr(MASTER), 0, "rotate on nonspecific EOI ends it");
  pulse(mmio0);
  check_equal(poll(MASTER), 0x82, "and makes 5 the lowest");
  out8(MASTER, ROTATE_SPECIFIC | 2); // 2 becomes the lowest
  check_equal(isr(MASTER), 0, "rotate on specific EOI ends it");
  check_equal(poll(MASTER), 0x85, "5 again");
  out8(MASTER, ROTATE_SPECIFIC | 5);
  out8(MASTER, SET_PRIORITY | 7);
  out8(SLAVE, SPECIFIC | 2);
  // On the slave: 11 before 10 after priority is set to 2.
  pulse(mmio1), pulse(mmio2);
  out8(SLAVE, SET_PRIORITY | 2);
  check_equal(poll(SLAVE), 0x83, "set priority on the slave: 11 before 10");
  out8(SLAVE, SPECIFIC | 3);
  out8(SLAVE, SET_PRIORITY | 7);
  check_equal(poll(SLAVE), 0x82, "and 10 after it");
}

void automatic_eoi() {
  fresh(UPM | AEOI);
  open(IRQ5);
  pulse(mmio0);
  check_equal(poll(MASTER), 0x85, "AEOI: a poll takes the request");
  check_equal(isr(MASTER), 0, "AEOI: nothing stays in service");
  static volatile u32 seen, in_service;
  seen = 0;
  handle(BASE + 5, [](Frame&) {
    seen = seen + 1;
    in_service = isr(MASTER);
  });
  pulse(mmio0);
  let_in();
  check(seen == 1 && in_service == 0, "AEOI: an acknowledged interrupt is not in service");
  out8(MASTER, ROTATE_AEOI_SET);
  pulse(mmio0);
  let_in(); // 5 becomes the lowest
  check_equal(seen, 2, "rotate in AEOI: the interrupt comes");
  open(ALL);
  out8(MASTER, ROTATE_AEOI_CLEAR);
  out8(MASTER, READ_IRR);
  pulse(mmio0), pulse(mmio1);
  check_equal(poll(MASTER), 0x82, "rotate in AEOI: 5 went to the end");
  check_equal(poll(MASTER), 0x85, "5 is still asked for");
  handle(BASE + 5, on_irq);
}

void special_masks() {
  fresh();
  open(ALL);
  pulse(mmio1);
  check_equal(poll(SLAVE), 0x82, "10 is in service");
  pulse(mmio2);
  check_equal(poll(SLAVE) & 0x80, 0, "11 has to wait for 10");
  out8(SLAVE, SMM_SET);
  out8(SLAVE + 1, in8(SLAVE + 1) | 4);
  check_equal(poll(SLAVE), 0x83, "special mask mode: a masked level in service holds nobody back");
  out8(SLAVE, NONSPECIFIC);
  check_equal(isr(SLAVE) & 4, 4, "a nonspecific EOI skips a level that is masked by SMM");
  out8(SLAVE, SMM_CLEAR);
  out8(SLAVE, SPECIFIC | 2), out8(SLAVE, SPECIFIC | 3);
  check_equal(isr(SLAVE), 0, "specific EOIs end both");

  for (u32 nested = 0; nested < 2; ++nested) { // special fully nested mode
    fresh(static_cast<u8>(UPM | (nested ? SFNM : 0)));
    open(ALL);
    pulse(mmio2);
    check_equal(poll(MASTER), 0x82, "the cascade is in service");
    check_equal(poll(SLAVE), 0x83, "for 11");
    pulse(mmio1);
    check_equal(
        poll(MASTER), nested ? 0x82 : 0,
        nested ? "SFNM: a higher line of the slave passes" : "without SFNM the slave waits for its cascade line");
  }
}

void levels() {
  fresh();
  level_triggered(0xffff);
  check_equal(in8(ELCR), 0xf8, "ELCR: lines 0, 1, 2 are edges");
  check_equal(in8(ELCR + 1), 0xde, "ELCR: lines 8 and 13 are edges");
  level_triggered(ALL);
  open(ALL);
  before_end = [](u8 irq) {
    if (log.count[irq] == 3) source(irq).lower();
  };
  mmio0.raise(), mmio1.raise();
  let_in();
  check(log.count[5] == 3 && log.count[10] == 3, "a level comes again after each EOI until it is lowered");
  check(irr(MASTER) == 0 && irr(SLAVE) == 0, "and is gone from IRR with it");
  before_end = lower_source;
  log.clear();
  mmio0.raise();
  mmio0.lower();
  check_equal(irr(MASTER), 0, "a level that went away is no request");
  check_equal(poll(MASTER) & 0x80, 0, "nor in a poll");
  for (u32 i = 0; i < 200; ++i) {
    mmio2.raise();
    let_in();
    if (log.count[11] != 1 || log.total != 1) die("a level interrupt does not come once");
    log.clear();
  }
  check(true, "200 level interrupts, each once");
}

// Requests that vanish before they are taken.
void vanishing() {
  fresh();
  level_triggered(IRQ5);
  open(IRQ5 | 1 << 7);
  static volatile u32 spurious, spurious_in_service;
  spurious = 0;
  spurious_in_service = 0;
  handle(BASE + 7, [](Frame&) {
    spurious = spurious + 1;
    if (isr(MASTER) & 0x80) spurious_in_service = 1;
  });
  for (u32 i = 0; i < 500; ++i) {
    mmio0.raise();
    mmio0.lower();
    enable();
    disable();
  }
  let_in();
  check_equal(log.total, 0, "a request that was withdrawn is never delivered as itself");
  check_equal(spurious_in_service, 0, "a spurious interrupt 7 sets no ISR bit");
  check_equal(isr(MASTER), 0, "and leaves none");
  check_equal(spurious, 0, "a deassert is there before the next instruction: no spurious interrupt");
  handle(BASE + 7, on_irq);
}

void timer_edges() {
  fresh();
  out8(0x43, 0x30), out8(0x40, 0x00), out8(0x40, 0x10); // counter 0, mode 0
  open(1);
  log.clear();
  check(wait_until([] {
          enable();
          disable();
          return log.count[0] != 0;
        }),
        "IRQ 0 comes when counter 0 ends");
  let_in();
  check_equal(log.count[0], 1, "once");
}

} // namespace

void guest_main() {
  handle_all();
  initialisation();
  vectors_and_masks();
  polled();
  rotation();
  automatic_eoi();
  special_masks();
  levels();
  vanishing();
  timer_edges();
}
