// Translated code and pages: operands and instructions across their ends, and who may look at them.
#include <gtest/gtest.h>

#include "hypervisor/vcpu/soft/jit/test_guest.hpp"

namespace transom::soft {
namespace {

using namespace asmjit;
using Asm = x86::Assembler;

constexpr u64 CODE = TestMachine::CODE, DATA = TestMachine::DATA;
constexpr u64 FRAME = 0x30'0000; // a page that lies elsewhere in RAM

void map(TestMachine& m, u64 linear, u64 entry) {
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (linear >> PAGE_SHIFT), entry);
}

// Fields of a structure that lies anywhere around the end of a page. The page behind it is no neighbour in RAM, or
// nothing.
TEST(Pages, StructuresAcrossTheirEndsAreReadAndWrittenWhereTheyAre) {
  const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    a.mov(x86::rax, x86::qword_ptr(x86::rdx));
    a.add(x86::rax, x86::qword_ptr(x86::rdx, 8));
    a.mov(x86::qword_ptr(x86::rdx, 64), x86::rax);
    a.xor_(x86::dword_ptr(x86::rdx, 24), 0x1234);
    a.movzx(x86::ecx, x86::byte_ptr(x86::rdx, 100));
    a.mov(x86::word_ptr(x86::rdx, -20), x86::cx);
    a.hlt();
  });
  for (const u64 behind : {FRAME | 7, u64{0}}) {
    Twins t;
    t.both([&](TestMachine& m) {
      start_guest(m);
      put_code(m, code);
      map(m, DATA + PAGE_SIZE, behind);
      for (u64 n = 0; n < PAGE_SIZE; ++n)
        m.put<u8>(DATA + n, static_cast<u8>(n * 7)), m.put<u8>(FRAME + n, static_cast<u8>(n * 5));
    });
    for (u64 offset = PAGE_SIZE - 130; offset < PAGE_SIZE + 30; ++offset) {
      t.both([&](TestMachine& m) {
        set_rip(m, CODE);
        m.set_gpr(RDX, DATA + offset);
        m.run();
      });
      ASSERT_EQ(t.difference(u64{4} << 20), "") << offset;
    }
    EXPECT_GT(translated_instructions(t.fast), 300u);
  }
}

TEST(Pages, StacksAcrossTheirEndsAreTheirPages) {
  const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    a.push(x86::rax);
    a.push(x86::rcx);
    a.add(x86::rax, x86::qword_ptr(x86::rsp, 8));
    a.push(x86::rax);
    a.pop(x86::rsi);
    a.pop(x86::rdi);
    a.pop(x86::rbp);
    a.hlt();
  });
  Twins t;
  t.both([&](TestMachine& m) {
    start_guest(m);
    put_code(m, code);
    map(m, DATA + PAGE_SIZE, FRAME | 7);
  });
  for (u64 offset = PAGE_SIZE - 40; offset < PAGE_SIZE + 40; ++offset) {
    t.both([&](TestMachine& m) {
      set_rip(m, CODE);
      m.set_gpr(RSP, DATA + offset);
      m.set_gpr(RAX, offset);
      ASSERT_TRUE(m.run());
    });
    ASSERT_EQ(t.difference(u64{4} << 20), "") << offset;
  }
}

// MOV EAX, imm32 with its immediate on the next page, which is replaced again and again by the code before it.
TEST(Pages, AnInstructionOnTwoOfThemFollowsTheSecond) {
  constexpr u64 AT = CODE + PAGE_SIZE - 2;
  Twins t;
  t.both([&](TestMachine& m) {
    start_guest(m);
    put_code(m, {0xb8, 0x11, 0x22, 0x33, 0x44, 0xff, 0xe7}, AT); // MOV EAX, imm32; JMP RDI
    put_code(m, {0x55, 0x66, 0x77, 0xff, 0xe7}, FRAME);
    put_code(m, assemble(CODE, [&](Asm& a) {
               const Label loop = a.newLabel(), back = a.newLabel();
               a.mov(x86::r8d, 8);
               a.lea(x86::rdi, x86::ptr(back));
               a.bind(loop);
               a.jmp(AT);
               a.bind(back);
               a.imul(x86::r9, x86::r9, 3);
               a.add(x86::r9, x86::rax);
               a.xor_(x86::qword_ptr(x86::rsi), static_cast<i32>(FRAME ^ (CODE + PAGE_SIZE)));
               a.invlpg(x86::ptr(x86::rbx));
               a.dec(x86::r8d);
               a.jnz(loop);
               a.hlt();
             }));
    for (int n = 0; n < 2; ++n) {
      set_rip(m, CODE);
      m.set_gpr(RBX, CODE + PAGE_SIZE);
      m.set_gpr(RSI, TestMachine::PTE_OF_0 + 8 * ((CODE >> PAGE_SHIFT) + 1));
      m.set_gpr(9, 0);
      ASSERT_TRUE(m.run());
    }
  });
  EXPECT_EQ(t.difference(), "");
}

// The same function for the kernel and for the user, through the same register: what it reads is not the user's.
TEST(Pages, OfTheKernelStayItsOwnWhoeverComesByAnIndirectBranch) {
  constexpr u64 FUNCTION = CODE + 0x400, USER = CODE + 0x800, SECRET = DATA;
  Twins t;
  t.both([&](TestMachine& m) {
    start_guest(m);
    m.put<u64>(GUEST_GDT + 0x28, 0x00cf'f300'0000'ffff); // user data, code
    m.put<u64>(GUEST_GDT + 0x30, 0x00af'fb00'0000'ffff);
    m.put<u64>(0x8000 + 4, TestMachine::STACK - 0x1000); // RSP0
    map(m, SECRET, SECRET | 3);
    put_code(m,
             assemble(FUNCTION,
                      [&](Asm& a) {
                        a.mov(x86::rcx, x86::qword_ptr(SECRET));
                        a.ret();
                      }),
             FUNCTION);
    put_code(m,
             assemble(USER,
                      [&](Asm& a) {
                        a.call(x86::rax);
                        a.ud2();
                      }),
             USER);
    put_code(m, assemble(CODE, [&](Asm& a) {
               a.mov(x86::eax, static_cast<u32>(FUNCTION));
               a.call(x86::rax);
               a.call(x86::rax);
               a.push(0x2b);
               a.push(static_cast<i32>(TestMachine::STACK - 0x2000));
               a.push(2);
               a.push(0x33);
               a.push(static_cast<i32>(USER));
               a.iretq();
             }));
    for (int n = 0; n < 3; ++n) {
      start_guest(m);
      map(m, SECRET, SECRET | 3);
      VcpuRegisters r = m.vcpu.registers();
      r.tr = {0x40, 0x8b, 0x67, 0x8000};
      m.vcpu.set_registers(r);
      ASSERT_TRUE(m.run());
      EXPECT_EQ(m.vcpu.registers().rip, handler_of(PF) + 1);
      EXPECT_EQ(m.get<u64>(m.gpr(RSP)), 5u); // the user's read of a page that is there
      EXPECT_EQ(m.get<u64>(m.gpr(RSP) + 8), FUNCTION);
    }
  });
  EXPECT_EQ(t.difference(), "");
}

} // namespace
} // namespace transom::soft
