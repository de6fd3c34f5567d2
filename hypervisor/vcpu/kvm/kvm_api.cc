#include "hypervisor/vcpu/kvm/kvm_api.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <sys/wait.h>
#include <unistd.h>

namespace transom {

namespace {

// Below the firmware's 16 MiB at most, above the I/O and local APICs: a page of page tables, then three pages of TSS.
constexpr u64 IDENTITY_MAP = 0xfeff'c000, TSS = 0xfeff'd000;

struct Needed {
  long capability;
  const char* name;
};
// All are older than Linux 4.13.
constexpr Needed NEEDED[] = {{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
                             {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
                             {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
                             {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
                             {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
                             {KVM_CAP_USER_NMI, "KVM_CAP_USER_NMI"},
                             {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
                             {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
                             {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"}};

std::string why_not(int code) {
  constexpr const char* OTHERWISE = "or use cpu = \"soft\"";
  if (code == EACCES || code == EPERM)
    return fmt::format("/dev/kvm may not be opened by this user: add the user to the group kvm, {}", OTHERWISE);
  if (code == ENOENT || code == ENODEV || code == ENXIO)
    return fmt::format(
        "there is no /dev/kvm: enable virtualization in the firmware, load the module kvm_intel or kvm_amd, {}",
        OTHERWISE);
  return fmt::format("/dev/kvm: {}; make it available, {}", std::strerror(code), OTHERWISE);
}

} // namespace

std::string kvm_failure(const char* what) { return fmt::format("{}: {}", what, std::strerror(errno)); }

int kvm_extension(int fd, long capability) {
  const int answer = kvm_call(fd, KVM_CHECK_EXTENSION, capability);
  return answer > 0 ? answer : 0;
}

Result<FileDescriptor> open_kvm() {
  FileDescriptor kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) return error(why_not(errno));
  if (const int version = kvm_call(kvm.get(), KVM_GET_API_VERSION, 0); version != KVM_API_VERSION)
    return error(fmt::format("/dev/kvm has API version {}; {} is needed", version, KVM_API_VERSION));
  for (const Needed& needed : NEEDED)
    if (kvm_extension(kvm.get(), needed.capability) == 0)
      return error(fmt::format("this kernel's KVM lacks {}: use Linux 4.13 or newer, or cpu = \"soft\"", needed.name));
  return kvm;
}

bool has_split_irqchip(int fd) {
  for (const long capability : {KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_IRQ_ROUTING, KVM_CAP_SIGNAL_MSI, KVM_CAP_MP_STATE})
    if (kvm_extension(fd, capability) == 0) return false;
  return true;
}

bool enable_split_irqchip(int vm) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_SPLIT_IRQCHIP;
  cap.args[0] = 24; // the I/O APIC's pins: routes whose EOI is told
  return kvm_call(vm, KVM_ENABLE_CAP, &cap) == 0;
}

// A process that KVM does not give back stays behind until it does.
void end_process(int child) {
  ::kill(child, SIGKILL);
  for (int tries = 0; tries < 100 && ::waitpid(child, nullptr, WNOHANG) == 0; ++tries) ::usleep(1000);
}

Result<FileDescriptor> create_kvm_vm(int kvm) {
  FileDescriptor vm(kvm_call(kvm, KVM_CREATE_VM, 0));
  if (!vm) return error(kvm_failure("KVM_CREATE_VM"));
  u64 identity_map = IDENTITY_MAP; // before the first vCPU
  if (kvm_extension(kvm, KVM_CAP_SET_IDENTITY_MAP_ADDR) != 0 &&
      kvm_call(vm.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0)
    return error(kvm_failure("KVM_SET_IDENTITY_MAP_ADDR"));
  if (kvm_call(vm.get(), KVM_SET_TSS_ADDR, TSS) != 0) return error(kvm_failure("KVM_SET_TSS_ADDR"));
  return vm;
}

} // namespace transom
