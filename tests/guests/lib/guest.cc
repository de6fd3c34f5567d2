#include "tests/guests/lib/guest.hpp"

u32 boot_magic, boot_info;
extern "C" u64 pd[2048];

namespace {
Handler handlers[256];
u64 checks, failures;
alignas(4096) u64 window_table[2][512];
u64 window_base[2];
} // namespace

void print(const char* text) {
  const char* end = text;
  while (*end != 0) ++end;
  u64 count = static_cast<u64>(end - text);
  asm volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(0xe9) : "memory");
}

void print_number(u64 value, u32 base) {
  char digits[72];
  char* at = digits + sizeof digits - 1;
  *at = 0;
  do *--at = "0123456789abcdef"[value % base];
  while ((value /= base) != 0);
  if (base == 16) *--at = 'x', *--at = '0';
  print(at);
}

bool check(bool holds, const char* what) {
  ++checks;
  if (holds) return true;
  ++failures;
  print("FAILED: "), print(what), print("\n");
  return false;
}

bool check_equal(u64 got, u64 expected, const char* what) {
  ++checks;
  if (got == expected) return true;
  ++failures;
  print("FAILED: "), print(what), print(": got "), print_number(got, 16), print(", expected ");
  print_number(expected, 16), print("\n");
  return false;
}

void expect(const char* counter, u64 value) {
  print("expect "), print(counter), print(" "), print_number(value), print("\n");
}

void finish() {
  print_number(checks), print(" checks, "), print_number(failures), print(" failures\n");
  out32(0xf4, failures == 0 && checks != 0 ? PASSED : FAILED);
  for (;;) asm volatile("cli; hlt");
}

void die(const char* why) {
  ++failures;
  print("FAILED: "), print(why), print("\n");
  finish();
}

u32 pci_read(u32 device, u32 function, u32 offset) {
  out32(0xcf8, 1u << 31 | device << 11 | function << 8 | offset);
  return in32(0xcfc);
}
void pci_write(u32 device, u32 function, u32 offset, u32 value) {
  out32(0xcf8, 1u << 31 | device << 11 | function << 8 | offset);
  out32(0xcfc, value);
}

void handle(u8 vector, Handler handler) { handlers[vector] = handler; }

extern "C" void on_vector(Frame* frame) {
  if (Handler handler = handlers[frame->vector & 255]) return handler(*frame);
  print("vector "), print_number(frame->vector, 16), print(", error "), print_number(frame->error, 16);
  print(", rip "), print_number(frame->rip, 16), print(", cr2 "), print_number(fault_address(), 16), print("\n");
  die("an interrupt or exception that nobody expects");
}

extern "C" void run_guest(u32 magic, u32 info) {
  boot_magic = magic, boot_info = info;
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

extern "C" void* memset(void* to, int value, u64 bytes) {
  void* start = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return start;
}
extern "C" void* memcpy(void* to, const void* from, u64 bytes) {
  void* start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
  return start;
}
