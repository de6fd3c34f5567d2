// Does the kernel's half of the split irqchip work? An emulated KVM may report what it does not do.
#include <cerrno>
#include <csignal>
#include <cstring>
#include <initializer_list>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/split_irqchip.hpp"

namespace transom {

namespace {

constexpr u64 RAM = 0x8000, CODE = 0x1000, MSI_HANDLER = 0x2000, PIC_HANDLER = 0x3000, IDT = 0x4000, GDT = 0x5000;
constexpr u8 MSI_VECTOR = 0x41, PIC_VECTOR = 0x42, MSI_PORT = 0x81, PIC_PORT = 0x82;
constexpr int TICKS = 200, TICK_US = 2000; // of the timer that ends each KVM_RUN
constexpr int PATIENCE_MS = 1000;          // the parent's

class Probe {
 public:
  bool works() { return build() && start() && halts() && takes_level() && halts() && takes_pic(); }

 private:
  bool build();
  bool start();
  bool halts();
  bool takes_level();
  bool takes_pic();
  u32 run();           // the exit reason; ~0: none came
  u32 output() const { // of an exit to write four bytes
    u32 value;
    std::memcpy(&value, reinterpret_cast<const u8*>(run_) + run_->io.data_offset, sizeof value);
    return value;
  }
  void put(u64 gpa, std::initializer_list<int> bytes) {
    for (const int b : bytes) ram_[gpa++] = static_cast<u8>(b);
  }
  void gate(u8 vector, u64 to) { put(IDT + 8 * vector, {0, static_cast<int>(to >> 8), 8, 0, 0, 0x8e, 0, 0}); }

