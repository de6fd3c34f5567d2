// Why KVM_RUN came back, and what is done about it.
#include <cstring>
#include <fmt/format.h>
#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/kvm_vcpu.hpp"

namespace transom {

std::optional<RunResult> KvmVcpu::handle_exit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: handle_io(); return {};
    case KVM_EXIT_MMIO: handle_mmio(); return {};
    case KVM_EXIT_X86_RDMSR: handle_rdmsr(); return {};
    case KVM_EXIT_X86_WRMSR: handle_wrmsr(); return {};
    case KVM_EXIT_IOAPIC_EOI: platform_.interrupt_ended(run_->eoi.vector); return {};
    case KVM_EXIT_HLT: halted_ = true; return {};
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR: return {}; // looked at before the next entry
    case KVM_EXIT_SHUTDOWN: return RunResult::shutdown;
    case KVM_EXIT_DEBUG: return handle_debug();
    case KVM_EXIT_INTERNAL_ERROR: return internal_error();
    case KVM_EXIT_FAIL_ENTRY:
      return fail(fmt::format("KVM: the processor refused to enter the guest, reason {:#x}",
                              run_->fail_entry.hardware_entry_failure_reason) +
                  where());
    default: return fail(fmt::format("KVM: unexpected exit {}", run_->exit_reason) + where());
  }
}

RunResult KvmVcpu::fail(std::string why) {
  if (failure_.empty()) failure_ = std::move(why);
  return RunResult::failed;
}

std::string KvmVcpu::where() const {
  kvm_regs r{};
  kvm_sregs s{};
  if (kvm_call(fd_.get(), KVM_GET_REGS, &r) != 0 || kvm_call(fd_.get(), KVM_GET_SREGS, &s) != 0) return {};
  return fmt::format(
      "; cs:rip {:x}:{:x} (base {:x}) rflags {:x} cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x} rax {:x} rbx {:x} "
      "rcx {:x} rdx {:x} rsp {:x} rbp {:x} rsi {:x} rdi {:x}",
      s.cs.selector, r.rip, s.cs.base, r.rflags, s.cr0, s.cr2, s.cr3, s.cr4, s.efer, r.rax, r.rbx, r.rcx, r.rdx, r.rsp,
      r.rbp, r.rsi, r.rdi);
}

RunResult KvmVcpu::internal_error() {
  const auto& e = run_->internal;
  std::string text = fmt::format("KVM: internal error {}", e.suberror);
  if (e.suberror == KVM_INTERNAL_ERROR_EMULATION) text += " (an instruction that KVM cannot emulate)";
  const u32 count = e.ndata < 16 ? e.ndata : 16;
  for (u32 n = 0; n < count; ++n) text += fmt::format(" {:x}", e.data[n]);
  return fail(text + where());
}

// ---------------------------------------------------------------------------------------------------- ports

void KvmVcpu::handle_io() {
  unfinished_ = true;
  const auto& io = run_->io;
  u8* data = reinterpret_cast<u8*>(run_) + io.data_offset;
  const bool in = io.direction == KVM_EXIT_IO_IN;
  if (!in && hypercalls_ && hypercall(io.port, io.size)) return;
  if (in && io.count > 1 && run_of_elements(io.port, io.size, io.count, data)) return;
  for (u32 n = 0; n < io.count; ++n, data += io.size) {
    u32 value = 0;
    if (in) {
      value = platform_.pio_read(io.port, io.size);
      std::memcpy(data, &value, io.size);
    } else {
      std::memcpy(&value, data, io.size);
      platform_.pio_write(io.port, io.size, value);
    }
  }
}

// KVM reads ahead for REP INS, and stores the elements when it goes on. The device host stores them where they belong
// in one go; KVM gets a copy, which it stores there once more.
bool KvmVcpu::run_of_elements(u16 port, u32 width, u32 count, u8* data) {
  const u32 bytes = width * count;
  const auto gpa = ins_destination(bytes);
  if (!gpa) return false;
  const PhysPage page = platform_.page(*gpa & PAGE_MASK);
  if (page.ram_page == ~u64{0} || page.read == nullptr || page.write != page.read) return false;
  platform_.pio_run({port, static_cast<u8>(width), true, false, count, *gpa});
  std::memcpy(data, page.read + *gpa % PAGE_SIZE, bytes);
  return true;
}

// Where the INS at RIP stores its next `bytes`, if they lie within one page that it may write to.
std::optional<u64> KvmVcpu::ins_destination(u32 bytes) const {
  kvm_regs r{};
  kvm_sregs s{};
  if (kvm_call(fd_.get(), KVM_GET_REGS, &r) != 0 || kvm_call(fd_.get(), KVM_GET_SREGS, &s) != 0) return {};
  const bool long_mode = (s.efer & 0x400) != 0 && s.cs.l != 0;
  u32 address_bits = long_mode ? 64 : s.cs.db != 0 ? 32 : 16;
  const u64 code = long_mode ? r.rip : static_cast<u32>(s.cs.base + r.rip);
  for (u32 n = 0;; ++n) { // prefixes, then 6Ch or 6Dh
    if (n == 14) return {};
    const auto at = walk(s, code + n);
    if (!at) return {};
    const PhysPage page = platform_.page(at->gpa & PAGE_MASK);
    if (page.read == nullptr) return {};
    const u8 byte = page.read[at->gpa % PAGE_SIZE];
    if (byte == 0x6c || byte == 0x6d) break;
    if (byte == 0x67) {
      address_bits = address_bits == 32 ? (long_mode ? 32 : 16) : 32;
      continue;
    }
    const bool rex = long_mode && (byte & 0xf0) == 0x40;
    if (!rex && std::memchr("\x66\xf2\xf3\x26\x2e\x36\x3e\x64\x65", byte, 9) == nullptr) return {};
  }
  if ((r.rflags & 0x400) != 0) return {}; // DF
  const u64 index = address_bits == 64 ? r.rdi : r.rdi & ((u64{1} << address_bits) - 1);
  const u64 linear = long_mode ? index : static_cast<u32>(s.es.base + index);
  if (linear % PAGE_SIZE + bytes > PAGE_SIZE) return {};
  const auto to = walk(s, linear);
  if (!to || !to->writable || (s.ss.dpl == 3 && !to->user)) return {};
  return to->gpa;
}

