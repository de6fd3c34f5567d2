// For guests that test the processor itself: programs of a few instructions, entered by IRET with every register given,
// left by whatever interrupt or exception comes first. Their GDT, IDT and TSS are here too.
#pragma once

#include "tests/guests/lib/report.hpp"

enum Vector : u8 {
  DE = 0,
  DB = 1,
  NMI = 2,
  BP = 3,
  OF = 4,
  BR = 5,
  UD = 6,
  NM = 7,
  DF = 8,
  TS = 10,
  NP = 11,
  SS = 12,
  GP = 13,
  PF = 14,
  MF = 16,
  AC = 17,
  XM = 19,
  END = 0xff, // no vector: the program came to its end, a UD2 that END_MARK lies behind
};
inline constexpr word CF = 1, ZF = 1 << 6, TF = 1 << 8, IF = 1 << 9, DIRECTION = 1 << 10, IOPL3 = 3 << 12, NT = 1 << 14;
inline constexpr word RF = 1 << 16, VM = 1 << 17, ACF = 1 << 18, FLAGS = 2; // FLAGS: the bit that is always set

// --- selectors, in the order that SYSCALL/SYSRET and SYSENTER/SYSEXIT want
enum Selector : u16 {
  KCODE = 0x08, // of the guest itself: 64- or 32-bit
  KDATA = 0x10,
  UCODE32 = 0x18 | 3,
  UDATA = 0x20 | 3,
  UCODE64 = 0x28 | 3, // 64-bit guests; else as UCODE32
  TSS_SELECTOR = 0x30,
  LDT_SELECTOR = 0x40,
  KCODE32 = 0x50,
  KCODE16 = 0x58,
  KDATA16 = 0x60,
  UCODE16 = 0x68 | 3,
  UDATA16 = 0x70 | 3,
  SPARE = 0x80, // and up: the test's own
};
inline constexpr u16 UCODE = sizeof(word) == 8 ? u16{UCODE64} : u16{UCODE32};
extern "C" u64 gdt[64], idt[512];

