// The local APIC's timer, the I/O APIC with edges and levels, and the RTC's periodic interrupt on both ways.
#include "tests/guests/lib/mmio_test.hpp"
#include "tests/guests/lib/pic.hpp"

namespace {

constexpr u64 LAPIC = 0xfee00000, IOAPIC = 0xfec00000;
enum : u64 {
  ID = 0x20,
  VERSION = 0x30,
  TPR = 0x80,
  EOI = 0xb0,
  SVR = 0xf0,
  ISR = 0x100,
  IRR = 0x200,
  ICR = 0x300,
  TIMER = 0x320,
  LINT0 = 0x350,
  INITIAL = 0x380,
  CURRENT = 0x390,
  DIVIDE = 0x3e0
};
enum : u32 { MASKED = 1 << 16, PERIODIC = 1 << 17, LEVEL = 1 << 15 };

volatile u32& lapic(u64 offset) { return at<u32>(LAPIC + offset); }
u32 io_read(u32 reg) {
  at<u32>(IOAPIC) = reg;
  return at<u32>(IOAPIC + 0x10);
}
void io_write(u32 reg, u32 value) {
  at<u32>(IOAPIC) = reg;
  at<u32>(IOAPIC + 0x10) = value;
}
void redirect(u32 pin, u32 low) {
  io_write(0x11 + 2 * pin, lapic(ID));
  io_write(0x10 + 2 * pin, low);
}

volatile u32 ticks, edges, levels, ipis, in_service;
void let_in() {
  for (u32 i = 0; i < 20; ++i) {
    enable();
    disable();
  }
}
template <class Condition>
bool wait_with_interrupts(Condition condition) {
  return wait_until([&] {
    enable();
    disable();
    return condition();
  });
}

void timer() {
  lapic(SVR) = 0x1ff;
  check_equal(lapic(VERSION) & 0xf0, 0x10, "an integrated APIC");
  handle(0x40, [](Frame&) {
    ticks = ticks + 1;
    in_service = lapic(ISR + 0x20) & 1;
    lapic(EOI) = 0;
  });
  lapic(DIVIDE) = 0xb; // by 1
  lapic(TIMER) = 0x40;
  lapic(INITIAL) = 100'000;
  check(wait_with_interrupts([] { return ticks != 0; }), "the one-shot timer fires");
  check_equal(in_service, 1, "its vector is in service in the handler");
  for (u32 i = 0; i < 2000; ++i) let_in();
  check_equal(ticks, 1, "once");
  check_equal(lapic(CURRENT), 0, "its count stands at zero");
  lapic(TIMER) = 0x40 | PERIODIC;
  lapic(INITIAL) = 50'000;
  check(wait_with_interrupts([] { return ticks >= 11; }), "the periodic timer fires ten times");
  lapic(TIMER) = 0x40 | PERIODIC | MASKED;
  let_in();
  const u32 before = ticks;
  const u32 count = lapic(CURRENT);
  check(wait_until([count] { return lapic(CURRENT) != count; }), "a masked timer counts");
  for (u32 i = 0; i < 2000; ++i) let_in();
  check_equal(ticks, before, "and is silent");
  lapic(INITIAL) = 0;
}

void self() {
  handle(0x51, [](Frame&) {
    ipis = ipis + 1;
    lapic(EOI) = 0;
  });
  lapic(ICR) = 0x40000 | 0x51; // self, fixed
  check_equal(lapic(IRR + 0x20) >> 17 & 1, 1, "an interrupt to itself is requested");
  lapic(TPR) = 0x60;
  let_in();
  check_equal(ipis, 0, "the task priority holds it back");
  u64 cr8;
  asm volatile("mov %%cr8, %0" : "=r"(cr8));
  check_equal(cr8, 6, "CR8 is the task priority");
  asm volatile("mov %0, %%cr8" : : "r"(u64{0}));
  let_in();
  check_equal(ipis, 1, "and lets it in");
}

void pins() {
  pic::start(); // everything masked: the I/O APIC alone
  lapic(LINT0) = MASKED | 0x700;
  check_equal(io_read(1) >> 16 & 0xff, 23, "the I/O APIC has 24 pins");
  check_equal(io_read(0x10 + 2 * 20) & MASKED, MASKED, "a pin is masked after reset");
  handle(0x60, [](Frame&) {
    edges = edges + 1;
    lapic(EOI) = 0;
  });
  redirect(5, 0x60);
  for (u32 i = 1; i <= 50; ++i) {
    mmio0.lower();
    mmio0.raise();
    let_in();
    if (edges != i) die("an edge on pin 5 is one interrupt");
  }
  check_equal(edges, 50, "fifty edges on pin 5");
  redirect(5, 0x60 | MASKED);
  mmio0.lower();
  mmio0.raise();
  let_in();
  check_equal(edges, 50, "a masked edge is lost");
  redirect(5, 0x60);
  let_in();
  check_equal(edges, 50, "for good");
  mmio0.lower();

  handle(0x61, [](Frame&) {
    levels = levels + 1;
    in_service = io_read(0x10 + 2 * 10) >> 14 & 1;
    if (levels % 3 == 0) mmio1.lower();
    lapic(EOI) = 0;
  });
  redirect(10, 0x61 | LEVEL);
  for (u32 i = 1; i <= 50; ++i) {
    mmio1.raise();
    let_in();
    if (levels != 3 * i) die("a level on pin 10 comes again after each EOI until it is lowered");
    if (in_service != 1) die("remote IRR is set until the EOI");
  }
  check_equal(levels, 150, "fifty levels on pin 10, three times each");
  check_equal(io_read(0x10 + 2 * 10) >> 14 & 1, 0, "remote IRR is clear at the end");
  redirect(10, 0x61 | LEVEL | MASKED);
  mmio1.raise();
  let_in();
  check_equal(levels, 150, "a masked level waits");
  redirect(10, 0x61 | LEVEL);
  let_in();
  check_equal(levels, 153, "and comes when it is unmasked");
}

u8 cmos(u8 index) { return out8(0x70, index), in8(0x71); }
void cmos(u8 index, u8 value) { out8(0x70, index), out8(0x71, value); }

// Posted writes reach the device before the EOI of its interrupt.
void posted_before_eoi() {
  handle(0x61, [](Frame&) {
    for (u32 i = 0; i < 8; ++i) mmio1.reg(TestDevice::POSTED + 8 * i) = levels;
    mmio1.lower();
    levels = levels + 1;
    lapic(EOI) = 0;
  });
  levels = 0;
  for (u32 i = 1; i <= 50; ++i) {
    mmio1.raise();
    let_in();
    if (levels != i) die("one interrupt for each level");
  }
  check_equal(mmio1.reg(TestDevice::POSTED), 49, "what was posted in a handler is there");
  redirect(10, MASKED);
}

volatile u32 periodic;
void clock() {
  handle(0x68, [](Frame&) {
    periodic = periodic + 1;
    cmos(0x0c);
    lapic(EOI) = 0;
  });
  redirect(8, 0x68);
  cmos(0x0a, 0x26), cmos(0x0b, 0x42); // 1024 Hz, periodic, 24 h
  cmos(0x0c);
  check(wait_with_interrupts([] { return periodic >= 5; }), "the RTC's periodic interrupt by the I/O APIC");
  redirect(8, MASKED);
  lapic(LINT0) = 0x700; // ExtINT: the PIC
  pic::handle_all();
  pic::before_end = [](u8 irq) {
    if (irq == 8) cmos(0x0c);
  };
  pic::log.clear();
  cmos(0x0c);
  pic::open(1 << 8);
  check(wait_with_interrupts([] { return pic::log.count[8] >= 5; }), "and by the PIC");
  cmos(0x0b, 0x02);
  pic::mask(0xffff);
}

} // namespace

void guest_main() {
  timer();
  self();
  pins();
  posted_before_eoi();
  clock();
}
