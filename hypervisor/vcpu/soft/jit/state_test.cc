// Floating-point state around translated code, and what the translator shows of itself.
#include <cinttypes>
#include <fstream>
#include <gtest/gtest.h>
#include <random>
#include <sstream>
#include <unistd.h>

#include "hypervisor/vcpu/soft/jit/test_guest.hpp"

namespace transom::soft {
namespace {

using namespace asmjit;
using Asm = x86::Assembler;

constexpr u64 CODE = TestMachine::CODE, DATA = TestMachine::DATA;

// Runs the code from CODE to HLT on both machines as often, from the same state.
void run_both(Twins& t, const std::vector<u8>& code, unsigned times = 3) {
  t.both([&](TestMachine& m) {
    start_guest(m);
    m.put<u32>(DATA, 0x1f80);
    m.put<double>(DATA + 8, 1.0);
    m.put<double>(DATA + 16, 3.0);
    put_code(m, code);
    for (unsigned n = 0; n < times; ++n) {
      set_rip(m, CODE);
      ASSERT_TRUE(m.run());
    }
  });
  EXPECT_EQ(t.difference(), "");
  EXPECT_GT(translated_instructions(t.fast), 0u);
}

TEST(FloatingPoint, FlagsOfMxcsrStickAcrossBlocks) {
  Twins t;
  run_both(t, assemble(CODE, [](Asm& a) {
             const Label next = a.newLabel(), after = a.newLabel();
             a.ldmxcsr(x86::dword_ptr(DATA));
             a.movsd(x86::xmm0, x86::qword_ptr(DATA + 8));
             a.divsd(x86::xmm0, x86::qword_ptr(DATA + 16)); // inexact
             a.jmp(next);
             a.bind(next);
             a.paddd(x86::xmm1, x86::xmm0);
             a.stmxcsr(x86::dword_ptr(DATA + 32));
             a.xorps(x86::xmm2, x86::xmm2);
             a.movsd(x86::xmm1, x86::qword_ptr(DATA + 8));
             a.divsd(x86::xmm1, x86::xmm2); // by zero
             a.call(after);
             a.ldmxcsr(x86::dword_ptr(DATA)); // all flags go
             a.addsd(x86::xmm1, x86::xmm1);
             a.stmxcsr(x86::dword_ptr(DATA + 40));
             a.hlt();
             a.bind(after);
             a.stmxcsr(x86::dword_ptr(DATA + 36));
             a.ret();
           }));
  EXPECT_EQ(t.fast.get<u32>(DATA + 32), 0x1fa0u);
  EXPECT_EQ(t.fast.get<u32>(DATA + 36), 0x1fa4u);
  EXPECT_EQ(t.fast.get<u32>(DATA + 40), 0x1f80u);
}

// Flags that were raised without a look at them are in the image that the machine takes.
TEST(FloatingPoint, FlagsAreInTheImageWithoutStmxcsr) {
  Twins t;
  run_both(t, assemble(CODE, [](Asm& a) {
             a.ldmxcsr(x86::dword_ptr(DATA));
             a.movsd(x86::xmm0, x86::qword_ptr(DATA + 8));
             a.divsd(x86::xmm0, x86::qword_ptr(DATA + 16));
             a.hlt();
           }));
  u8 image[512];
  t.fast.vcpu.fpu_state(image);
  EXPECT_EQ(image[24], 0xa0);
}

// Every exception of SSE, unmasked, with flags and registers that are only in the host so far.
TEST(FloatingPoint, AnUnmaskedExceptionIsTaken) {
  for (const unsigned bit : {0, 1, 2, 3, 4, 5}) {
    Twins t;
    run_both(t,
             assemble(CODE,
                      [&](Asm& a) {
                        const Label again = a.newLabel();
                        a.mov(x86::ecx, 3);
                        a.movsd(x86::xmm0, x86::qword_ptr(DATA + 8));
                        a.bind(again);
                        a.addsd(x86::xmm0, x86::xmm0);
                        a.dec(x86::ecx);
                        a.jnz(again);
                        a.mov(x86::dword_ptr(DATA + 32), static_cast<int>(0x1f80 & ~(0x80u << bit)));
                        a.ldmxcsr(x86::dword_ptr(DATA + 32));
                        a.mov(x86::eax, static_cast<u32>(0x7f00'0000));
                        a.movd(x86::xmm1, x86::eax);
                        a.mulss(x86::xmm1, x86::xmm1); // overflow, inexact
                        a.mov(x86::eax, 0x0080'0001);
                        a.movd(x86::xmm2, x86::eax);
                        a.mulss(x86::xmm2, x86::xmm2); // underflow
                        a.mov(x86::eax, 1);
                        a.movd(x86::xmm3, x86::eax);
                        a.addss(x86::xmm3, x86::xmm3); // denormal
                        a.xorps(x86::xmm4, x86::xmm4);
                        a.mov(x86::eax, 0x3f80'0000);
                        a.movd(x86::xmm5, x86::eax);
                        a.divss(x86::xmm5, x86::xmm4); // by zero
                        a.xor_(x86::edx, x86::edx);
                        a.divss(x86::xmm4, x86::xmm4); // invalid
                        a.hlt();
                      }),
             2);
    EXPECT_EQ(t.fast.vcpu.registers().rip, handler_of(XM) + 1) << bit;
  }
}

TEST(FloatingPoint, TaskSwitchedBetweenRunsIsSeenByTranslatedCode) {
  const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    a.add(x86::eax, 1);
    a.paddd(x86::xmm1, x86::xmm1);
    a.addps(x86::xmm1, x86::xmm2);
    a.fninit();
    a.fld1();
    a.fstp(x86::st0);
    a.hlt();
  });
  Twins t;
  run_both(t, code);
  for (const u64 bit : {u64{CR0_TS}, u64{CR0_EM}}) {
    t.both([&](TestMachine& m) {
      set_rip(m, CODE);
      VcpuRegisters r = m.vcpu.registers();
      r.cr0 |= bit;
      m.vcpu.set_registers(r);
      ASSERT_TRUE(m.run()); // to the handler
      EXPECT_EQ(m.vcpu.registers().rip, handler_of(bit == CR0_TS ? NM : UD) + 1);
      EXPECT_EQ(m.get<u64>(m.gpr(RSP)), CODE + 3);
      r = m.vcpu.registers();
      r.cr0 &= ~bit;
      m.vcpu.set_registers(r);
      set_rip(m, CODE);
      ASSERT_TRUE(m.run());
      EXPECT_EQ(m.vcpu.registers().rip, CODE + code.size());
    });
    EXPECT_EQ(t.difference(), "");
  }
}

struct Mapping {
  u64 begin, end;
  std::string rights, name;
};
std::vector<Mapping> mappings() {
  std::vector<Mapping> all;
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) {
    Mapping m{};
    char rights[8] = {}, name[256] = {};
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %255[^\n]", &m.begin, &m.end, rights, name) <
        3)
      continue;
    m.rights = rights;
    m.name = name;
    all.push_back(m);
  }
  return all;
}
// A sanitizer's shadow spans terabytes, where any number may point.
bool of_this_process(u64 value) {
  static const std::vector<Mapping> all = mappings();
  return value >= u64{1} << 32 && std::any_of(all.begin(), all.end(), [&](const Mapping& m) {
           return value >= m.begin && value < m.end && m.end - m.begin < u64{1} << 36;
         });
}

// The guest may look at everything in its FXSAVE image. Where the host's code and data are is not its business.
TEST(FloatingPoint, NoAddressOfTheHostIsInTheImage) {
  const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    const Label again = a.newLabel();
    a.fninit();
    a.mov(x86::ecx, 10);
    a.bind(again);
    a.fld(x86::qword_ptr(DATA + 8));
    a.fadd(x86::qword_ptr(DATA + 16));
    a.fdiv(x86::st0, x86::st0);
    a.fstp(x86::qword_ptr(DATA + 24));
    a.movups(x86::xmm1, x86::ptr(DATA + 8));
    a.addps(x86::xmm1, x86::xmm2);
    a.movq(x86::mm0, x86::qword_ptr(DATA + 8));
    a.paddd(x86::mm0, x86::mm0);
    a.emms();
    a.dec(x86::ecx);
    a.jnz(again);
    a.fld(x86::qword_ptr(DATA + 16));
    a.fxsave64(x86::ptr(DATA + 0x200));
    a.fnstenv(x86::ptr(DATA + 0x400));
    a.hlt();
  });
  Twins t;
  run_both(t, code);
  ASSERT_TRUE(of_this_process(reinterpret_cast<u64>(t.fast.at(0)))) << "the search would not find anything";
  u8 image[512];
  t.fast.vcpu.fpu_state(image);
  for (const u8* const where : {static_cast<const u8*>(image), static_cast<const u8*>(t.fast.at(DATA + 0x200))})
    for (unsigned n = 0; n + 8 <= 512; ++n) {
      u64 value;
      std::memcpy(&value, where + n, 8);
      EXPECT_FALSE(of_this_process(value)) << n << ": " << std::hex << value;
    }
  // Pointers to instruction and operand
  u64 fip, fdp;
  std::memcpy(&fip, t.fast.at(DATA + 0x208), 8);
  std::memcpy(&fdp, t.fast.at(DATA + 0x210), 8);
  EXPECT_GE(fip, CODE);
  EXPECT_LT(fip, CODE + code.size());
  EXPECT_EQ(fdp, DATA + 16);
}

