#include "hypervisor/ioapic.hpp"

#include <bit>

namespace transom {

namespace {
constexpr u64 MASKED = 1 << 16, LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, DELIVERY_STATUS = 1 << 12;
constexpr u64 READ_ONLY = REMOTE_IRR | DELIVERY_STATUS; // [3.2.4]
constexpr u64 WRITABLE = 0xff00'0000'0001'ffff & ~READ_ONLY;
constexpr u64 EOI = 0x40;                                       // register that version 20h adds
constexpr u32 VERSION = 0x0000'0020 | (Ioapic::PINS - 1) << 16; // [3.2.2]

InterruptMessage message_of(u64 entry) {
  return {static_cast<u8>(entry), static_cast<DeliveryMode>(entry >> 8 & 7), (entry & LEVEL) != 0, (entry & 0x800) != 0,
          static_cast<u8>(entry >> 56)};
}
} // namespace

void Ioapic::reset() {
  select_ = id_ = 0;
  redirection_.fill(MASKED);
  refused_ = 0;
}

u32 Ioapic::read(u64 offset) const {
  if (offset == 0) return select_;
  if (offset != 0x10) return 0;
  if (select_ == 0 || select_ == 2) return id_; // identification; arbitration id follows it [3.2.3]
  if (select_ == 1) return VERSION;
  if (select_ < 0x10 || select_ >= 0x10 + 2 * PINS) return 0;
  return static_cast<u32>(redirection_[(select_ - 0x10) / 2] >> (select_ % 2 * 32));
}

void Ioapic::write(u64 offset, u32 value) {
  if (offset == 0) {
    select_ = value & 0xff;
    return;
  }
  if (offset == EOI) return end_of_interrupt(static_cast<u8>(value));
  if (offset != 0x10) return;
  if (select_ == 0) id_ = value & 0x0f00'0000;
  if (select_ < 0x10 || select_ >= 0x10 + 2 * PINS) return;
  const u32 pin = (select_ - 0x10) / 2, shift = select_ % 2 * 32;
  u64& entry = redirection_[pin];
  const u64 mask = WRITABLE & (u64{0xffff'ffff} << shift);
  entry = (entry & ~mask) | (u64{value} << shift & mask);
  if ((entry & LEVEL) == 0) entry &= ~REMOTE_IRR; // an edge pin has no remote IRR
  if (changed_) changed_();
  if ((entry & LEVEL) != 0) service(pin);
}

void Ioapic::set_pin(u32 pin, bool level) {
  if (pin >= PINS) return;
  const u32 bit = 1u << pin;
  const bool rising = level && (levels_ & bit) == 0;
  levels_ = level ? levels_ | bit : levels_ & ~bit;
  if ((redirection_[pin] & LEVEL) != 0 ? level : rising) service(pin);
}

// [2.3]: an edge is lost while the pin is masked; a level waits for the unmask and for the EOI.
void Ioapic::service(u32 pin) {
  u64& entry = redirection_[pin];
  const bool level = (entry & LEVEL) != 0;
  refused_ &= ~(1u << pin);
  if ((entry & MASKED) != 0 || (level && ((entry & REMOTE_IRR) != 0 || (levels_ >> pin & 1) == 0))) return;
  const InterruptMessage m = message_of(entry);
  if (m.mode == DeliveryMode::ext_int) return; // the vector comes from the PIC: see ext_int_active()
  const bool taken = send_(m);
  if (level && taken) entry |= REMOTE_IRR;
  if (level && !taken) refused_ |= 1u << pin;
}

void Ioapic::retry() {
  for (u32 pins = refused_; pins != 0; pins &= pins - 1) service(static_cast<u32>(std::countr_zero(pins)));
}

void Ioapic::end_of_interrupt(u8 vector) {
  for (u32 pin = 0; pin < PINS; ++pin) {
    u64& entry = redirection_[pin];
    if (static_cast<u8>(entry) != vector || (entry & REMOTE_IRR) == 0) continue;
    entry &= ~REMOTE_IRR;
    service(pin); // still asserted: once more
  }
}

Ioapic::LevelMessages Ioapic::level_messages() const {
  LevelMessages messages;
  for (u32 pin = 0; pin < PINS; ++pin)
    if ((redirection_[pin] & LEVEL) != 0) messages[pin] = message_of(redirection_[pin]);
  return messages;
}

bool Ioapic::ext_int_active() const {
  for (u32 pin = 0; pin < PINS; ++pin) {
    const u64 entry = redirection_[pin];
    if ((entry & MASKED) == 0 && static_cast<DeliveryMode>(entry >> 8 & 7) == DeliveryMode::ext_int &&
        (levels_ >> pin & 1) != 0)
      return true;
  }
  return false;
}

} // namespace transom
