// Exceptions in the middle of translated blocks: what is pushed and what the registers hold is what it would be if
// every instruction had been executed by itself, whatever the translator keeps where.
#include <functional>
#include <gtest/gtest.h>
#include <random>

#include "hypervisor/vcpu/soft/jit/test_guest.hpp"

namespace transom::soft {
namespace {

using namespace asmjit;
using Asm = x86::Assembler;

constexpr u64 NOWHERE = 0x3f'0000, READ_ONLY = 0x3f'1000;

// Everything that makes flags, from RAX, RCX, R9 and memory at RSI. R9 has no register of the host.
struct Producer {
  const char* name;
  std::function<void(Asm&)> emit;
};
std::vector<Producer> producers() {
  using namespace x86;
  std::vector<Producer> all;
  static constexpr Inst::Id TWO[] = {Inst::kIdAdd, Inst::kIdOr,  Inst::kIdAdc, Inst::kIdSbb, Inst::kIdAnd,
                                     Inst::kIdSub, Inst::kIdXor, Inst::kIdCmp, Inst::kIdTest};
  for (const Inst::Id id : TWO) {
    all.push_back({"two 64-bit registers", [id](Asm& a) { a.emit(id, rax, rcx); }});
    all.push_back({"a slot and a register", [id](Asm& a) { a.emit(id, r9, rcx); }});
    all.push_back({"a register and a slot", [id](Asm& a) { a.emit(id, id == Inst::kIdTest ? rcx : eax.r64(), r9); }});
    all.push_back({"16-bit registers", [id](Asm& a) { a.emit(id, ax, cx); }});
    all.push_back({"a register and an immediate", [id](Asm& a) { a.emit(id, eax, Imm(0x7f)); }});
    all.push_back({"bytes", [id](Asm& a) { a.emit(id, al, cl); }});
    all.push_back({"high bytes", [id](Asm& a) { a.emit(id, ah, ch); }});
    all.push_back({"one register twice", [id](Asm& a) { a.emit(id, rax, rax); }});
    all.push_back({"memory and a register", [id](Asm& a) { a.emit(id, dword_ptr(rsi), ecx); }});
    if (id != Inst::kIdTest)
      all.push_back({"a register and memory", [id](Asm& a) { a.emit(id, rcx, qword_ptr(rsi)); }});
  }
  for (const Inst::Id id : {Inst::kIdInc, Inst::kIdDec, Inst::kIdNeg, Inst::kIdNot}) {
    all.push_back({"one register", [id](Asm& a) { a.emit(id, rax); }});
    all.push_back({"one slot", [id](Asm& a) { a.emit(id, r9d); }});
    all.push_back({"a high byte", [id](Asm& a) { a.emit(id, ah); }});
    all.push_back({"memory", [id](Asm& a) { a.emit(id, byte_ptr(rsi)); }});
  }
  for (const Inst::Id id : {Inst::kIdShl, Inst::kIdShr, Inst::kIdSar, Inst::kIdRol, Inst::kIdRor, Inst::kIdRcl}) {
    all.push_back({"by one", [id](Asm& a) { a.emit(id, eax, Imm(1)); }});
    all.push_back({"by seven", [id](Asm& a) { a.emit(id, rax, Imm(7)); }});
    all.push_back({"by CL", [id](Asm& a) { a.emit(id, rax, cl); }});
    all.push_back({"a slot by CL", [id](Asm& a) { a.emit(id, r9d, cl); }});
    all.push_back({"memory by CL", [id](Asm& a) { a.emit(id, dword_ptr(rsi), cl); }});
  }
  all.push_back({"shld", [](Asm& a) { a.shld(rax, rcx, 5); }});
  all.push_back({"shrd by cl", [](Asm& a) { a.shrd(rdx, rax, cl); }});
  all.push_back({"mul", [](Asm& a) { a.mul(rcx); }});
  all.push_back({"mul m", [](Asm& a) { a.mul(dword_ptr(rsi)); }});
  all.push_back({"imul one", [](Asm& a) { a.emit(Inst::kIdImul, ecx); }});
  all.push_back({"imul", [](Asm& a) { a.emit(Inst::kIdImul, rax, rcx); }});
  all.push_back({"imul three", [](Asm& a) { a.emit(Inst::kIdImul, r9d, ecx, Imm(77)); }});
  all.push_back({"bt", [](Asm& a) { a.bt(rax, rcx); }});
  all.push_back({"bts", [](Asm& a) { a.bts(r9d, 7); }});
  all.push_back({"btr m", [](Asm& a) { a.btr(dword_ptr(rsi), 7); }});
  all.push_back({"btc", [](Asm& a) { a.btc(eax, ecx); }});
  all.push_back({"bsf", [](Asm& a) { a.bsf(rdx, rax); }});
  all.push_back({"bsr", [](Asm& a) { a.bsr(r9d, ecx); }});
  all.push_back({"xadd", [](Asm& a) { a.xadd(dword_ptr(rsi), eax); }});
  all.push_back({"cmpxchg", [](Asm& a) { a.cmpxchg(ecx, edx); }});
  all.push_back({"cmpxchg m", [](Asm& a) { a.lock().cmpxchg(dword_ptr(rsi), ecx); }});
  all.push_back({"cmc", [](Asm& a) { a.cmc(); }});
  all.push_back({"stc", [](Asm& a) { a.stc(); }});
  all.push_back({"clc", [](Asm& a) { a.clc(); }});
  all.push_back({"ucomisd", [](Asm& a) { a.ucomisd(xmm0, xmm1); }});
  all.push_back({"popf", [](Asm& a) { a.push(0x8d5), a.popfq(); }});
  all.push_back({"sahf", [](Asm& a) { a.sahf(); }});
  return all;
}

// What may happen to the operands before anybody wants the flags.
const std::vector<Producer>& overwriters() {
  using namespace x86;
  static const std::vector<Producer> all = {
      {"nothing", [](Asm&) {}},
      {"the first", [](Asm& a) { a.mov(rax, -5); }},
      {"the second", [](Asm& a) { a.lea(rcx, ptr(rcx, 3)); }},
      {"the slot", [](Asm& a) { a.mov(r9, rdx); }},
      {"all", [](Asm& a) { a.mov(eax, ecx), a.mov(r9d, 1), a.mov(ecx, 2), a.mov(dword_ptr(rsi), 9); }},
      {"a byte", [](Asm& a) { a.mov(al, 7), a.mov(ch, 1); }},
      {"a flag", [](Asm& a) { a.inc(rdx); }},
      {"by an exchange", [](Asm& a) { a.xchg(rax, rcx); }},
      {"by a pop", [](Asm& a) { a.push(rsi), a.pop(rax); }},
      {"by a push of them", [](Asm& a) { a.pushfq(), a.or_(dword_ptr(rsp), 0x10), a.pop(rdx); }},
      {"by a push and a pop of them", [](Asm& a) { a.pushfq(), a.xor_(dword_ptr(rsp), 1), a.popfq(); }},
      {"by a conditional move", [](Asm& a) { a.cmovc(rax, rdx), a.setz(cl); }},
  };
  return all;
}

// What faults, with what it would change if it did not.
const std::vector<Producer>& faults() {
  using namespace x86;
  static const std::vector<Producer> all = {
      {"load", [](Asm& a) { a.mov(rax, qword_ptr(rbx)); }},
      {"store", [](Asm& a) { a.mov(byte_ptr(rbx), cl); }},
      {"constant load", [](Asm& a) { a.mov(r9, qword_ptr(NOWHERE + 8)); }},
      {"store to a read-only page", [](Asm& a) { a.mov(dword_ptr(READ_ONLY), 1); }},
      {"add to memory", [](Asm& a) { a.add(dword_ptr(rbx), eax); }},
      {"add from memory", [](Asm& a) { a.add(rcx, qword_ptr(rbx)); }},
      {"carry", [](Asm& a) { a.adc(rcx, qword_ptr(rbx)); }},
      {"condition", [](Asm& a) { a.cmovs(ecx, dword_ptr(rbx)); }},
      {"setcc", [](Asm& a) { a.setc(byte_ptr(rbx)); }},
      {"across pages", [](Asm& a) { a.mov(rax, qword_ptr(rbx, -3)); }},
      {"store across pages", [](Asm& a) { a.mov(qword_ptr(rbx, -3), rcx); }},
      {"push", [](Asm& a) { a.push(qword_ptr(rbx)); }},
      {"pop", [](Asm& a) { a.pop(qword_ptr(rbx)); }},
      {"push on no stack", [](Asm& a) { a.mov(rsp, rbx), a.push(rcx); }},
      {"call on no stack", [](Asm& a) { a.lea(rsp, ptr(rbx, 8)), a.call(TestMachine::CODE); }},
      {"return from no stack", [](Asm& a) { a.mov(rsp, rbx), a.ret(); }},
      {"leave", [](Asm& a) { a.mov(rbp, rbx), a.leave(); }},
      {"jump through memory", [](Asm& a) { a.jmp(qword_ptr(rbx)); }},
      {"jump to where no address is", [](Asm& a) { a.mov(rdx, u64{1} << 60), a.jmp(rdx); }},
      {"jump to where nothing is", [](Asm& a) { a.jmp(NOWHERE); }},
      {"sse load", [](Asm& a) { a.addps(xmm2, xmm3), a.movups(xmm2, ptr(rbx)); }},
      {"misaligned", [](Asm& a) { a.paddd(xmm3, xmm2), a.movaps(xmm3, ptr(rsi, 1)); }},
      {"division", [](Asm& a) { a.xor_(ecx, ecx), a.div(ecx); }},
      {"undefined", [](Asm& a) { a.ud2(); }},
      {"string", [](Asm& a) { a.mov(edi, static_cast<u32>(NOWHERE) - 6), a.mov(ecx, 9), a.embed("\xf3\xaa", 2); }},
  };
  return all;
}

class Faults : public testing::Test {
 protected:
  static constexpr u64 CODE = TestMachine::CODE;

