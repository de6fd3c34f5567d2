// Ways out of translated code: on request, for a debugger, for a single step, and by returns to where nobody called.
#include <gtest/gtest.h>
#include <thread>

#include "hypervisor/vcpu/soft/jit/test_guest.hpp"

namespace transom::soft {
namespace {

using namespace asmjit;
using Asm = x86::Assembler;

constexpr u64 CODE = TestMachine::CODE;

// --- on request

// Another thread asks while the loop runs. A loop that does not look would hang here.
void expect_to_leave(const std::vector<u8>& code, u64 first, u64 last) {
  TestMachine m(translating());
  start_guest(m);
  put_code(m, code);
  for (int n = 0; n < 3; ++n) {
    const u64 before = translated_instructions(m);
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      m.vcpu.exit_flag() |= Vcpu::LEAVE;
    });
    EXPECT_EQ(m.vcpu.run(), RunResult::exited);
    other.join();
    EXPECT_GE(m.vcpu.registers().rip, first);
    EXPECT_LE(m.vcpu.registers().rip, last);
    EXPECT_GT(translated_instructions(m), before);
  }
}

TEST(Leaving, AJumpToItselfEnds) { expect_to_leave({0xeb, 0xfe}, CODE, CODE); }
TEST(Leaving, AConditionalLoopEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label again = a.newLabel();
    a.bind(again);
    a.inc(x86::rax);
    a.test(x86::rsp, x86::rsp);
    a.jnz(again);
    a.hlt();
  });
  expect_to_leave(code, CODE, CODE + code.size() - 1);
}
TEST(Leaving, ALoopOfTwoBlocksEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label one = a.newLabel(), two = a.newLabel();
    a.bind(one);
    a.inc(x86::rax);
    a.jmp(two);
    a.hlt();
    a.bind(two);
    a.dec(x86::rcx);
    a.jmp(one);
  });
  expect_to_leave(code, CODE, CODE + code.size());
}
TEST(Leaving, ALoopOverTwoPagesEnds) { // forward to the other page, and back
  std::vector<u8> code(0x1100, 0xf4);
  const auto there = assemble(CODE, [](Asm& a) { a.jmp(CODE + 0x1000); });
  const auto back = assemble(CODE + 0x1000, [](Asm& a) { a.jmp(CODE); });
  std::copy(there.begin(), there.end(), code.begin());
  std::copy(back.begin(), back.end(), code.begin() + 0x1000);
  expect_to_leave(code, CODE, CODE + 0x1000);
}
TEST(Leaving, ALoopThroughARegisterEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    a.mov(x86::rax, CODE);
    a.jmp(x86::rax);
  });
  expect_to_leave(code, CODE, CODE + code.size());
}
TEST(Leaving, ALoopThroughMemoryEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    a.mov(x86::rax, CODE);
    a.mov(x86::qword_ptr(TestMachine::DATA), x86::rax);
    a.jmp(x86::qword_ptr(TestMachine::DATA));
  });
  expect_to_leave(code, CODE, CODE + code.size());
}
TEST(Leaving, ALoopOfCallsAndReturnsEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label f = a.newLabel(), again = a.newLabel();
    a.bind(again);
    a.call(f);
    a.jmp(again);
    a.bind(f);
    a.inc(x86::rax);
    a.ret();
  });
  expect_to_leave(code, CODE, CODE + code.size());
}
// Nothing jumps backward here but RET.
TEST(Leaving, ALoopOfReturnsAloneEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label f = a.newLabel();
    a.call(f);
    a.push(x86::qword_ptr(x86::rsp, -8));
    a.bind(f);
    a.ret();
  });
  const std::vector<u8>& loop = code;
  // f: RET; behind CALL: PUSH [RSP−8] (the address of itself), RET
  expect_to_leave(loop, CODE, CODE + code.size());
}
// CALLs that go forward in a circle over the addresses' end of a page do not exist, but this one recurses for ever.
TEST(Leaving, EndlessRecursionEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label f = a.newLabel();
    a.bind(f);
    a.mov(x86::esp, static_cast<u32>(TestMachine::STACK));
    a.call(f);
  });
  expect_to_leave(code, CODE, CODE + code.size());
}
TEST(Leaving, ALoopWithALongRepeatedStringEnds) {
  const auto code = assemble(CODE, [](Asm& a) {
    const Label again = a.newLabel();
    a.bind(again);
    a.mov(x86::edi, static_cast<u32>(TestMachine::DATA));
    a.mov(x86::ecx, 0x1000);
    a.embed("\xf3\xaa", 2);
    a.jmp(again);
  });
  expect_to_leave(code, CODE, CODE + code.size());
}

