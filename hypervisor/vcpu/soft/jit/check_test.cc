// The engine that checks translated code: silent where the engines agree, and not where a translation is wrong.
#include <atomic>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "hypervisor/vcpu/soft/decode.hpp"
#include "hypervisor/vcpu/soft/jit/checker.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

using testing::AllOf;
using testing::HasSubstr;

SoftOptions checked(std::function<void(Decoded&)> sabotage = {}) {
  SoftOptions o;
  o.engine = SoftEngine::check;
  o.threshold = 0;
  o.sabotage = std::move(sabotage);
  return o;
}

struct Checked : TestMachine {
  explicit Checked(std::function<void(Decoded&)> sabotage = {}) : TestMachine(checked(std::move(sabotage))) {}
  const Checker& checker() { return *vcpu.cpu().translator->checker(); }
};

// loop: mov [rdi],rax; add [rdi+8],rcx; mov dl,[rdi]; xor byte [rdi+1],dl; push rcx; call f; pop rcx; adc rbx,0;
// movups [rdi+32],xmm0; paddd xmm0,xmm1; setc [rdi+16]; mov word [rdi+18],ax; lock xadd [rdi+24],rsi; add rax,3;
// dec rcx; jnz loop; hlt; f: test al,1; jz out; mulsd xmm2,xmm3; rep stosb; out: ret
constexpr std::initializer_list<int> LOOP_64 = {
    0x48, 0x89, 0x07, 0x48, 0x01, 0x4f, 0x08, 0x8a, 0x17, 0x30, 0x57, 0x01, 0x51, 0xe8, 0x28, 0x00, 0x00, 0x00,
    0x59, 0x48, 0x83, 0xd3, 0x00, 0x0f, 0x11, 0x47, 0x20, 0x66, 0x0f, 0xfe, 0xc1, 0x0f, 0x92, 0x47, 0x10, 0x66,
    0x89, 0x47, 0x12, 0xf0, 0x48, 0x0f, 0xc1, 0x77, 0x18, 0x48, 0x83, 0xc0, 0x03, 0x48, 0xff, 0xc9, 0x75, 0xca,
    0xf4, 0x90, 0x90, 0x90, 0xa8, 0x01, 0x74, 0x06, 0xf2, 0x0f, 0x59, 0xd3, 0xf3, 0xaa, 0xc3};

void start_loop(Checked& m, u64 count) {
  m.code(LOOP_64);
  m.start_64();
  Cpu& cpu = m.vcpu.cpu();
  cpu.gpr[RCX] = count;
  cpu.gpr[RDI] = TestMachine::DATA;
  cpu.gpr[RSI] = 7;
  for (unsigned n = 0; n < 16; ++n) cpu.fx.xmm[1][n] = static_cast<u8>(0x11 * n);
  const double one_and_a_bit = 1.0000001;
  std::memcpy(cpu.fx.xmm[2], &one_and_a_bit, 8);
  std::memcpy(cpu.fx.xmm[3], &one_and_a_bit, 8);
}

TEST(Check, IsSilentWhereTheEnginesAgree) {
  Checked m;
  start_loop(m, 200);
  EXPECT_TRUE(m.run()) << m.vcpu.failure();
  EXPECT_EQ(m.gpr(RCX), 0u);
  EXPECT_GT(m.checker().runs(), 600u);
  EXPECT_EQ(m.checker().races(), 0u);
}

TEST(Check, LeavesTheStateOfTheInterpreter) {
  Checked m;
  start_loop(m, 50);
  ASSERT_TRUE(m.run()) << m.vcpu.failure();
  TestMachine plain{SoftOptions{}};
  Checked start;
  start_loop(start, 50);
  plain.code(LOOP_64);
  plain.start_64();
  plain.vcpu.cpu().fx = start.vcpu.cpu().fx;
  std::memcpy(plain.vcpu.cpu().gpr, start.vcpu.cpu().gpr, sizeof start.vcpu.cpu().gpr);
  ASSERT_TRUE(plain.run());
  for (unsigned n = 0; n < 16; ++n) EXPECT_EQ(m.gpr(n), plain.gpr(n)) << n;
  EXPECT_EQ(std::memcmp(&m.vcpu.cpu().fx, &plain.vcpu.cpu().fx, sizeof(Fx)), 0);
  EXPECT_EQ(m.platform.ram, plain.platform.ram);
  EXPECT_EQ(instructions_executed(m.vcpu.cpu()), instructions_executed(plain.vcpu.cpu()));
}

TEST(Check, RunsFlat32BitCode) {
  Checked m;
  // loop: mov [edi],eax; add dword [edi+4],ecx; push ecx; inc eax; shl ebx,3; pop ecx; cmp al,[edi]; dec ecx; jnz; hlt
  m.code({0x89, 0x07, 0x01, 0x4f, 0x04, 0x51, 0x40, 0xc1, 0xe3, 0x03, 0x59, 0x3a, 0x07, 0x49, 0x75, 0xf0, 0xf4});
  m.start_32();
  m.set_gpr(RCX, 100);
  m.set_gpr(RBX, 5);
  m.set_gpr(RDI, TestMachine::DATA);
  EXPECT_TRUE(m.run()) << m.vcpu.failure();
  EXPECT_EQ(m.gpr(RAX), 100u);
  EXPECT_GE(m.checker().runs(), 100u);
}

