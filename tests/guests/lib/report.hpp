// What every guest has, 32-bit or 64-bit: ports, and checks that report to the harness. Output goes to port E9h; the
// run ends with PASSED or FAILED at port F4h. A line "expect DEVICE.COUNTER N" asks the harness to compare a counter of
// `transom run --info-at-end` afterwards.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using word = unsigned long; // as wide as a register
#ifdef __x86_64__
using u64 = unsigned long;
#else
using u64 = unsigned long long;
#endif

inline constexpr u32 PASSED = 16, FAILED = 17;

// Each guest's own.
void guest_main();

// --- the harness
[[noreturn]] void finish();             // PASSED if every check held, else FAILED
[[noreturn]] void die(const char* why); // FAILED, at once
void print(const char* text);
void print_number(u64 value, u32 base = 10); // base 10: as much as a register holds
bool check(bool holds, const char* what);
bool check_equal(u64 got, u64 expected, const char* what); // prints both values on failure
void expect(const char* counter, u64 value);               // "mmio0.runs"

// Named parts of a guest. A failed check is reported as "PART: CHECK". The command line chooses: "only=PART",
// "skip=PART".
struct Part {
  const char* name;
  void (*run)();
};
void run_part(const Part& part);
bool asked_for(const char* what); // the command line has it
template <unsigned N>
void run_parts(const Part (&parts)[N]) {
  for (const Part& part : parts) run_part(part);
}

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
  word a = static_cast<word>(address);
  asm("" : "+r"(a)); // compilers hold low addresses for null pointers
  return *reinterpret_cast<volatile T*>(a);
}
inline void put8(u64 address, u8 v) { at<u8>(address) = v; }
inline void put16(u64 address, u16 v) { at<u16>(address) = v; }
inline void put32(u64 address, u32 v) { at<u32>(address) = v; }
inline void put64(u64 address, u64 v) { at<u64>(address) = v; }
// Emulations of KVM may look for interrupts only now and then, and at an exit: the command line "patient" makes one
// before interrupts can be disabled again.
inline bool patient = false;
inline void enable() {
  asm volatile("sti; nop" : : : "memory");
  if (patient) in8(0x80);
}
inline void disable() { asm volatile("cli" : : : "memory"); }
inline u64 time_stamp() {
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return u64{high} << 32 | low;
}
