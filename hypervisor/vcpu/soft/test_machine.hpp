// A machine for the CPU's tests: flat RAM, an optional ROM, and a platform that records.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"
#include "hypervisor/vcpu/soft/test_options.hpp"

namespace transom::soft {

struct RecordingPlatform : VcpuPlatform {
  struct Port {
    bool in;
    u16 port;
    u32 width;
    u32 value;
  };
  struct Mmio {
    bool read;
    u64 gpa;
    u32 width;
    u64 value;
  };

  explicit RecordingPlatform(u64 ram_bytes) : ram(ram_bytes) {}

  u32 pio_read(u16 port, u32 width) override {
    const u32 value = on_in ? on_in(port, width) : ~u32{0};
    if (record) ports.push_back({true, port, width, value});
    return value;
  }
  void pio_write(u16 port, u32 width, u32 value) override {
    if (record) ports.push_back({false, port, width, value});
    if (on_out) on_out(port, width, value);
  }
  void pause() override {
    if (on_pause) on_pause();
  }
  void pio_run(const PioRun& run) override {
    runs.push_back(run);
    for (u32 n = 0; n < run.count; ++n) {
      const u64 at = run.backward ? run.gpa - u64{n} * run.width : run.gpa + u64{n} * run.width;
      if (run.in) {
        const u32 value = pio_read(run.port, run.width);
        std::memcpy(&ram[at], &value, run.width);
      } else {
        u32 value = 0;
        std::memcpy(&value, &ram[at], run.width);
        pio_write(run.port, run.width, value);
      }
    }
  }
  u64 mmio_read(u64 gpa, u32 width) override {
    const u64 value = on_mmio_read ? on_mmio_read(gpa, width) : ~u64{0};
    if (record) mmio.push_back({true, gpa, width, value});
    return value;
  }
  void mmio_write(u64 gpa, u32 width, u64 value) override {
    if (record) mmio.push_back({false, gpa, width, value});
  }
  PhysPage page(u64 gpa) override {
    if (on_page) {
      if (const PhysPage p = on_page(gpa); p.read != nullptr) return p;
    }
    if (gpa >= ram.size()) return {};
    return {&ram[gpa], &ram[gpa], gpa >> PAGE_SHIFT};
  }
  bool interrupt_pending() override {
    if (on_pending) on_pending();
    return !interrupts.empty();
  }
  int interrupt_acknowledge() override {
    if (interrupts.empty()) return -1;
    const int vector = interrupts.back();
    interrupts.pop_back();
    return vector;
  }
  bool nmi_take() override { return std::exchange(nmi, false); }
  u8 cr8_read() override { return cr8; }
  void cr8_write(u8 value) override { cr8 = value; }
  u64 apic_base_read() override { return 0xfee0'0900; }
  bool apic_base_write(u64) override { return true; }
  bool x2apic_read(u32, u64&) override { return false; }
  bool x2apic_write(u32, u64) override { return false; }
  u64 tsc() override { return tsc_value += 100; }
  bool tsc_write(u64 value) override {
    tsc_value = value;
    return true;
  }
  u64 hypercall(u64 number, const u64 (&args)[6], bool long_mode) override {
    hypercalls.push_back({number, args[0], args[1], args[2], args[3], args[4], args[5], long_mode});
    return hypercall_answer;
  }
  u64 a20_mask() override { return a20; }

  std::vector<u8> ram;
  std::vector<Port> ports;
  std::vector<Mmio> mmio;
  std::vector<PioRun> runs;
  std::vector<std::vector<u64>> hypercalls;
  std::vector<int> interrupts;
  std::function<u32(u16, u32)> on_in;
  std::function<void(u16, u32, u32)> on_out;
  std::function<void()> on_pause;
  std::function<void()> on_pending; // may add to `interrupts`
  std::function<u64(u64, u32)> on_mmio_read;
  std::function<PhysPage(u64)> on_page;
  u64 hypercall_answer = 0, tsc_value = 0, a20 = ~u64{0};
  u8 cr8 = 0;
  bool nmi = false;
  bool record = true;
};

// Page tables at 1 MiB map the first 4 MiB to themselves in 4 KiB pages; code at 10000h, stack below 80000h.
struct TestMachine {
  static constexpr u64 RAM = 16 << 20, CODE = 0x1'0000, DATA = 0x2'0000, STACK = 0x8'0000, TABLES = 0x10'0000;
  static constexpr u64 PTE_OF_0 = TABLES + 0x3000; // 1024 entries

