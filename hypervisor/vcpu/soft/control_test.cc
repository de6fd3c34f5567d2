#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;

class Control : public ::testing::Test {
 protected:
  Bench b;
  // mov crN, eax (32-bit code) or mov crN, rax (64-bit code)
  void mov_cr(unsigned n, u64 value) {
    b.cpu.gpr[RAX] = value;
    b.code({0x0f, 0x22, static_cast<u8>(0xc0 | n << 3), 0xf4});
    ASSERT_TRUE(b.run());
  }
  bool faulted() { return static_cast<bool>(b.in_handler(GP)); }
  void wrmsr(u32 msr, u64 value) {
    b.cpu.gpr[RCX] = msr;
    b.cpu.gpr[RAX] = static_cast<u32>(value);
    b.cpu.gpr[RDX] = value >> 32;
    b.code({0x0f, 0x30, 0xf4});
    ASSERT_TRUE(b.run());
  }
  u64 rdmsr(u32 msr) {
    b.long_mode_64();
    b.cpu.gpr[RCX] = msr;
    b.code({0x0f, 0x32, 0xf4});
    EXPECT_TRUE(b.run());
    return b.cpu.gpr[RDX] << 32 | b.cpu.gpr[RAX];
  }
};

TEST_F(Control, ResetStateIsTheArchitecturesOwn) {
  b.long_mode_64(3);
  b.vcpu.reset();
  EXPECT_EQ(b.cpu.segment[CS].selector, 0xf000);
  EXPECT_EQ(b.cpu.segment[CS].base, 0xffff'0000u);
  EXPECT_EQ(b.cpu.rip, 0xfff0u);
  EXPECT_EQ(b.cpu.cr0, 0x6000'0010u);
  EXPECT_EQ(b.cpu.gpr[RDX], 0x2'0ff2u);
  EXPECT_EQ(get_flags(b.cpu), 2u);
  EXPECT_EQ(b.cpu.dr[6], 0xffff'0ff0u);
  EXPECT_EQ(b.cpu.dr[7], 0x400u);
  EXPECT_EQ(b.cpu.mode, 0);
  EXPECT_EQ(b.cpu.efer, 0u);
  EXPECT_EQ(b.cpu.idtr.limit, 0xffff);
}

TEST_F(Control, Cr0RefusesPagingWithoutProtectionAndNwWithoutCd) {
  b.real_mode();
  mov_cr(0, CR0_PG);
  EXPECT_TRUE(faulted());
  b.protected_mode_32();
  mov_cr(0, CR0_PE | CR0_NW);
  EXPECT_TRUE(faulted());
  b.protected_mode_32();
  mov_cr(0, CR0_PE | CR0_NW | CR0_CD);
  EXPECT_FALSE(faulted());
}

TEST_F(Control, Cr0IgnoresUnknownBitsAndKeepsEt) {
  b.protected_mode_32();
  mov_cr(0, CR0_PE | 0x40);
  EXPECT_EQ(b.cpu.cr0, CR0_PE | CR0_ET);
}

TEST_F(Control, Cr4RefusesEveryBitOfAFeatureThatIsNotShown) {
  for (unsigned bit = 0; bit < 32; ++bit) {
    b.protected_mode_32();
    const bool known = cr4_mask(b.cpu) >> bit & 1;
    mov_cr(4, u64{1} << bit);
    EXPECT_EQ(faulted(), !known) << bit;
  }
}

TEST_F(Control, LongModeKeepsPaeAndItsPaging) {
  b.long_mode_64();
  mov_cr(4, 0);
  EXPECT_TRUE(faulted());
  b.long_mode_64();
  mov_cr(0, CR0_PE);
  EXPECT_TRUE(faulted()) << "PG cannot be cleared by 64-bit code";
  b.long_mode_64();
  mov_cr(3, u64{1} << 45);
  EXPECT_TRUE(faulted());
}

TEST_F(Control, CrsAreForTheKernelAndOnlyFiveOfThemExist) {
  b.long_mode_64(3);
  b.code({0x0f, 0x20, 0xc0});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(faulted());
  for (const u8 modrm : {0xc8, 0xe8, 0xf0, 0xf8}) { // CR1 CR5 CR6 CR7
    b.long_mode_64();
    b.code({0x0f, 0x20, modrm});
    ASSERT_TRUE(b.run());
    EXPECT_TRUE(b.in_handler(UD)) << int{modrm};
  }
}

TEST_F(Control, Cr8GoesToTheLocalApic) {
  b.long_mode_64();
  b.cpu.gpr[RAX] = 5;
  b.code({0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3, 0xf4}); // mov cr8,rax; mov rbx,cr8
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cr8, 5);
  EXPECT_EQ(b.cpu.gpr[RBX], 5u);
  b.long_mode_64();
  b.cpu.gpr[RAX] = 16;
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(faulted());
}

TEST_F(Control, LockMovCr0IsCr8AndNothingElseMayBeLocked) {
  b.protected_mode_32();
  b.cpu.gpr[RAX] = 7;
  b.code({0xf0, 0x0f, 0x22, 0xc0, 0xf0, 0x0f, 0x20, 0xc3, 0xf4}); // lock mov cr0,eax; lock mov ebx,cr0
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cr8, 7);
  EXPECT_EQ(b.cpu.gpr[RBX], 7u);
  b.protected_mode_32();
  b.code({0xf0, 0x0f, 0x20, 0xdb}); // lock mov ebx,cr3
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD));
}

