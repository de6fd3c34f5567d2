#include "hypervisor/vcpu/kvm/split_irqchip.hpp"

#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"

namespace transom {

namespace {

struct Msi { // [SDM 3A 10.11]
  u32 address, data;
  bool operator==(const Msi& o) const { return address == o.address && data == o.data; }
};

Msi msi_of(const InterruptMessage& m) {
  constexpr u32 BASE = 0xfee0'0000, LOGICAL = 1 << 2, LEVEL_ASSERTED = 3 << 14;
  return {BASE | u32{m.destination} << 12 | (m.logical ? LOGICAL : 0),
          u32{m.vector} | static_cast<u32>(m.mode) << 8 | (m.level ? LEVEL_ASSERTED : 0)};
}

static_assert(MsiRoutes::ROOM == Ioapic::PINS);

} // namespace

bool SplitIrqchip::send(const InterruptMessage& message) {
  if (message.mode == DeliveryMode::smi) return true; // no SMM
  const Msi to = msi_of(message);
  kvm_msi msi{};
  msi.address_lo = to.address;
  msi.data = to.data;
  // 0: blocked, below: nobody is addressed (it is the kernel's -1 that says so)
  return kvm_call(vm_, KVM_SIGNAL_MSI, &msi) > 0;
}

// The kernel tells the end of vectors that a route of these pins names as level-triggered.
void SplitIrqchip::set_level_messages(const Ioapic::LevelMessages& messages) {
  MsiRoutes routes{};
  bool changed = false;
  for (u32 pin = 0; pin < Ioapic::PINS; ++pin) {
    const auto& now = messages[pin];
    const auto& before = routed_[pin];
    changed |= now.has_value() != before.has_value() || (now && !(msi_of(*now) == msi_of(*before)));
    if (!now) continue;
    kvm_irq_routing_entry& entry = routes.entries[routes.count++];
    entry.gsi = pin;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = msi_of(*now).address;
    entry.u.msi.data = msi_of(*now).data;
  }
  if (!changed) return; // a mask that comes and goes; each call waits for all vCPUs
  if (kvm_call(vm_, SET_GSI_ROUTING, &routes) != 0) return fail_(kvm_failure("KVM_SET_GSI_ROUTING"));
  routed_ = messages;
}

} // namespace transom