// --- what the translator shows

TEST(PerfMap, NamesRangesOfTranslatedCode) {
  const std::string path = testing::TempDir() + "transom-perf-map-" + std::to_string(getpid());
  {
    SoftOptions o = translating();
    o.perf_map = path;
    TestMachine m(o);
    start_guest(m);
    put_code(m, assemble(CODE, [](Asm& a) {
               const Label again = a.newLabel();
               a.mov(x86::ecx, 5);
               a.bind(again);
               a.add(x86::rax, x86::rcx);
               a.dec(x86::ecx);
               a.jnz(again);
               a.hlt();
             }));
    ASSERT_TRUE(m.run());
    const std::vector<Mapping> all = mappings();
    std::ifstream file(path);
    unsigned lines = 0;
    u64 rips = 0;
    for (std::string line; std::getline(file, line); ++lines) {
      u64 begin, size, rip;
      int end = 0;
      ASSERT_EQ(std::sscanf(line.c_str(), "%" SCNx64 " %" SCNx64 " guest_%" SCNx64 "%n", &begin, &size, &rip, &end), 3);
      EXPECT_EQ(static_cast<std::size_t>(end), line.size()) << line;
      EXPECT_GT(size, 0u);
      EXPECT_LT(size, 4096u);
      rips |= rip == CODE ? 1 : rip == CODE + 5 ? 2 : 0;
      const bool inside = std::any_of(all.begin(), all.end(), [&](const Mapping& x) {
        return x.rights[2] == 'x' && x.rights[1] != 'w' && begin >= x.begin && begin + size <= x.end;
      });
      EXPECT_TRUE(inside) << line;
    }
    EXPECT_GE(lines, 2u);
    EXPECT_EQ(rips, 3u) << "the loop and what leads to it";
  }
  unlink(path.c_str());
}

