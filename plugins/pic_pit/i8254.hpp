// Intel 8254 programmable interval timer: one Counter, three times.
// Models:  modes 0-5 with gate and triggers, binary and BCD, the three access forms, counter latch, read-back, null
// count.
//          A counter is a value and the CLK pulse at which it held; advance() goes to any later pulse in constant time.
// Missing: nothing that a program can see.
// Undefined by the datasheet, chosen here: before its first control word a counter is idle with OUT high; a count of 1
// in
//          modes 2 and 3 ("illegal") leaves OUT high; BCD digits above 9 count by their weight; a counter latch command
//          between the two bytes of a read starts again at the LSB; the control word address reads FFh.
// Ignored bits: read-back command D0.
// Source:  Intel 231164-005, "82C54", and 231244-006, "8254"; headings as printed there.
#pragma once

#include "i8254_regs.hpp"

namespace i8254 {

inline constexpr u64 NEVER = VDEV_NEVER;

struct CounterState {
  u64 tick = 0;    // CLK pulses since the clock's origin that this value has seen
  u64 rise = 0;    // the pulse of OUT's latest rising edge
  u32 element = 0; // CE, as a number; 65536 is 0 as it reads
  u32 loaded = 1;  // the count that CE was last loaded with
  u16 cr = 0;      // count register, as written
  u16 ol = 0;      // output latch
  u8 control = control::RW_LSB_MSB << 4 | 3 << 1;
  u8 lsb = 0;          // first byte of a two-byte write
  u8 status_latch = 0; // status byte waiting to be read
  bool out = true, gate = true;
  bool null_count = true;
  bool ready = false;     // CR holds a whole count of this control word
  bool load = false;      // the next CLK pulse moves CR into CE
  bool running = false;   // CE has been loaded since the control word
  bool armed = false;     // CE's next passage of 0 changes OUT (modes 0, 1, 4, 5)
  bool write_msb = false; // the second byte of a count comes next
  bool read_msb = false;
  bool count_latched = false, status_latched = false;

  bool valid() const { return loaded != 0; }
  friend bool operator==(const CounterState&, const CounterState&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [tick, rise, element, loaded, cr, ol, control, lsb, status_latch, out, gate, null_count, ready, load, running,
           armed, write_msb, read_msb, count_latched, status_latched] = s;
    f(1, "tick", tick), f(2, "rise", rise), f(3, "element", element, 65536), f(4, "loaded", loaded, 65536);
    f(5, "cr", cr), f(6, "ol", ol), f(7, "control", control, control::KEPT), f(8, "lsb", lsb);
    f(9, "status_latch", status_latch), f(10, "out", out), f(11, "gate", gate), f(12, "null_count", null_count);
    f(13, "ready", ready), f(14, "load", load), f(15, "running", running), f(16, "armed", armed);
    f(17, "write_msb", write_msb), f(18, "read_msb", read_msb), f(19, "count_latched", count_latched);
    f(20, "status_latched", status_latched);
  }
};

class Counter {
 public:
  explicit Counter(CounterState& s) : state(s) {}
  CounterState& state;

  void advance(u64 tick); // to that CLK pulse; never back
  void write_control(u8 control_word);
  void write(u8 value);
  u8 read();
  void latch_count();
  void latch_status();
  void set_gate(bool level);

  // The CLK pulse of OUT's next change; of a strobe, its end. NEVER: none without a write or a gate edge.
  u64 next_edge() const;

 private:
  u8 mode() const;
  bool bcd() const { return control::BCD(state.control) != 0; }
  u32 modulus() const { return bcd() ? 10000 : 65536; }
  u32 count() const; // CR as a number, 1 … modulus
  u16 value() const; // CE as it reads
  bool counting() const;
  bool strobes() const { return mode() >= 4; }
  u64 to_terminal() const { return state.element ? state.element : modulus(); }
  u64 half_cycle() const;
  void set_out(bool level, u64 tick);
  void count_written();
  void load_count();
  void load_pulse();
  void count_down(u64 pulses);
  void count_periods(u64 pulses);
  void count_half_cycles(u64 pulses);
};

// The three counters behind their four ports.
class Pit {
 public:
  using State = std::array<CounterState, COUNTERS>;
  explicit Pit(State& s) : state(s) {}
  State& state;

  void advance(u64 tick);
  void write(u64 port, u8 value); // the caller has advanced to now
  u8 read(u64 port);
  Counter counter(u32 index) const { return Counter(state[index]); }

 private:
  void read_back(u8 command);
};

} // namespace i8254