TEST(Check, AFaultIsNoDifference) {
  Checked m;
  // mov [rdi],rax; add rax,1; mov [rsi],rax; hlt
  m.code({0x48, 0x89, 0x07, 0x48, 0x83, 0xc0, 0x01, 0x48, 0x89, 0x06, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::PTE_OF_0 + 8 * (0x3'0000 >> 12), 0x3'0000 | 1); // read-only
  m.set_gpr(RDI, TestMachine::DATA);
  m.set_gpr(RSI, 0x3'0000);
  m.vcpu.run_to_exception();
  EXPECT_EQ(m.vcpu.last_event().vector, 14);
  EXPECT_EQ(m.gpr(RAX), 1u);
  EXPECT_EQ(m.vcpu.failure(), "");
  EXPECT_GT(m.checker().runs(), 0u);
}

TEST(Check, AStoreToCodeIsDoneOnce) {
  Checked m;
  // mov byte [rip+1],0x42; mov eax,0x11; hlt
  m.code({0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x42, 0xb8, 0x11, 0x00, 0x00, 0x00, 0xf4});
  m.start_64();
  EXPECT_TRUE(m.run()) << m.vcpu.failure();
  EXPECT_EQ(m.gpr(RAX), 0x42u);
}

// A device writes between the two runs: what was read is another value then, and the run counts as no evidence.
TEST(Check, MemoryThatOthersWriteIsNoDifference) {
  Checked m;
  // loop: mov rax,[rdi]; add rbx,rax; dec rcx; jnz loop; hlt
  m.code({0x48, 0x8b, 0x07, 0x48, 0x01, 0xc3, 0x48, 0xff, 0xc9, 0x75, 0xf5, 0xf4});
  std::atomic<bool> done{false};
  std::thread device([&] {
    std::atomic_ref<u64> word(*reinterpret_cast<u64*>(m.at(TestMachine::DATA)));
    while (!done.load()) word.fetch_add(1);
  });
  while (m.checker().races() == 0 && !HasFailure()) { // it comes in between sooner or later
    m.start_64();
    m.set_gpr(RCX, 10'000);
    m.set_gpr(RDI, TestMachine::DATA);
    EXPECT_TRUE(m.run()) << m.vcpu.failure();
  }
  done.store(true);
  device.join();
}

// A PUSHF in a group of memory operands has no slow path, but it looks at the flags all the same.
TEST(Check, PushfInAGroupSeesTheFlagsBeforeIt) {
  Checked m;
  // push rbx; push rbx; xor eax,eax; pushfq; pop rax; and eax,0x200; hlt
  m.code({0x53, 0x53, 0x31, 0xc0, 0x9c, 0x58, 0x25, 0x00, 0x02, 0x00, 0x00, 0xf4});
  for (unsigned n = 0; n < 2; ++n) { // the first time without the stack in the TLB, so without groups
    m.start_64();
    ASSERT_TRUE(m.run()) << m.vcpu.failure();
  }
  EXPECT_EQ(m.get<u64>(TestMachine::STACK - 24), FLAG_ZF | FLAG_PF | 2);
}

// --- negative controls: what the templates are given is another instruction

struct Wrong {
  const char* name;
  void (*sabotage)(Decoded&);
  const char* complaint;
};
void PrintTo(const Wrong& w, std::ostream* out) { *out << w.name; }

class WrongTranslation : public testing::TestWithParam<Wrong> {};

TEST_P(WrongTranslation, IsFound) {
  Checked m(GetParam().sabotage);
  // or dword [rdi+40h],0; mov [rdi],rax; add rbx,rax; movaps xmm0,xmm1; mov rdx,[rdi]; cmp rbx,rcx; jb +1; nop;
  // mov r9,r8; hlt. The first one takes the slow path: the TLB knows the page afterwards.
  m.code({0x83, 0x4f, 0x40, 0x00, 0x48, 0x89, 0x07, 0x48, 0x01, 0xc3, 0x0f, 0x28, 0xc1,
          0x48, 0x8b, 0x17, 0x48, 0x39, 0xcb, 0x72, 0x01, 0x90, 0x4d, 0x89, 0xc1, 0xf4});
  m.start_64();
  m.set_gpr(RDI, TestMachine::DATA);
  m.set_gpr(RAX, 0x1234);
  m.set_gpr(RBX, 0x10);
  m.set_gpr(RCX, 0x2000);
  m.set_gpr(8, 0x99);
  for (u8& b : m.vcpu.cpu().fx.xmm[1]) b = 0x5a;
  EXPECT_EQ(m.vcpu.run(), RunResult::failed);
  EXPECT_THAT(m.vcpu.failure(), AllOf(HasSubstr("soft:check: "), HasSubstr(GetParam().complaint)));
  EXPECT_EQ(m.vcpu.run(), RunResult::failed); // and it stays so
}

constexpr Wrong WRONG[] = {
    {"Register",
     [](Decoded& d) {
       if (d.opcode == 0x01 && d.map == MAP_ONE) d.opcode = 0x29;
     },
     "rbx"},
    {"Flags",
     [](Decoded& d) {
       if (d.opcode == 0x39) d.opcode = 0x85;
     },
     "rflags"},
    {"HighRegister",
     [](Decoded& d) {
       if (d.opcode == 0x89 && !d.memory()) d.reg = RAX;
     },
     "r9"},
    {"Xmm",
     [](Decoded& d) {
       if (d.map == MAP_0F && d.opcode == 0x28) d.rm = 0;
     },
     "fx"},
    {"StoredValue",
     [](Decoded& d) {
       if (d.opcode == 0x89 && d.memory()) d.reg = RCX;
     },
     "memory"},
    {"StoreAddress",
     [](Decoded& d) {
       if (d.opcode == 0x89 && d.memory()) d.disp = 8;
     },
     "memory, a store of the interpreter alone"},
    {"LostStore",
     [](Decoded& d) {
       if (d.opcode == 0x89 && d.memory()) {
         d.opcode = 0x90;
         d.has_modrm = false;
       }
     },
     "a store of the interpreter alone"},
    {"StoreTooNarrow",
     [](Decoded& d) {
       if (d.opcode == 0x89 && d.memory()) d.osz = 4;
     },
     "a store of the interpreter alone"},
    {"LoadAddress",
     [](Decoded& d) {
       if (d.opcode == 0x8b) d.disp = 8;
     },
     "rdx"},
    {"Condition",
     [](Decoded& d) {
       if (d.opcode == 0x72) d.opcode = 0x73;
     },
     "rip"},
    {"Target",
     [](Decoded& d) {
       if (d.opcode == 0x72) d.imm = 4;
     },
     "rip"},
};
INSTANTIATE_TEST_SUITE_P(Check, WrongTranslation, testing::ValuesIn(WRONG),
                         [](const auto& wrong) { return std::string(wrong.param.name); });

TEST(Check, TheReportHasAllThatATestNeeds) {
  Checked m([](Decoded& d) {
    if (d.opcode == 0x01) d.opcode = 0x29;
  });
  m.code({0x48, 0x89, 0x07, 0x48, 0x01, 0xc3, 0xf4}); // mov [rdi],rax; add rbx,rax; hlt
  m.start_64();
  m.put<u64>(TestMachine::DATA, 0x0807'0605'0403'0201);
  m.set_gpr(RDI, TestMachine::DATA);
  m.set_gpr(RAX, 0x1234);
  m.set_gpr(RBX, 0x10);
  m.vcpu.cpu().fx.xmm[5][2] = 0xab;
  ASSERT_EQ(m.vcpu.run(), RunResult::failed);
  const std::string report = m.vcpu.failure();
  EXPECT_THAT(report, HasSubstr("differ at rip 0x10003: rbx, rflags"));
  EXPECT_THAT(report, HasSubstr("64-bit"));
  EXPECT_THAT(report, HasSubstr("code {0x48, 0x01, 0xc3}"));
  EXPECT_THAT(report, HasSubstr("rax=0x1234"));
  EXPECT_THAT(report, HasSubstr("rbx 0xffffffffffffeddc | 0x1244"));
  EXPECT_THAT(report, HasSubstr("xmm5 {0x00, 0x00, 0xab"));
}

TEST(Check, TheReportShowsMemoryAsItWas) {
  Checked m([](Decoded& d) {
    if (d.opcode == 0x89 && d.disp == 8) d.reg = RCX;
  });
  // mov rax,[rdi]; mov [rdi+16],rax; mov rdx,[rdi]; mov [rdi+8],rdx; hlt
  m.code({0x48, 0x8b, 0x07, 0x48, 0x89, 0x47, 0x10, 0x48, 0x8b, 0x17, 0x48, 0x89, 0x57, 0x08, 0xf4});
  m.start_64();
  m.put<u64>(TestMachine::DATA, 0x0807'0605'0403'0201);
  m.put<u64>(TestMachine::DATA + 8, 0xff);
  m.set_gpr(RDI, TestMachine::DATA);
  ASSERT_EQ(m.vcpu.run(), RunResult::failed);
  const std::string report = m.vcpu.failure();
  EXPECT_THAT(report, HasSubstr("load from 0x20000 {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08}"));
  EXPECT_THAT(report, HasSubstr("store to 0x20008 {0xff, 0x00"));
  EXPECT_THAT(report, HasSubstr("memory 0x20008 {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00} | {0x01, 0x02"));
}

} // namespace
} // namespace transom::soft