TEST(Arena, LeavesNoPageWritableAndExecutable) {
  const auto executable = [] {
    u64 bytes = 0;
    for (const Mapping& x : mappings()) {
      EXPECT_FALSE(x.rights[1] == 'w' && x.rights[2] == 'x') << x.name;
      if (x.rights[2] == 'x') bytes += x.end - x.begin;
    }
    return bytes;
  };
  const u64 before = executable();
  TestMachine m(translating());
  EXPECT_GE(executable(), before + (u64{1} << 20)) << "the arena was not looked at";
}

u64 resident_bytes() {
  u64 all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * PAGE_SIZE;
}

// Code that is new every time, for ever: what it needs stays within the bounds.
TEST(Arena, IsNeverMoreThanItMayBe) {
  constexpr u64 MOST = u64{4} << 20;
  TestMachine m(translating(0, MOST));
  start_guest(m);
  std::mt19937_64 random(1);
  Translator& translator = *m.vcpu.cpu().translator;
  u64 most = 0, most_blocks = 0, resident = 0, sum = 0;
  const u64 first_resets = translator.resets();
  for (unsigned round = 0; translator.resets() < first_resets + 12; ++round) {
    ASSERT_LT(round, 20'000u) << "the arena should be full by now";
    const u64 place = CODE + round % 16 * 0x800;
    const u32 value = static_cast<u32>(random());
    put_code(m,
             assemble(place,
                      [&](Asm& a) {
                        for (unsigned n = 0; n < 50; ++n) {
                          a.add(x86::eax, value + n);
                          a.mov(x86::ptr(x86::rbx, static_cast<i32>(8 * n), 8), x86::rax);
                        }
                        a.hlt();
                      }),
             place);
    set_rip(m, place);
    m.set_gpr(RAX, 0);
    m.set_gpr(RBX, DATA);
    ASSERT_TRUE(m.run());
    sum = u64{50} * value + 49 * 50 / 2;
    ASSERT_EQ(m.gpr(RAX), static_cast<u32>(sum));
    most = std::max(most, translator.code_bytes());
    most_blocks = std::max(most_blocks, translator.count());
    if (translator.resets() == first_resets + 3 && resident == 0) resident = resident_bytes();
  }
  EXPECT_LE(most, MOST);
  EXPECT_GT(most, MOST / 8) << "most of the room should be used";
  EXPECT_LT(most_blocks, MOST / 100);
  EXPECT_LT(resident_bytes(), resident + (u64{48} << 20)) << "something grows with every block";
}

} // namespace
} // namespace transom::soft