// MOV EAX, number; OUT 7Eh, EAX: VMCALL on a KVM that keeps hypercalls to itself. KVM has moved RIP behind it already,
// so only RAX may change here.
bool KvmVcpu::hypercall(u16 port, u32 width) {
  constexpr u16 PORT = 0x7e;
  if (port != PORT || width != 4) return false;
  kvm_regs r{};
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_REGS, &r), "KVM_GET_REGS");
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  const bool long_mode = (s.efer & 0x400) != 0 && s.cs.l != 0;
  constexpr u64 EPERM_ = static_cast<u64>(-i64{1});
  if (s.ss.dpl != 0) {
    r.rax = EPERM_;
  } else if (long_mode) {
    r.rax = platform_.hypercall(r.rax, {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9}, true);
  } else {
    const auto low = [](u64 v) { return u64{static_cast<u32>(v)}; };
    r.rax = platform_.hypercall(low(r.rax), {low(r.rbx), low(r.rcx), low(r.rdx), low(r.rsi), low(r.rdi), low(r.rbp)},
                                false);
  }
  must(kvm_call(fd_.get(), KVM_SET_REGS, &r), "KVM_SET_REGS");
  return true;
}

// ---------------------------------------------------------------------------------------------------- memory

// No slot there, or a write to a read-only one: a device, or shadow RAM that is only written or only read.
void KvmVcpu::handle_mmio() {
  unfinished_ = true;
  auto& m = run_->mmio;
  const u32 length = m.len < sizeof m.data ? m.len : static_cast<u32>(sizeof m.data);
  for (u32 done = 0; done < length;) {
    const u64 gpa = (m.phys_addr + done) & platform_.a20_mask();
    u32 width = length - done >= 8 ? 8 : length - done >= 4 ? 4 : length - done >= 2 ? 2 : 1;
    while (gpa % PAGE_SIZE + width > PAGE_SIZE) width /= 2;
    const PhysPage page = platform_.page(gpa & PAGE_MASK);
    u8* const data = m.data + done;
    u64 value = 0;
    if (m.is_write != 0) {
      std::memcpy(&value, data, width);
      if (page.write != nullptr)
        std::memcpy(page.write + gpa % PAGE_SIZE, data, width);
      else
        platform_.mmio_write(gpa, width, value);
    } else if (page.read != nullptr) {
      std::memcpy(data, page.read + gpa % PAGE_SIZE, width);
    } else {
      value = platform_.mmio_read(gpa, width);
      std::memcpy(data, &value, width);
    }
    done += width;
  }
}

// ---------------------------------------------------------------------------------------------------- MSRs

namespace {

constexpr u32 APIC_BASE = 0x1b, TSC_DEADLINE = 0x6e0;

bool is_x2apic(u32 msr) { return (msr >= 0x800 && msr <= 0x8ff) || msr == TSC_DEADLINE; }
bool is_hypervisor(u32 msr) { return msr >= 0x4000'0000 && msr <= 0x4000'02ff; }

// Read as zero and ignore writes, as on the software CPU: microcode, last-branch records, a K8's north bridge.
bool is_inert(u32 msr) {
  switch (msr) {
    case 0x79:
    case 0x8b:
    case 0x1d9:
    case 0xc001'0010:
    case 0xc001'0015:
    case 0xc001'001a:
    case 0xc001'001d:
    case 0xc001'001f:
    case 0xc001'0020:
    case 0xc001'0055:
    case 0xc001'1029: return true;
    default: return false;
  }
}

} // namespace

void KvmVcpu::handle_rdmsr() {
  unfinished_ = true;
  auto& m = run_->msr;
  u64 value = 0;
  bool known = true;
  if (m.index == APIC_BASE)
    value = platform_.apic_base_read();
  else if (is_x2apic(m.index))
    known = platform_.x2apic_read(m.index, value);
  else
    known = is_inert(m.index);
  m.data = value;
  m.error = known ? 0 : 1; // #GP(0)
}

void KvmVcpu::handle_wrmsr() {
  unfinished_ = true;
  auto& m = run_->msr;
  bool known = true;
  if (m.index == APIC_BASE) {
    known = platform_.apic_base_write(m.data);
    if (known) set_msr(APIC_BASE, platform_.apic_base_read()); // KVM derives CPUID's APIC bit from it
  } else if (is_x2apic(m.index)) {
    known = platform_.x2apic_write(m.index, m.data);
  } else if (is_hypervisor(m.index)) {
    known = platform_.hypervisor_msr_write(m.index, m.data);
  } else {
    known = is_inert(m.index);
  }
  m.error = known ? 0 : 1;
}

} // namespace transom
