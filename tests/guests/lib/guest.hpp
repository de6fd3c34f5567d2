// What a bare-metal 64-bit guest has: ports, memory-mapped registers, interrupts, and checks that report to the
// harness. Output goes to port E9h; the run ends with PASSED or FAILED at port F4h. A line "expect DEVICE.COUNTER N"
// asks the harness to compare a counter of `transom run --info-at-end` afterwards.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long;

inline constexpr u32 PASSED = 16, FAILED = 17;

// Each guest's own.
void guest_main();

// --- the harness
[[noreturn]] void finish();             // PASSED if every check held, else FAILED
[[noreturn]] void die(const char* why); // FAILED, at once
void print(const char* text);
void print_number(u64 value, u32 base = 10);
bool check(bool holds, const char* what);
bool check_equal(u64 got, u64 expected, const char* what); // prints both values on failure
void expect(const char* counter, u64 value);               // "mmio0.runs"

// --- the machine
extern u32 boot_magic, boot_info; // EAX and EBX of the Multiboot entry

inline void out8(u16 port, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
inline void out16(u16 port, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
inline void out32(u16 port, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
inline u8 in8(u16 port) {
  u8 v;
  asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
  return v;
}
inline u16 in16(u16 port) {
  u16 v;
  asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
  return v;
}
inline u32 in32(u16 port) {
  u32 v;
  asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
  return v;
}
template <class T>
volatile T& at(u64 address) {
  return *reinterpret_cast<volatile T*>(address);
}
inline void enable() { asm volatile("sti; nop" : : : "memory"); }
inline void disable() { asm volatile("cli" : : : "memory"); }
inline u64 time_stamp() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
u32 pci_read(u32 device, u32 function, u32 offset);
void pci_write(u32 device, u32 function, u32 offset, u32 value);

// --- interrupts. A vector without a handler ends the run, exceptions included.
struct Frame {
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  u64 vector, error, rip, cs, rflags, rsp, ss;
};
using Handler = void (*)(Frame&);
void handle(u8 vector, Handler handler); // null: none
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
