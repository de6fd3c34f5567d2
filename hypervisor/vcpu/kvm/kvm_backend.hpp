// KVM as a backend: one VM, its memory, and what its vCPUs have in common. What was tried where: docs/kvm.md.
#pragma once

#include <functional>
#include <linux/kvm.h>
#include <mutex>
#include <string>

#include "core/file_descriptor.hpp"
#include "hypervisor/vcpu/backend.hpp"
#include "hypervisor/vcpu/kvm/memory_slots.hpp"
#include "hypervisor/vcpu/kvm/split_irqchip.hpp"

namespace transom {

namespace soft {
struct Model;
}

class KvmBackend final : public VcpuBackend {
 public:
  struct Memory {
    std::function<const MemoryMap&()> map;
    std::function<u64()> a20_mask;
  };
  // `model`: one of the software CPU's, by name. `split`: the local APICs are the kernel's.
  KvmBackend(Memory memory, std::string model, bool split = false)
      : memory_(std::move(memory)), model_name_(std::move(model)), split_(split) {}
  ~KvmBackend() override;

  Result<void> open() override;
  Result<std::unique_ptr<Vcpu>> create(u32 number, VcpuPlatform& platform, std::atomic<u32>& exit_flag) override;
  void memory_map_changed() override;
  InterruptSink* interrupt_sink() override { return irqchip_ ? &*irqchip_ : nullptr; }
  bool takes_turns() const override { return false; }
  bool split() const { return split_; }

  bool has_extension(long capability) const;
  MemorySlots& slots() { return *slots_; }
  // Null, or why the VM can go on no more.
  const std::string* failure() const { return failed_.load(std::memory_order_acquire) ? &failure_ : nullptr; }

  // What the model shows of what this KVM can run, for KVM_SET_CPUID2.
  std::vector<kvm_cpuid_entry2> cpuid_table(VcpuPlatform& platform) const;

  // A signal that does nothing but end KVM_RUN.
  static void install_kick_signal();

 private:
  Result<void> configure_msrs();
  void fail(std::string why);

  Memory memory_;
  std::string model_name_;
  const bool split_;
  const soft::Model* model_ = nullptr;
  FileDescriptor kvm_, vm_;
  std::optional<SplitIrqchip> irqchip_;
  std::unique_ptr<MemorySlots> slots_;
  std::vector<kvm_cpuid_entry2> supported_;
  std::mutex mutex_; // over failure_ as it is written
  std::string failure_;
  std::atomic<bool> failed_{false};
};

} // namespace transom
