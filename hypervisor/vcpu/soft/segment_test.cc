#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

class Segments : public ::testing::Test {
 protected:
  SystemBench b;
  // Protected mode: `mov ax, selector; mov sreg, ax; hlt`.
  void load(unsigned index, u16 selector) {
    b.code({0x66, 0xb8, static_cast<u8>(selector), static_cast<u8>(selector >> 8), 0x8e,
            static_cast<u8>(0xc0 | index << 3), 0xf4});
    ASSERT_TRUE(b.run());
  }
  void expect_fault(u8 vector, u32 error) {
    EXPECT_TRUE(b.in_handler(vector));
    EXPECT_EQ(b.slot(0, 4), error);
    EXPECT_EQ(b.slot(1, 4), SystemBench::CODE + 4) << "RIP of the MOV";
  }
};

TEST_F(Segments, LoadTakesBaseLimitAndAttributesAndMarksTheDescriptorAccessed) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0x1234'5678, 0x12, 0x92, 0xc));
  load(ES, FREE);
  EXPECT_EQ(b.cpu.segment[ES].base, 0x1234'5678u);
  EXPECT_EQ(b.cpu.segment[ES].limit, 0x1'2fffu);
  EXPECT_EQ(b.cpu.segment[ES].attr, 0xc093);
  EXPECT_EQ(b.get8(SystemBench::GDT + FREE + 5), 0x93);
}

TEST_F(Segments, LoadBeyondTheTableIsGpWithTheSelector) {
  b.protected_mode_32();
  load(ES, 0x2000 | 3);
  expect_fault(GP, 0x2000);
}

TEST_F(Segments, TheWholeDescriptorMustBeWithinTheTable) {
  b.protected_mode_32();
  b.cpu.gdtr.limit = DATA32 + 6;
  load(ES, DATA32);
  expect_fault(GP, DATA32);
  b.protected_mode_32();
  b.cpu.gdtr.limit = DATA32 + 7;
  load(ES, DATA32);
  EXPECT_EQ(b.cpu.rip, SystemBench::CODE + 7);
}

TEST_F(Segments, LoadingTheStackSegmentHoldsInterruptsForOneInstruction) {
  b.protected_mode_32();
  b.cpu.gpr[RAX] = DATA32;
  b.code({0x8e, 0xd8, 0x8e, 0xd0, 0x90}); // mov ds,ax; mov ss,ax; nop
  b.step();
  EXPECT_FALSE(b.cpu.interrupt_shadow);
  b.step();
  EXPECT_TRUE(b.cpu.interrupt_shadow);
  b.step();
  EXPECT_FALSE(b.cpu.interrupt_shadow);
}

TEST_F(Segments, LoadFromAnAbsentLdtIsGpWithTheTableBitInTheError) {
  b.protected_mode_32();
  load(ES, 0x0c);
  expect_fault(GP, 0x0c);
}

TEST_F(Segments, LoadOfANotPresentSegmentIsNpAndForTheStackSs) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xffff, 0x12, 0));
  load(DS, FREE);
  expect_fault(NP, FREE);
  b.protected_mode_32();
  load(SS, FREE);
  expect_fault(SS_FAULT, FREE);
}

TEST_F(Segments, ExecuteOnlyCodeIsNoDataSegment) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xffff, 0x98, 0));
  load(DS, FREE);
  expect_fault(GP, FREE);
}

TEST_F(Segments, ReadOnlyDataIsNoStackButMayBeData) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xffff, 0x90, 0));
  load(SS, FREE);
  expect_fault(GP, FREE);
  b.protected_mode_32();
  load(DS, FREE);
  EXPECT_EQ(b.cpu.segment[DS].selector, FREE);
}

TEST_F(Segments, UserModeMayNotLoadSupervisorDataButConformingCode) {
  b.protected_mode_32(3);
  load(DS, DATA32 | 3);
  expect_fault(GP, DATA32);
  b.protected_mode_32(3);
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xffff, 0x9e, 0));
  // HLT is privileged at CPL 3: the #GP behind the load tells that the load went through.
  load(DS, FREE | 3);
  EXPECT_EQ(b.cpu.segment[DS].selector, FREE | 3);
  EXPECT_EQ(b.slot(1, 4), SystemBench::CODE + 6);
}

TEST_F(Segments, NullSelectorsLoadAndFaultOnUse) {
  b.protected_mode_32();
  b.code({0x31, 0xc0, 0x8e, 0xd8, 0xa1, 0, 0, 0, 0, 0xf4}); // xor eax,eax; mov ds,ax; mov eax,[0]
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 4), 0u);
  EXPECT_EQ(b.slot(1, 4), SystemBench::CODE + 4);
}

