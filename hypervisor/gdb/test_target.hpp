// A domain for tests of the stub: vCPUs that do what the test says, 64 KiB of RAM at 10000h, pages mapped one to one
// with a hole at 18000h.
#pragma once

#include <cstring>
#include <deque>
#include <vector>

#include "hypervisor/gdb/target.hpp"

namespace transom::gdb {

struct TestTarget final : Target {
  static constexpr u64 RAM = 0x1'0000, SIZE = 0x1'0000, HOLE = 0x1'8000, ROM = 0x1'f000;

  explicit TestTarget(u32 count = 2) : cpus(count), ram(SIZE) {
    for (u32 v = 0; v < count; ++v) {
      VcpuRegisters& r = cpus[v].registers;
      r.rip = 0x1'0000 + 0x100 * v;
      r.efer = 0xd00;
      r.cr0 = 0x8000'0011;
      r.cs = {0x10, 0xa09b, 0xffff'ffff, 0};
      for (u64 n = 0; n < 16; ++n) r.gpr[n] = 0x1111'0000'0000'0000 * (v + 1) + n;
      std::memset(cpus[v].fx, 0, sizeof cpus[v].fx);
    }
  }

  u32 vcpus() const override { return static_cast<u32>(cpus.size()); }
  VcpuRegisters registers(u32 v) override { return cpus[v].registers; }
  void set_registers(u32 v, const VcpuRegisters& r) override {
    cpus[v].registers = r;
    ++register_writes;
  }
  void fpu_state(u32 v, u8 (&image)[512]) override { std::memcpy(image, cpus[v].fx, sizeof image); }
  void set_fpu_state(u32 v, const u8 (&image)[512]) override { std::memcpy(cpus[v].fx, image, sizeof image); }
  std::optional<u64> physical(u32, u64 linear) override {
    if (linear >> PAGE_SHIFT == HOLE >> PAGE_SHIFT) return {};
    return linear;
  }
  bool read_memory(u64 gpa, std::span<u8> to) override {
    if (gpa < RAM || gpa - RAM >= SIZE || SIZE - (gpa - RAM) < to.size()) return false;
    std::memcpy(to.data(), &ram[gpa - RAM], to.size());
    return true;
  }
  bool write_memory(u64 gpa, std::span<const u8> from) override {
    if (gpa < RAM || gpa >= ROM || ROM - gpa < from.size()) return false;
    std::memcpy(&ram[gpa - RAM], from.data(), from.size());
    return true;
  }
  std::string state(u32) override { return "started"; }
  u32 breakpoint_limit() const override { return limit; }
  void resume(std::span<const Action> to, std::span<const u64> at) override {
    actions.assign(to.begin(), to.end());
    breakpoints.assign(at.begin(), at.end());
    standing = false;
    ++resumes;
  }
  void stand() override { standing = true; }
  std::optional<u32> take_stop() override {
    if (stops.empty()) return {};
    const u32 first = stops.front();
    stops.pop_front();
    return first;
  }
  void kill() override { killed = true; }

  struct Cpu {
    VcpuRegisters registers;
    u8 fx[512];
  };
  std::vector<Cpu> cpus;
  std::vector<u8> ram;
  std::vector<Action> actions;
  std::vector<u64> breakpoints;
  std::deque<u32> stops;
  u32 limit = ~u32{0};
  bool standing = false, killed = false;
  u32 resumes = 0, register_writes = 0;
};

} // namespace transom::gdb
