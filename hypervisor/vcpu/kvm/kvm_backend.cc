#include "hypervisor/vcpu/kvm/kvm_backend.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/kvm_vcpu.hpp"
#include "hypervisor/vcpu/soft/model.hpp"

namespace transom {

KvmBackend::~KvmBackend() = default;

void KvmBackend::install_kick_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART; // KVM_RUN ends all the same
  ::sigaction(KvmVcpu::KICK_SIGNAL, &action, nullptr);
}

bool KvmBackend::has_extension(long capability) const { return kvm_extension(vm_.get(), capability) != 0; }

namespace {

Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(int kvm) {
  const auto table = std::make_unique<CpuidTable>();
  table->count = CpuidTable::ROOM;
  if (kvm_call(kvm, GET_SUPPORTED_CPUID, table.get()) == 0)
    return std::vector<kvm_cpuid_entry2>(table->entries, table->entries + std::min(table->count, CpuidTable::ROOM));
  return error(kvm_failure("KVM_GET_SUPPORTED_CPUID"));
}

} // namespace

Result<void> KvmBackend::open() {
  model_ = soft::find_model(model_name_);
  if (model_ == nullptr)
    return error(fmt::format("cpu_model \"{}\" is unknown; accepted: base, v2, host", model_name_));
  auto kvm = open_kvm();
  if (!kvm) return tl::unexpected(kvm.error());
  kvm_ = std::move(*kvm);
  auto supported = supported_cpuid(kvm_.get());
  if (!supported) return tl::unexpected(supported.error());
  supported_ = std::move(*supported);
  auto vm = create_kvm_vm(kvm_.get());
  if (!vm) return tl::unexpected(vm.error());
  vm_ = std::move(*vm);
  // One tick a nanosecond, as on the software CPU, where the host can scale; else the guest's TSC runs as the host's.
  // For the VM, before there are vCPUs: a vCPU that exists already would keep the offset that fitted its old rate.
  if (has_extension(KVM_CAP_VM_TSC_CONTROL) && kvm_call(vm_.get(), KVM_SET_TSC_KHZ, u64{1'000'000}) != 0)
    return error(kvm_failure("KVM_SET_TSC_KHZ"));
  if (split_) {
    if (!has_split_irqchip(vm_.get())) return error("cpu = \"kvm:split\": this KVM has no split irqchip; use \"kvm\"");
    if (!enable_split_irqchip(vm_.get())) return error(kvm_failure("KVM_CAP_SPLIT_IRQCHIP"));
    irqchip_.emplace(vm_.get(), [this](std::string why) { fail(std::move(why)); });
  }
  if (auto configured = configure_msrs(); !configured) return configured;
  slots_ = std::make_unique<MemorySlots>(vm_.get());
  install_kick_signal();
  return slots_->update(memory_layout(memory_.map(), memory_.a20_mask()));
}

// The local APIC's and the hypervisor interface's MSRs come to VcpuPlatform, as do those that KVM does not know. Not
// the x2APIC's: no filter holds those, but KVM without an APIC of its own calls them invalid, which is a reason too.
Result<void> KvmBackend::configure_msrs() {
  if (!has_extension(KVM_CAP_X86_USER_SPACE_MSR) || !has_extension(KVM_CAP_X86_MSR_FILTER))
    return {}; // Linux before 5.10: KVM keeps the APIC base, and there is neither x2APIC nor a hypervisor's MSR
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
  cap.args[0] = KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN;
  if (kvm_call(vm_.get(), KVM_ENABLE_CAP, &cap) != 0) return error(kvm_failure("KVM_CAP_X86_USER_SPACE_MSR"));
  u8 none[0x300 / 8] = {}; // a bit that is clear denies
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  auto deny = [&, n = 0](u32 first, u32 count) mutable {
    auto& range = filter.ranges[n++];
    range.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    range.base = first;
    range.nmsrs = count;
    range.bitmap = none;
  };
  if (!split_) {
    deny(0x1b, 1);
    deny(0x6e0, 1);
  }
  deny(0x4000'0000, 0x300);
  if (kvm_call(vm_.get(), KVM_X86_SET_MSR_FILTER, &filter) != 0) return error(kvm_failure("KVM_X86_SET_MSR_FILTER"));
  return {};
}

void KvmBackend::memory_map_changed() {
  if (!slots_) return;
  const auto updated = slots_->update(memory_layout(memory_.map(), memory_.a20_mask()));
  if (updated) return;
  fail(updated.error().text);
}

void KvmBackend::fail(std::string why) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (failed_.load(std::memory_order_relaxed)) return;
  failure_ = std::move(why);
  failed_.store(true, std::memory_order_release);
}

