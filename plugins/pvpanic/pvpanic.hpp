// pvpanic: one port by which a guest says that it crashed.
//
// Models: the ISA form, events PANICKED and CRASH_LOADED.
// Missing: the PCI form and the later SHUTDOWN event (its bit reads 0, so no driver sends it).
// Ignored bits: 2–7 of a write.
// Source: the pvpanic device's published interface (QEMU, docs/specs/pvpanic).
#pragma once

#include "vdev/cpp.hpp"

namespace pvpanic {

using namespace vdev;

namespace event {
constexpr Field<0> PANICKED;
constexpr Field<1> CRASH_LOADED; // a crash kernel takes over
constexpr u8 SUPPORTED = 0x03;
} // namespace event

constexpr u32 WIRE_PANICKED = 1, WIRE_CRASH_LOADED = 2; // values of VDEV_WIRE_PANIC

struct State {
  u8 reported = 0; // events since reset, for inspection
  bool valid() const { return (reported & ~event::SUPPORTED) == 0; }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [reported] = s;
    f(1, "reported", reported, event::SUPPORTED);
  }
};

class Pvpanic {
 public:
  using State = pvpanic::State;
  State& state; // the host's memory

  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "event", 0x505, 1, VDEV_WIDTH_1, 0}};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.pvpanic", "pvpanic", "Transom", "1.0.0", regions, 1, 0, nullptr};

  Pvpanic(State& s, const Host& host) : state(s), wire_(host.required<Wire>()) {}

  u8 read(u64) { return event::SUPPORTED; }
  u8 peek(u64) const { return event::SUPPORTED; }
  void write(u64, u8 value) {
    value &= event::SUPPORTED;
    state.reported |= value;
    if (event::PANICKED(value)) wire_.set(VDEV_WIRE_PANIC, WIRE_PANICKED);
    if (event::CRASH_LOADED(value)) wire_.set(VDEV_WIRE_PANIC, WIRE_CRASH_LOADED);
  }

 private:
  Wire wire_;
};

} // namespace pvpanic