TEST_F(Segments, NullStackIsGpZeroOutside64BitMode) {
  b.protected_mode_32();
  load(SS, 0);
  expect_fault(GP, 0);
  b.long_mode_64();
  load(SS, 0);
  EXPECT_TRUE(null_selector(b.cpu.segment[SS].selector)) << "64-bit mode at CPL 0 may";
  EXPECT_EQ(b.cpu.rip, SystemBench::CODE + 7);
}

TEST_F(Segments, LimitViolationsAreGpAndOnTheStackSs) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xfff, 0x92, 0x4));
  b.code({0x66, 0xb8, FREE, 0, 0x8e, 0xd8, 0xa1, 0xfd, 0x0f, 0, 0, 0xf4}); // mov eax,[0xffd]
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(1, 4), SystemBench::CODE + 6);
  b.protected_mode_32();
  b.code({0x66, 0xb8, FREE, 0, 0x8e, 0xd8, 0xa1, 0xfc, 0x0f, 0, 0, 0xf4}); // mov eax,[0xffc] fits
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.rip, SystemBench::CODE + 12);
}

TEST_F(Segments, RepeatedStringInstructionsMayNotWriteReadOnlyData) {
  for (const u8 access : {0x92, 0x90}) {
    b.protected_mode_32();
    b.put64(SystemBench::GDT + FREE, descriptor(0, 0xf'ffff, access, 0xc));
    // mov [0x8000],al: the page is known; mov ax,FREE; mov es,ax; mov edi,0x8000; mov ecx,16; rep stosb; hlt
    b.code({0xa2, 0,    0x80, 0, 0,    0x66, 0xb8, FREE, 0, 0x8e, 0xc0, 0xbf,
            0,    0x80, 0,    0, 0xb9, 16,   0,    0,    0, 0xf3, 0xaa, 0xf4});
    ASSERT_TRUE(b.run());
    EXPECT_EQ(b.in_handler(GP), access == 0x90);
    EXPECT_EQ(b.cpu.gpr[RCX], access == 0x90 ? 16u : 0u);
  }
}

TEST_F(Segments, ExpandDownSegmentsAllowWhatIsAboveTheLimit) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0, 0xfff, 0x96, 0x4));
  b.code({0x66, 0xb8, FREE, 0, 0x8e, 0xd8, 0xa1, 0x00, 0x10, 0, 0, 0xa1, 0xff, 0x0f, 0, 0, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(1, 4), SystemBench::CODE + 11) << "the second load";
}