// An interrupt that another thread asks for reaches its handler, which lets the loop end.
TEST(Leaving, AnInterruptEndsALoopThatWaitsForIt) {
  TestMachine m(translating());
  start_guest(m);
  put_code(m, assemble(CODE, [](Asm& a) {
             const Label again = a.newLabel();
             a.sti();
             a.xor_(x86::eax, x86::eax);
             a.bind(again);
             a.cmp(x86::dword_ptr(TestMachine::DATA), 0);
             a.jz(again);
             a.hlt();
           }));
  put_code(m,
           assemble(handler_of(0x40),
                    [](Asm& a) {
                      a.mov(x86::dword_ptr(TestMachine::DATA), 1);
                      a.iretq();
                    }),
           handler_of(0x40));
  m.platform.interrupts = {0x40};
  EXPECT_EQ(m.vcpu.run(), RunResult::halted);
  EXPECT_EQ(m.platform.interrupts.size(), 0u);
  EXPECT_EQ(m.get<u32>(TestMachine::DATA), 1u);
}

// --- a debugger, steps. The code has been translated and linked before.

const std::vector<u8>& counting_code() {
  static const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    const Label again = a.newLabel(), f = a.newLabel();
    a.mov(x86::ecx, 20);
    a.bind(again);
    a.add(x86::rax, x86::rcx);
    a.imul(x86::rdx, x86::rax, 3);
    a.call(f);
    a.dec(x86::ecx);
    a.jnz(again);
    a.hlt();
    a.bind(f);
    a.xor_(x86::r9, x86::rdx);
    a.adc(x86::r10, 5);
    a.cvtsi2sd(x86::xmm3, x86::rax);
    a.ret();
  });
  return code;
}

class Warm : public testing::Test {
 protected:
  void SetUp() override {
    t_.both([](TestMachine& m) {
      start_guest(m);
      put_code(m, counting_code());
      for (int n = 0; n < 3; ++n) {
        set_rip(m, CODE);
        ASSERT_TRUE(m.run());
      }
      set_rip(m, CODE);
    });
    ASSERT_GT(translated_instructions(t_.fast), 100u);
  }
  Twins t_;
};

TEST_F(Warm, BreakpointsInsideTranslatedBlocksStop) {
  for (u64 at = CODE; at < CODE + counting_code().size(); ++at) { // also where no instruction begins
    unsigned stops[2] = {};
    for (bool going = true; going;) {
      RunResult result[2] = {};
      t_.both([&](TestMachine& m) {
        m.vcpu.set_debug({{at}, false});
        const unsigned n = &m == &t_.fast;
        result[n] = m.vcpu.run();
        if (result[n] != RunResult::debug) return;
        ++stops[n];
        EXPECT_EQ(m.vcpu.registers().rip, at);
      });
      ASSERT_EQ(result[0], result[1]);
      ASSERT_EQ(t_.difference(u64{1} << 20), "") << std::hex << at;
      going = result[0] == RunResult::debug;
    }
    EXPECT_EQ(stops[0], stops[1]);
    t_.both([](TestMachine& m) {
      m.vcpu.set_debug({});
      set_rip(m, CODE);
      ASSERT_TRUE(m.run());
      set_rip(m, CODE);
    });
  }
}

