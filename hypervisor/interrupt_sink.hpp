// Local APICs that are not the board's own but the backend's, as KVM's. The board's are then not asked; its 8259s and
// its I/O APIC stay, and what ends an interrupt of theirs comes back by VcpuPlatform::interrupt_ended().
#pragma once

#include "hypervisor/ioapic.hpp"

namespace transom {

// Called with the board lock held.
class InterruptSink {
 public:
  virtual ~InterruptSink() = default;
  // False: no local APIC took it.
  virtual bool send(const InterruptMessage& message) = 0;
  // Whose ends are to be told. Before the first message of any of them.
  virtual void set_level_messages(const Ioapic::LevelMessages& messages) = 0;
};

} // namespace transom