Result<std::unique_ptr<Vcpu>> KvmBackend::create(u32 number, VcpuPlatform& platform, std::atomic<u32>& exit_flag) {
  if (!vm_) return error("KVM was not opened");
  FileDescriptor vcpu(kvm_call(vm_.get(), KVM_CREATE_VCPU, static_cast<u64>(number)));
  if (!vcpu) return error(kvm_failure("KVM_CREATE_VCPU"));
  const int size = kvm_call(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < static_cast<int>(sizeof(kvm_run))) return error(kvm_failure("KVM_GET_VCPU_MMAP_SIZE"));
  return KvmVcpu::create(*this, number, std::move(vcpu), static_cast<u64>(size), platform, exit_flag);
}

// ---------------------------------------------------------------------------------------------------- CPUID

std::vector<kvm_cpuid_entry2> KvmBackend::cpuid_table(VcpuPlatform& platform) const {
  constexpr u32 HYPERVISOR = 0x4000'0000, EXTENDED = 0x8000'0000;
  std::vector<kvm_cpuid_entry2> table;
  const auto add = [&](u32 leaf, u32 subleaf, const CpuidResult& r, bool indexed) {
    kvm_cpuid_entry2 e{};
    e.function = leaf;
    e.index = subleaf;
    e.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0u;
    e.eax = r.eax;
    e.ebx = r.ebx;
    e.ecx = r.ecx;
    e.edx = r.edx;
    table.push_back(e);
  };
  const auto host = [&](u32 leaf) {
    for (const kvm_cpuid_entry2& e : supported_)
      if (e.function == leaf && e.index == 0) return e;
    return kvm_cpuid_entry2{};
  };
  const auto ask = [&](u32 leaf, u32 subleaf = 0) { return soft::cpuid(*model_, platform, leaf, subleaf); };

  // ECX counts only where the answer depends on it.
  const auto add_hypervisor_leaf = [&](u32 leaf) {
    constexpr u32 SUBLEAVES = 3;
    const CpuidResult first = ask(leaf);
    bool indexed = false;
    for (u32 n = 1; n < SUBLEAVES; ++n) {
      const CpuidResult r = ask(leaf, n);
      indexed |= std::memcmp(&r, &first, sizeof r) != 0;
    }
    for (u32 n = 0; n < (indexed ? SUBLEAVES : 1); ++n) add(leaf, n, ask(leaf, n), indexed);
  };

  for (u32 leaf = 0; leaf <= ask(0).eax; ++leaf) {
    CpuidResult r = ask(leaf);
    const kvm_cpuid_entry2 can = host(leaf);
    if (leaf == 1) {
      constexpr u32 X2APIC = 1 << 21, TSC_DEADLINE = 1 << 24, BEYOND_CPU = X2APIC | 1u << 31;
      r.ecx &= (can.ecx | BEYOND_CPU) & ~TSC_DEADLINE; // the guest's TSC is not the platform's
      if (split_) r.ecx |= can.ecx & (X2APIC | TSC_DEADLINE);
      r.edx &= can.edx | 1u << 28; // HTT counts processors, which is the platform's
    }
    if (leaf == 7) {
      r.ebx &= can.ebx;
      r.ecx &= can.ecx;
      r.edx &= can.edx;
    }
    add(leaf, 0, r, leaf == 4 || leaf == 7);
  }
  for (u32 leaf = HYPERVISOR; leaf <= std::min(std::max(ask(HYPERVISOR).eax, HYPERVISOR), HYPERVISOR + 15); ++leaf)
    add_hypervisor_leaf(leaf);
  for (u32 leaf = EXTENDED; leaf <= ask(EXTENDED).eax; ++leaf) {
    CpuidResult r = ask(leaf);
    const kvm_cpuid_entry2 can = host(leaf);
    if (leaf == EXTENDED + 1) {
      r.ecx &= can.ecx | 1u << 1; // CMP_LEGACY: likewise
      r.edx &= can.edx;
    }
    if (leaf == EXTENDED + 7) r.edx &= can.edx;
    if (leaf == EXTENDED + 8) {
      if (const u32 bits = can.eax & 0xff; bits != 0 && bits < (r.eax & 0xff)) r.eax = (r.eax & ~0xffu) | bits;
      r.ebx &= can.ebx;
    }
    if (leaf == EXTENDED + 0x21) r.eax &= can.eax;
    add(leaf, 0, r, false);
  }
  // What the model does not have is not there, also where an outer hypervisor would have answered.
  for (const kvm_cpuid_entry2& e : supported_)
    if (std::none_of(table.begin(), table.end(), [&](const auto& own) { return own.function == e.function; }))
      if (e.function < HYPERVISOR || e.function >= EXTENDED) add(e.function, e.index, {}, false);
  return table;
}

} // namespace transom