TEST_F(Segments, UnrealModeKeepsTheLimitAcrossRealModeLoads) {
  b.real_mode();
  b.put64(0x12'3456, 0x1122'3344'5566'7788);
  b.cpu.gdtr = {SystemBench::GDT, 0xfff};
  b.code({0x0f, 0x20,   0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, // mov eax,cr0; or al,1; mov cr0,eax
          0xbb, DATA32, 0x00, 0x8e, 0xdb,                   // mov bx,DATA32; mov ds,bx
          0x24, 0xfe,   0x0f, 0x22, 0xc0,                   // and al,0xfe; mov cr0,eax
          0x31, 0xdb,   0x8e, 0xdb,                         // xor bx,bx; mov ds,bx
          0x67, 0x66,   0xa1, 0x56, 0x34, 0x12, 0x00,       // mov eax,[dword 0x123456]
          0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RAX], 0x5566'7788u);
  EXPECT_EQ(b.cpu.segment[DS].limit, 0xffff'ffffu);
  // Without the detour the same access is beyond 64 KiB.
  b.real_mode();
  b.code({0x67, 0x66, 0xa1, 0x56, 0x34, 0x12, 0x00, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
}

TEST_F(Segments, PopSsMovesTheStackPointerInTheOldWidth) {
  b.protected_mode_32();
  b.put32(SystemBench::STACK, DATA16);
  b.code({0x17, 0xf4}); // pop ss
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.segment[SS].selector, DATA16);
  EXPECT_EQ(b.cpu.gpr[RSP], SystemBench::STACK + 4);
}

TEST_F(Segments, PushOfASegmentIsZeroExtended) {
  b.protected_mode_32();
  b.put32(SystemBench::STACK - 4, 0xffff'ffff);
  b.code({0x1e, 0xf4}); // push ds
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.slot(0, 4), DATA32);
}

TEST_F(Segments, LdsLoadsRegisterAndSegmentOrNeither) {
  b.protected_mode_32();
  b.put32(0x5000, 0xdead'beef);
  b.put16(0x5004, DATA16);
  b.code({0xc5, 0x1d, 0, 0x50, 0, 0, 0xf4}); // lds ebx,[0x5000]
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RBX], 0xdead'beefu);
  EXPECT_EQ(b.cpu.segment[DS].selector, DATA16);
  b.protected_mode_32();
  b.put16(0x5004, 0x3000);
  b.code({0xc5, 0x1d, 0, 0x50, 0, 0, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.cpu.gpr[RBX], 0u);
}

TEST_F(Segments, LarAndLslAnswerForVisibleDescriptorsOnly) {
  b.protected_mode_32(3);
  // lar ebx,ax; lsl ecx,ax; then #GP by HLT
  b.code({0x66, 0xb8, USER_DATA32, 0, 0x0f, 0x02, 0xd8, 0x0f, 0x03, 0xc8, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RBX] & 0xf0'ff00, 0xc0'f200u);
  EXPECT_EQ(b.cpu.gpr[RCX], 0xffff'ffffu);
  EXPECT_TRUE(b.slot(3, 4) & FLAG_ZF);
  b.protected_mode_32(3);
  b.code({0x66, 0xb8, DATA32, 0, 0x0f, 0x02, 0xd8, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.gpr[RBX], 0u);
  EXPECT_FALSE(b.slot(3, 4) & FLAG_ZF);
}

TEST_F(Segments, VerrAndVerwTellReadableFromWritable) {
  b.protected_mode_32();
  b.code({0x66, 0xb8, CODE32, 0, 0x0f, 0x00, 0xe0, 0x0f, 0x94, 0xc3, 0x0f, 0x00, 0xe8, 0x0f, 0x94, 0xc1, 0xf4});
  ASSERT_TRUE(b.run()); // verr ax; setz bl; verw ax; setz cl
  EXPECT_EQ(b.cpu.gpr[RBX] & 0xff, 1u);
  EXPECT_EQ(b.cpu.gpr[RCX] & 0xff, 0u);
}

TEST_F(Segments, ArplRaisesTheRplOnly) {
  b.protected_mode_32();
  b.code({0x66, 0xb8, 0x10, 0, 0x66, 0xbb, 0x03, 0, 0x63, 0xd8, 0x63, 0xd8, 0xf4}); // arpl ax,bx twice
  b.step(3);
  EXPECT_EQ(b.cpu.gpr[RAX] & 0xffff, 0x13u);
  EXPECT_TRUE(get_flags(b.cpu) & FLAG_ZF);
  b.step();
  EXPECT_FALSE(get_flags(b.cpu) & FLAG_ZF);
}

TEST_F(Segments, LtrTakesAnAvailableTssAndMarksItBusy) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0x4000, 0x67, 0x89, 0));
  b.code({0x66, 0xb8, FREE, 0, 0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xd8, 0xf4}); // ltr ax, twice
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.tr.selector, FREE);
  EXPECT_EQ(b.get8(SystemBench::GDT + FREE + 5), 0x8b);
  EXPECT_TRUE(b.in_handler(GP)) << "busy the second time";
  EXPECT_EQ(b.slot(0, 4), FREE);
}

TEST_F(Segments, LongModeTssHasASixteenByteDescriptor) {
  b.long_mode_64();
  b.put64(SystemBench::GDT + FREE, descriptor(0x4000, 0x67, 0x89, 0));
  b.put64(SystemBench::GDT + FREE + 8, 0xffff'8000);
  b.code({0x66, 0xb8, FREE, 0, 0x0f, 0x00, 0xd8, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.tr.base, 0xffff'8000'0000'4000u);
}

TEST_F(Segments, TheUpperHalfOfASystemDescriptorHasNoType) {
  b.long_mode_64();
  b.put64(SystemBench::GDT + FREE, descriptor(0x4000, 0x67, 0x89, 0));
  b.put64(SystemBench::GDT + FREE + 8, u64{1} << 40);
  b.code({0x66, 0xb8, FREE, 0, 0x0f, 0x00, 0xd8, 0xf4});
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP));
  EXPECT_EQ(b.slot(0, 8), FREE);
}

TEST_F(Segments, LldtTakesAnLdtOrNull) {
  b.protected_mode_32();
  b.put64(SystemBench::GDT + FREE, descriptor(0x4000, 0x17, 0x82, 0));
  b.put64(0x4008, descriptor(0x5000, 0xff, 0x92, 0x4));
  b.code({0x66, 0xb8, FREE, 0, 0x0f, 0x00, 0xd0, 0x66, 0xb8, 0x0c, 0, 0x8e, 0xc0, 0xf4}); // lldt ax; mov es,LDT[1]
  ASSERT_TRUE(b.run());
  EXPECT_EQ(b.cpu.segment[ES].base, 0x5000u);
  b.code({0x66, 0xb8, DATA32, 0, 0x0f, 0x00, 0xd0, 0xf4});
  b.cpu.rip = SystemBench::CODE;
  b.cpu.halted = false;
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(GP)) << "a data segment is no LDT";
}

TEST_F(Segments, SystemSegmentInstructionsDoNotExistInRealMode) {
  b.real_mode();
  b.code({0x0f, 0x00, 0xd8}); // ltr ax
  ASSERT_TRUE(b.run());
  EXPECT_TRUE(b.in_handler(UD));
}

} // namespace
} // namespace transom::soft
