// A guest of a few instructions on the real /dev/kvm, with a platform that records. Nothing here waits for ever: a
// guest that does not come back in a minute is kicked out.
#pragma once

#include <condition_variable>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <initializer_list>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <utility>
#include <vector>

#include "hypervisor/vcpu/kvm/calibrate.hpp"
#include "hypervisor/vcpu/kvm/kvm_backend.hpp"

namespace transom {

struct FakePlatform : VcpuPlatform {
  struct Access {
    bool in;
    u64 address;
    u32 width;
    u64 value;
    bool operator==(const Access& o) const {
      return in == o.in && address == o.address && width == o.width && value == o.value;
    }
  };

  explicit FakePlatform(MemoryMap& memory_map) : map(memory_map) {}

  u32 pio_read(u16 port, u32 width) override {
    const u32 value = on_in ? on_in(port, width) : ~u32{0};
    ports.push_back({true, port, width, value});
    return value;
  }
  void pio_write(u16 port, u32 width, u32 value) override {
    ports.push_back({false, port, width, value});
    if (on_out) on_out(port, width, value);
  }
  void pio_run(const PioRun& run) override {
    runs.push_back(run);
    for (u32 n = 0; n < run.count; ++n) {
      const u32 value = on_in ? on_in(run.port, run.width) : ~u32{0};
      std::memcpy(map.ram().at(run.gpa + n * run.width, run.width), &value, run.width);
    }
  }
  u64 mmio_read(u64 gpa, u32 width) override {
    const u64 value = mmio_answer & (width == 8 ? ~u64{0} : (u64{1} << (8 * width)) - 1);
    mmio.push_back({true, gpa, width, value});
    return value;
  }
  void mmio_write(u64 gpa, u32 width, u64 value) override { mmio.push_back({false, gpa, width, value}); }
  PhysPage page(u64 gpa) override { return map.page(gpa); }
  bool interrupt_pending() override { return interrupt >= 0 && interrupt >> 4 > tpr; }
  int interrupt_acknowledge() override { return std::exchange(interrupt, -1); }
  void interrupt_ended(u8 vector) override { ended.push_back(vector); }
  bool nmi_take() override { return std::exchange(nmi, false); }
  u8 cr8_read() override { return tpr; }
  void cr8_write(u8 value) override { tpr = value; }
  u64 apic_base_read() override { return apic_base; }
  bool apic_base_write(u64 value) override {
    if (refuse_msrs) return false;
    apic_base = value;
    return true;
  }
  bool x2apic_read(u32 msr, u64& value) override {
    value = 0x1234'5678'0000'0000 | msr;
    return !refuse_msrs;
  }
  bool x2apic_write(u32 msr, u64 value) override {
    msrs.push_back({false, msr, 8, value});
    return !refuse_msrs;
  }
  u64 tsc() override { return 0; }
  bool tsc_write(u64) override { return true; }
  u64 hypercall(u64 number, const u64 (&args)[6], bool long_mode) override {
    hypercalls.push_back({number, args[0], args[1], args[2], args[3], args[4], args[5], u64{long_mode}});
    return 0x5151'5151;
  }
  bool hypervisor_cpuid(u32 leaf, u32, CpuidResult& result) override {
    if (!has_hypercalls || leaf != 0x4000'0000) return false;
    result = {0x4000'0000, 0x6e65'5858, 0, 0};
    return true;
  }
  bool hypervisor_msr_write(u32 msr, u64 value) override {
    msrs.push_back({false, msr, 8, value});
    return has_hypercalls;
  }
  u64 a20_mask() override { return a20; }

  MemoryMap& map;
  std::vector<Access> ports, mmio, msrs;
  std::vector<PioRun> runs;
  std::vector<u8> ended; // interrupts, by vector
  std::vector<std::vector<u64>> hypercalls;
  std::function<u32(u16, u32)> on_in;
  std::function<void(u16, u32, u32)> on_out;
  u64 mmio_answer = 0x8877'6655'4433'2211, apic_base = 0xfee0'0900, a20 = ~u64{0};
  int interrupt = -1;
  u8 tpr = 0;
  bool nmi = false, refuse_msrs = false, has_hypercalls = false;
};

// Code at 1000h; IVT, page tables and stacks where the start functions say.
class KvmGuest : public ::testing::Test {
 protected:
  static constexpr u64 RAM = 4 << 20, CODE = 0x1000, DATA = 0x2000, STACK = 0x8000, TABLES = 0x10'0000;
  static constexpr u32 RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RSI = 6, RDI = 7;

  KvmGuest()
      : memory_(static_cast<u8*>(::mmap(nullptr, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))),
        map_(GuestMemory(memory_, RAM)),
        platform_(map_) {}
  ~KvmGuest() override {
    vcpu_.reset();
    ::munmap(memory_, RAM);
  }

  void SetUp() override {
    if (const std::string why = kvm_obstacle(); !why.empty()) GTEST_SKIP() << why;
    make_vcpu();
  }
  // Also again, after the platform was changed.
  void make_vcpu(const std::string& model = "v2", bool split = false) {
    vcpu_.reset();
    backend_ = std::make_unique<KvmBackend>(
        KvmBackend::Memory{[this]() -> const MemoryMap& { return map_; }, [this] { return platform_.a20; }}, model,
        split);
    const auto opened = backend_->open();
    ASSERT_TRUE(opened) << opened.error().text;
    auto vcpu = backend_->create(0, platform_, flag_);
    ASSERT_TRUE(vcpu) << vcpu.error().text;
    vcpu_ = std::move(*vcpu);
  }

