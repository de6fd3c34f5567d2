// The machine as one vCPU meets it: every exit of the vCPU arrives here and is routed to its device (architecture: "the
// life of one access"). On the vCPU's own thread.
#pragma once

#include "firmware/fw_cfg.hpp"
#include "hypervisor/board.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom {

class Platform final : public VcpuPlatform {
 public:
  Platform(u32 vcpu, const DomainMemory& memory, Board& board, firmware::FwCfg& fw_cfg, Turns* turns = nullptr);

  u32 pio_read(u16 port, u32 width) override;
  void pio_write(u16 port, u32 width, u32 value) override;
  void pio_run(const PioRun& run) override;
  u64 mmio_read(u64 gpa, u32 width) override;
  void mmio_write(u64 gpa, u32 width, u64 value) override;
  PhysPage page(u64 gpa) override { return board_.memory_map().page(gpa); }

  bool interrupt_pending() override { return board_.interrupt_pending(vcpu_); }
  int interrupt_acknowledge() override;
  bool nmi_take() override { return board_.take_nmi(vcpu_); }
  u8 cr8_read() override;
  void cr8_write(u8 value) override;
  u64 apic_base_read() override;
  bool apic_base_write(u64 value) override;
  bool x2apic_read(u32, u64&) override { return false; } // CPUID shows neither x2APIC nor TSC-deadline
  bool x2apic_write(u32, u64) override { return false; }
  void interrupt_ended(u8 vector) override;
  u64 tsc() override { return clock_.now() + tsc_offset_; }
  bool tsc_write(u64 value) override;
  u64 hypercall(u64 number, const u64 (&args)[6], bool long_mode) override;
  u64 a20_mask() override { return board_.a20_mask(); }

  u8 apic_id() override { return static_cast<u8>(vcpu_); }
  u32 processors() override { return memory_.vcpu_count(); }
  void pause() override {
    if (turns_ != nullptr && turns_->wanted()) shared_.exit_flag.fetch_or(EXIT_LEAVE, std::memory_order_relaxed);
  }
  void code_written(u32 mask) override { memory_.page().look(mask); }

  void count(ExitCause cause) {
    auto& counter = shared_.exits[static_cast<u32>(cause)];
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); // this thread only
  }

 private:
  u64 device_read(const Claim& claim, IoreqType type, u64 address, u32 width);
  void device_write(const Claim& claim, IoreqType type, u64 address, u32 width, u64 value);
  bool post(const Claim& claim, u64 offset, u32 width, u64 value);
  Board::Lock lock_for(u16 local_device);
  void device_run(const Claim& claim, const PioRun& run);
  u32 fw_cfg_read(u16 port, u32 width);
  void fw_cfg_write(u16 port, u32 width, u32 value);
  u32 byte_read(u16 port);
  void byte_write(u16 port, u8 value);
  u32 pci_read(u16 port, u32 width);
  void pci_write(u16 port, u32 width, u32 value);
  u64 apic_read(u64 gpa, u32 width, bool& mine);
  bool apic_write(u64 gpa, u32 width, u64 value);
  void run_by_elements(const PioRun& run);
  void after_call(u32 server);
  void flush_posted();

  const u32 vcpu_;
  const DomainMemory& memory_;
  DomainClock clock_;
  Board& board_;
  firmware::FwCfg& fw_cfg_;
  Turns* turns_;
  VcpuShared& shared_;
  EventChannel event_;
  u64 tsc_offset_ = 0;
};

} // namespace transom
