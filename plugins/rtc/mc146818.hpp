// MC146818 real-time clock with 128 bytes of CMOS memory, as the PC has it at 70h–71h.
//
// Models: time, calendar and century in BCD or binary, 12 or 24 hours; SET; UIP for the last 244 µs of each second;
//   divider reset and its half second; alarm with don't-care bytes; periodic rates; IRQF, and register C's clearing
//   read.
// Missing: the square wave output, a second bank at 72h, the 1984 µs of an update cycle (it happens at once).
// Ignored bits: DSE, SQWE; DV other than 11x runs as 010; index bit 7 (NMI mask) is stored.
// Source: Motorola MC146818 data sheet (from memory of its register descriptions).
#pragma once

#include "calendar.hpp"
#include "mc146818_regs.hpp"
#include "vdev/cpp.hpp"

namespace rtc {

inline constexpr u64 UIP_NS = 244'140;                 // t_BUC: 8 periods of 32.768 kHz
inline constexpr u64 DIVIDER_RELEASE_NS = 500'000'000; // first update after the divider is let go

constexpr std::array<u8, 128> reset_cells() {
  std::array<u8, 128> cells{};
  cells[REGISTER_A] = a::RESET;
  cells[REGISTER_B] = b::RESET;
  cells[REGISTER_D] = d::VRT;
  return cells;
}

struct State {
  u8 index = 0;
  std::array<u8, 128> cells = reset_cells(); // 00h–0Dh: registers (A without UIP, C without IRQF); the rest is memory
  u64 seen = 0;                              // domain clock up to which everything below has happened
  u64 next_update = 1'000'000'000;           // domain clock of the next second's begin

  bool valid() const {
    return next_update > seen && next_update - seen <= NS_PER_SECOND && (cells[REGISTER_A] & ~a::WRITABLE) == 0 &&
           (cells[REGISTER_C] & ~c::FLAGS) == 0 && cells[REGISTER_D] == d::VRT;
  }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [index, cells, seen, next_update] = s;
    f(1, "index", index);
    f(2, "cells", cells);
    f(3, "seen", seen);
    f(4, "next_update", next_update);
  }
};

// Lets time pass until `now`: updates, alarm and periodic flags. advance(a); advance(b) == advance(b).
void advance(State& state, u64 now);
// Sets time and calendar registers from nanoseconds since 1970, in the format that register B asks for.
void set_calendar(State& state, i64 calendar_ns, u64 now);
// "10=00,34=00,35=1f": pairs of two hex digits into cells 0Eh–7Fh, but not the century. The reason when refused, else
// null.
const char* parse_cmos(const char* text, std::array<u8, 128>& cells);

class Mc146818 {
 public:
  using State = rtc::State;
  State& state; // the host's memory

  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x70, 2, VDEV_WIDTH_1, 0}};
  static constexpr const char* irqs[] = {"irq8"};
  static constexpr vdev_config_key config[] = {
      {"cmos", VDEV_CONFIG_STRING, "",
       "CMOS memory at power-on: hex pairs index=value with commas between, indices 0e-7f"}};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.rtc", "MC146818 RTC and CMOS", "Transom", "1.0.0", regions, 1, 1, irqs};

  Mc146818(State& s, const Host& host);
  void reset();
  u8 read(u64 offset);
  void write(u64 offset, u8 value);
  u8 peek(u64 offset) const;
  u64 next_event() const;
  void expire(u64 now) { advance(state, now); }
  void sync() { irq8_.set((state.cells[REGISTER_C] & state.cells[REGISTER_B] & c::FLAGS) != 0); }

 private:
  void write_cell(u8 address, u8 value);

  std::array<u8, 128> cells_at_power_on_ = reset_cells(); // with the configured memory

  Clock clock_;
  Irq irq8_;
};

} // namespace rtc
