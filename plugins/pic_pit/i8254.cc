#include "i8254.hpp"

namespace i8254 {
namespace {

u32 from_bcd(u32 v) { return (v >> 12) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15); }
u32 to_bcd(u32 n) { return n / 1000 % 10 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10; }

} // namespace

u8 Counter::mode() const {
  const u8 m = control::M(state.control);
  return m & 2 ? m & 3 : m; // bit 2 is "don't care" in modes 2 and 3 [Figure 7]
}

u32 Counter::count() const {
  const u32 n = bcd() ? from_bcd(state.cr) % 10000 : state.cr;
  return n ? n : modulus(); // 0 is the largest count ["Counter operations common to all modes"]
}

// Before the first count after a control word is loaded, CE holds nothing that the datasheet names. An I/O cycle on a
// PC's bus is longer than a CLK pulse (838 ns), so no guest there looks that early; a faster one does, and finds what
// it wrote. Observed on Linux 6.1: its fast TSC calibration gives up if the first bytes read are not those of FFFFh.
u16 Counter::value() const {
  const bool first = state.load && !state.running;
  const u32 n = !first ? state.element : mode() == 3 ? count() & ~1u : count();
  return u16(bcd() ? to_bcd(n % 10000) : n);
}

void Counter::set_out(bool level, u64 tick) {
  if (level && !state.out) state.rise = tick;
  state.out = level;
}

// GATE is a level in modes 0, 2, 3, 4 and only an edge in 1 and 5 [Figure 21]. In mode 0 the first byte of a two-byte
// count disables counting.
bool Counter::counting() const {
  if (!state.running) return false;
  if (mode() == 1 || mode() == 5) return true;
  return state.gate && !(mode() == 0 && state.write_msb);
}

// CR → CE. In mode 3 an odd count is loaded less one.
void Counter::load_count() {
  state.loaded = count();
  state.element = mode() == 3 ? state.loaded & ~1u : state.loaded;
  state.null_count = state.load = false;
  state.running = state.armed = true;
}

// The CLK pulse after a count was written or a trigger came; it loads and does not decrement.
void Counter::load_pulse() {
  state.tick++;
  if (strobes()) set_out(true, state.tick); // the end of a strobe may fall on this pulse
  load_count();
  if (mode() == 1) set_out(false, state.tick);
  if (mode() == 2 || mode() == 3) set_out(true, state.tick);
}

void Counter::advance(u64 tick) {
  if (tick <= state.tick) return;
  if (state.load) load_pulse();
  if (tick == state.tick) return;
  if (strobes() && !state.out) set_out(true, state.tick + 1); // a strobe lasts one pulse, whatever GATE does
  if (counting()) {
    const u64 pulses = tick - state.tick;
    switch (mode()) {
      case 2: count_periods(pulses); break;
      case 3: count_half_cycles(pulses); break;
      default: count_down(pulses); break;
    }
  }
  state.tick = tick;
}

// Modes 0, 1, 4, 5: down to 0, which counts once a load, and on through the highest count.
void Counter::count_down(u64 pulses) {
  const u64 terminal = to_terminal();
  if (state.armed && pulses >= terminal) {
    state.armed = false;
    set_out(!strobes(), state.tick + terminal);
    if (strobes() && pulses > terminal) set_out(true, state.tick + terminal + 1);
  }
  state.element = u32((state.element % modulus() + modulus() - pulses % modulus()) % modulus());
}

// Mode 2: OUT is low while CE is 1; the pulse after that reloads. A count of 1 is illegal: OUT stays high.
void Counter::count_periods(u64 pulses) {
  const u64 end = state.tick + pulses;
  u64 since = pulses; // CLK pulses since the latest load
  if (pulses < to_terminal()) {
    state.element = u32(to_terminal() - pulses);
  } else {
    since -= to_terminal();
    if (state.loaded != 1) state.out = false;
    set_out(true, end - since);
    load_count();
    if (since >= state.loaded && state.loaded != 1) state.rise = end - since % state.loaded;
    state.element = u32(state.loaded - since % state.loaded);
  }
  if (state.loaded != 1 && state.element == 1) state.out = false;
}

// CLK pulses until OUT changes in mode 3. The high half of an odd count is one pulse longer than the low half.
u64 Counter::half_cycle() const {
  if (state.out && state.loaded & 1) return state.element / 2 + 1;
  return state.element < 2 ? 1 : state.element / 2;
}

// Mode 3: CE goes down by two; at the end of each half-cycle OUT changes and CE is reloaded, with a new count if there
// is one.
void Counter::count_half_cycles(u64 pulses) {
  while (pulses >= half_cycle()) {
    pulses -= half_cycle();
    state.tick += half_cycle();
    const bool was_illegal = state.loaded == 1;
    load_count();
    if (state.loaded == 1 || was_illegal) {
      set_out(true, state.tick);
      if (state.loaded == 1) return;
      continue;
    }
    set_out(!state.out, state.tick);
    if (state.out && pulses >= state.loaded) { // whole periods in one go
      const u64 rest = pulses % state.loaded;
      state.tick += pulses - rest;
      state.rise = state.tick;
      pulses = rest;
    }
  }
  state.element -= u32(2 * pulses);
}

