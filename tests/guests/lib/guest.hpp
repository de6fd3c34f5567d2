// What a bare-metal 64-bit guest has beside report.hpp: memory-mapped registers, PCI, interrupts, pages.
#pragma once

#include "tests/guests/lib/report.hpp"

u32 pci_read(u32 device, u32 function, u32 offset);
void pci_write(u32 device, u32 function, u32 offset, u32 value);

// --- interrupts. A vector without a handler ends the run, exceptions included.
struct Frame {
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  u64 vector, error, rip, cs, rflags, rsp, ss;
};
using Handler = void (*)(Frame&);
void handle(u8 vector, Handler handler); // null: none
void handle_others(Handler handler);     // those without one
inline u64 fault_address() {
  u64 v;
  asm volatile("mov %%cr2, %0" : "=r"(v));
  return v;
}

// Waits until `condition` holds; the bound is far above anything that a loaded host needs.
template <class Condition>
bool wait_until(Condition condition) {
  for (u64 i = 0; i < 20'000'000; ++i) {
    if (condition()) return true;
    asm volatile("pause" : : : "memory");
  }
  return false;
}

// --- pages of 4 KiB in a window of 2 MiB at `window` (below 4 GiB, a multiple of 2 MiB): initially absent.
void open_window(u64 window);
void map_page(u64 window, u64 address, u64 physical, bool present = true);
