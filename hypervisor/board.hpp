// The board: everything that several devices and processors share and that the hypervisor owns. Interrupt lines and
// their routing, local and I/O APICs, the memory map, PCI, A20, and the devices that are placed in this process. It
// applies the effects of all device hosts.
//
// One lock guards it all. It is held for microseconds, never across a wait for another process; a vCPU that waits for
// an ioreq holds nothing.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/device_host.hpp"
#include "core/domain_memory.hpp"
#include "hypervisor/interrupt_sink.hpp"
#include "hypervisor/ioapic.hpp"
#include "hypervisor/lapic.hpp"
#include "hypervisor/memory_map.hpp"
#include "hypervisor/pci_host.hpp"
#include "hypervisor/router.hpp"
#include "hypervisor/server_link.hpp"
#include "hypervisor/turns.hpp"

namespace transom {

// What the board asks of whoever runs the processors; served at the next instruction boundary of a vCPU.
enum Request : u32 {
  REQUEST_RESET = 1,       // of one vCPU, for all
  REQUEST_MAP_CHANGED = 2, // of each
};

// INIT and start-up IPIs that a vCPU has to act on, in this order.
struct StartEvents {
  bool init = false;
  int vector = -1; // of the start-up IPI
};

class Board {
 public:
  // `turns`: of the vCPUs, null if they run at once.
  Board(const DomainMemory& memory, const DomainPlan& plan, Turns* turns = nullptr);

  using Lock = std::unique_lock<std::mutex>;
  [[nodiscard]] Lock lock() { return Lock(mutex_); }

  // Before the guest runs. After a vCPU's exit flag was raised; any thread, board lock perhaps held.
  void on_kick(std::function<void(u32 vcpu)> kick) { kick_ = std::move(kick); }
  // Before the guest runs. The processors' local APICs, if they are not the board's; null: they are.
  void use_apics(InterruptSink* sink) { sink_ = sink; }
  bool has_apics() const { return sink_ == nullptr; }
  // Before the guest runs: creates the devices placed here, then takes in the sheets of all servers.
  Result<void> create_local_devices(std::function<void(u32, const std::string&, const char*)> log);
  Result<void> take_in_sheets();

  // --- no lock
  Router& router() { return router_; }
  MemoryMap& memory_map() { return map_; }
  bool is_pic(u32 server, u16 device) const { return has_pic_ && pic_.server == server && pic_.device == device; }
  ServerLink& link(u32 server) { return *links_[server]; }
  u32 server_count() const { return static_cast<u32>(links_.size()); }
  bool interrupt_pending(u32 vcpu) const { return vcpus_[vcpu].interrupt.load(std::memory_order_acquire); }
  bool take_nmi(u32 vcpu) { return vcpus_[vcpu].nmi.exchange(false); }
  u32 take_requests(u32 vcpu) { return vcpus_[vcpu].requests.exchange(0) | requests_.exchange(0); }
  bool start_pending(u32 vcpu) const { return vcpus_[vcpu].start.load(std::memory_order_acquire); }
  void kick(u32 vcpu, u32 bits); // raises its exit flag
  u64 a20_mask() const { return a20_.load(std::memory_order_acquire) ? ~u64{0} : ~(u64{1} << 20); }
  // The earliest deadline of anything in this process, domain clock.
  u64 next_deadline() const { return next_deadline_.load(std::memory_order_acquire); }
  // What a halted vCPU's thread looks after: the first one everything, the others their local APIC.
  u64 next_deadline(u32 vcpu) const {
    return vcpu == 0 ? next_deadline() : vcpus_[vcpu].deadline.load(std::memory_order_acquire);
  }

  // --- lock held
  PciHost& pci() { return pci_; }
  Lapic& lapic(u32 vcpu) { return *lapics_[vcpu]; }
  const Ioapic& ioapic() const { return ioapic_; }
  void write_ioapic(u64 offset, u32 value);
  void end_of_interrupt(u8 vector) { ioapic_.end_of_interrupt(vector); } // from APICs that are not the board's
  DeviceHost& local() { return *local_; }
  void settle(); // apply everything that any host has committed; after each access to a device
  // Without the lock, before the vCPU goes on: a line that was lowered has reached a PIC that lives elsewhere, so that
  // its request is gone too.
  void finish_deasserts();
  void expire(); // timers of this process that are due
  // Vector for the core, or -1. With the PIC elsewhere it lets go of the lock while INTA is under way.
  int acknowledge(u32 vcpu, Lock& held);
  StartEvents take_start(u32 vcpu);
  void set_line_source(u32 line, u32 source, bool level);
  void request(u32 bits);
  // Interrupt inputs of a PIC in a server wait for room in its posted ring: settle() again soon.
  bool pic_inputs_waiting() const { return pic_waiting_.load(std::memory_order_acquire); }
  void stop(StopReason reason, u32 value = 0);
  void reset(); // APICs, lines, map, PCI; not the devices