  explicit TestMachine(const SoftOptions& options = test_options())
      : platform(RAM),
        map_memory(CodePages::bytes_for(RAM >> PAGE_SHIFT) / 8 + 1),
        code_pages(map_memory.data(), RAM >> PAGE_SHIFT),
        vcpu(platform, code_pages, options) {}

  u8* at(u64 gpa) { return &platform.ram[gpa]; }
  template <class T>
  T get(u64 gpa) {
    T v;
    std::memcpy(&v, at(gpa), sizeof v);
    return v;
  }
  template <class T>
  void put(u64 gpa, T v) {
    std::memcpy(at(gpa), &v, sizeof v);
  }
  // As another process would: the CPU hears of it.
  void code(std::initializer_list<int> bytes, u64 gpa = CODE) {
    const u64 first = gpa;
    for (const int b : bytes) platform.ram[gpa++] = static_cast<u8>(b);
    code_pages.wrote(first, bytes.size());
  }

  static SegmentRegister flat(u16 selector, u16 attr) { return {selector, attr, 0xffff'ffff, 0}; }

  void start_64(u64 rip = CODE, bool user = false) {
    put<u64>(TABLES, (TABLES + 0x1000) | 7);
    put<u64>(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    for (u64 t = 0; t < 2; ++t) put<u64>(TABLES + 0x2000 + 8 * t, (PTE_OF_0 + t * 0x1000) | 7);
    for (u64 n = 0; n < 1024; ++n) put<u64>(PTE_OF_0 + 8 * n, (n << 12) | 7);
    VcpuRegisters r;
    const u16 dpl = user ? 0x60 : 0;
    r.cs = {static_cast<u16>(user ? 0x33 : 0x10), static_cast<u16>(0xa09b | dpl), 0xffff'ffff, 0};
    r.ss = r.ds = r.es = r.fs = r.gs = flat(user ? 0x2b : 0x18, static_cast<u16>(0xc093 | dpl));
    r.tr = {0x40, 0x8b, 0x67, 0x9000};
    r.cr0 = 0x8001'0033;
    r.cr3 = TABLES;
    r.cr4 = 0x6b0 & ~0x40u;
    r.efer = 0xd01;
    r.rip = rip;
    r.gpr[RSP] = STACK;
    vcpu.set_registers(r);
  }
  void start_32(u64 rip = CODE) {
    VcpuRegisters r;
    r.cs = flat(0x08, 0xc09b);
    r.ss = r.ds = r.es = r.fs = r.gs = flat(0x10, 0xc093);
    r.tr = {0x40, 0x8b, 0x67, 0x9000};
    r.cr0 = 0x33;
    r.cr4 = 0x600;
    r.rip = rip;
    r.gpr[RSP] = STACK;
    vcpu.set_registers(r);
  }
  void start_16(u64 ip = 0, u16 cs = CODE >> 4) {
    VcpuRegisters r;
    r.cs = {cs, 0x93, 0xffff, u64{cs} << 4};
    r.ss = {0x7000, 0x93, 0xffff, 0x7'0000};
    r.ds = r.es = r.fs = r.gs = {DATA >> 4, 0x93, 0xffff, DATA};
    r.tr = {0, 0x8b, 0xffff, 0};
    r.cr0 = 0x10;
    r.rip = ip;
    r.gpr[RSP] = 0xfff0;
    vcpu.set_registers(r);
  }

  // Runs to HLT (which must come); false if something else ended it.
  bool run() { return vcpu.run() == RunResult::halted; }
  SoftVcpu::LastEvent run_to_exception(u64 most = 100'000) {
    vcpu.run_instructions(most, true);
    return vcpu.last_event();
  }
  u64 gpr(unsigned n) { return vcpu.cpu().gpr[n]; }
  void set_gpr(unsigned n, u64 v) { vcpu.cpu().gpr[n] = v; }

  RecordingPlatform platform;
  std::vector<u64> map_memory;
  CodePages code_pages;
  SoftVcpu vcpu;
};

} // namespace transom::soft
