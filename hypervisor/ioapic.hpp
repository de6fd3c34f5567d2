// I/O APIC: Intel 82093AA (order number 290566-001; "[n]" = its sections), with the version of later chipsets (20h).
// Not thread-safe: the machine's board lock serialises all calls.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "core/types.hpp"
#include "hypervisor/lapic.hpp"

namespace transom {

class Ioapic {
 public:
  static constexpr u64 BASE = 0xfec0'0000;
  static constexpr u32 PINS = 24;

  // Delivers to whichever local APICs the message addresses; false when none took it.
  using Send = std::function<bool(const InterruptMessage&)>;
  // `changed`, if any: before the first message of a redirection entry that was written.
  explicit Ioapic(Send send, std::function<void()> changed = {})
      : send_(std::move(send)), changed_(std::move(changed)) {
    reset();
  }

  void reset();
  u32 read(u64 offset) const; // IOREGSEL at 0, IOWIN at 10h
  void write(u64 offset, u32 value);
  void set_pin(u32 pin, bool level);
  void end_of_interrupt(u8 vector); // broadcast by a local APIC, level-triggered pins only
  void retry();                     // level-triggered pins whose message no local APIC took
  // A pin is routed in ExtINT mode and active: INTA has to come from the PIC.
  bool ext_int_active() const;

  // What each level-triggered pin sends, masked or not: an interrupt that was masked while in service ends too.
  using LevelMessages = std::array<std::optional<InterruptMessage>, PINS>;
  LevelMessages level_messages() const;

 private:
  void service(u32 pin);

  Send send_;
  std::function<void()> changed_;
  u32 select_ = 0, id_ = 0;
  u32 refused_ = 0; // bit per pin, see retry()
  u32 levels_ = 0;  // of the input pins; polarity is not modelled: 1 is active
  std::array<u64, PINS> redirection_{};
};

} // namespace transom
