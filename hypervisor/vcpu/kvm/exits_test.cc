// Exits of KVM: ports, memory, MSRs, shutdown.
#include "hypervisor/vcpu/kvm/test_guest.hpp"

namespace transom {
namespace {

class KvmExits : public KvmGuest {};

TEST_F(KvmExits, PortsAreReadAndWrittenInEveryWidth) {
  platform_.on_in = [](u16, u32 width) { return width == 1 ? 0x11u : width == 2 ? 0x2211u : 0x4433'2211u; };
  code({0xe6, 0x10,             // out 10h, al
        0xe7, 0x12,             // out 12h, ax
        0x66, 0xe7, 0x14,       // out 14h, eax
        0x66, 0xe5, 0x20,       // in eax, 20h
        0x66, 0x89, 0xc3,       // mov ebx, eax
        0xe5, 0x22,             // in ax, 22h
        0x89, 0xc1, 0xe4, 0x24, // mov cx, ax; in al, 24h
        0xf4});
  VcpuRegisters r = registers_16();
  r.gpr[RAX] = 0xddcc'bbaa;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  const std::vector<FakePlatform::Access> expected = {{false, 0x10, 1, 0xaa},        {false, 0x12, 2, 0xbbaa},
                                                      {false, 0x14, 4, 0xddcc'bbaa}, {true, 0x20, 4, 0x4433'2211},
                                                      {true, 0x22, 2, 0x2211},       {true, 0x24, 1, 0x11}};
  EXPECT_EQ(platform_.ports, expected);
  EXPECT_EQ(gpr(RBX), 0x4433'2211u);
  EXPECT_EQ(gpr(RCX) & 0xffff, 0x2211u);
}

TEST_F(KvmExits, ARunOfInputIsOneRequestAndLandsInMemory) {
  u32 next = 0;
  platform_.on_in = [&](u16, u32) { return next++; };
  code({0xfc, 0xf3, 0x66, 0x6d, 0xf4}); // cld; rep insw (32-bit code); hlt
  VcpuRegisters r = registers_32();
  r.gpr[RCX] = 256;
  r.gpr[RDX] = 0x1f0;
  r.gpr[RDI] = DATA;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  for (u32 n = 0; n < 256; ++n) ASSERT_EQ(get<u16>(DATA + 2 * n), n);
  EXPECT_EQ(gpr(RCX), 0u);
  EXPECT_EQ(gpr(RDI), DATA + 512);
  EXPECT_EQ(next, 256u) << "no element is lost or read twice";
  // KVM may take the first element alone.
  u32 elements = static_cast<u32>(platform_.ports.size());
  for (const PioRun& run : platform_.runs) elements += run.count;
  EXPECT_EQ(elements, 256u);
  EXPECT_GE(platform_.runs.size(), 1u);
  EXPECT_LE(platform_.runs.size() + platform_.ports.size(), 8u);
}

TEST_F(KvmExits, ARunOverAPageBorderWithSegmentsAndPrefixesLosesNothing) {
  u32 next = 0;
  platform_.on_in = [&](u16, u32) { return next++; };
  code({0xfc, 0xf3, 0x67, 0x6c, 0xf4}); // cld; rep insb with EDI; hlt
  VcpuRegisters r = registers_16();
  r.es = {0x200, 0x93, 0xffff, 0x2000};
  r.gpr[RCX] = 100;
  r.gpr[RDX] = 0x300;
  r.gpr[RDI] = 0xfc0;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  for (u32 n = 0; n < 100; ++n) ASSERT_EQ(get<u8>(0x2fc0 + n), n);
  EXPECT_EQ(next, 100u);
  EXPECT_EQ(get<u8>(0x2fc0 + 100), 0u);
}

TEST_F(KvmExits, ARunDownwardsGoesDownwards) {
  u32 next = 1;
  platform_.on_in = [&](u16, u32) { return next++; };
  code({0xfd, 0xf3, 0x6c, 0xf4}); // std; rep insb; hlt
  VcpuRegisters r = registers_16();
  r.gpr[RCX] = 4;
  r.gpr[RDX] = 0x300;
  r.gpr[RDI] = DATA + 8;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_EQ(get<u32>(DATA + 5), 0x0102'0304u);
}

TEST_F(KvmExits, ARunOfOutputKeepsItsOrder) {
  for (u8 n = 0; n < 20; ++n) memory_[DATA + n] = n;
  code({0xfc, 0xf3, 0x6e, 0xf4}); // cld; rep outsb; hlt
  VcpuRegisters r = registers_16();
  r.gpr[RCX] = 20;
  r.gpr[RDX] = 0x300;
  r.gpr[RSI] = DATA;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  ASSERT_EQ(platform_.ports.size(), 20u);
  for (u32 n = 0; n < 20; ++n) EXPECT_EQ(platform_.ports[n], (FakePlatform::Access{false, 0x300, 1, n}));
}

TEST_F(KvmExits, WhatNoSlotHoldsIsADevice) {
  code({0xa3, 0x10, 0,    0, 0xd0,               // mov [D0000010h], eax
        0x8a, 0x1d, 0x21, 0, 0,    0xd0,         // mov bl, [D0000021h]
        0x8b, 0x0d, 0x30, 0, 0,    0xd0,         // mov ecx, [D0000030h]
        0x66, 0xa3, 0x42, 0, 0,    0xd0, 0xf4}); // mov [D0000042h], ax; hlt
  VcpuRegisters r = registers_32();
  r.gpr[RAX] = 0xddcc'bbaa;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  const std::vector<FakePlatform::Access> expected = {{false, 0xd000'0010, 4, 0xddcc'bbaa},
                                                      {true, 0xd000'0021, 1, 0x11},
                                                      {true, 0xd000'0030, 4, 0x4433'2211},
                                                      {false, 0xd000'0042, 2, 0xbbaa}};
  EXPECT_EQ(platform_.mmio, expected);
  EXPECT_EQ(gpr(RBX) & 0xff, 0x11u);
  EXPECT_EQ(gpr(RCX), 0x4433'2211u);
}

TEST_F(KvmExits, ShadowRamObeysItsTwoSwitches) {
  memory_[0xc'8000] = 0x5a;
  const auto store_and_load = [&] {
    code({0xa2, 0, 0x80, 0x0c, 0,       // mov [C8000h], al
          0x8a, 0x1d, 0, 0x80, 0x0c, 0, // mov bl, [C8000h]
          0xf4});
    VcpuRegisters r = registers_32();
    r.gpr[RAX] = 0x77;
    start(r);
    EXPECT_EQ(run(), RunResult::halted);
    return gpr(RBX) & 0xff;
  };
  const auto shadow = [&](bool read, bool write) {
    map_.set_shadow(0xc'8000, 0x4000, read, write);
    vcpu_->memory_map_changed();
  };
  shadow(true, false);
  EXPECT_EQ(store_and_load(), 0x5au) << "read-only";
  shadow(false, true);
  EXPECT_EQ(store_and_load(), 0x11u) << "reads go to the bus";
  EXPECT_EQ(memory_[0xc'8000], 0x77) << "writes go to the RAM";
  memory_[0xc'8000] = 1;
  shadow(false, false);
  EXPECT_EQ(store_and_load(), 0x11u);
  EXPECT_EQ(memory_[0xc'8000], 1);
  shadow(true, true);
  EXPECT_EQ(store_and_load(), 0x77u);
}

TEST_F(KvmExits, WithA20OffTheSecondMegabyteIsTheFirst) {
  memory_[0x5000] = 0x11;
  memory_[0x10'5000] = 0x22;
  const auto load = [&] {
    code({0x8a, 0x1d, 0, 0x50, 0x10, 0, 0xf4}); // mov bl, [105000h]
    start(registers_32());
    EXPECT_EQ(run(), RunResult::halted);
    return gpr(RBX) & 0xff;
  };
  EXPECT_EQ(load(), 0x22u);
  platform_.a20 = ~u64{0x10'0000};
  vcpu_->memory_map_changed();
  EXPECT_EQ(load(), 0x11u);
  platform_.a20 = ~u64{0};
  vcpu_->memory_map_changed();
  EXPECT_EQ(load(), 0x22u);
}

TEST_F(KvmExits, ATripleFaultIsAShutdown) {
  code({0x0f, 0x0b}); // ud2, with no IDT
  start(registers_32());
  EXPECT_EQ(run(), RunResult::shutdown);
  code({0xf4});
  vcpu_->reset();
  start(registers_32());
  EXPECT_EQ(run(), RunResult::halted) << "a reset revives it";
}

// Exception vector n at 3000h + 16 n leaves n in BL.
class KvmMsrs : public KvmGuest {
 protected:
  void SetUp() override {
    KvmGuest::SetUp();
    if (IsSkipped()) return;
    for (u32 n = 0; n < 32; ++n) {
      put<u32>(4 * n, 0x3000 + 16 * n);
      code({0xb3, static_cast<int>(n), 0xf4}, 0x3000 + 16 * n);
    }
  }
  // RDX:RAX after the access; `faulted`: with #GP.
  u64 access(bool write, u32 msr, u64 value, bool& faulted) {
    code({0x0f, write ? 0x30 : 0x32, 0xf4});
    VcpuRegisters r = registers_16();
    r.gpr[RCX] = msr;
    r.gpr[RAX] = static_cast<u32>(value);
    r.gpr[RDX] = value >> 32;
    start(r);
    EXPECT_EQ(run(), RunResult::halted);
    const VcpuRegisters after = vcpu_->registers();
    faulted = (after.gpr[RBX] & 0xff) == 13;
    return after.gpr[RDX] << 32 | static_cast<u32>(after.gpr[RAX]);
  }
};

TEST_F(KvmMsrs, TheApicBaseIsThePlatforms) {
  bool faulted = true;
  EXPECT_EQ(access(false, 0x1b, 0, faulted), 0xfee0'0900u);
  EXPECT_FALSE(faulted);
  access(true, 0x1b, 0xfed0'0900, faulted);
  EXPECT_FALSE(faulted);
  EXPECT_EQ(platform_.apic_base, 0xfed0'0900u);
  platform_.refuse_msrs = true;
  access(true, 0x1b, 0xfee0'0900, faulted);
  EXPECT_TRUE(faulted);
}

TEST_F(KvmMsrs, X2ApicAndDeadlineAreThePlatforms) {
  bool faulted = true;
  EXPECT_EQ(access(false, 0x802, 0, faulted), 0x1234'5678'0000'0802u);
  EXPECT_FALSE(faulted);
  access(true, 0x80b, 0, faulted);
  EXPECT_FALSE(faulted);
  access(true, 0x6e0, 77, faulted);
  EXPECT_FALSE(faulted);
  ASSERT_EQ(platform_.msrs.size(), 2u);
  EXPECT_EQ(platform_.msrs[1], (FakePlatform::Access{false, 0x6e0, 8, 77}));
  platform_.refuse_msrs = true;
  access(false, 0x802, 0, faulted);
  EXPECT_TRUE(faulted);
}

TEST_F(KvmMsrs, UnknownOnesFaultAndInertOnesDoNot) {
  bool faulted = false;
  access(false, 0xdead, 0, faulted);
  EXPECT_TRUE(faulted);
  access(true, 0x4000'0000, 5, faulted);
  EXPECT_TRUE(faulted) << "no hypervisor interface";
  EXPECT_EQ(access(false, 0xc001'0010, 0, faulted), 0u);
  EXPECT_FALSE(faulted);
}

TEST_F(KvmMsrs, TheUsualOnesAreKvms) {
  bool faulted = true;
  access(true, 0xc000'0082, 0x1234'5678, faulted); // LSTAR
  EXPECT_FALSE(faulted);
  EXPECT_EQ(access(false, 0xc000'0082, 0, faulted), 0x1234'5678u);
  vcpu_->reset();
  EXPECT_EQ(access(false, 0xc000'0082, 0, faulted), 0u) << "RESET clears it";
  EXPECT_EQ(access(false, 0x277, 0, faulted), 0x0007'0406'0007'0406u) << "PAT";
}

TEST_F(KvmExits, AHypercallByPort7EhGivesRaxAndNothingElse) {
  platform_.has_hypercalls = true;
  make_vcpu();
  code({0xe7, 0x7e, 0xf4}); // out 7Eh, eax; hlt
  VcpuRegisters r = registers_64();
  r.gpr[RAX] = 17;
  r.gpr[RDI] = 1, r.gpr[RSI] = 2, r.gpr[RDX] = 3, r.gpr[10] = 4, r.gpr[8] = 5, r.gpr[9] = 6;
  start(r);
  EXPECT_EQ(run(), RunResult::halted);
  ASSERT_EQ(platform_.hypercalls.size(), 1u);
  EXPECT_EQ(platform_.hypercalls[0], (std::vector<u64>{17, 1, 2, 3, 4, 5, 6, 1}));
  EXPECT_EQ(gpr(RAX), 0x5151'5151u);
  EXPECT_EQ(gpr(RDI), 1u);
  EXPECT_EQ(vcpu_->registers().rip, CODE + 3);
  EXPECT_TRUE(platform_.ports.empty());
}

TEST_F(KvmExits, WithoutAHypervisorInterfacePort7EhIsAPort) {
  code({0xe7, 0x7e, 0xf4});
  start(registers_64());
  EXPECT_EQ(run(), RunResult::halted);
  EXPECT_TRUE(platform_.hypercalls.empty());
  EXPECT_EQ(platform_.ports.size(), 1u);
}

} // namespace
} // namespace transom
