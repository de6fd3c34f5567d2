// Random programs: what a translator has to notice.
#include <algorithm>
#include <array>
#include <utility>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/jit/test_program.hpp"

namespace transom::soft {

using namespace asmjit;
using namespace place;
using I = x86::Inst::Id;

namespace {
constexpr u64 PRESENT = 0x67, GLOBAL = 0x100, LARGE = 0x80;
// ADD OR ADC SBB AND SUB XOR CMP: one byte says which.
constexpr u8 ALU_OPCODES[] = {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x39};
} // namespace

void ProgramBuilder::items(unsigned count) {
  for (; count > 0; --count) item();
}

void ProgramBuilder::item() {
  const u64 what = below(100);
  if (nesting_ >= 2 || what < 50) {
    for (u64 n = 1 + below(6); n > 0; --n) plain();
    return;
  }
  ++nesting_;
  if (what < 58)
    skip();
  else if (what < 65)
    loop();
  else if (what < 73)
    calls();
  else if (what < 75)
    bad_returns();
  else if (what < 77)
    middle();
  else if (what < 82)
    patchable();
  else if (what < 86)
    patch();
  else if (what < 88)
    remap();
  else if (what < 89)
    remap_large();
  else if (what < 90)
    address_spaces();
  else if (what < 93)
    fault();
  else if (what < 94)
    floating_fault();
  else if (what < 96)
    flags_and_traps();
  else if (what < 97)
    user();
  else if (what < 98)
    modes();
  else
    a_->out(0x80, x86::al);
  --nesting_;
}

// --- branches

void ProgramBuilder::skip() {
  const Label over = a_->newLabel();
  a_->emit(x86::Inst::jccFromCond(static_cast<x86::CondCode>(below(16))), over);
  items(1);
  a_->bind(over);
}

void ProgramBuilder::loop() {
  const u64 rounds = 2 + below(5), counter = COUNTERS + 8 * counters_++;
  if (times_ * rounds > 40) return plain();
  a_->mov(variable(counter, 4), static_cast<u32>(rounds));
  const Label again = a_->newLabel();
  a_->bind(again);
  times_ *= rounds;
  items(1 + static_cast<unsigned>(below(2)));
  times_ /= rounds;
  a_->dec(variable(counter, 4));
  a_->jnz(again);
}

u64 ProgramBuilder::alias(u64 at) { return at + (percent(50) ? ALIAS : BIG); }

// Directly, through a register, through memory, or by a return to it.
void ProgramBuilder::call_to(u64 target) {
  // A distance is right in every mapping of the page it is in, but only to where that mapping leads too.
  const bool near = target < ALIAS;
  switch (below(4)) {
    case 0:
      if (near) {
        a_->call(target);
        break;
      }
      [[fallthrough]];
    case 1: {
      const Gp r = reg(free_register(), word());
      a_->mov(r, target);
      a_->call(r);
      break;
    }
    case 2:
      a_->mov(variable(TARGET, word()), static_cast<u32>(target));
      a_->call(variable(TARGET, word()));
      break;
    default: {
      const Label back = a_->newLabel();
      a_->lea(reg(RAX, word()), x86::ptr(back));
      a_->push(reg(RAX, word()));
      if (near && percent(50)) {
        a_->jmp(target);
      } else {
        a_->push(static_cast<u32>(target));
        a_->ret();
      }
      a_->bind(back);
    }
  }
}

void ProgramBuilder::calls() {
  if (percent(15)) {
    if (times_ > 8) return plain();
    cost_ += 200 * times_;
    a_->mov(variable(DEPTH, 4), static_cast<u32>(1 + below(40)));
    return call_to(percent(30) ? alias(recursive_) : recursive_);
  }
  if (functions_.empty()) return plain();
  const Function& f = functions_[functions_.size() - 1 - below(std::min<u64>(functions_.size(), 4))];
  if (cost_ + (f.cost + 10) * times_ > 4000) return plain();
  cost_ += (f.cost + 10) * times_;
  call_to(percent(20) ? alias(f.at) : f.at);
}

// Calls that nobody returns from, and returns to where nobody called.
void ProgramBuilder::bad_returns() {
  const Gp r = reg(free_register(), word());
  switch (below(3)) {
    case 0: { // CALL +0; POP
      const Label here = a_->newLabel();
      a_->call(here);
      a_->bind(here);
      a_->pop(r);
      break;
    }
    case 1: { // a function that returns behind its caller's next instruction
      const Label f = a_->newLabel(), over = a_->newLabel(), after = a_->newLabel();
      a_->call(f);
      a_->add(x86::eax, 0x1111);
      a_->bind(after);
      a_->jmp(over);
      a_->bind(f);
      a_->lea(r, x86::ptr(after));
      a_->mov(x86::ptr(reg(RSP, word())), r);
      a_->ret();
      a_->bind(over);
      break;
    }
    default: { // on another stack
      const Label f = a_->newLabel(), over = a_->newLabel();
      const Gp sp = reg(RSP, word());
      a_->mov(variable(TARGET, word()), sp);
      a_->call(f);
      a_->mov(sp, variable(TARGET, word()));
      a_->jmp(over);
      a_->bind(f);
      a_->mov(r, sp);
      a_->sub(sp, 0x200);
      a_->push(x86::ptr(r, 0, word()));
      plain();
      a_->ret();
      a_->bind(over);
    }
  }
}

// MOV EAX, imm32, whose immediate is a few instructions for who comes in there.
void ProgramBuilder::middle() {
  const Label inside = a_->newLabel();
  a_->emit(x86::Inst::jccFromCond(static_cast<x86::CondCode>(below(16))), inside);
  const u8 mov = static_cast<u8>(0xb8 | std::array<u8, 4>{0, 1, 2, 6}[below(4)]);
  a_->embed(&mov, 1);
  a_->bind(inside);
  static constexpr u8 BYTES[][4] = {
      {0x31, 0xc9, 0x90, 0x90}, {0xff, 0xc1, 0xf9, 0x90}, {0x83, 0xd0, 0x07, 0xf5}, {0x90, 0x90, 0x39, 0xc8}};
  a_->embed(BYTES[below(4)], 4);
}

// --- code that changes

// Stores a random immediate or opcode; through one of the mappings of the page.
void ProgramBuilder::store_code(u64 at) {
  const u64 to = percent(40) ? alias(at) : at;
  const bool whole = percent(50);
  if (percent(50))
    a_->mov(variable(to, whole ? 4 : 1), static_cast<i32>(whole ? random_() : below(128)));
  else if (whole)
    a_->mov(variable(to, 4), reg(free_register(), 4));
  else
    a_->mov(variable(to + below(4), 1), x86::cl);
}

// An instruction of these functions or of this one, further up or about to come.
void ProgramBuilder::patchable() {
  const Label site = a_->newLabel();
  if (percent(50)) { // right before it runs
    const bool opcode = percent(30);
    const i32 value = opcode ? ALU_OPCODES[below(8)] : static_cast<i32>(below(128));
    if (percent(50)) {
      a_->mov(x86::ptr(site, opcode ? 0 : 2 + static_cast<i32>(below(4)), 1), value);
    } else { // through another mapping
      a_->lea(reg(RDI, word()), x86::ptr(site));
      a_->and_(reg(RDI, word()), static_cast<i32>(ALIAS - 1));
      a_->mov(x86::ptr(reg(RDI, word()), static_cast<i32>((percent(50) ? ALIAS : BIG) + (opcode ? 0 : 2)), 1), value);
    }
    if (percent(50)) plain();
    if (percent(30)) skip();
    if (opcode) {
      a_->bind(site);
      const u8 bytes[2] = {ALU_OPCODES[below(8)], static_cast<u8>(0xc0 | 1 << 3 | 2)}; // EDX, ECX
      a_->embed(bytes, 2);
      return;
    }
  }
  a_->bind(site);
  program_.immediates.push_back(at_ + a_->offset() + 2);
  const u8 bytes[2] = {0x81, static_cast<u8>(0xc0 | below(8) << 3 | std::array<u8, 3>{1, 2, 6}[below(3)])};
  a_->embed(bytes, 2); // OP r32, imm32
  const u32 value = static_cast<u32>(random_());
  a_->embed(&value, 4);
}

void ProgramBuilder::patch() {
  if (program_.immediates.empty()) return plain();
  store_code(program_.immediates[below(program_.immediates.size())]);
}

// --- translations

void ProgramBuilder::reload_cr3(u64 tables) {
  a_->mov(reg(RAX, word()), static_cast<i32>(tables));
  a_->mov(x86::cr3, reg(RAX, word()));
}

// The window shows another page: by INVLPG or MOV CR3, or with a global translation, by CR4.PGE.
void ProgramBuilder::remap() {
  if (!kernel_) return plain();
  cost_ += 40 * times_;
  const u64 entry = TABLES + 0x3000 + word() * (WINDOW >> PAGE_SHIFT);
  const auto show = [&](u64 flags) {
    a_->mov(variable(entry, word()), static_cast<i32>((VARIANTS + below(3) * PAGE_SIZE) | PRESENT | flags));
  };
  const bool global = percent(30);
  if (global) {
    show(GLOBAL);
    a_->invlpg(variable(WINDOW, 1));
    call_to(WINDOW);
    show(GLOBAL);
    const Gp r = reg(RDX, word());
    for (int twice = 0; twice < 2; ++twice) {
      a_->mov(r, x86::cr4);
      a_->xor_(r, 0x80);
      a_->mov(x86::cr4, r);
    }
    call_to(WINDOW);
  }
  show(0);
  if (!global && percent(40))
    reload_cr3(TABLES);
  else
    a_->invlpg(variable(WINDOW + below(PAGE_SIZE), 1));
  call_to(WINDOW);
}

void ProgramBuilder::remap_large() {
  if (!kernel_) return plain();
  cost_ += 40 * times_;
  const u64 entry = TABLES + (long_ ? 0x2018 : 4);
  for (const u64 megabytes : {long_ ? 2 : 4, 0}) {
    a_->mov(variable(entry, word()), static_cast<i32>(megabytes << 20 | PRESENT | LARGE));
    if (percent(50))
      reload_cr3(TABLES);
    else
      a_->invlpg(variable(BIG_WINDOW + (below(PAGE_SIZE) << 8), 1));
    call_to(BIG_WINDOW + VARIANTS);
  }
}

// Two address spaces with other code at the same address, and returns into it.
void ProgramBuilder::address_spaces() {
  if (!kernel_) return plain();
  cost_ += 60 * times_;
  for (const u64 tables : {OTHER_TABLES, TABLES}) {
    reload_cr3(tables);
    call_to(WINDOW);
  }
}

// --- exceptions

void ProgramBuilder::set_resume(const Label& to) {
  a_->lea(reg(RAX, word()), x86::ptr(to));
  a_->mov(variable(RESUME, word()), reg(RAX, word()));
}

void ProgramBuilder::fault() {
  cost_ += 30 * times_;
  const Label resume = a_->newLabel();
  set_resume(resume);
  plain();
  binary();
  const u64 nowhere = percent(50) ? NOTHING + below(0xff0) : NOTHING - 1 - below(3);
  switch (below(6)) {
    case 0: a_->mov(random_reg(4), variable(nowhere, 4)); break;
    case 1: a_->add(variable(percent(50) ? READ_ONLY + below(100) : nowhere, 4), x86::ecx); break;
    case 2: a_->ud2(); break;
    case 3: a_->xor_(x86::ecx, x86::ecx), a_->div(x86::ecx); break;
    case 4: a_->movaps(x86::xmm1, variable(DATA + 1 + below(15), 16)); break;
    default:
      a_->mov(reg(RSI, word()), static_cast<i32>(NOTHING - 12));
      a_->mov(x86::ecx, 5);
      a_->embed("\xf3\xad", 2); // REP LODSD
  }
  binary();
  a_->bind(resume);
}

// An SSE instruction whose exceptions are not masked: most raise one.
void ProgramBuilder::floating_fault() {
  cost_ += 30 * times_;
  const Label resume = a_->newLabel();
  set_resume(resume);
  a_->mov(variable(MXCSR, 4), 0x1f80 & ~(static_cast<int>(below(64)) << 7));
  a_->ldmxcsr(variable(MXCSR, 4));
  for (unsigned n = 0; n < 3; ++n) {
    a_->cvtsi2sd(x86::xmm(n), x86::ecx);
    a_->divsd(x86::xmm2, x86::xmm(n));
    plain();
  }
  a_->bind(resume);
  a_->mov(variable(MXCSR, 4), 0x1f80);
  a_->ldmxcsr(variable(MXCSR, 4));
}

void ProgramBuilder::flags_and_traps() {
  const bool bad = !kernel_;
  const auto popf = [&] { long_ ? a_->popfq() : a_->popfd(); };
  switch (below(bad ? 2 : 5)) {
    case 0: // arithmetic flags of any kind
      a_->push(static_cast<i32>((random_() & 0x8d5) | 0x202));
      popf();
      break;
    case 1: // a single step
      cost_ += 30 * times_;
      long_ ? a_->pushfq() : a_->pushfd();
      a_->or_(x86::dword_ptr(reg(RSP, word())), 0x100);
      popf();
      plain();
      break;
    case 2: // interrupts wait, and come with IF
      a_->cli();
      plain();
      a_->out(0x80, x86::al);
      plain();
      if (percent(50)) {
        a_->push(0x202);
        popf();
      } else {
        a_->sti();
      }
      break;
    case 3: { // CR0.TS: the next SSE or x87 instruction is #NM
      const Gp r = reg(RDX, word());
      a_->mov(r, x86::cr0);
      a_->or_(r, 8);
      a_->mov(x86::cr0, r);
      percent(70) ? sse() : x87();
      a_->clts();
      break;
    }
    default: a_->int3();
  }
}

// --- privilege and modes. Whatever runs there is made as usual but for what only the kernel may do.

void ProgramBuilder::user() {
  if (!kernel_) return plain();
  cost_ += 40 * times_;
  const Label back = a_->newLabel(), in_user = a_->newLabel();
  const Gp ax = reg(RAX, word());
  set_resume(back);
  a_->mov(variable(KERNEL_STACK, word()), reg(RSP, word()));
  a_->push(SEL_USER_DATA);
  a_->push(static_cast<i32>(USER_STACK));
  a_->push(0x202);
  a_->push(long_ ? SEL_USER_CODE64 : SEL_USER_CODE32);
  a_->lea(ax, x86::ptr(in_user));
  a_->push(ax);
  long_ ? a_->iretq() : a_->iretd();
  a_->bind(in_user);
  kernel_ = false;
  for (unsigned n = 0; n < 4; ++n) plain();
  const unsigned nesting = std::exchange(nesting_, 2);
  skip();
  nesting_ = nesting;
  if (percent(50)) patch();
  if (percent(50)) call_to(WINDOW);
  kernel_ = true;
  a_->int_(0x80);
  a_->bind(back);
}

// From 64-bit code to the compatibility mode, and from there to 32-bit code without paging.
void ProgramBuilder::modes() {
  if (!long_ || !kernel_) return plain();
  cost_ += 40 * times_;
  // PUSH SEL_CODE32; LEA RAX, [32-bit code]; PUSH RAX; RETFQ
  const Label code32 = a_->newLabel(), code64 = a_->newLabel();
  const bool leave_long_mode = percent(50);
  a_->cli(); // the gates are 64-bit ones
  a_->push(SEL_CODE32);
  a_->lea(x86::rax, x86::ptr(code32));
  a_->and_(x86::rax, static_cast<i32>(ALIAS - 1)); // without paging there is no alias
  a_->push(x86::rax);
  a_->embed("\x48\xcb", 2);
  a_->bind(code32);
  const auto paging = [&] {
    if (!leave_long_mode) return;
    a_->embed("\x0f\x20\xc0", 3);         // MOV EAX, CR0
    a_->embed("\x35\x00\x00\x00\x80", 5); // XOR EAX, 80000000h
    a_->embed("\x0f\x22\xc0\xeb\x00", 5); // MOV CR0, EAX; JMP +0
  };
  paging();
  static constexpr u8 BODY[][5] = {{0x01, 0xca, 0x11, 0xd1, 0x90},  // ADD EDX, ECX; ADC ECX, EDX
                                   {0x41, 0x4e, 0x0f, 0x94, 0xc1},  // INC ECX; DEC ESI; SETZ CL
                                   {0x51, 0x5a, 0x39, 0xd1, 0x90},  // PUSH ECX; POP EDX; CMP ECX, EDX
                                   {0xe8, 0x00, 0x00, 0x00, 0x00},  // CALL +0 …
                                   {0x5a, 0x31, 0xca, 0x72, 0x00}}; // POP EDX; XOR EDX, ECX; JC +0
  for (const auto& bytes : BODY) a_->embed(bytes, sizeof bytes);
  a_->embed("\x0f\x28\xca\x0f\x58\xc8", 6); // MOVAPS XMM1, XMM2; ADDPS XMM1, XMM0
  paging();
  // PUSH SEL_CODE64; CALL +0; ADD dword [ESP], distance; RETF
  a_->embed("\x6a\x18\xe8\x00\x00\x00\x00\x83\x04\x24\x05\xcb", 12);
  a_->bind(code64);
  a_->sti();
}

} // namespace transom::soft
