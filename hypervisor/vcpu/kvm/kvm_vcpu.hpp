// A vCPU that KVM runs. Without the split irqchip the APICs stay in user space: interrupts are injected with
// KVM_INTERRUPT when the guest can take them, HLT comes back to the machine. With it, only the 8259s' come so.
#pragma once

#include <memory>
#include <pthread.h>

#include "core/file_descriptor.hpp"
#include "core/result.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

struct kvm_lapic_state;
struct kvm_run;
struct kvm_sregs;

namespace transom {

class KvmBackend;

class KvmVcpu final : public Vcpu {
 public:
  static constexpr int KICK_SIGNAL = 12; // SIGUSR2

  static Result<std::unique_ptr<Vcpu>> create(KvmBackend& backend, u32 number, FileDescriptor fd, u64 run_size,
                                              VcpuPlatform& platform, std::atomic<u32>& exit_flag);
  ~KvmVcpu() override;
  KvmVcpu(const KvmVcpu&) = delete;
  KvmVcpu& operator=(const KvmVcpu&) = delete;

  RunResult run() override;
  void reset() override;
  void init() override;
  void startup(u8 vector) override;
  VcpuRegisters registers() const override;
  void set_registers(const VcpuRegisters& r) override;
  void fpu_state(u8 (&image)[512]) const override;
  void set_fpu_state(const u8 (&image)[512]) override;
  void memory_map_changed() override;
  const VcpuCounters& counters() const override { return counters_; }
  std::string failure() const override { return failure_; }
  void set_debug(const DebugControl& control) override;
  std::optional<u64> physical(u64 linear) const override;
  u32 breakpoint_limit() const override { return DEBUG_REGISTERS; }
  std::atomic<u32>& exit_flag() override { return flag_; }
  void kick() override;

 private:
  static constexpr u32 DEBUG_REGISTERS = 4;

  KvmVcpu(KvmBackend& backend, u32 number, FileDescriptor fd, kvm_run* run, u64 run_size, VcpuPlatform& platform,
          std::atomic<u32>& exit_flag);
  Result<void> set_up();

  // --- kvm_vcpu.cc. A value: run() returns it.
  std::optional<RunResult> take_events();
  void inject();
  void inject_ext_int();
  bool nmi_masked();
  bool enter(); // KVM_RUN; false: a signal or a kick ended it
  std::optional<RunResult> go_on(bool exited);
  // Completes the access of the last exit, so that the registers are those between two instructions.
  std::optional<RunResult> finish();
  void must(int result, const char* what) const; // an ioctl that only fails if the host is broken

  // --- exits.cc
  std::optional<RunResult> handle_exit();
  void handle_io();
  bool run_of_elements(u16 port, u32 width, u32 count, u8* data);
  std::optional<u64> ins_destination(u32 bytes) const;
  bool hypercall(u16 port, u32 width);
  void handle_mmio();
  void handle_rdmsr();
  void handle_wrmsr();
  RunResult internal_error();
  RunResult fail(std::string why);
  std::string where() const;

  // --- debug.cc
  void begin_run();
  void arm_debug(bool step, bool inject_db = false);
  std::optional<RunResult> handle_debug();
  std::optional<RunResult> step_done(u64 rip);
  u64 linear_rip() const;
  struct Translation {
    u64 gpa;
    bool writable, user; // at every level
  };
  std::optional<Translation> walk(const kvm_sregs& s, u64 linear) const;
  u64 read_entry(u64 gpa, u32 width) const;

  // --- state.cc
  void clear_events();
  void reset_registers(u64 cr0);
  void reset_msrs();
  void reset_apic();
  u64 get_msr(u32 index) const;
  void set_msr(u32 index, u64 value);

  KvmBackend& backend_;
  const u32 number_;
  const bool split_; // the local APIC is the kernel's
  FileDescriptor fd_;
  kvm_run* run_;
  const u64 run_size_;
  VcpuPlatform& platform_;
  std::atomic<u32>& flag_;
  const pthread_t thread_;
  std::atomic<bool> in_guest_{false}; // kick() has to interrupt KVM_RUN

  bool unfinished_ = false; // the kernel completes the last exit's access at the next KVM_RUN
  bool halted_ = false;
  std::optional<u8> ext_int_;             // acknowledged, and KVM has no room for it yet
  std::unique_ptr<kvm_lapic_state> apic_; // of the kernel's local APIC, as it came
  bool hypercalls_ = false;               // the platform has a hypervisor interface
  DebugControl debug_;
  bool armed_ = false;           // KVM has our debug settings
  bool past_breakpoint_ = false; // one instruction, then the breakpoints count again
  std::optional<u64> stopped_at_;
  u64 step_from_ = 0;
  mutable std::string failure_;
  VcpuCounters counters_;
};

} // namespace transom
