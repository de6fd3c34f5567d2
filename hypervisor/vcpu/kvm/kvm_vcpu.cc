#include "hypervisor/vcpu/kvm/kvm_vcpu.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <linux/kvm.h>
#include <sys/mman.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/kvm_backend.hpp"

namespace transom {

static_assert(KvmVcpu::KICK_SIGNAL == SIGUSR2);

namespace {

void add(std::atomic<u64>& counter, u64 n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

// Other threads write it (kick()), and the kernel reads it.
void set_immediate_exit(kvm_run* run, u8 value) { __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST); }

} // namespace

KvmVcpu::KvmVcpu(KvmBackend& backend, u32 number, FileDescriptor fd, kvm_run* run, u64 run_size, VcpuPlatform& platform,
                 std::atomic<u32>& exit_flag)
    : backend_(backend),
      number_(number),
      split_(backend.split()),
      fd_(std::move(fd)),
      run_(run),
      run_size_(run_size),
      platform_(platform),
      flag_(exit_flag),
      thread_(::pthread_self()) {}

KvmVcpu::~KvmVcpu() { ::munmap(run_, run_size_); }

Result<std::unique_ptr<Vcpu>> KvmVcpu::create(KvmBackend& backend, u32 number, FileDescriptor fd, u64 run_size,
                                              VcpuPlatform& platform, std::atomic<u32>& exit_flag) {
  void* const memory = ::mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return error(kvm_failure("mmap of a KVM vCPU"));
  std::unique_ptr<KvmVcpu> vcpu(
      new KvmVcpu(backend, number, std::move(fd), static_cast<kvm_run*>(memory), run_size, platform, exit_flag));
  if (auto ready = vcpu->set_up(); !ready) return tl::unexpected(ready.error());
  return vcpu;
}

Result<void> KvmVcpu::set_up() {
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, KICK_SIGNAL);
  ::pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);

  const std::vector<kvm_cpuid_entry2> entries = backend_.cpuid_table(platform_);
  const auto table = std::make_unique<CpuidTable>();
  table->count = static_cast<u32>(std::min<size_t>(entries.size(), CpuidTable::ROOM));
  std::copy_n(entries.begin(), table->count, table->entries);
  if (kvm_call(fd_.get(), SET_CPUID2, table.get()) != 0) return error(kvm_failure("KVM_SET_CPUID2"));
  if (backend_.has_extension(KVM_CAP_ENFORCE_PV_FEATURE_CPUID)) { // CPUID shows nothing of KVM, so there is nothing
    kvm_enable_cap cap{};
    cap.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
    cap.args[0] = 1;
    if (kvm_call(fd_.get(), KVM_ENABLE_CAP, &cap) != 0) return error(kvm_failure("KVM_CAP_ENFORCE_PV_FEATURE_CPUID"));
  }
  CpuidResult own;
  hypercalls_ = platform_.hypervisor_cpuid(0x4000'0000, 0, own);
  if (split_) {
    apic_ = std::make_unique<kvm_lapic_state>();
    must(kvm_call(fd_.get(), KVM_GET_LAPIC, apic_.get()), "KVM_GET_LAPIC");
  }
  reset();
  if (!failure_.empty()) return error(failure_);
  return {};
}

void KvmVcpu::must(int result, const char* what) const {
  if (result < 0 && failure_.empty()) failure_ = kvm_failure(what);
}

void KvmVcpu::memory_map_changed() { backend_.memory_map_changed(); }

// The exit flag was raised before this. Either run() sees it after it set in_guest_, or this sees in_guest_; then
// immediate_exit ends a KVM_RUN that has not looked at it yet, and the signal one that has.
void KvmVcpu::kick() {
  if (!in_guest_.load(std::memory_order_seq_cst)) return;
  set_immediate_exit(run_, 1);
  ::pthread_kill(thread_, KICK_SIGNAL);
}

// ---------------------------------------------------------------------------------------------------- the loop

RunResult KvmVcpu::run() {
  begin_run();
  for (;;) {
    if (!failure_.empty()) return RunResult::failed;
    if (const std::string* why = backend_.failure()) return fail(*why);
    if (const auto result = take_events()) return *result;
    set_immediate_exit(run_, 0);
    in_guest_.store(true, std::memory_order_seq_cst);
    if (flag_.load(std::memory_order_seq_cst) != 0) {
      in_guest_.store(false, std::memory_order_relaxed);
      continue;
    }
    const bool exited = enter();
    in_guest_.store(false, std::memory_order_relaxed);
    if (const auto result = go_on(exited)) return *result;
  }
}

