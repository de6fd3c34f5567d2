// The ACPI part of the PIIX4: PM1 events, the PM timer, sleep, general-purpose events.
#pragma once

#include "power_regs.hpp"
#include "vdev/cpp.hpp"

namespace piix::power {

struct State {
  std::array<u8, CONFIG.SIZE> config = CONFIG.reset();
  std::array<u8, IO_LENGTH> io = IO.reset();
  u64 timer_half = 0;  // half periods of the timer (bit 23 flips) that have been noticed
  u16 gpe0_enable = 0; // no event raises GPE0, so its status is always 0
  bool button = false; // level of the power button
  bool valid() const { return CONFIG.valid(config) && IO.valid(io); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [config, io, timer_half, gpe0_enable, button] = s;
    f(1, "config", config);
    f(2, "io", io);
    f(3, "timer_half", timer_half);
    f(4, "gpe0_enable", gpe0_enable);
    f(5, "button", button);
  }
};

void reset(State& state, u64 now);
// Lets the timer run until `now`: sets TMROF_STS when its bit 23 has flipped since last time.
void advance(State& state, u64 now);
// The I/O block; advance() first. `now` is what PMTMR shows.
u32 read_io(const State& state, u32 offset, u32 width, u64 now);
// The SUS_TYP to go to sleep with, or -1.
int write_io(State& state, u32 offset, u32 width, u32 value);
void set_acpi_enabled(State& state, bool enabled);
void set_button(State& state, bool level);
u8 read_gpe0(const State& state, u64 offset);
void write_gpe0(State& state, u64 offset, u8 value);

bool sci(const State& state);
u64 next_event(const State& state); // when the timer alone will raise SCI

} // namespace piix::power