TEST_F(Control, TheWayIntoLongMode) {
  b.protected_mode_32();
  b.put64(Bench::PAGE_TABLES, (Bench::PAGE_TABLES + 0x1000) | 7);
  b.put64(Bench::PAGE_TABLES + 0x1000, (Bench::PAGE_TABLES + 0x2000) | 7);
  b.put64(Bench::PAGE_TABLES + 0x2000, 0x87);
  b.code({0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20,   0x0f, 0x22, 0xe0,                               // CR4.PAE
          0xb8, 0x00, 0x00, 0x02, 0x00, 0x0f,   0x22, 0xd8,                                     // CR3
          0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f,   0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, // EFER.LME
          0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00,   0x00, 0x80, 0x0f, 0x22, 0xc0,                   // CR0.PG
          0xea, 0x00, 0x40, 0x01, 0x00, CODE64, 0x00});
  b.code({0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf4}, 0x1'4000); // mov rax,imm64
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RAX], 0x0807'0605'0403'0201u);
  EXPECT_TRUE(b.cpu.efer & EFER_LMA);
  EXPECT_TRUE(code64(b.cpu));
}

TEST_F(Control, LongModeNeedsPaeFirst) {
  b.protected_mode_32();
  b.cpu.efer = EFER_LME;
  mov_cr(0, CR0_PE | CR0_PG);
  EXPECT_TRUE(faulted());
  EXPECT_FALSE(b.cpu.efer & EFER_LMA);
}

TEST_F(Control, PaePagingLoadsAndChecksItsFourEntries) {
  b.protected_mode_32();
  b.cpu.cr3 = 0x5020;
  b.cpu.cr4 = CR4_PAE;
  b.put64(0x5020, (Bench::PAGE_TABLES + 0x2000) | 1);
  b.put64(Bench::PAGE_TABLES + 0x2000, 0x83);
  for (unsigned n = 1; n < 4; ++n) b.put64(0x5020 + 8 * n, 0);
  mov_cr(0, CR0_PE | CR0_PG);
  EXPECT_FALSE(faulted());
  EXPECT_EQ(b.cpu.pdptr[0], (Bench::PAGE_TABLES + 0x2000) | 1u);
  b.protected_mode_32();
  b.cpu.cr3 = 0x5020;
  b.cpu.cr4 = CR4_PAE;
  b.put64(0x5020, (Bench::PAGE_TABLES + 0x2000) | 3); // bit 1 is reserved
  mov_cr(0, CR0_PE | CR0_PG);
  EXPECT_TRUE(faulted());
  EXPECT_FALSE(b.cpu.cr0 & CR0_PG);
}

TEST_F(Control, LmswSetsProtectionButCannotClearIt) {
  b.real_mode();
  b.cpu.gpr[RAX] = 0xf;
  b.code({0x0f, 0x01, 0xf0, 0x31, 0xc0, 0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3, 0xf4}); // lmsw ax; xor ax; lmsw ax; smsw bx
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.cr0 & 0xf, CR0_PE);
  EXPECT_EQ(b.cpu.gpr[RBX] & 0xffff, CR0_PE | CR0_ET);
}

