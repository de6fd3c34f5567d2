// Local APICs in the kernel, 8259s and I/O APIC in user space: KVM_CAP_SPLIT_IRQCHIP.
#pragma once

#include <functional>
#include <string>

#include "hypervisor/interrupt_sink.hpp"

namespace transom {

class SplitIrqchip final : public InterruptSink {
 public:
  using Fail = std::function<void(std::string)>;
  SplitIrqchip(int vm, Fail fail) : vm_(vm), fail_(std::move(fail)) {}

  bool send(const InterruptMessage& message) override;
  void set_level_messages(const Ioapic::LevelMessages& messages) override;

 private:
  const int vm_;
  Fail fail_;
  Ioapic::LevelMessages routed_; // as the kernel has them
};

// Null string: this KVM has local APICs that work. Else what is wrong with them. Runs a tiny guest in a process of its
// own, as measure_kvm() does; the caller has one thread.
std::string split_irqchip_obstacle();

} // namespace transom
