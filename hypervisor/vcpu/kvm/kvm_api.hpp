// The kernel's KVM interface (Documentation/virt/kvm/api.rst): opening it, and calls that say what went wrong.
#pragma once

#include <linux/kvm.h>
#include <string>
#include <sys/ioctl.h>

#include "core/file_descriptor.hpp"
#include "core/result.hpp"
#include "core/types.hpp"

namespace transom {

// Linux's headers declare these with an empty member that has no size in C and one byte in C++, so neither they nor the
// requests that contain their size can be used here.
struct CpuidTable {                // kvm_cpuid2
  static constexpr u32 ROOM = 256; // as many as KVM ever takes
  u32 count, padding;
  kvm_cpuid_entry2 entries[ROOM];
};
struct SingleMsr { // kvm_msrs
  u32 count, padding;
  kvm_msr_entry entry;
};
struct MsiRoutes { // kvm_irq_routing
  static constexpr u32 ROOM = 24;
  u32 count, flags;
  kvm_irq_routing_entry entries[ROOM];
};
struct XsaveArea { // kvm_xsave
  u8 fxsave[512];
  u64 state_components; // XSTATE_BV: what is not in its initial state
  u8 rest[4096 - 520];
};
static_assert(sizeof(XsaveArea) == 4096);
inline constexpr unsigned long GET_XSAVE = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
inline constexpr unsigned long SET_XSAVE = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);
inline constexpr unsigned long GET_SUPPORTED_CPUID = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long SET_GSI_ROUTING = _IOC(_IOC_WRITE, KVMIO, 0x6a, 8);
inline constexpr unsigned long GET_MSRS = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long SET_MSRS = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long SET_CPUID2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);

// /dev/kvm with the version and the extensions that this backend needs. The error says what to do about it.
Result<FileDescriptor> open_kvm();

// A virtual machine, with the pages set aside that KVM on Intel processors wants below 4 GiB.
Result<FileDescriptor> create_kvm_vm(int kvm);

// Local APICs in the kernel, I/O APIC and 8259s in user space. Whether KVM says so (of the system, or of a VM), and
// doing so, before there are vCPUs.
bool has_split_irqchip(int fd);
bool enable_split_irqchip(int vm);

// A process whose vCPU KVM may not give back: not waited for for ever.
void end_process(int child);

// "KVM_SET_SREGS: Invalid argument", from errno.
std::string kvm_failure(const char* what);

// ioctl(), again if a signal came in between. Not for KVM_RUN, which signals are meant to end.
template <class Argument>
int kvm_call(int fd, unsigned long request, Argument argument) {
  int result;
  do result = ::ioctl(fd, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

// 0: not there. Of the system, or of a VM.
int kvm_extension(int fd, long capability);

} // namespace transom