u64 Counter::next_edge() const {
  CounterState copy = state;
  Counter c(copy);
  if (copy.load || (strobes() && !copy.out)) {
    c.advance(state.tick + 1);
    if (copy.out != state.out) return copy.tick;
  }
  if (!c.counting()) return NEVER;
  const bool idle = copy.loaded == 1 && c.count() == 1;
  switch (mode()) {
    case 2: return idle ? NEVER : copy.tick + c.to_terminal();
    case 3: return idle ? NEVER : copy.tick + c.half_cycle();
    default: return copy.armed ? copy.tick + c.to_terminal() + (strobes() ? 1 : 0) : NEVER;
  }
}

// "All Control Logic is immediately reset and OUT goes to a known initial state."
void Counter::write_control(u8 control_word) {
  state.control = control_word & control::KEPT;
  state.null_count = true;
  state.ready = state.load = state.running = state.armed = false;
  state.write_msb = state.read_msb = false;
  state.count_latched = state.status_latched = false; // "… or until the Counter is reprogrammed"
  set_out(mode() != 0, state.tick);
}

// A one-byte count leaves the other byte of CR clear: "both CRM and CRL are cleared when the Counter is programmed".
void Counter::write(u8 value) {
  switch (control::RW(state.control)) {
    case control::RW_LSB: state.cr = value; return count_written();
    case control::RW_MSB: state.cr = u16(value << 8); return count_written();
    default: break;
  }
  if (!state.write_msb) {
    state.lsb = value;
    state.write_msb = true;
    if (mode() == 0)
      set_out(false, state.tick); // "writing the first byte disables counting; OUT is set low immediately"
    return;
  }
  state.write_msb = false;
  state.cr = u16(value << 8 | state.lsb);
  count_written();
}

void Counter::count_written() {
  state.null_count = state.ready = true;
  switch (mode()) {
    case 0: set_out(false, state.tick), state.load = true; break;
    case 4: state.load = true; break;
    case 2:
    case 3: state.load |= !state.running; break; // else at the end of the cycle, or on a trigger
    default: break;                              // modes 1 and 5 wait for a trigger
  }
}

void Counter::set_gate(bool level) {
  if (level == state.gate) return;
  state.gate = level;
  const bool periodic = mode() == 2 || mode() == 3;
  if (level && state.ready && (periodic || mode() == 1 || mode() == 5)) state.load = true; // a trigger [Figure 21]
  if (!level && periodic) set_out(true, state.tick); // "OUT is set high immediately"
}

// A second latch command before the first has been read out is ignored ["Counter Latch Command", "Read-back Command"].
void Counter::latch_count() {
  if (state.count_latched) return;
  state.ol = value();
  state.count_latched = true;
  state.read_msb = false;
}

void Counter::latch_status() {
  if (state.status_latched) return;
  state.status_latch = u8(status::OUTPUT.of(state.out) | status::NULL_COUNT.of(state.null_count) | state.control);
  state.status_latched = true;
}

u8 Counter::read() {
  if (state.status_latched) { // status comes first, then the count
    state.status_latched = false;
    return state.status_latch;
  }
  const u16 v = state.count_latched ? state.ol : value();
  const u8 rw = control::RW(state.control);
  const bool msb = rw == control::RW_MSB || (rw == control::RW_LSB_MSB && state.read_msb);
  const bool last = rw != control::RW_LSB_MSB || state.read_msb;
  state.read_msb = !last;
  if (last) state.count_latched = false;
  return u8(msb ? v >> 8 : v);
}

void Pit::advance(u64 tick) {
  for (u32 i = 0; i < COUNTERS; i++) counter(i).advance(tick);
}

void Pit::write(u64 port, u8 value) {
  if (port < COUNTERS) return counter(u32(port)).write(value);
  if (port != CONTROL_WORD) return;
  const u8 sc = control::SC(value);
  if (sc == control::SC_READ_BACK) return read_back(value);
  if (control::RW(value) == control::RW_LATCH) return counter(sc).latch_count();
  counter(sc).write_control(value);
}

void Pit::read_back(u8 command) {
  for (u32 i = 0; i < COUNTERS; i++) {
    if (!(read_back::CNT(command) >> i & 1)) continue;
    if (!read_back::COUNT(command)) counter(i).latch_count();
    if (!read_back::STATUS(command)) counter(i).latch_status();
  }
}

u8 Pit::read(u64 port) { return port < COUNTERS ? counter(u32(port)).read() : 0xff; }

} // namespace i8254