 private:
  struct IrqBinding { // of a device's interrupt output
    enum class Kind : u8 { none, line, link } kind = Kind::none;
    u8 number = 0; // line, or PCI link
    u8 source = 0; // its bit in the table
  };
  struct Origin { // where effects come from
    u32 server;
    u16 device;
  };
  struct VcpuWires {
    std::atomic<bool> interrupt{false};
    std::atomic<bool> nmi{false};
    std::atomic<bool> start{false}; // `events` has something
    std::atomic<u32> requests{0};
    std::atomic<u64> deadline{~u64{0}}; // of its local APIC
    StartEvents events;
    bool waits_for_startup = false; // from INIT to the start-up IPI; others are dropped [SDM 3A 8.4.2]
  };

  u32 host_index(u32 server) const { return server == SERVER_HYPERVISOR ? 0 : server + 1; }
  ServerPage& page_of(u32 server) const { return memory_.server(server); }
  Result<void> take_in_device(u32 server, u16 device, const DeviceSheet& sheet);
  Result<void> bind_irqs(u32 server, u16 device, const DeviceSheet& sheet, const DevicePlan& plan);
  const DevicePlan* plan_of(const char* name) const;

  void apply(Origin origin, const Effect& effect);
  void apply_wire(Origin origin, u32 wire, u64 value);
  void line_changed(u32 line, bool level);
  bool feed_pic();
  bool drain(u32 host);
  void set_route(u32 link, u32 line);
  void refresh_interrupts();
  bool pic_accepted();
  void tell_level_messages();
  void refresh_deadline();
  bool send_interrupt(const InterruptMessage& message);
  void deliver_init(u32 vcpu);
  void deliver_start_up(u32 vcpu, u8 vector);
  void send_ipi(u32 from, const InterruptMessage& message, u32 shorthand);

  const DomainMemory& memory_;
  const DomainPlan& plan_;
  DomainPage& page_;
  std::mutex mutex_;
  MemoryMap map_;
  Router router_;
  PciHost pci_;
  Ioapic ioapic_;
  std::vector<std::unique_ptr<Lapic>> lapics_;
  std::vector<std::unique_ptr<ServerLink>> links_;
  std::unique_ptr<DeviceHost> local_;

  // [host][device][output]
  std::vector<std::array<std::array<IrqBinding, SHEET_IRQS>, MAX_DEVICES>> irqs_;
  std::array<u64, 4> link_levels_{}; // PIRQA–D, one bit a source
  std::array<u32, 4> routes_{};
  u32 next_source_ = 0;
  bool interrupts_changed_ = true; // a line or an APIC: what the vCPUs see has to be worked out again
  bool has_pic_ = false;
  Origin pic_{};
  u32 pic_inputs_ = 0;
  struct PicInput {
    u32 input;
    bool level;
  };
  std::deque<PicInput> pic_queue_; // changes of lines that the PIC has not been told yet, in order
  std::atomic<bool> pic_waiting_{false};
  std::array<u64, LINES> lines_{}; // one bit a source; page_.lines is a copy for others to read
  std::unique_ptr<EffectReader> local_effects_;
  std::atomic<u64> posted_deasserts_{0}, finished_deasserts_{0};  // of lines, to a PIC elsewhere
  std::array<u8, (1 + MAX_SERVERS) * MAX_DEVICES> a20_sources_{}; // 0 silent, 1 low, 2 high
  std::atomic<bool> a20_{true};
  std::array<VcpuWires, MAX_VCPUS> vcpus_;
  std::atomic<u32> requests_{0};
  std::function<void(u32)> kick_;
  InterruptSink* sink_ = nullptr;
  std::atomic<u64> next_deadline_{~u64{0}};
};

} // namespace transom
