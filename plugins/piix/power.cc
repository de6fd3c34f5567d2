#include "power.hpp"

namespace piix::power {

namespace {

constexpr u64 half_periods(u64 now) { return ACPI_PM_RATE.ticks(now) >> (TIMER_BITS - 1); }

u16 io_word(const State& s, u32 offset) { return u16(IO.word(s.io, offset, 2)); }

void set_status(State& s, u64 bits) {
  s.io[PMSTS] |= u8(bits);
  s.io[PMSTS + 1] |= u8(bits >> 8);
}

bool is_acpi_enabled(const State& s) { return pmcntrl::SCI_EN(s.io[PMCNTRL]) != 0; }

} // namespace

void reset(State& s, u64 now) {
  s = State{};
  s.timer_half = half_periods(now); // the timer itself never stops
}

void advance(State& s, u64 now) {
  const u64 half = half_periods(now);
  if (half <= s.timer_half) return;
  s.timer_half = half;
  set_status(s, pmsts::TMROF.MASK);
}

u32 read_io(const State& s, u32 offset, u32 width, u64 now) {
  const u32 timer = u32(ACPI_PM_RATE.ticks(now)) & ((1u << TIMER_BITS) - 1);
  u32 value = 0;
  for (u32 i = 0; i < width; ++i) {
    const u32 at = offset + i;
    const bool in_timer = at >= PMTMR && at < PMTMR + 4;
    const u8 byte = in_timer ? u8(timer >> (8 * (at - PMTMR))) : IO.read(s.io, at);
    value |= u32{byte} << (8 * i);
  }
  return value;
}

int write_io(State& s, u32 offset, u32 width, u32 value) {
  int sleep = -1;
  for (u32 i = 0; i < width; ++i) {
    const u32 at = offset + i;
    const u8 byte = u8(value >> (8 * i));
    IO.write(s.io, at, byte);
    if (at == PMCNTRL + 1 && pmcntrl::SUS_EN(byte)) sleep = pmcntrl::SUS_TYP(byte);
    if (at == GLBCTL && glbctl::BIOS_RLS(byte)) set_status(s, pmsts::GBL.MASK); // [GLBCTL]
  }
  return sleep;
}

void set_acpi_enabled(State& s, bool enabled) { pmcntrl::SCI_EN.set(s.io[PMCNTRL], enabled); }

void set_button(State& s, bool level) {
  if (level && !s.button) set_status(s, pmsts::PWRBTN.MASK);
  s.button = level;
}

u8 read_gpe0(const State& s, u64 offset) {
  return offset < GPE0_ENABLE ? 0 : u8(s.gpe0_enable >> (8 * (offset - GPE0_ENABLE)));
}

void write_gpe0(State& s, u64 offset, u8 value) {
  if (offset < GPE0_ENABLE) return; // nothing to clear
  const u32 shift = u32(8 * (offset - GPE0_ENABLE));
  write_masked(s.gpe0_enable, u64{value} << shift, u64{0xff} << shift);
}

// With SCI_EN clear these events would be SMIs, and there is nobody to take them.
bool sci(const State& s) {
  constexpr u64 SOURCES = pmsts::TMROF.MASK | pmsts::GBL.MASK | pmsts::PWRBTN.MASK | pmsts::RTC.MASK;
  return is_acpi_enabled(s) && (io_word(s, PMSTS) & io_word(s, PMEN) & SOURCES) != 0;
}

u64 next_event(const State& s) {
  const bool armed = is_acpi_enabled(s) && pmsts::TMROF(io_word(s, PMEN)) && !sci(s);
  if (!armed || s.timer_half >= VDEV_NEVER >> TIMER_BITS) return VDEV_NEVER;
  return ACPI_PM_RATE.ns((s.timer_half + 1) << (TIMER_BITS - 1));
}

} // namespace piix::power
