// The 8254: every mode, gate, access and latch. Counter 2 has a gate (61h bit 0) and its OUT can be read (61h bit 5);
// with the gate low it stands still, so what is read is exact however late this guest is.
#include "tests/guests/lib/guest.hpp"
#include "tests/guests/lib/pic.hpp"

namespace {

constexpr u16 COUNTER0 = 0x40, COUNTER2 = 0x42, CONTROL = 0x43, PORT61 = 0x61;
enum : u8 { LATCH = 0x00, LSB = 0x10, MSB = 0x20, BOTH = 0x30, BCD = 1 };
enum : u8 { OUT = 0x80, NULL_COUNT = 0x40 }; // status

u8 word(u32 counter, u8 access, u32 mode, u8 bcd = 0) {
  return static_cast<u8>(counter << 6 | access | mode << 1 | bcd);
}
void gate(bool high) { out8(PORT61, high ? 1 : 0); }
bool out2() { return (in8(PORT61) & 0x20) != 0; }
void load(u16 port, u16 count) {
  out8(port, static_cast<u8>(count));
  out8(port, static_cast<u8>(count >> 8));
}
u16 read_both(u16 port) {
  const u8 low = in8(port);
  return static_cast<u16>(low | in8(port) << 8);
}
void program(u32 mode, u16 count, u8 bcd = 0) {
  out8(CONTROL, word(2, BOTH, mode, bcd));
  load(COUNTER2, count);
}
void pulses() { // several CLK pulses, on the guest's side of the bus
  for (u32 i = 0; i < 4; ++i) in8(PORT61);
  wait_until([n = 0]() mutable { return ++n == 2000; });
}

struct Reading {
  u8 status;
  u16 count;
};
Reading read_back(u32 counter = 2) { // status and count, latched in one instant
  out8(CONTROL, static_cast<u8>(0xc0 | 2 << counter));
  Reading r{};
  r.status = in8(static_cast<u16>(COUNTER0 + counter));
  r.count = read_both(static_cast<u16>(COUNTER0 + counter));
  return r;
}
u8 status(u32 counter = 2) {
  out8(CONTROL, static_cast<u8>(0xe0 | 2 << counter));
  return in8(static_cast<u16>(COUNTER0 + counter));
}
// Mode bits, access and BCD of a status byte.
bool programmed_as(u8 s, u32 mode, u8 bcd = 0) { return (s & 0x3f) == (BOTH | mode << 1 | bcd); }

void accesses() {
  gate(false);
  program(0, 0x1234);
  pulses();
  check_equal(read_both(COUNTER2), 0x1234, "LSB then MSB");
  out8(CONTROL, word(2, LSB, 0));
  out8(COUNTER2, 0x56);
  pulses();
  check_equal(in8(COUNTER2), 0x56, "LSB only");
  check_equal(in8(COUNTER2), 0x56, "LSB only, again");
  check_equal(status() & 0x30, LSB, "LSB only in the status");
  out8(CONTROL, word(2, MSB, 0));
  out8(COUNTER2, 0x78);
  pulses();
  check_equal(in8(COUNTER2), 0x78, "MSB only");
  check_equal(status() & 0x30, MSB, "MSB only in the status");
  out8(CONTROL, LATCH | 2 << 6);
  check_equal(in8(COUNTER2), 0x78, "MSB only, latched");
}

void latches() {
  gate(false);
  program(0, 0x4321);
  pulses();
  out8(CONTROL, 2 << 6 | LATCH);
  program(0, 0x1111); // drops the latch: the counter is reprogrammed
  pulses();
  check_equal(read_both(COUNTER2), 0x1111, "a control word drops a latched count");

  out8(CONTROL, 2 << 6 | LATCH);
  load(COUNTER2, 0x2222);
  pulses();
  out8(CONTROL, 2 << 6 | LATCH); // ignored: the first has not been read
  check_equal(read_both(COUNTER2), 0x1111, "a latched count stays until it is read");
  check_equal(read_both(COUNTER2), 0x2222, "then the counter itself is read");

  const Reading r = read_back();
  check_equal(r.count, 0x2222, "read-back latches the count");
  check(programmed_as(r.status, 0), "read-back latches the status");
  check_equal(r.status & NULL_COUNT, 0, "null count is clear once the count is in");
  out8(CONTROL, 0xe0 | 2 << 2); // status alone
  load(COUNTER2, 0x3333);
  out8(CONTROL, 0xe0 | 2 << 2); // ignored
  check(programmed_as(in8(COUNTER2), 0), "a second status latch is ignored");
  pulses();
  check_equal(read_both(COUNTER2), 0x3333, "and the count follows");
  out8(CONTROL, 0xd0 | 2 << 2); // count alone
  check_equal(read_both(COUNTER2), 0x3333, "read-back of the count alone");
  out8(CONTROL, word(1, BOTH, 2));
  load(0x41, 0x8000);
  out8(CONTROL, 0xe0 | 2 << 2 | 2 << 1); // counters 1 and 2 at once
  check(programmed_as(in8(COUNTER2), 0), "read-back of two counters: the second's status");
  check(programmed_as(in8(0x41), 2), "read-back of two counters: the first's status");
}

void bcd() {
  gate(false);
  program(0, 0x1234, BCD);
  pulses();
  Reading r = read_back();
  check(r.count == 0x1234 && programmed_as(r.status, 0, BCD), "a BCD count reads back in BCD");
  gate(true);
  bool decimal = true, below = true;
  for (u32 i = 0; i < 500; ++i) {
    r = read_back();
    for (u32 shift = 0; shift < 16; shift += 4) decimal &= (r.count >> shift & 15) <= 9;
    if ((r.status & OUT) == 0) below &= r.count <= 0x1234;
  }
  check(decimal, "BCD: no digit above 9");
  check(below, "BCD: the count falls");
  check(wait_until([] { return out2(); }), "BCD: it ends");
  gate(false);
  program(0, 0, BCD);
  pulses();
  check_equal(read_back().count, 0, "BCD: 0 is loaded as 10000, read as 0000");
}

void mode0() {
  gate(false);
  program(0, 0x8000);
  check(!out2(), "mode 0: OUT is low after the control word");
  pulses();
  check_equal(read_back().count, 0x8000, "mode 0: the gate holds the count");
  gate(true);
  check(wait_until([] { return read_back().count != 0x8000; }), "mode 0: it counts with the gate high");
  gate(false);
  const Reading held = read_back();
  pulses();
  const Reading still = read_back();
  check(held.count == still.count && held.status == still.status, "mode 0: the gate stops it in the middle");
  gate(true);
  check(wait_until([] { return out2(); }), "mode 0: OUT rises at the end");
  pulses();
  check(out2(), "mode 0: and stays high");
  const u16 first = read_back().count;
  check(wait_until([first] { return read_back().count != first; }), "mode 0: counting goes on through FFFFh");
  gate(false);
  load(COUNTER2, 0x4000);
  check(!out2(), "mode 0: a new count lowers OUT");
  out8(COUNTER2, 0x00); // the first of two bytes
  gate(true);
  const u16 stopped = read_back().count;
  pulses();
  check_equal(read_back().count, stopped, "mode 0: the first byte of a count stops counting");
  out8(COUNTER2, 0x01);
  check(wait_until([] { return out2(); }), "mode 0: the second lets it run");
}

void mode1() {
  gate(false);
  program(1, 0x2000);
  pulses();
  check(out2(), "mode 1: OUT is high until the trigger");
  check_equal(status() & NULL_COUNT, NULL_COUNT, "mode 1: the count waits for the trigger");
  bool low = false, consistent = true;
  for (u32 tries = 0; tries < 200; ++tries) {
    gate(false);
    gate(true);
    Reading r = read_back();
    if ((r.status & OUT) == 0) {
      low = true;
      consistent &= r.count >= 1 && r.count <= 0x2000;
      gate(false); // a low gate does not stop the shot
    }
    if (!wait_until([&] { return (read_back().status & OUT) != 0; })) die("mode 1: the shot does not end");
    if (low) break;
  }
  check(low, "mode 1: OUT is low during the shot");
  check(consistent, "mode 1: and the count lies in it");
  check_equal(status() & NULL_COUNT, 0, "mode 1: the trigger loaded the count");
  load(COUNTER2, 0x1000);
  pulses();
  check(out2(), "mode 1: a new count alone starts nothing");
  check_equal(status() & NULL_COUNT, NULL_COUNT, "mode 1: it waits for the next trigger");
}

void mode2() {
  gate(false);
  program(2, 100);
  check(out2(), "mode 2: OUT is high with the gate low");
  gate(true);
  bool in_range = true, low_at_one = true;
  for (u32 i = 0; i < 3000; ++i) {
    const Reading r = read_back();
    if ((r.status & NULL_COUNT) != 0) continue;
    in_range &= r.count >= 1 && r.count <= 100;
    low_at_one &= ((r.status & OUT) == 0) == (r.count == 1);
  }
  check(in_range, "mode 2: the count runs from N to 1");
  check(low_at_one, "mode 2: OUT is low exactly while the count is 1");
  gate(false);
  check(out2(), "mode 2: a low gate raises OUT at once");
  const u16 held = read_back().count;
  pulses();
  check_equal(read_back().count, held, "mode 2: and stops the count");
  check(programmed_as(status(), 2), "mode 2 in the status");
  out8(CONTROL, word(2, BOTH, 6));
  check_equal(status() >> 1 & 3, 2, "mode 6 is mode 2");
}

void mode3() {
  for (u16 n = 1000; n <= 1001; ++n) {
    gate(false);
    program(3, n);
    check(out2(), "mode 3: OUT is high with the gate low");
    gate(true);
    bool even = true, in_range = true, high = false, low = false;
    for (u32 i = 0; i < 200'000 && !(i > 1000 && high && low); ++i) {
      const Reading r = read_back();
      if ((r.status & NULL_COUNT) != 0) continue;
      even &= (r.count & 1) == 0;
      in_range &= r.count <= n;
      ((r.status & OUT) != 0 ? high : low) = true;
    }
    check(even, "mode 3: the count goes by twos");
    check(in_range, "mode 3: and stays below N");
    check(high && low, "mode 3: OUT is a square wave");
  }
  gate(false);
  check(out2(), "mode 3: a low gate raises OUT at once");
  check(programmed_as(status(), 3), "mode 3 in the status");
}

void mode4_and_5() {
  gate(false);
  program(4, 0x3000);
  pulses();
  check(out2() && read_back().count == 0x3000, "mode 4: the gate holds the count, OUT is high");
  gate(true);
  check(wait_until([] {
          const Reading r = read_back();
          return (r.status & OUT) != 0 && r.count > 0x3000;
        }),
        "mode 4: after the strobe OUT is high and the count wraps");
  gate(false);
  program(5, 0x3000);
  pulses();
  check(out2() && (status() & NULL_COUNT) != 0, "mode 5: waits for its trigger");
  gate(true);
  check(wait_until([] { return (status() & NULL_COUNT) == 0; }), "mode 5: the trigger loads the count");
  gate(false); // and a low gate does not stop it
  check(wait_until([] {
          const Reading r = read_back();
          return (r.status & OUT) != 0 && r.count > 0x3000;
        }),
        "mode 5: after the strobe OUT is high and the count wraps");
  check(programmed_as(status(), 5), "mode 5 in the status");
}

// Counter 0's OUT is IRQ 0, its gate is tied high.
u32 interrupts(u32 mode, u16 count, u32 at_least) {
  using pic::log;
  out8(CONTROL, word(0, BOTH, mode));
  pic::start();
  log.clear();
  pic::open(1);
  load(COUNTER0, count);
  if (at_least != 0 && !wait_until([&] {
        enable();
        disable();
        return log.count[0] >= at_least;
      }))
    die("counter 0: no interrupt comes");
  // As long as it would take several more.
  const u64 periods = in8(PORT61) + 20u;
  for (u64 i = 0; i < periods; ++i) pulses(), pic::let_in();
  out8(CONTROL, word(0, BOTH, 0)); // silence: OUT low, no count
  pic::mask(0xffff);
  return log.count[0];
}

void counter0() {
  pic::handle_all();
  check_equal(interrupts(0, 2000, 1), 1, "mode 0 on counter 0: one interrupt");
  check_equal(interrupts(1, 2000, 0), 0, "mode 1 on counter 0: no trigger, none");
  check(interrupts(2, 12000, 10) >= 10, "mode 2 on counter 0: again and again");
  check(interrupts(3, 12000, 10) >= 10, "mode 3 on counter 0: again and again");
  check_equal(interrupts(4, 2000, 1), 1, "mode 4 on counter 0: one interrupt");
  check_equal(interrupts(5, 2000, 0), 0, "mode 5 on counter 0: no trigger, none");
}

void port61() {
  gate(false);
  const u8 first = in8(PORT61);
  check_equal(first & 0x03, 0, "61h: the written bits read back");
  out8(PORT61, 3);
  check_equal(in8(PORT61) & 0x0f, 3, "61h: gate and speaker");
  check(wait_until([first] { return ((in8(PORT61) ^ first) & 0x10) != 0; }), "61h: the refresh bit toggles");
  gate(false);
}

} // namespace

void guest_main() {
  accesses();
  latches();
  bcd();
  mode0();
  mode1();
  mode2();
  mode3();
  mode4_and_5();
  counter0();
  port61();
}
