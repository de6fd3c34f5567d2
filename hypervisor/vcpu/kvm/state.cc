// Architectural state to and from KVM.
#include <cstring>
#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/kvm_backend.hpp"
#include "hypervisor/vcpu/kvm/kvm_vcpu.hpp"

namespace transom {

namespace {

SegmentRegister from_kvm(const kvm_segment& s) {
  SegmentRegister r;
  r.selector = s.selector;
  r.base = s.base;
  r.limit = s.limit;
  r.attr = static_cast<u16>((s.type & 15) | (s.s & 1) << 4 | (s.dpl & 3) << 5 | (s.present & 1) << 7 |
                            (s.avl & 1) << 12 | (s.l & 1) << 13 | (s.db & 1) << 14 | (s.g & 1) << 15);
  return r;
}

kvm_segment to_kvm(const SegmentRegister& r) {
  kvm_segment s{};
  s.selector = r.selector;
  s.base = r.base;
  s.limit = r.limit;
  s.type = r.attr & 15;
  s.s = r.attr >> 4 & 1;
  s.dpl = r.attr >> 5 & 3;
  s.present = r.attr >> 7 & 1;
  s.avl = r.attr >> 12 & 1;
  s.l = r.attr >> 13 & 1;
  s.db = r.attr >> 14 & 1;
  s.g = r.attr >> 15 & 1;
  s.unusable = s.present == 0;
  return s;
}

// kvm_regs has them in the order of the encoding but for RSP to RDI.
void copy_gpr(const kvm_regs& r, u64 (&gpr)[16]) {
  const u64 all[16] = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
                       r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
  std::memcpy(gpr, all, sizeof all);
}

kvm_regs to_kvm(const u64 (&g)[16], u64 rip, u64 rflags) {
  kvm_regs r{};
  r.rax = g[0], r.rcx = g[1], r.rdx = g[2], r.rbx = g[3];
  r.rsp = g[4], r.rbp = g[5], r.rsi = g[6], r.rdi = g[7];
  r.r8 = g[8], r.r9 = g[9], r.r10 = g[10], r.r11 = g[11];
  r.r12 = g[12], r.r13 = g[13], r.r14 = g[14], r.r15 = g[15];
  r.rip = rip;
  r.rflags = rflags | 2;
  return r;
}

constexpr u32 KERNEL_GS_BASE = 0xc000'0102;

} // namespace

VcpuRegisters KvmVcpu::registers() const {
  kvm_regs r{};
  kvm_sregs s{};
  kvm_debugregs d{};
  must(kvm_call(fd_.get(), KVM_GET_REGS, &r), "KVM_GET_REGS");
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  must(kvm_call(fd_.get(), KVM_GET_DEBUGREGS, &d), "KVM_GET_DEBUGREGS");
  VcpuRegisters to;
  copy_gpr(r, to.gpr);
  to.rip = r.rip;
  to.rflags = r.rflags;
  to.cr0 = s.cr0;
  to.cr2 = s.cr2;
  to.cr3 = s.cr3;
  to.cr4 = s.cr4;
  to.efer = s.efer;
  to.es = from_kvm(s.es);
  to.cs = from_kvm(s.cs);
  to.ss = from_kvm(s.ss);
  to.ds = from_kvm(s.ds);
  to.fs = from_kvm(s.fs);
  to.gs = from_kvm(s.gs);
  to.ldtr = from_kvm(s.ldt);
  to.tr = from_kvm(s.tr);
  to.gdtr = {s.gdt.base, s.gdt.limit};
  to.idtr = {s.idt.base, s.idt.limit};
  std::memcpy(to.dr, d.db, sizeof d.db);
  to.dr[6] = d.dr6;
  to.dr[7] = d.dr7;
  to.kernel_gs_base = get_msr(KERNEL_GS_BASE);
  return to;
}

void KvmVcpu::set_registers(const VcpuRegisters& from) {
  clear_events();
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  s.cr0 = from.cr0;
  s.cr2 = from.cr2;
  s.cr3 = from.cr3;
  s.cr4 = from.cr4;
  s.efer = from.efer;
  s.es = to_kvm(from.es);
  s.cs = to_kvm(from.cs);
  s.ss = to_kvm(from.ss);
  s.ds = to_kvm(from.ds);
  s.fs = to_kvm(from.fs);
  s.gs = to_kvm(from.gs);
  s.ldt = to_kvm(from.ldtr);
  s.tr = to_kvm(from.tr);
  s.gdt.base = from.gdtr.base;
  s.gdt.limit = from.gdtr.limit;
  s.idt.base = from.idtr.base;
  s.idt.limit = from.idtr.limit;
  if (!split_) s.apic_base = platform_.apic_base_read();
  std::memset(s.interrupt_bitmap, 0, sizeof s.interrupt_bitmap);
  must(kvm_call(fd_.get(), KVM_SET_SREGS, &s), "KVM_SET_SREGS");
  const kvm_regs r = to_kvm(from.gpr, from.rip, from.rflags);
  must(kvm_call(fd_.get(), KVM_SET_REGS, &r), "KVM_SET_REGS");
  kvm_debugregs d{};
  std::memcpy(d.db, from.dr, sizeof d.db);
  d.dr6 = from.dr[6] != 0 ? from.dr[6] : 0xffff'0ff0;
  d.dr7 = from.dr[7] != 0 ? from.dr[7] : 0x400;
  must(kvm_call(fd_.get(), KVM_SET_DEBUGREGS, &d), "KVM_SET_DEBUGREGS");
  set_msr(KERNEL_GS_BASE, from.kernel_gs_base);
}

// Nothing is on its way to be delivered, and no instruction casts a shadow.
void KvmVcpu::clear_events() {
  kvm_vcpu_events e{};
  must(kvm_call(fd_.get(), KVM_GET_VCPU_EVENTS, &e), "KVM_GET_VCPU_EVENTS");
  e.exception = {};
  e.interrupt = {};
  e.nmi.injected = 0;
  e.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
  must(kvm_call(fd_.get(), KVM_SET_VCPU_EVENTS, &e), "KVM_SET_VCPU_EVENTS");
  halted_ = false;
  run_->ready_for_interrupt_injection = 0; // and if_flag: of what ran before
  run_->if_flag = 0;
}

// ---------------------------------------------------------------------------------------------------- FPU

// Not KVM_GET_FPU: it says nothing of which components are in use, and what it sets may be taken for unused.
void KvmVcpu::fpu_state(u8 (&image)[512]) const {
  const auto area = std::make_unique<XsaveArea>();
  must(kvm_call(fd_.get(), GET_XSAVE, area.get()), "KVM_GET_XSAVE");
  std::memcpy(image, area->fxsave, sizeof image);
}

void KvmVcpu::set_fpu_state(const u8 (&image)[512]) {
  constexpr u64 X87_AND_SSE = 3;
  constexpr u32 MXCSR = 24, MXCSR_MASK = 28, ALL = 0xffff;
  const auto area = std::make_unique<XsaveArea>();
  must(kvm_call(fd_.get(), GET_XSAVE, area.get()), "KVM_GET_XSAVE");
  std::memcpy(area->fxsave, image, sizeof image);
  area->fxsave[MXCSR + 2] = area->fxsave[MXCSR + 3] = 0; // reserved: KVM refuses them
  std::memcpy(area->fxsave + MXCSR_MASK, &ALL, sizeof ALL);
  area->state_components |= X87_AND_SSE;
  must(kvm_call(fd_.get(), SET_XSAVE, area.get()), "KVM_SET_XSAVE");
}

// ---------------------------------------------------------------------------------------------------- reset

// Registers after RESET and INIT [SDM 3A table 9-1].
void KvmVcpu::reset_registers(u64 cr0) {
  VcpuRegisters r;
  for (SegmentRegister* s : {&r.es, &r.ss, &r.ds, &r.fs, &r.gs}) *s = {0, 0x93, 0xffff, 0};
  r.cs = {0xf000, 0x93, 0xffff, 0xffff'0000};
  r.ldtr = {0, 0x82, 0xffff, 0};
  r.tr = {0, 0x8b, 0xffff, 0};
  r.gdtr = r.idtr = {0, 0xffff};
  r.cr0 = cr0;
  r.rip = 0xfff0;
  for (const kvm_cpuid_entry2& e : backend_.cpuid_table(platform_))
    if (e.function == 1) r.gpr[2] = e.eax;
  kvm_vcpu_events e{};
  must(kvm_call(fd_.get(), KVM_GET_VCPU_EVENTS, &e), "KVM_GET_VCPU_EVENTS");
  e.nmi = {};
  e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
  must(kvm_call(fd_.get(), KVM_SET_VCPU_EVENTS, &e), "KVM_SET_VCPU_EVENTS");
  set_registers(r);
  stopped_at_.reset();
}

void KvmVcpu::reset() {
  constexpr u64 CD_NW_ET = 0x6000'0010;
  reset_msrs();
  u8 image[512] = {};
  image[0] = 0x40; // FCW 0040h; all registers are tagged valid
  image[4] = 0xff;
  const u32 mxcsr = 0x1f80;
  std::memcpy(image + 24, &mxcsr, 4);
  set_fpu_state(image);
  reset_registers(CD_NW_ET);
  if (split_) reset_apic();
}

// The kernel's local APIC, with what waits in it. The base first: registers mean other things in x2APIC mode.
void KvmVcpu::reset_apic() {
  constexpr u64 ENABLED = 1 << 11, BOOTSTRAP = 1 << 8, DEFAULT_BASE = 0xfee0'0000;
  set_msr(0x6e0, 0); // TSC deadline
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  s.apic_base = DEFAULT_BASE | ENABLED | (number_ == 0 ? BOOTSTRAP : 0);
  s.cr8 = 0;
  must(kvm_call(fd_.get(), KVM_SET_SREGS, &s), "KVM_SET_SREGS");
  must(kvm_call(fd_.get(), KVM_SET_LAPIC, apic_.get()), "KVM_SET_LAPIC");
  ext_int_.reset();
  const kvm_mp_state state{number_ == 0 ? u32{KVM_MP_STATE_RUNNABLE} : u32{KVM_MP_STATE_UNINITIALIZED}};
  must(kvm_call(fd_.get(), KVM_SET_MP_STATE, &state), "KVM_SET_MP_STATE");
}

void KvmVcpu::init() {
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  reset_registers((s.cr0 & 0x6000'0000) | 0x10); // the cache bits stay
}

void KvmVcpu::startup(u8 vector) {
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  s.cs.selector = static_cast<u16>(vector << 8);
  s.cs.base = u64{vector} << 12;
  must(kvm_call(fd_.get(), KVM_SET_SREGS, &s), "KVM_SET_SREGS");
  kvm_regs r{};
  must(kvm_call(fd_.get(), KVM_GET_REGS, &r), "KVM_GET_REGS");
  r.rip = 0;
  must(kvm_call(fd_.get(), KVM_SET_REGS, &r), "KVM_SET_REGS");
}

u64 KvmVcpu::get_msr(u32 index) const {
  SingleMsr one{};
  one.count = 1;
  one.entry.index = index;
  return kvm_call(fd_.get(), GET_MSRS, &one) == 1 ? one.entry.data : 0;
}

// One that this KVM refuses it does not have either.
void KvmVcpu::set_msr(u32 index, u64 value) {
  SingleMsr one{};
  one.count = 1;
  one.entry.index = index;
  one.entry.data = value;
  (void)kvm_call(fd_.get(), SET_MSRS, &one);
}

void KvmVcpu::reset_msrs() {
  constexpr u32 ZERO[] = {
      0x174,       0x175,       0x176,                                                 // SYSENTER
      0xc000'0081, 0xc000'0082, 0xc000'0083, 0xc000'0084, KERNEL_GS_BASE, 0xc000'0103, // SYSCALL, SWAPGS, TSC_AUX
      0x2ff,       0x250,       0x258,       0x259,                                    // MTRRs
      0x268,       0x269,       0x26a,       0x26b,       0x26c,          0x26d,       0x26e, 0x26f};
  for (const u32 index : ZERO) set_msr(index, 0);
  for (u32 index = 0x200; index <= 0x20f; ++index) set_msr(index, 0);
  set_msr(0x277, 0x0007'0406'0007'0406); // PAT
}

} // namespace transom