TEST_F(Warm, ADebuggersStepsGoOverEveryInstruction) {
  for (unsigned n = 0; n < 250; ++n) {
    t_.both([](TestMachine& m) {
      m.vcpu.set_debug({{}, true});
      m.vcpu.run();
    });
    ASSERT_EQ(t_.difference(u64{1} << 20), "") << n;
  }
  t_.both([](TestMachine& m) {
    m.vcpu.set_debug({});
    EXPECT_TRUE(m.run());
  });
  EXPECT_EQ(t_.difference(), "");
}

// TF comes with the state, or by POPF in the middle of a block.
TEST_F(Warm, SingleStepsTrapAfterOneInstruction) {
  t_.both([](TestMachine& m) {
    VcpuRegisters r = m.vcpu.registers();
    r.rflags |= FLAG_TF;
    m.vcpu.set_registers(r);
    EXPECT_TRUE(m.run());
    EXPECT_EQ(m.vcpu.registers().rip, handler_of(DB) + 1);
    EXPECT_EQ(m.get<u64>(m.gpr(RSP)), CODE + 5);
    put_code(m,
             assemble(CODE + 0x100,
                      [](Asm& a) {
                        a.add(x86::eax, 1);
                        a.pushfq();
                        a.or_(x86::dword_ptr(x86::rsp), 0x100);
                        a.popfq();
                        a.sub(x86::eax, x86::ecx);
                        a.inc(x86::edx);
                        a.hlt();
                      }),
             CODE + 0x100);
    set_rip(m, CODE + 0x100);
    VcpuRegisters s = m.vcpu.registers();
    s.rflags &= ~FLAG_TF;
    m.vcpu.set_registers(s);
    EXPECT_TRUE(m.run());
    EXPECT_EQ(m.vcpu.registers().rip, handler_of(DB) + 1);
  });
  EXPECT_EQ(t_.difference(u64{1} << 20), "");
}

TEST_F(Warm, DebugRegistersThatAreSetLaterAreHeard) {
  for (const u64 type : {0, 1, 3}) // instruction, write, read or write
    t_.both([&](TestMachine& m) {
      VcpuRegisters r = m.vcpu.registers();
      r.rip = CODE;
      r.gpr[RSP] = TestMachine::STACK;
      r.dr[0] = type == 0 ? CODE + 8 : TestMachine::STACK - 8;
      r.dr[7] = 0x401 | type << 16 | (type != 0 ? u64{2} << 18 : 0);
      r.dr[6] = 0xffff'0ff0;
      m.vcpu.set_registers(r);
      EXPECT_TRUE(m.run());
      EXPECT_EQ(m.vcpu.registers().rip, handler_of(DB) + 1);
      EXPECT_EQ(m.vcpu.registers().dr[6] & 1, 1u);
      r = m.vcpu.registers();
      r.dr[7] = 0x400;
      m.vcpu.set_registers(r);
    });
  EXPECT_EQ(t_.difference(u64{1} << 20), "");
}

// --- returns

// Runs to HLT on both, twice, and compares.
void expect_same(Twins& t, const std::vector<u8>& code) {
  t.both([&](TestMachine& m) {
    start_guest(m);
    put_code(m, code);
    for (int n = 0; n < 3; ++n) {
      set_rip(m, CODE);
      ASSERT_TRUE(m.run());
    }
  });
  EXPECT_EQ(t.difference(), "");
  EXPECT_GT(translated_instructions(t.fast), 0u);
}

TEST(Returns, OfDeepRecursionFindTheirWayBack) {
  Twins t;
  expect_same(t, assemble(CODE, [](Asm& a) {
                const Label f = a.newLabel(), out = a.newLabel();
                a.xor_(x86::eax, x86::eax);
                a.mov(x86::ecx, 1000);
                a.call(f);
                a.hlt();
                a.bind(f);
                a.inc(x86::eax);
                a.dec(x86::ecx);
                a.jz(out);
                a.call(f);
                a.add(x86::eax, 2);
                a.bind(out);
                a.ret();
              }));
  EXPECT_EQ(t.fast.gpr(RAX), 1000u + 2 * 999);
}