inline constexpr u32 PRESENT = 0x80, DPL3 = 0x60, DATA = 0x13, CODE = 0x1b, CONFORMING = 4, DOWN = 4;
inline constexpr u32 BYTES16 = 0, WIDE = 2, BYTES32 = 4, PAGES16 = 8, PAGES32 = 12, PAGES64 = 10;
constexpr u64 descriptor(u32 base, u32 limit, u32 access, u32 granularity) {
  return (limit & 0xffff) | u64{base & 0xff'ffff} << 16 | u64{access} << 40 | u64{limit >> 16 & 15} << 48 |
         u64{granularity} << 52 | u64{base >> 24} << 56;
}
constexpr u64 gate(u16 selector, u32 offset, u32 access, u32 parameters = 0) { // parameters, or the IST
  return (offset & 0xffff) | u64{selector} << 16 | u64{parameters} << 32 | u64{access} << 40 | u64{offset >> 16} << 48;
}
inline void set_descriptor(u16 selector, u64 d) { gdt[selector >> 3] = d; }
inline void load_gdt(u16 limit = sizeof gdt - 1) {
  struct [[gnu::packed]] {
    u16 limit;
    word base;
  } table{limit, reinterpret_cast<word>(gdt)};
  asm volatile("lgdt %0" : : "m"(table));
}
inline void load_idt(u16 limit = sizeof(word) * 512 - 1) {
  struct [[gnu::packed]] {
    u16 limit;
    word base;
  } table{limit, reinterpret_cast<word>(idt)};
  asm volatile("lidt %0" : : "m"(table));
}
inline constexpr u32 GATE_WORDS = sizeof(word) / 4; // entries of idt[] that one gate takes
inline void set_gate(u8 vector, u64 low) { idt[vector * GATE_WORDS] = low; }
inline u64 gate_of(u8 vector) { return idt[vector * GATE_WORDS]; }

extern "C" u8 tss[8192 + 256]; // the hardware's layout; an I/O permission bitmap fits
inline constexpr u32 TSS_LIMIT = 0x67;
extern "C" u8 stack0_top[]; // of the TSS: handlers of ring 3 run there
extern u8 user_stack[4096]; // of programs, by default
inline word user_stack_top() { return reinterpret_cast<word>(user_stack) + sizeof user_stack - 64; }

// --- programs
inline constexpr u32 END_MARK = 0x4e450b0f; // UD2 "EN"
struct State {                              // lib/enter64.asm and boot32.asm know the order
  word ax = 0, cx = 0, dx = 0, bx = 0, sp = 0, bp = 0, si = 0, di = 0;
  word ip = 0, flags = FLAGS, cs = KCODE, ss = KDATA, ds = KDATA, es = KDATA, fs = 0, gs = 0;
  word r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0; // 64-bit guests only
};
struct Outcome {
  State s; // as they were when the event came; flags, sp, ss, cs, ip as they were pushed
  word vector, error, cr2;
};
Outcome run(const State& state);
void setup_cpu(); // GDT, TSS, IDT; pages open to ring 3; before the first run()

using Program = const u8[];
inline word address(Program p) { return reinterpret_cast<word>(p); }
inline State kernel(Program p) {
  State s;
  s.ip = address(p), s.sp = user_stack_top();
  return s;
}
inline State user(Program p) {
  State s = kernel(p);
  s.cs = UCODE, s.ss = s.ds = s.es = UDATA;
  return s;
}

// A program in AT&T syntax, with its end. CODE32 and CODE16 are for segments of those widths.
#ifdef __x86_64__
#define NATIVE "64"
#else
#define NATIVE "32"
#endif
#define CODE(name, text)   ASSEMBLE(name, NATIVE, text)
#define CODE16(name, text) ASSEMBLE(name, "16", text)
#define CODE32(name, text) ASSEMBLE(name, "32", text)
#define CODE64(name, text) ASSEMBLE(name, "64", text)
#define ASSEMBLE(name, width, text)                                                                                  \
  extern "C" Program name;                                                                                           \
  asm(".pushsection .text\n.code" width "\n.globl " #name "\n" #name ":\n" text "\nud2\n.ascii \"EN\"\n.code" NATIVE \
      "\n.popsection")
#define LABEL(name) extern "C" Program name // one inside a program

// --- checks on what came of a program
bool ended(const Outcome& o, const char* what);                              // it reached its end
bool faulted(const Outcome& o, u8 vector, word error, const char* what);     // with this error code (0: or none)
bool page_faulted(const Outcome& o, word error, word cr2, const char* what); // #PF

// --- registers
template <u32 N>
inline word control() {
  word v;
  if constexpr (N == 0) asm volatile("mov %%cr0, %0" : "=r"(v));
  if constexpr (N == 2) asm volatile("mov %%cr2, %0" : "=r"(v));
  if constexpr (N == 3) asm volatile("mov %%cr3, %0" : "=r"(v));
  if constexpr (N == 4) asm volatile("mov %%cr4, %0" : "=r"(v));
  return v;
}
template <u32 N>
inline void set_control(word v) {
  if constexpr (N == 0) asm volatile("mov %0, %%cr0" : : "r"(v) : "memory");
  if constexpr (N == 2) asm volatile("mov %0, %%cr2" : : "r"(v) : "memory");
  if constexpr (N == 3) asm volatile("mov %0, %%cr3" : : "r"(v) : "memory");
  if constexpr (N == 4) asm volatile("mov %0, %%cr4" : : "r"(v) : "memory");
}
inline constexpr word CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 32, CR0_WP = 1 << 16, CR0_AM = 1 << 18;
enum : word { CR0_NW = 1 << 29, CR0_CD = 1 << 30, CR0_PG = word{1} << 31 };
inline constexpr word CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16, CR4_PAE = 32, CR4_PGE = 128, CR4_FXSR = 512,
                      CR4_XMM = 1024;
enum : u32 { EFER = 0xc0000080, STAR, LSTAR, CSTAR, SFMASK };
enum : u32 { FS_BASE = 0xc0000100, GS_BASE, KERNEL_GS_BASE };
inline constexpr u32 EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11;
inline u64 read_msr(u32 msr) {
  u32 low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return u64{high} << 32 | low;
}
inline void write_msr(u32 msr, u64 value) {
  asm volatile("wrmsr" : : "c"(msr), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32)) : "memory");
}
struct Cpuid {
  u32 a, b, c, d;
};
inline Cpuid cpuid(u32 leaf, u32 subleaf = 0) {
  Cpuid r;
  asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(subleaf));
  return r;
}
inline bool is_intel() { return cpuid(0).b == 0x756e6547; }
inline bool has_extended(u32 edx_bit) { return cpuid(0x80000001).d >> edx_bit & 1; }
inline u32 physical_bits() { return cpuid(0x80000008).a & 255; }
inline void invlpg(word a) { asm volatile("invlpg (%0)" : : "r"(a) : "memory"); }
inline void flush_tlb() { set_control<3>(control<3>()); }
