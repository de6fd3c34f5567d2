#include "tests/guests/lib/guest.hpp"

extern "C" u64 pd[2048];

namespace {
Handler handlers[256];
Handler other_handler;
alignas(4096) u64 window_table[2][512];
u64 window_base[2];
} // namespace

u32 pci_read(u32 device, u32 function, u32 offset) {
  out32(0xcf8, 1u << 31 | device << 11 | function << 8 | offset);
  return in32(0xcfc);
}
void pci_write(u32 device, u32 function, u32 offset, u32 value) {
  out32(0xcf8, 1u << 31 | device << 11 | function << 8 | offset);
  out32(0xcfc, value);
}

void handle(u8 vector, Handler handler) { handlers[vector] = handler; }
void handle_others(Handler handler) { other_handler = handler; }

extern "C" void on_vector(Frame* frame) {
  if (Handler handler = handlers[frame->vector & 255]) return handler(*frame);
  if (other_handler != nullptr) return other_handler(*frame);
  print("vector "), print_number(frame->vector, 16), print(", error "), print_number(frame->error, 16);
  print(", rip "), print_number(frame->rip, 16), print(", cr2 "), print_number(fault_address(), 16), print("\n");
  die("an interrupt or exception that nobody expects");
}

extern "C" void run_guest(u32 magic, u32 info) {
  boot_magic = magic, boot_info = info;
  patient = asked_for("patient");
  guest_main();
  finish();
}

namespace {
void flush_tlb() { asm volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" : : : "rax", "memory"); }
u64* table_of(u64 window) {
  for (u32 i = 0; i < 2; ++i)
    if (window_base[i] == window) return window_table[i];
  for (u32 i = 0; i < 2; ++i)
    if (window_base[i] == 0) {
      window_base[i] = window;
      return window_table[i];
    }
  die("no third window");
}
} // namespace

void open_window(u64 window) {
  pd[window >> 21] = reinterpret_cast<u64>(table_of(window)) | 3;
  flush_tlb();
}
void map_page(u64 window, u64 address, u64 physical, bool present) {
  table_of(window)[address >> 12 & 511] = present ? physical | 3 : 0;
  flush_tlb();
}
