// The 32-bit half of cpu.hpp. The guest runs flat, without paging; no vector has a handler of its own.
#include "tests/guests/lib/cpu.hpp"

void program_ended(const Outcome& o);

struct Frame32 { // what boot32.asm pushes
  u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax;
  u32 vector, error, eip, cs, eflags, outer_esp, outer_ss, vm_es, vm_ds, vm_fs, vm_gs;
};

extern "C" void on_vector(Frame32* frame) {
  const Frame32& f = *frame;
  Outcome o{};
  o.vector = f.vector, o.error = f.error;
  State& s = o.s;
  s.ax = f.eax, s.cx = f.ecx, s.dx = f.edx, s.bx = f.ebx, s.bp = f.ebp, s.si = f.esi, s.di = f.edi;
  s.ip = f.eip, s.flags = f.eflags, s.cs = f.cs & 0xffff;
  s.ds = f.ds & 0xffff, s.es = f.es & 0xffff, s.fs = f.fs & 0xffff, s.gs = f.gs & 0xffff;
  const bool vm = f.eflags & VM;
  if (vm || (f.cs & 3) != 0) {
    s.sp = f.outer_esp, s.ss = f.outer_ss & 0xffff;
  } else {
    u16 ss;
    asm volatile("mov %%ss, %0" : "=r"(ss));
    s.sp = reinterpret_cast<word>(&frame->outer_esp), s.ss = ss;
  }
  if (vm) s.ds = f.vm_ds & 0xffff, s.es = f.vm_es & 0xffff, s.fs = f.vm_fs & 0xffff, s.gs = f.vm_gs & 0xffff;
  program_ended(o);
  print("vector "), print_number(f.vector, 16), print(", error "), print_number(f.error, 16);
  print(", eip "), print_number(f.eip, 16), print(", cr2 "), print_number(control<2>(), 16), print("\n");
  die("an interrupt or exception that nobody expects");
}

extern "C" void run_guest(u32 magic, u32 info) {
  boot_magic = magic, boot_info = info;
  guest_main();
  finish();
}

void setup_cpu() {
  constexpr u32 U = PRESENT | DPL3;
  set_descriptor(UCODE32, descriptor(0, 0xfffff, U | CODE, PAGES32));
  set_descriptor(UDATA, descriptor(0, 0xfffff, U | DATA, PAGES32));
  set_descriptor(UCODE64, descriptor(0, 0xfffff, U | CODE, PAGES32));
  const word base = reinterpret_cast<word>(tss);
  set_descriptor(TSS_SELECTOR, descriptor(base, TSS_LIMIT, PRESENT | 9, 0));
  set_descriptor(KCODE32, descriptor(0, 0xfffff, PRESENT | CODE, PAGES32));
  set_descriptor(KCODE16, descriptor(0, 0xffff, PRESENT | CODE, BYTES16));
  set_descriptor(KDATA16, descriptor(0, 0xffff, PRESENT | DATA, BYTES16));
  set_descriptor(UCODE16, descriptor(0, 0xffff, U | CODE, BYTES16));
  set_descriptor(UDATA16, descriptor(0, 0xffff, U | DATA, BYTES16));
  load_gdt();
  at<u32>(base + 4) = reinterpret_cast<word>(stack0_top);
  at<u32>(base + 8) = KDATA;
  at<u16>(base + 0x66) = TSS_LIMIT + 1; // no bitmap
  asm volatile("ltr %0" : : "r"(u16{TSS_SELECTOR}));
}