TEST(Returns, ThatWereNeverCalledGoWhereTheStackSays) {
  Twins t;
  expect_same(t, assemble(CODE, [](Asm& a) {
                const Label f = a.newLabel(), g = a.newLabel(), other = a.newLabel(), back = a.newLabel();
                a.xor_(x86::eax, x86::eax);
                a.call(f); // whose address f replaces
                a.hlt();
                a.bind(other);
                a.add(x86::eax, 0x10);
                a.push(x86::rsp); // not an address that is returned to
                a.pop(x86::rdx);
                a.lea(x86::rdx, x86::ptr(back));
                for (int n = 0; n < 20; ++n) a.push(x86::rdx); // more returns than calls
                a.bind(back);
                a.add(x86::eax, 1);
                a.cmp(x86::rsp, static_cast<i32>(TestMachine::STACK));
                a.jae(g);
                a.ret(0);
                a.bind(g);
                for (int n = 0; n < 20; ++n) { // more calls than returns
                  const Label next = a.newLabel();
                  a.call(next);
                  a.bind(next);
                  a.inc(x86::eax);
                }
                a.add(x86::rsp, 160);
                a.hlt();
                a.bind(f);
                a.lea(x86::rdx, x86::ptr(other));
                a.mov(x86::qword_ptr(x86::rsp), x86::rdx);
                a.ret();
              }));
  EXPECT_EQ(t.fast.gpr(RAX), 0x10u + 21 + 20);
}

// The function goes to another address space, in which other code is at the address of its caller.
TEST(Returns, IntoAnotherAddressSpaceRunItsCode) {
  constexpr u64 OTHER = 0x12'0000, CALLER = 0x5'0000, FRAME = 0x6'0000;
  const auto caller = [](u64 value) {
    return assemble(CALLER, [value](Asm& a) {
      a.call(CODE);
      const Label end = a.newLabel();
      a.mov(x86::eax, static_cast<u32>(value)); // enough for a translation
      for (int n = 0; n < 4; ++n) a.add(x86::r10, x86::rax);
      a.jmp(end);
      a.bind(end);
      a.hlt();
    });
  };
  Twins t;
  t.both([&](TestMachine& m) {
    start_guest(m);
    for (u64 n = 0; n < 5; ++n) // tables of the other one
      std::memcpy(m.at(OTHER + n * PAGE_SIZE), m.at(TestMachine::TABLES + n * PAGE_SIZE), PAGE_SIZE);
    for (u64 n = 0; n < 2; ++n) m.put<u64>(OTHER + n * PAGE_SIZE, (OTHER + (n + 1) * PAGE_SIZE) | 7);
    for (u64 n = 0; n < 2; ++n) m.put<u64>(OTHER + 0x2000 + 8 * n, (OTHER + 0x3000 + n * PAGE_SIZE) | 7);
    m.put<u64>(OTHER + 0x3000 + 8 * (CALLER >> PAGE_SHIFT), FRAME | 7);
    put_code(m, caller(1), CALLER);
    put_code(m, caller(2), FRAME);
    put_code(m, assemble(CODE, [](Asm& a) { // to the one in RBX, and there back again
               a.mov(x86::cr3, x86::rbx);
               a.ret();
             }));
    for (u64 n = 0; n < 24; ++n) { // every way after every other
      set_rip(m, CALLER);
      m.set_gpr(RBX, n % 3 == 1 ? TestMachine::TABLES : OTHER);
      VcpuRegisters r = m.vcpu.registers();
      r.cr3 = n % 2 ? OTHER : TestMachine::TABLES;
      m.vcpu.set_registers(r);
      ASSERT_TRUE(m.run());
      EXPECT_EQ(m.gpr(RAX), n % 3 == 1 ? 1u : 2u) << n;
    }
  });
  EXPECT_EQ(t.difference(), "");
}

} // namespace
} // namespace transom::soft