  FileDescriptor kvm_, vm_, vcpu_;
  u8* ram_ = nullptr;
  kvm_run* run_ = nullptr;
};

bool Probe::build() {
  auto kvm = open_kvm();
  if (!kvm) return false;
  kvm_ = std::move(*kvm);
  auto vm = create_kvm_vm(kvm_.get());
  if (!vm || !enable_split_irqchip(vm->get())) return false;
  vm_ = std::move(*vm);
  void* const ram = ::mmap(nullptr, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) return false;
  ram_ = static_cast<u8*>(ram);
  kvm_userspace_memory_region region{0, 0, 0, RAM, reinterpret_cast<u64>(ram)};
  if (kvm_call(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) return false;
  vcpu_ = FileDescriptor(kvm_call(vm_.get(), KVM_CREATE_VCPU, 0));
  const int size = kvm_call(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (!vcpu_ || size < 0) return false;
  void* const run = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_.get(), 0);
  if (run == MAP_FAILED) return false;
  run_ = static_cast<kvm_run*>(run);
  return true;
}

// 32-bit protected mode: the guest enables its APIC and halts; so does each handler.
bool Probe::start() {
  put(CODE, {0xc7, 0x05, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0, 0xfb, 0xf4, 0xeb, 0xfd}); // SVR = 1FFh; sti; hlt
  put(MSI_HANDLER, {0xa1, 0x20,     1,    0xe0, 0xfe,                   // mov eax, ISR of vectors 40h–5Fh
                    0xc7, 0x05,     0xb0, 0,    0xe0, 0xfe, 0, 0, 0, 0, // EOI
                    0xe7, MSI_PORT, 0xfb, 0xf4, 0xeb, 0xfd});           // out; sti; hlt
  put(PIC_HANDLER, {0xe6, PIC_PORT, 0xf4, 0xeb, 0xfd});
  put(GDT + 8, {0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0});
  gate(MSI_VECTOR, MSI_HANDLER);
  gate(PIC_VECTOR, PIC_HANDLER);
  kvm_sregs s{};
  if (kvm_call(vcpu_.get(), KVM_GET_SREGS, &s) != 0) return false;
  s.cs.base = 0, s.cs.limit = 0xffff'ffff, s.cs.selector = 8;
  s.cs.type = 11, s.cs.present = s.cs.s = s.cs.db = s.cs.g = 1, s.cs.dpl = s.cs.l = 0;
  s.ss = s.cs;
  s.ss.type = 3, s.ss.selector = 16;
  s.ds = s.es = s.fs = s.gs = s.ss;
  s.idt.base = IDT, s.idt.limit = 0x7ff;
  s.gdt.base = GDT, s.gdt.limit = 23;
  s.cr0 |= 1;
  kvm_regs r{};
  r.rip = CODE, r.rsp = RAM, r.rflags = 2;
  return kvm_call(vcpu_.get(), KVM_SET_SREGS, &s) == 0 && kvm_call(vcpu_.get(), KVM_SET_REGS, &r) == 0;
}

u32 Probe::run() {
  const int result = ::ioctl(vcpu_.get(), KVM_RUN, 0);
  return result == 0 ? run_->exit_reason : errno == EINTR ? u32{KVM_EXIT_INTR} : ~u32{0};
}

// HLT stays in the kernel, and a signal ends that.
bool Probe::halts() {
  for (int tick = 0; tick < TICKS; ++tick) {
    if (run() != KVM_EXIT_INTR) return false;
    kvm_mp_state state{};
    if (kvm_call(vcpu_.get(), KVM_GET_MP_STATE, &state) != 0) return false;
    if (state.mp_state == KVM_MP_STATE_HALTED) return true;
  }
  return false;
}

bool Probe::takes_level() {
  const InterruptMessage message{MSI_VECTOR, DeliveryMode::fixed, true, false, 0};
  Ioapic::LevelMessages all;
  all[5] = message;
  bool failed = false;
  SplitIrqchip irqchip(vm_.get(), [&](const std::string&) { failed = true; });
  irqchip.set_level_messages(all);
  if (failed || !irqchip.send(message)) return false;
  bool ended = false, written = false; // in this order on a processor; an emulated KVM may be late with the first
  for (int tick = 0; tick < TICKS && !(ended && written); ++tick) {
    const u32 exit = run();
    if (exit == KVM_EXIT_IOAPIC_EOI && run_->eoi.vector == MSI_VECTOR)
      ended = true;
    else if (exit == KVM_EXIT_IO && run_->io.port == MSI_PORT && output() == 1u << MSI_VECTOR % 32) // it was in service
      written = true;
    else if (exit != KVM_EXIT_INTR)
      return false;
  }
  return ended && written;
}

bool Probe::takes_pic() {
  const kvm_interrupt interrupt{PIC_VECTOR};
  if (run_->ready_for_interrupt_injection == 0 || kvm_call(vcpu_.get(), KVM_INTERRUPT, &interrupt) != 0) return false;
  u32 exit = KVM_EXIT_INTR;
  for (int tick = 0; tick < TICKS && exit == KVM_EXIT_INTR; ++tick) exit = run();
  return exit == KVM_EXIT_IO && run_->io.port == PIC_PORT;
}

} // namespace

std::string split_irqchip_obstacle() {
  auto kvm = open_kvm();
  if (!kvm) return kvm.error().text;
  if (!has_split_irqchip(kvm->get())) return "this KVM has no split irqchip";
  const pid_t child = ::fork();
  if (child < 0) return kvm_failure("fork");
  if (child == 0) {
    std::signal(SIGALRM, [](int) {});
    const itimerval tick{{0, TICK_US}, {0, TICK_US}};
    ::setitimer(ITIMER_REAL, &tick, nullptr);
    ::_exit(Probe().works() ? 0 : 1);
  }
  int status = -1;
  pid_t ended = 0;
  for (int ms = 0; ms < PATIENCE_MS && (ended = ::waitpid(child, &status, WNOHANG)) == 0; ++ms) ::usleep(1000);
  if (ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (ended == 0) end_process(child);
  return "this KVM's split irqchip does not do what the interface says";
}

} // namespace transom