TEST_F(Control, DescriptorTablesLoadAndStore) {
  b.protected_mode_32();
  b.put16(0x5000, 0x1234);
  b.put32(0x5002, 0x8765'4321);
  // lidt [0x5000]; sidt [0x5010]; with 66: only 24 bits of base
  b.code({0x0f, 0x01, 0x1d, 0,    0x50, 0,    0, 0x0f, 0x01, 0x0d, 0x10, 0x50,
          0,    0,    0x66, 0x0f, 0x01, 0x1d, 0, 0x50, 0,    0,    0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.get64(0x5010) & 0xffff'ffff'ffff, 0x8765'4321'1234u);
  EXPECT_EQ(b.cpu.idtr.limit, 0x1234);
  EXPECT_EQ(b.cpu.idtr.base, 0x65'4321u);
  b.protected_mode_32(3);
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(faulted()) << "user mode";
}

TEST_F(Control, LgdtOfANonCanonicalBaseIsGp) {
  b.long_mode_64();
  b.put16(0x5000, 0xff);
  b.put64(0x5002, u64{1} << 50);
  b.code({0x0f, 0x01, 0x14, 0x25, 0, 0x50, 0, 0, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(faulted());
}

TEST_F(Control, DebugRegistersFourAndFiveAliasUntilDe) {
  b.protected_mode_32();
  b.cpu.gpr[RAX] = 0xffff'ffff;
  b.code({0x0f, 0x23, 0xe0, 0x0f, 0x21, 0xf3, 0xf4}); // mov dr4,eax; mov ebx,dr6
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RBX], 0xffff'efffu);
  b.protected_mode_32();
  b.cpu.cr4 = CR4_DE;
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD));
}

TEST_F(Control, InvlpgDropsTheTranslation) {
  b.long_mode_64();
  b.put64(0x20'0000 + 0x100, 0x1111);
  b.put64(0x100, 0x2222);
  // mov rax,[0x200100]; mov byte-wise PDE 1 -> page 0; [invlpg]; mov rbx,[0x200100]
  b.code({0x48, 0x8b, 0x04, 0x25, 0x00, 0x01, 0x20, 0x00,                   // mov rax,[0x200100]
          0xc7, 0x04, 0x25, 0x08, 0x20, 0x02, 0x00, 0x87, 0x00, 0x00, 0x00, // mov dword [0x22008],0x87
          0x0f, 0x01, 0x3c, 0x25, 0x00, 0x01, 0x20, 0x00,                   // invlpg [0x200100]
          0x48, 0x8b, 0x1c, 0x25, 0x00, 0x01, 0x20, 0x00, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RAX], 0x1111u);
  EXPECT_EQ(b.cpu.gpr[RBX], 0x2222u);
}

TEST_F(Control, PrivilegedInstructionsAreGpInUserMode) {
  const std::initializer_list<std::initializer_list<u8>> all = {
      {0x0f, 0x06},       {0x0f, 0x08},       {0x0f, 0x09},       {0x0f, 0x30},       {0x0f, 0x32},
      {0x0f, 0x01, 0x38}, {0x0f, 0x01, 0xf0}, {0x0f, 0x00, 0xd0}, {0x0f, 0x00, 0xd8}, {0x0f, 0x01, 0xf8},
      {0x48, 0x0f, 0x07}, {0x0f, 0x23, 0xc0}, {0x0f, 0x33}};
  for (const auto& bytes : all) {
    b.long_mode_64(3);
    b.code(bytes);
    ASSERT_TRUE(b.run());
    EXPECT_TRUE(faulted()) << std::hex << int{bytes.begin()[1]};
    EXPECT_EQ(b.slot(1, 8), Bench::CODE);
  }
}

TEST_F(Control, InstructionsThatCpuidDoesNotShowAreUndefined) {
  const std::initializer_list<std::initializer_list<u8>> all = {
      {0x0f, 0x01, 0xc8}, {0x0f, 0x01, 0xc9}, {0x0f, 0x01, 0xd0}, {0x0f, 0x01, 0xd1}, {0x0f, 0x01, 0xd8},
      {0x0f, 0x01, 0xca}, {0x0f, 0xaa},       {0x0f, 0xc7, 0xf0}, {0x0f, 0xc7, 0xf8}, {0x0f, 0x01, 0xfc}};
  for (const auto& bytes : all) {
    b.long_mode_64();
    b.code(bytes);
    ASSERT_TRUE(b.run());
    EXPECT_TRUE(b.in_handler(UD)) << std::hex << int{bytes.begin()[1]} << ' ' << int{bytes.end()[-1]};
  }
}

// --- MSRs

TEST_F(Control, UnknownMsrsAreGpBothWays) {
  b.long_mode_64();
  wrmsr(0xc001'1234, 0);
  EXPECT_TRUE(faulted());
  rdmsr(0xc001'1234);
  EXPECT_TRUE(faulted());
  rdmsr(0x10);
  EXPECT_FALSE(faulted());
}

TEST_F(Control, BasesMustBeCanonical) {
  for (const u32 msr : {0xc000'0100u, 0xc000'0101u, 0xc000'0102u, 0xc000'0082u, 0xc000'0083u, 0x175u, 0x176u}) {
    b.long_mode_64();
    wrmsr(msr, 0x0000'8000'0000'0000);
    EXPECT_TRUE(faulted()) << std::hex << msr;
    b.long_mode_64();
    wrmsr(msr, 0xffff'8000'0000'0000);
    EXPECT_FALSE(faulted()) << std::hex << msr;
  }
}

TEST_F(Control, EferKeepsLmaAndRefusesToLeaveLongModeWhilePaging) {
  b.long_mode_64();
  wrmsr(0xc000'0080, EFER_SCE | EFER_LME); // without LMA: read-only
  EXPECT_FALSE(faulted());
  EXPECT_EQ(b.cpu.efer, EFER_SCE | EFER_LME | EFER_LMA);
  b.long_mode_64();
  wrmsr(0xc000'0080, EFER_SCE);
  EXPECT_TRUE(faulted());
  b.long_mode_64();
  wrmsr(0xc000'0080, EFER_LME | 1 << 12); // SVME: not shown
  EXPECT_TRUE(faulted());
}

TEST_F(Control, PatAndMtrrsRefuseReservedTypes) {
  b.long_mode_64();
  wrmsr(0x277, 0x0007'0406'0007'0402);
  EXPECT_TRUE(faulted());
  b.long_mode_64();
  wrmsr(0x277, 0x0007'0406'0007'0401);
  EXPECT_FALSE(faulted());
  b.long_mode_64();
  wrmsr(0x26f, 0x0303'0303'0303'0303);
  EXPECT_TRUE(faulted());
  b.long_mode_64();
  wrmsr(0x26f, 0x0505'0505'0505'0505);
  EXPECT_FALSE(faulted());
  EXPECT_EQ(b.cpu.mtrr_fixed[10], 0x0505'0505'0505'0505u);
  b.long_mode_64();
  wrmsr(0x201, u64{1} << PHYSICAL_BITS);
  EXPECT_TRUE(faulted());
  b.long_mode_64();
  wrmsr(0x201, 0xff'8000'0800);
  EXPECT_FALSE(faulted());
}

TEST_F(Control, MicrocodeUpdatesAreAcknowledgedWithoutEffect) {
  b.long_mode_64();
  wrmsr(0x79, 0x1234);
  EXPECT_FALSE(faulted());
  b.long_mode_64();
  wrmsr(0x8b, 0x1234);
  EXPECT_FALSE(faulted());
  EXPECT_EQ(rdmsr(0x8b), 0u);
}

TEST_F(Control, HypervisorMsrsGoToThePlatform) {
  b.long_mode_64();
  wrmsr(0x4000'0000, 0x12'3000);
  EXPECT_FALSE(faulted());
  EXPECT_EQ(b.last_hypervisor_msr, 0x12'3000u);
  b.long_mode_64();
  wrmsr(0x4000'0001, 0);
  EXPECT_TRUE(faulted());
}

TEST_F(Control, TsdKeepsTheTscFromUserMode) {
  b.long_mode_64(3);
  b.code({0x0f, 0x31});
  b.step();
  EXPECT_EQ(b.cpu.gpr[RDX], 1u);
  EXPECT_EQ(b.cpu.gpr[RAX], 0x2345'6789u);
  b.long_mode_64(3);
  b.cpu.cr4 |= CR4_TSD;
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(faulted());
}

// --- I/O permission

TEST_F(Control, TheIoBitmapDecidesForUserMode) {
  const auto in = [&](u16 port) { // in al,dx
    b.cpu.gpr[RDX] = port;
    b.code({0xec});
    b.step();
    return b.cpu.rip == Bench::CODE + 1;
  };
  b.protected_mode_32(3);
  EXPECT_FALSE(in(0x80)) << "no bitmap within the limit";
  b.protected_mode_32(3);
  b.put16(Bench::TSS + 0x66, 0x68);
  b.cpu.tr.limit = 0x68 + 0x20;
  for (unsigned n = 0; n < 0x21; ++n) b.put8(Bench::TSS + 0x68 + n, 0xff);
  b.put8(Bench::TSS + 0x68 + 0x10, 0xfe); // port 80h
  EXPECT_TRUE(in(0x80));
  b.cpu.rip = Bench::CODE;
  EXPECT_FALSE(in(0x81));
  b.protected_mode_32(3);
  set_flags(b.cpu, 2 | FLAG_IOPL);
  EXPECT_TRUE(in(0x81)) << "IOPL 3";
  b.protected_mode_32();
  EXPECT_TRUE(in(0x81)) << "CPL 0";
}

} // namespace
} // namespace transom::soft
