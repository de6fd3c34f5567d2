// A machine of 4 MiB RAM and nothing else, to run a few instructions of guest code in any mode.
//
// Tables and code have fixed places. Every IDT vector leads to a HLT of its own at handler(vector), so a test says what
// happened by where the CPU halted and what lies on its stack.
#pragma once

#include <cstring>
#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"
#include "hypervisor/vcpu/soft/system.hpp"
#include "hypervisor/vcpu/soft/test_options.hpp"

namespace transom::soft {

// Selectors of the bench's GDT.
enum Selector : u16 {
  CODE32 = 0x08,
  DATA32 = 0x10,
  USER_CODE32 = 0x18 | 3,
  USER_DATA32 = 0x20 | 3,
  CODE64 = 0x28,
  TSS_SELECTOR = 0x30, // and 38h in long mode
  CODE16 = 0x40,
  DATA16 = 0x48,
  USER_CODE64 = 0x50 | 3,
  FREE = 0x60, // and up: the test's own
};

constexpr u64 descriptor(u32 base, u32 limit, u8 access, u8 flags) { // limit in the units of flags.G
  return (limit & 0xffff) | u64{base & 0xff'ffff} << 16 | u64{access} << 40 | u64{limit >> 16 & 15} << 48 |
         u64{flags} << 52 | u64{base >> 24} << 56;
}
constexpr u64 gate(u16 selector, u32 offset, u8 access, u8 parameters = 0) {
  return (offset & 0xffff) | u64{selector} << 16 | u64{parameters} << 32 | u64{access} << 40 | u64{offset >> 16} << 48;
}

class SystemBench : public VcpuPlatform {
 public:
  static constexpr u64 RAM = u64{4} << 20;
  static constexpr u32 GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, TSS_LIMIT = 0x67;
  static constexpr u32 STACK0 = 0x7000;                     // RSP0/ESP0 in the TSS
  static constexpr u32 STACK = 0x8000, USER_STACK = 0x9000; // where the test starts
  static constexpr u32 CODE = 0x1'0000, HANDLERS = 0x1'8000, PAGE_TABLES = 0x2'0000;

  SystemBench()
      : ram_(RAM),
        marks_(CodePages::bytes_for(RAM / PAGE_SIZE) / 8 + 1),
        pages_(marks_.data(), RAM / PAGE_SIZE),
        vcpu(*this, pages_, test_options()),
        cpu(vcpu.cpu()) {
    vcpu.reset();
    put64(GDT + CODE32, descriptor(0, 0xf'ffff, 0x9a, 0xc));
    put64(GDT + DATA32, descriptor(0, 0xf'ffff, 0x92, 0xc));
    put64(GDT + (USER_CODE32 & ~7), descriptor(0, 0xf'ffff, 0xfa, 0xc));
    put64(GDT + (USER_DATA32 & ~7), descriptor(0, 0xf'ffff, 0xf2, 0xc));
    put64(GDT + CODE64, descriptor(0, 0xf'ffff, 0x9a, 0xa));
    put64(GDT + TSS_SELECTOR, descriptor(TSS, TSS_LIMIT, 0x89, 0));
    put64(GDT + CODE16, descriptor(0, 0xffff, 0x9a, 0));
    put64(GDT + DATA16, descriptor(0, 0xffff, 0x92, 0));
    put64(GDT + (USER_CODE64 & ~7), descriptor(0, 0xf'ffff, 0xfa, 0xa));
    for (unsigned v = 0; v < 256; ++v) ram_[handler(v)] = 0xf4; // HLT
  }

  static constexpr u32 handler(unsigned vector) { return HANDLERS + 16 * vector; }

  // --- modes. Each starts at CODE with SS:RSP = the mode's flat stack.
  void real_mode() {
    vcpu.reset();
    for (const unsigned index : {ES, SS, DS, FS, GS}) set_segment(cpu, index, real_segment(cpu, index, 0));
    set_segment(cpu, CS, real_segment(cpu, CS, CODE >> 4));
    cpu.idtr = {0, 0x3ff};
    for (u32 v = 0; v < 256; ++v) put32(4 * v, (HANDLERS >> 4) << 16 | 16 * v);
    cpu.rip = 0;
    cpu.gpr[RSP] = STACK;
    update_mode(cpu);
  }
  void protected_mode_32(unsigned cpl = 0) {
    vcpu.reset();
    cpu.cr0 |= CR0_PE;
    cpu.gdtr = {GDT, 0xfff};
    cpu.idtr = {IDT, 0x7ff};
    for (unsigned v = 0; v < 256; ++v) put64(IDT + 8 * v, gate(CODE32, handler(v), 0x8e));
    put32(TSS + 4, STACK0);
    put16(TSS + 8, DATA32);
    put16(TSS + 0x66, TSS_LIMIT + 1); // no I/O bitmap
    cpu.tr = make(TSS_SELECTOR);
    cpu.tr.attr |= 2; // busy
    put64(GDT + TSS_SELECTOR, get64(GDT + TSS_SELECTOR) | u64{2} << 40);
    flat(cpl == 3 ? USER_CODE32 : CODE32, cpl == 3 ? USER_DATA32 : DATA32, cpl);
  }
  void long_mode_64(unsigned cpl = 0) {
    vcpu.reset();
    put64(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 7);
    put64(PAGE_TABLES + 0x1000, (PAGE_TABLES + 0x2000) | 7);
    for (u64 n = 0; n < RAM >> 21; ++n) put64(PAGE_TABLES + 0x2000 + 8 * n, n << 21 | 0x87);
    cpu.cr3 = PAGE_TABLES;
    cpu.cr4 = CR4_PAE;
    cpu.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    cpu.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_WP;
    cpu.gdtr = {GDT, 0xfff};
    cpu.idtr = {IDT, 0xfff};
    for (unsigned v = 0; v < 256; ++v) {
      put64(IDT + 16 * v, gate(CODE64, handler(v), 0x8e));
      put64(IDT + 16 * v + 8, 0);
    }
    put64(TSS + 4, STACK0);
    put16(TSS + 0x66, TSS_LIMIT + 1);
    put64(GDT + TSS_SELECTOR + 8, 0);
    cpu.tr = make(TSS_SELECTOR);
    cpu.tr.attr |= 2;
    flush_tlb(cpu);
    flat(cpl == 3 ? USER_CODE64 : CODE64, cpl == 3 ? USER_DATA32 : DATA32, cpl);
  }
  void vm86_mode(unsigned io_privilege) {
    protected_mode_32(3);
    for (unsigned index = 0; index < SEGMENTS; ++index)
      set_segment(cpu, index, vm86_segment(index == CS ? CODE >> 4 : 0));
    set_flags(cpu, 2 | FLAG_VM | u64{io_privilege} << 12);
    cpu.rip = 0;
    cpu.gpr[RSP] = USER_STACK;
    update_mode(cpu);
  }

  Segment make(u16 selector) {
    Descriptor d;
    d.raw = get64(GDT + (selector & ~7u));
    return make_segment(d, selector);
  }

  // --- running
  void code(std::initializer_list<u8> bytes, u32 at = CODE) {
    for (const u8 b : bytes) put8(at++, b);
  }
  // Runs until something halts; false: it did not.
  bool run(unsigned instructions = 50) { return vcpu.run_instructions(instructions) == RunResult::halted; }
  void step(unsigned count = 1) { vcpu.run_instructions(count); }
  // Did the CPU halt in the handler of `vector`?
  ::testing::AssertionResult in_handler(unsigned vector) {
    const u64 at = cpu.segment[CS].base + cpu.rip;
    if (at == handler(vector) + 1) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "halted at " << std::hex << at << ", vector " << std::dec
                                         << (at - HANDLERS) / 16;
  }
  // Slot `n` of the stack, counted from where the stack pointer is.
  u64 slot(unsigned n, unsigned size) {
    const u64 at = cpu.segment[SS].base * !code64(cpu) + (cpu.gpr[RSP] & stack_mask(cpu)) + u64{n} * size;
    u64 value = 0;
    std::memcpy(&value, &ram_[at], size);
    return value;
  }

  void put8(u64 at, u8 v) { // may be code
    ram_[at] = v;
    pages_.wrote(at >> PAGE_SHIFT);
  }
  void put16(u64 at, u16 v) { std::memcpy(&ram_[at], &v, 2); }
  void put32(u64 at, u32 v) { std::memcpy(&ram_[at], &v, 4); }
  void put64(u64 at, u64 v) { std::memcpy(&ram_[at], &v, 8); }
  u8 get8(u64 at) const { return ram_[at]; }
  u16 get16(u64 at) const { return static_cast<u16>(get64(at)); }
  u32 get32(u64 at) const { return static_cast<u32>(get64(at)); }
  u64 get64(u64 at) const {
    u64 v;
    std::memcpy(&v, &ram_[at], 8);
    return v;
  }

  // --- VcpuPlatform
  u32 pio_read(u16, u32) override { return 0xffff'ffff; }
  void pio_write(u16, u32, u32) override {}
  void pio_run(const PioRun&) override {}
  u64 mmio_read(u64, u32) override { return ~u64{0}; }
  void mmio_write(u64, u32, u64) override {}
  PhysPage page(u64 gpa) override {
    if (gpa >= RAM) return {};
    return {&ram_[gpa & PAGE_MASK], &ram_[gpa & PAGE_MASK], gpa >> PAGE_SHIFT};
  }
  bool interrupt_pending() override { return false; }
  int interrupt_acknowledge() override { return -1; }
  bool nmi_take() override { return false; }
  u8 cr8_read() override { return cr8; }
  void cr8_write(u8 value) override { cr8 = value; }
  u64 apic_base_read() override { return 0xfee0'0900; }
  bool apic_base_write(u64) override { return false; }
  bool x2apic_read(u32, u64&) override { return false; }
  bool x2apic_write(u32, u64) override { return false; }
  u64 tsc() override { return 0x1'2345'6789; }
  bool tsc_write(u64) override { return true; }
  bool hypervisor_msr_write(u32 msr, u64 value) override {
    last_hypervisor_msr = value;
    return msr == 0x4000'0000;
  }
  u64 hypercall(u64 number, const u64 (&args)[6], bool long_mode_) override {
    last_hypercall = {number, args[0], args[1], args[5], long_mode_};
    return static_cast<u64>(-38);
  }
  u64 a20_mask() override { return ~u64{0}; }

  struct Hypercall {
    u64 number = 0, first = 0, second = 0, sixth = 0;
    bool wide = false;
  } last_hypercall;
  u8 cr8 = 0;
  u64 last_hypervisor_msr = 0;

 private:
  void flat(u16 cs, u16 ss, unsigned cpl) {
    set_segment(cpu, CS, make(cs));
    for (const unsigned index : {ES, SS, DS, FS, GS}) set_segment(cpu, index, make(ss));
    cpu.cpl = static_cast<u8>(cpl);
    cpu.rip = CODE;
    cpu.gpr[RSP] = cpl == 3 ? USER_STACK : STACK;
    update_mode(cpu);
  }

  std::vector<u8> ram_;
  std::vector<u64> marks_;
  CodePages pages_;

 public:
  SoftVcpu vcpu;
  Cpu& cpu;
};

} // namespace transom::soft
