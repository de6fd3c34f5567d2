// Debug ports for test guests and firmware.
// Models:  exit port F4h (the value written ends the run), console port E9h, firmware log 402h. A port that is not
//          configured answers as if nobody were there.
// Missing: nothing.
// Source:  Bochs's port E9h and QEMU's isa-debug-exit and isa-debugcon, as guests use them: a read of a console port
//          answers E9h, by which a guest finds it.
#pragma once

#include <vdev/cpp.hpp>

namespace debug {
using namespace vdev;

enum : u32 { EXIT, CONSOLE, FIRMWARE_LOG }; // regions; the streams are CONSOLE - 1 and FIRMWARE_LOG - 1
inline constexpr u8 PRESENT = 0xe9;

struct State {
  u32 exit_code = 0; // what was written last
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [exit_code] = s;
    f(1, "exit_code", exit_code);
  }
};

class Debug {
 public:
  using State = debug::State;
  State& state;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "exit", 0xf4, 4, VDEV_WIDTH_1 | VDEV_WIDTH_2 | VDEV_WIDTH_4, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "e9", 0xe9, 1, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "firmware_log", 0x402, 1, VDEV_WIDTH_1, 0},
  };
  static constexpr vdev_descriptor descriptor = {
      sizeof(vdev_descriptor), 1, "org.transom.debug", "Debug ports", "Transom", "1.0.0", regions, 3, 0, nullptr};
  static constexpr vdev_config_key config[] = {
      {"exit", VDEV_CONFIG_BOOLEAN, "false", "A write to port F4h ends the run."},
      {"e9", VDEV_CONFIG_BOOLEAN, "true", "Port E9h is a console, stream 0."},
      {"firmware_log", VDEV_CONFIG_BOOLEAN, "true", "Port 402h is the firmware's log, stream 1."},
  };
  static constexpr u32 stream_count = 2;

  Debug(State& s, const Host& host)
      : state(s),
        wire_(host.wire()),
        streams_{host.stream(0), host.stream(1)},
        enabled_{host.config().boolean("exit"), host.config().boolean("e9", true),
                 host.config().boolean("firmware_log", true)} {}

  u64 read(u32 region, u64 offset, u32 width) const { return peek(region, offset, width); }
  u64 peek(u32 region, u64, u32) const {
    if (!enabled_[region]) return ~u64{0};
    return region == EXIT ? 0 : PRESENT;
  }
  void write(u32 region, u64 offset, u32, u64 value) {
    if (!enabled_[region]) return;
    if (region != EXIT) {
      streams_[region - CONSOLE].put(u8(value)); // a stream that takes nothing now loses the byte: nobody can wait here
    } else if (offset == 0) {
      state.exit_code = u32(value);
      wire_.set(VDEV_WIRE_EXIT, state.exit_code);
    }
  }
  // A run of OUTSB goes out in one piece.
  bool write_run(u32 region, u64, u32 width, u32 count, const u8* data) {
    if (region == EXIT || width != 1) return false;
    if (enabled_[region]) streams_[region - CONSOLE].write(data, count);
    return true;
  }

 private:
  Wire wire_;
  Stream streams_[2];
  bool enabled_[3];
};

} // namespace debug