  void SetUp() override {
    t_.both([](TestMachine& m) {
      m.platform.record = false;
      start_guest(m);
      m.put<u64>(TestMachine::PTE_OF_0 + 8 * (NOWHERE >> PAGE_SHIFT), 0);
      m.put<u64>(TestMachine::PTE_OF_0 + 8 * (READ_ONLY >> PAGE_SHIFT), READ_ONLY | 0x65);
    });
  }

  // Runs to the handler on both. `times`: with what was translated then.
  void run(const std::vector<u8>& code, std::mt19937_64& random, unsigned times) {
    for (unsigned n = 0; n < times; ++n) {
      const u64 seed = random();
      t_.both([&](TestMachine& m) {
        if (n == 0) put_code(m, code);
        set_state(m, seed);
        m.vcpu.run();
      });
    }
  }
  static void set_state(TestMachine& m, u64 seed) {
    std::mt19937_64 random(seed);
    VcpuRegisters r = m.vcpu.registers();
    for (u64& g : r.gpr) g = random() % 3 == 0 ? random() % 3 - 1 : random() % 2 ? random() : random() | u64{1} << 63;
    r.gpr[RSP] = TestMachine::STACK;
    r.gpr[RBX] = NOWHERE;
    r.gpr[RSI] = TestMachine::DATA;
    m.put<u64>(TestMachine::DATA, random());
    r.rip = CODE;
    r.rflags = 2 | (random() & FLAGS_ARITHMETIC);
    r.cs = {0x10, 0xa09b, 0xffff'ffff, 0};
    r.ss = TestMachine::flat(0x18, 0xc093);
    m.vcpu.set_registers(r);
  }

  Twins t_;
};

TEST_F(Faults, EveryFlagSurvivesWhateverMadeIt) {
  std::mt19937_64 random(1);
  unsigned shown = 0, cases = 0;
  for (const Producer& p : producers())
    for (const Producer& o : overwriters())
      for (unsigned k = 0; k < 6 && shown < 5; ++k) {
        const Producer& f = faults()[random() % faults().size()];
        run(assemble(CODE,
                     [&](Asm& a) {
                       p.emit(a);
                       o.emit(a);
                       f.emit(a);
                       a.hlt();
                     }),
            random, 2);
        const std::string wrong = t_.difference(u64{1} << 20);
        EXPECT_EQ(wrong, "") << p.name << ", then overwritten: " << o.name << ", then: " << f.name;
        shown += !wrong.empty();
        ++cases;
      }
  EXPECT_GT(cases, 5000u);
  EXPECT_GT(translated_instructions(t_.fast), 2u * cases);
}

TEST_F(Faults, EveryKindOfFaultComesAfterEveryKindOfFlags) {
  std::mt19937_64 random(2);
  const std::vector<Producer> all = producers();
  unsigned shown = 0;
  for (const Producer& f : faults())
    for (unsigned k = 0; k < 60 && shown < 5; ++k) {
      const Producer &p = all[random() % all.size()], &q = all[random() % all.size()];
      const Producer& o = overwriters()[random() % overwriters().size()];
      run(assemble(CODE,
                   [&](Asm& a) {
                     q.emit(a);
                     p.emit(a);
                     if (random() % 2) a.mov(x86::r10, x86::qword_ptr(x86::rsi, 8)); // may be slow, and does not fault
                     o.emit(a);
                     f.emit(a);
                     a.hlt();
                   }),
          random, 3);
      const std::string wrong = t_.difference(u64{1} << 20);
      EXPECT_EQ(wrong, "") << q.name << ", " << p.name << ", then overwritten: " << o.name << ", then: " << f.name;
      shown += !wrong.empty();
    }
}

// PUSHF between other accesses to the stack, which one look at the TLB may answer for; behind it the flags die at once,
// or are of use once more.
TEST_F(Faults, PushedFlagsAreThoseOfTheInstructionBefore) {
  std::mt19937_64 random(4);
  for (const Producer& p : producers())
    for (unsigned k = 0; k < 8; ++k) {
      run(assemble(CODE,
                   [&](Asm& a) {
                     a.push(x86::rdx);
                     p.emit(a);
                     if (k & 1) a.mov(x86::rcx, x86::qword_ptr(x86::rsp));
                     a.pushfq();
                     if (k & 2) a.xor_(x86::dword_ptr(x86::rsp), 0x41);
                     if (k & 4)
                       a.popfq();
                     else
                       a.pop(x86::rdx);
                     a.seto(x86::r10b), a.setbe(x86::r11b), a.setp(x86::r12b), a.setl(x86::r13b);
                     a.pop(x86::rbp);
                     a.hlt();
                   }),
          random, 2);
      ASSERT_EQ(t_.difference(u64{1} << 20), "") << p.name;
    }
}

// What the handler finds, by hand: the comparison above would not see it if both were wrong.
TEST_F(Faults, TheFrameNamesTheInstructionAndItsFlags) {
  const std::vector<u8> code = assemble(CODE, [](Asm& a) {
    a.mov(x86::eax, 5);
    a.sub(x86::eax, 7); // CF SF AF; 0xfe in the low byte: PF clear
    a.mov(x86::eax, 1);
    a.mov(x86::qword_ptr(x86::rbx), x86::rax);
    a.hlt();
  });
  std::mt19937_64 random(3);
  run(code, random, 2);
  for (TestMachine* const m : {&t_.plain, &t_.fast}) {
    const VcpuRegisters r = m->vcpu.registers();
    EXPECT_EQ(r.rip, handler_of(PF) + 1);
    EXPECT_EQ(r.cr2, NOWHERE);
    EXPECT_EQ(r.gpr[RAX], 1u);
    EXPECT_EQ(m->get<u64>(r.gpr[RSP]), 2u); // error code: a write to nothing
    EXPECT_EQ(m->get<u64>(r.gpr[RSP] + 8), CODE + 13);
    EXPECT_EQ(m->get<u64>(r.gpr[RSP] + 24) & FLAGS_ARITHMETIC, FLAG_CF | FLAG_SF | FLAG_AF);
  }
  EXPECT_GT(translated_instructions(t_.fast), 4u);
}

} // namespace
} // namespace transom::soft