std::optional<RunResult> KvmVcpu::go_on(bool exited) {
  if (!failure_.empty()) return RunResult::failed;
  if (!exited) return {};
  auto result = handle_exit();
  // The step of an instruction that came here is over now, whether KVM reports it or not.
  if (!result && (debug_.step || past_breakpoint_) && (unfinished_ || halted_)) {
    result = finish();
    if (const u64 rip = linear_rip(); !result && rip != step_from_) result = step_done(rip);
  }
  if (!result || *result == RunResult::failed) return result;
  const auto later = finish();
  return later ? later : result;
}

// Between two runs of guest code.
std::optional<RunResult> KvmVcpu::take_events() {
  if (flag_.exchange(0, std::memory_order_seq_cst) & LEAVE) {
    const auto result = finish();
    if (result) flag_.fetch_or(LEAVE, std::memory_order_relaxed); // asked for, and not done
    return result ? result : RunResult::exited;
  }
  inject();
  if (!halted_) return {};
  add(counters_.halts, 1);
  return RunResult::halted;
}

// A debugger's step is over its instruction, not into a handler; a halted CPU has no other way on.
void KvmVcpu::inject() {
  if ((debug_.step || past_breakpoint_) && !halted_) return;
  if (platform_.nmi_take()) { // KVM holds it while NMIs are blocked
    must(kvm_call(fd_.get(), KVM_NMI, 0), "KVM_NMI");
    if (halted_ && !nmi_masked()) halted_ = false;
  }
  if (split_) return inject_ext_int();
  bool pending = platform_.interrupt_pending();
  if (pending && run_->ready_for_interrupt_injection != 0) {
    const int vector = platform_.interrupt_acknowledge();
    if (vector >= 0) {
      kvm_interrupt interrupt{};
      interrupt.irq = static_cast<u32>(vector);
      must(kvm_call(fd_.get(), KVM_INTERRUPT, &interrupt), "KVM_INTERRUPT");
      run_->ready_for_interrupt_injection = 0; // until the next exit says so
      halted_ = false;
      add(counters_.interrupts, 1);
    }
    pending = platform_.interrupt_pending();
  } else if (pending && halted_ && run_->if_flag != 0) {
    halted_ = false; // the window opens before the instruction after HLT
  }
  run_->request_interrupt_window = pending ? 1 : 0;
}

// From the 8259s, when the last exit said that the local APIC lets it through and the guest can take it. One that KVM
// took is delivered at the next entry, or the one after it if a kick came in between: until then it has no room.
void KvmVcpu::inject_ext_int() {
  if (!ext_int_ && run_->ready_for_interrupt_injection != 0 && platform_.interrupt_pending()) {
    const int vector = platform_.interrupt_acknowledge();
    if (vector >= 0) ext_int_ = static_cast<u8>(vector);
  }
  if (ext_int_) {
    kvm_interrupt interrupt{*ext_int_};
    const int result = kvm_call(fd_.get(), KVM_INTERRUPT, &interrupt);
    if (result == 0) {
      ext_int_.reset();
      add(counters_.interrupts, 1);
    } else if (errno != EEXIST) {
      must(result, "KVM_INTERRUPT");
    }
    run_->ready_for_interrupt_injection = 0; // until the next exit says so
  }
  run_->request_interrupt_window = ext_int_ || platform_.interrupt_pending() ? 1 : 0;
}

bool KvmVcpu::nmi_masked() {
  kvm_vcpu_events events{};
  must(kvm_call(fd_.get(), KVM_GET_VCPU_EVENTS, &events), "KVM_GET_VCPU_EVENTS");
  return events.nmi.masked != 0;
}

// Not kvm_call(): a signal is a way out. With the split irqchip KVM keeps the task priority, and waits in here for a
// start-up IPI, after which it says EAGAIN.
bool KvmVcpu::enter() {
  const u8 tpr = split_ ? 0 : platform_.cr8_read();
  run_->cr8 = tpr;
  const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int code = errno;
  unfinished_ = false;
  if (!split_ && (run_->cr8 & 15) != tpr) platform_.cr8_write(static_cast<u8>(run_->cr8 & 15));
  if (result == 0) return true;
  errno = code;
  if (code != EINTR && !(split_ && code == EAGAIN)) fail(kvm_failure("KVM_RUN") + where());
  return false;
}

// The kernel completes what is open before it looks at immediate_exit. An access that it had to split comes back with
// its next part; a single step over it ends here.
std::optional<RunResult> KvmVcpu::finish() {
  while (unfinished_) {
    set_immediate_exit(run_, 1);
    if (enter()) {
      if (const auto result = handle_exit()) return result;
    }
    if (!failure_.empty()) return RunResult::failed;
  }
  return {};
}

} // namespace transom
