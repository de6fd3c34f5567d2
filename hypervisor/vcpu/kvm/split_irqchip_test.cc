// The split irqchip: what the kernel's local APICs do with what the board sends them. Guests in 16-bit code with 32-bit
// addresses for the APIC's page. They keep off what the emulated KVM known to us gets wrong (docs/kvm.md).
#include <atomic>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/test_guest.hpp"

namespace transom {
namespace {

class KvmSplitIrqchip : public KvmGuest {
 protected:
  static constexpr u8 VECTOR = 0x41;

  void SetUp() override {
    if (const std::string why = kvm_obstacle(); !why.empty()) GTEST_SKIP() << why;
    if (const auto kvm = open_kvm(); !has_split_irqchip(kvm->get())) GTEST_SKIP() << "this KVM has no split irqchip";
    make_vcpu("v2", true);
    ASSERT_NE(backend_->interrupt_sink(), nullptr);
  }
  // SVR = 1FFh; out 80h; then `rest`. In 32-bit protected mode, with gates for the handlers.
  void guest(std::initializer_list<int> rest) {
    code({0xc7, 0x05, 0xf0, 0, 0xe0, 0xfe, 0xff, 1, 0, 0, 0xe6, 0x80});
    code(rest, CODE + 12);
    code({0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0}, 0x5008);
    VcpuRegisters r = registers_32();
    r.gdtr = {0x5000, 23};
    r.idtr = {0x6000, 0x7ff};
    start(r);
  }
  void handler(u8 vector, u64 at, std::initializer_list<int> bytes) {
    code({0, static_cast<int>(at >> 8), 8, 0, 0, 0x8e, 0, 0}, 0x6000 + 8u * vector);
    code(bytes, at);
  }
  // The guest's last output ends the run.
  void leave_at(u16 port) {
    platform_.on_out = [this, port](u16 at, u32, u32) {
      if (at == port) flag_.fetch_or(Vcpu::LEAVE);
    };
  }
  bool wrote(u16 port) const {
    for (const auto& access : platform_.ports)
      if (access.address == port) return true;
    return false;
  }
  bool send(bool level = false) {
    return backend_->interrupt_sink()->send({VECTOR, DeliveryMode::fixed, level, false, 0});
  }
};

TEST_F(KvmSplitIrqchip, AMessageWakesAHaltedProcessor) {
  handler(VECTOR, 0x3000, {0xe6, 0x81, 0xf4}); // out 81h; hlt
  guest({0xfb, 0xf4, 0xeb, 0xfd});             // sti; hlt
  leave_at(0x80);
  ASSERT_EQ(run(), RunResult::exited);
  leave_at(0x81);
  std::thread sender([&] { EXPECT_TRUE(send()); });
  EXPECT_EQ(run(), RunResult::exited);
  sender.join();
  EXPECT_TRUE(wrote(0x81));
}

TEST_F(KvmSplitIrqchip, AMessageToNobodyIsNotTaken) {
  EXPECT_FALSE(send()) << "the APIC is disabled by software";
  EXPECT_FALSE(backend_->interrupt_sink()->send({VECTOR, DeliveryMode::fixed, false, false, 9}));
}

TEST_F(KvmSplitIrqchip, AKickEndsAHalt) {
  guest({0xfa, 0xf4}); // cli; hlt
  std::thread kicker([&] {
    ::usleep(20'000); // most likely in HLT by then; if not, it is heard as well
    flag_.fetch_or(Vcpu::LEAVE);
    vcpu_->kick();
  });
  EXPECT_EQ(run(), RunResult::exited);
  kicker.join();
}

TEST_F(KvmSplitIrqchip, OnlyALevelTriggeredInterruptTellsItsEnd) {
  // EOI; out 81h; some time, as an emulated KVM tells it late; out 82h; hlt
  handler(VECTOR, 0x3000, {0xc7, 0x05, 0xb0, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0xe6, 0x81, 0xe6, 0x82, 0xf4});
  for (const bool level : {false, true}) {
    Ioapic::LevelMessages messages;
    if (level) messages[5] = {VECTOR, DeliveryMode::fixed, true, false, 0};
    backend_->interrupt_sink()->set_level_messages(messages);
    guest({0xfb, 0xf4, 0xeb, 0xfd});
    leave_at(0x80);
    ASSERT_EQ(run(), RunResult::exited);
    leave_at(0x82);
    ASSERT_TRUE(send(level));
    EXPECT_EQ(run(), RunResult::exited);
    EXPECT_EQ(platform_.ended, level ? std::vector<u8>{VECTOR} : std::vector<u8>{});
  }
}

TEST_F(KvmSplitIrqchip, The8259sInterruptThroughLint0) {
  handler(0x42, 0x3000, {0xe6, 0x82, 0xf4});
  guest({0xfb, 0xf4, 0xeb, 0xfd});
  leave_at(0x82);
  platform_.interrupt = 0x42;
  EXPECT_EQ(run(), RunResult::exited);
  EXPECT_EQ(platform_.interrupt, -1) << "acknowledged";
  EXPECT_TRUE(wrote(0x82));
  EXPECT_EQ(vcpu_->counters().interrupts, 1u);
}

TEST_F(KvmSplitIrqchip, TheyDoNotWhileLint0IsMasked) {
  handler(0x42, 0x3000, {0xe6, 0x82, 0xf4});
  guest({0xc7, 0x05, 0x50, 3,    0xe0, 0xfe, 0,    7,    1,    0,      // LVT LINT0 = masked
         0xfb, 0x90, 0x90, 0xe6, 0x83, 0xe6, 0x84, 0xe6, 0x85, 0xf4}); // sti; nop; nop; out 83h, 84h, 85h
  leave_at(0x80);
  ASSERT_EQ(run(), RunResult::exited);
  platform_.interrupt = 0x42;
  leave_at(0x85);
  EXPECT_EQ(run(), RunResult::exited);
  EXPECT_EQ(platform_.interrupt, 0x42) << "not acknowledged";
  EXPECT_FALSE(wrote(0x82));
}

TEST_F(KvmSplitIrqchip, AResetEmptiesTheApic) {
  handler(VECTOR, 0x3000, {0xe6, 0x81, 0xf4});
  guest({0xfa, 0xf4});
  leave_at(0x80);
  ASSERT_EQ(run(), RunResult::exited);
  ASSERT_TRUE(send());
  vcpu_->reset();
  EXPECT_FALSE(send()) << "disabled by software, as after power-on";
  guest({0xfb, 0x90, 0x90, 0xe6, 0x83, 0xe6, 0x84, 0xf4}); // what was sent before does not come
  leave_at(0x84);
  EXPECT_EQ(run(), RunResult::exited);
  EXPECT_FALSE(wrote(0x81));
}

TEST_F(KvmSplitIrqchip, AStartUpIpiStartsAProcessorThatWaitsInTheKernel) {
  FakePlatform second(map_);
  std::atomic<u32> flag{0};
  std::atomic<bool> came{false};
  std::atomic<Vcpu*> other{nullptr};
  second.on_out = [&](u16 port, u32, u32) {
    if (port == 0x90) came = true;
    flag.fetch_or(Vcpu::LEAVE);
  };
  code({0xe6, 0x90, 0xf4}, 0x3000); // out 90h; hlt
  std::thread processor([&] {
    auto made = backend_->create(1, second, flag);
    ASSERT_TRUE(made) << made.error().text;
    other = made->get();
    EXPECT_EQ((*made)->run(), RunResult::exited);
    EXPECT_EQ((*made)->failure(), "");
    other = nullptr;
  });
  while (other.load() == nullptr) std::this_thread::yield();
  guest({0xc7, 0x05, 0x10, 3,   0xe0, 0xfe, 0, 0,    0, 1, // ICR: to 1
         0xc7, 0x05, 0x00, 3,   0xe0, 0xfe, 0, 0x45, 0, 0, // INIT
         0xc7, 0x05, 0x00, 3,   0xe0, 0xfe, 3, 0x46, 0, 0, // start-up at 3000h
         0xe6, 0x83, 0xfa, 0xf4});
  leave_at(0x83);
  EXPECT_EQ(run(), RunResult::exited);
  for (int n = 0; n < 6000 && !came; ++n) ::usleep(10'000);
  EXPECT_TRUE(came);
  if (Vcpu* const waiting = other.load(); !came && waiting != nullptr) {
    flag.fetch_or(Vcpu::LEAVE);
    waiting->kick();
  }
  processor.join();
}

} // namespace
} // namespace transom
