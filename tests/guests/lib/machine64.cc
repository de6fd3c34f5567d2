// The 64-bit half of cpu.hpp.
#include "tests/guests/lib/cpu.hpp"
#include "tests/guests/lib/guest.hpp"

void program_ended(const Outcome& o);
extern "C" u64 pml4[512], pdpt[512], pd[2048];

namespace {
template <class T>
word selector(T read) {
  u16 v;
  read(v);
  return v;
}
void on_event(Frame& f) {
  Outcome o{};
  o.vector = f.vector, o.error = f.error;
  State& s = o.s;
  s.ax = f.rax, s.cx = f.rcx, s.dx = f.rdx, s.bx = f.rbx, s.sp = f.rsp, s.bp = f.rbp, s.si = f.rsi, s.di = f.rdi;
  s.ip = f.rip, s.flags = f.rflags, s.cs = f.cs, s.ss = f.ss;
  s.ds = selector([](u16& v) { asm volatile("mov %%ds, %0" : "=r"(v)); });
  s.es = selector([](u16& v) { asm volatile("mov %%es, %0" : "=r"(v)); });
  s.fs = selector([](u16& v) { asm volatile("mov %%fs, %0" : "=r"(v)); });
  s.gs = selector([](u16& v) { asm volatile("mov %%gs, %0" : "=r"(v)); });
  s.r8 = f.r8, s.r9 = f.r9, s.r10 = f.r10, s.r11 = f.r11, s.r12 = f.r12, s.r13 = f.r13, s.r14 = f.r14, s.r15 = f.r15;
  program_ended(o);
  print("vector "), print_number(f.vector, 16), print(", error "), print_number(f.error, 16);
  print(", rip "), print_number(f.rip, 16), print(", cr2 "), print_number(fault_address(), 16), print("\n");
  die("an interrupt or exception that nobody expects");
}
} // namespace

void setup_cpu() {
  constexpr u32 U = PRESENT | DPL3;
  set_descriptor(UCODE32, descriptor(0, 0xfffff, U | CODE, PAGES32));
  set_descriptor(UDATA, descriptor(0, 0xfffff, U | DATA, PAGES32));
  set_descriptor(UCODE64, descriptor(0, 0xfffff, U | CODE, PAGES64));
  const u64 base = reinterpret_cast<u64>(tss);
  set_descriptor(TSS_SELECTOR, descriptor(static_cast<u32>(base), TSS_LIMIT, PRESENT | 9, 0));
  set_descriptor(TSS_SELECTOR + 8, 0);
  set_descriptor(KCODE32, descriptor(0, 0xfffff, PRESENT | CODE, PAGES32));
  set_descriptor(KCODE16, descriptor(0, 0xffff, PRESENT | CODE, BYTES16));
  set_descriptor(KDATA16, descriptor(0, 0xffff, PRESENT | DATA, BYTES16));
  set_descriptor(UCODE16, descriptor(0, 0xffff, U | CODE, BYTES16));
  set_descriptor(UDATA16, descriptor(0, 0xffff, U | DATA, BYTES16));
  load_gdt();
  at<u64>(base + 4) = reinterpret_cast<u64>(stack0_top);
  at<u16>(base + 0x66) = TSS_LIMIT + 1; // no bitmap
  asm volatile("ltr %0" : : "r"(u16{TSS_SELECTOR}));
  pml4[0] |= 4;
  for (u32 i = 0; i < 4; ++i) pdpt[i] |= 4;
  for (u64& entry : pd) entry |= 4;
  flush_tlb();
  handle_others(on_event);
}