  void code(std::initializer_list<int> bytes, u64 gpa = CODE) {
    for (const int b : bytes) memory_[gpa++] = static_cast<u8>(b);
  }
  template <class T>
  T get(u64 gpa) const {
    T value;
    std::memcpy(&value, memory_ + gpa, sizeof value);
    return value;
  }
  template <class T>
  void put(u64 gpa, T value) {
    std::memcpy(memory_ + gpa, &value, sizeof value);
  }

  VcpuRegisters registers_16() {
    VcpuRegisters r;
    r.cs = {0, 0x9b, 0xffff, 0};
    r.ds = r.es = r.fs = r.gs = r.ss = {0, 0x93, 0xffff, 0};
    r.tr = {0, 0x8b, 0xffff, 0};
    r.ldtr = {0, 0x82, 0xffff, 0};
    r.idtr = {0, 0x3ff};
    r.cr0 = 0x10;
    r.rip = CODE;
    r.gpr[RSP] = STACK;
    return r;
  }
  VcpuRegisters registers_32() {
    VcpuRegisters r = registers_16();
    r.cs = {8, 0xc09b, 0xffff'ffff, 0};
    r.ds = r.es = r.fs = r.gs = r.ss = {16, 0xc093, 0xffff'ffff, 0};
    r.tr = {24, 0x8b, 0x67, 0x3000};
    r.idtr = {0, 0};
    r.cr0 = 0x11;
    return r;
  }
  // The first 2 MiB, 4 KiB pages.
  VcpuRegisters registers_64() {
    put<u64>(TABLES, (TABLES + 0x1000) | 7);
    put<u64>(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    put<u64>(TABLES + 0x2000, (TABLES + 0x3000) | 7);
    for (u64 n = 0; n < 512; ++n) put<u64>(TABLES + 0x3000 + 8 * n, n << 12 | 7);
    VcpuRegisters r = registers_32();
    r.cs = {8, 0xa09b, 0xffff'ffff, 0};
    r.cr0 = 0x8001'0033;
    r.cr3 = TABLES;
    r.cr4 = 0x20;
    r.efer = 0xd01;
    return r;
  }
  void start(const VcpuRegisters& r) { vcpu_->set_registers(r); }

  // Ends by itself, or after a minute with `exited`.
  RunResult run() {
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;
    std::thread watchdog([&] {
      std::unique_lock<std::mutex> held(mutex);
      if (over.wait_for(held, std::chrono::seconds(60), [&] { return done; })) return;
      ADD_FAILURE() << "the guest did not come back in a minute";
      flag_.fetch_or(Vcpu::LEAVE);
      vcpu_->kick();
    });
    const RunResult result = vcpu_->run();
    {
      const std::lock_guard<std::mutex> held(mutex);
      done = true;
    }
    over.notify_one();
    watchdog.join();
    EXPECT_EQ(vcpu_->failure(), "");
    return result;
  }
  // A processor takes a pending interrupt between the two instructions behind STI. Emulations of KVM look for it now
  // and then only; guests that open such small windows do not work there.
  bool misses_interrupt_windows() {
    put<u32>(4 * 0x40, 0x3000);
    code({0xfe, 0xc3, 0xcf}, 0x3000);     // inc bl; iret
    code({0xfb, 0x90, 0x90, 0xfa, 0xf4}); // sti; nop; nop; cli; hlt
    bool missed = false;
    for (u32 tries = 0; tries < 50 && !missed; ++tries) { // it may happen to look
      start(registers_16());
      platform_.interrupt = 0x40;
      run();
      platform_.interrupt = -1;
      missed = (gpr(RBX) & 0xff) == 0;
    }
    return missed;
  }
  // Some emulations of KVM never come back from this instruction by themselves.
  bool hangs_on(std::initializer_list<int> instruction) {
    for (u32 n = 0; n < 256; ++n) put<u32>(4 * n, 0x3000);
    code({0xcf}, 0x3000);
    code(instruction);
    code({0xf4}, CODE + instruction.size());
    start(registers_16());
    std::mutex mutex;
    std::condition_variable over;
    bool done = false;
    std::thread watchdog([&] {
      std::unique_lock<std::mutex> held(mutex);
      while (!over.wait_for(held, std::chrono::seconds(5), [&] { return done; })) {
        flag_.fetch_or(Vcpu::LEAVE);
        vcpu_->kick();
      }
    });
    const RunResult result = vcpu_->run();
    {
      const std::lock_guard<std::mutex> held(mutex);
      done = true;
    }
    over.notify_one();
    watchdog.join();
    return result == RunResult::exited;
  }
  u64 gpr(u32 n) { return vcpu_->registers().gpr[n]; }

  u8* memory_;
  MemoryMap map_;
  FakePlatform platform_;
  std::atomic<u32> flag_{0};
  std::unique_ptr<KvmBackend> backend_;
  std::unique_ptr<Vcpu> vcpu_;
};

} // namespace transom
