// Local APIC of one processor: Intel SDM volume 3A, chapter 10 ("[10.n]" = its sections). xAPIC mode.
// Missing: x2APIC and TSC-deadline mode (CPUID does not show them), thermal and CMCI LVTs.
//
// Not thread-safe: the machine's board lock serialises all calls.
#pragma once

#include <array>
#include <functional>

#include "core/types.hpp"

namespace transom {

enum class DeliveryMode : u8 { fixed = 0, lowest = 1, smi = 2, nmi = 4, init = 5, startup = 6, ext_int = 7 };

// An interrupt message, as it travels between IOAPIC, LAPICs and MSI.
struct InterruptMessage {
  u8 vector = 0;
  DeliveryMode mode = DeliveryMode::fixed;
  bool level = false;   // trigger mode
  bool logical = false; // destination mode
  u8 destination = 0;
};

class Lapic {
 public:
  static constexpr u64 DEFAULT_BASE = 0xfee0'0000;
  static constexpr u64 BUS_NS = 1; // the timer's input clock: 1 GHz, before the divide configuration

  struct Wiring {
    std::function<u64()> now;                                             // domain clock, ns
    std::function<void(const InterruptMessage&, u32 shorthand)> send_ipi; // shorthand as in ICR bits 19:18
    std::function<void(u8 vector)> broadcast_eoi;                         // level-triggered: to the IOAPICs
    std::function<void()> changed; // interrupt_pending() or the deadline may have changed
    std::function<void()> nmi;
    std::function<void()> init; // to the core, which then calls init() here
    std::function<void(u8 vector)> start_up;
  };

  Lapic(u8 id, bool bootstrap, Wiring wiring);

  void reset();
  void init();          // INIT#: as reset(), but the ID, the base and the enable bit stay [10.4.7.3]
  u32 read(u32 offset); // 32-bit registers at multiples of 10h
  void write(u32 offset, u32 value);

  // From the bus. `deliver` is for this processor; whether it is addressed is asked first.
  bool addressed(const InterruptMessage& message) const;
  void deliver(const InterruptMessage& message);
  void set_lint0(bool level);                        // the PIC's INTR
  void set_ext_int(bool level) { ext_int_ = level; } // an IOAPIC pin in ExtINT mode

  // What the core asks. The vector that acknowledge() would take, or -1.
  int pending_vector() const;
  int acknowledge();
  // INTR from the PIC reaches the core: APIC off, or LVT LINT0 (or an IOAPIC pin) unmasked in ExtINT mode [10.5.1].
  bool accepts_pic() const;

  u8 tpr() const { return static_cast<u8>(tpr_); }
  void set_tpr(u8 value);
  u64 base() const { return base_; } // IA32_APIC_BASE
  bool set_base(u64 value);
  bool enabled() const { return (base_ & (1 << 11)) != 0; }
  u8 id() const { return static_cast<u8>(id_ >> 24); }

  u64 deadline() const { return deadline_; } // of the timer, domain clock; ~0: none
  void expire(u64 now);

 private:
  using Bits = std::array<u32, 8>; // one bit a vector
  static int highest(const Bits& bits);
  static void assign(Bits& bits, u8 vector, bool value);
  bool software_enabled() const { return (svr_ & 0x100) != 0; }
  u8 ppr() const;
  void end_of_interrupt();
  void write_icr(u32 low);
  void fire_lvt(u32 lvt);
  bool accepts(DeliveryMode mode) const;
  void raise_error(u32 esr_bit);
  void arm_timer(u64 from, u64 now);
  u32 current_count() const;
  u64 tick_ns() const;

  Wiring wiring_;
  const u8 hardware_id_;
  const bool bootstrap_;
  u64 base_ = 0;
  u32 id_ = 0, tpr_ = 0, ldr_ = 0, dfr_ = 0, svr_ = 0, esr_ = 0, esr_pending_ = 0, icr_low_ = 0, icr_high_ = 0;
  Bits isr_{}, tmr_{}, irr_{};
  enum Lvt { TIMER, PERFORMANCE = 2, LINT0, LINT1, ERROR_LVT, LVTS };
  std::array<u32, LVTS> lvt_{};
  u32 initial_count_ = 0, divide_ = 0;
  u64 timer_start_ = 0;
  u64 deadline_ = ~u64{0};
  bool lint0_ = false, ext_int_ = false;
};

} // namespace transom
