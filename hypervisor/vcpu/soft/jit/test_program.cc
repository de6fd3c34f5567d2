// The frame of the programs: tables, handlers, functions, and the order in which everything is made.
#include "hypervisor/vcpu/soft/jit/test_program.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "hypervisor/vcpu/soft/exception.hpp"

namespace transom::soft {

using namespace asmjit;
using namespace place;

namespace {

constexpr u64 PRESENT = 0x67, USER_ONLY_READ = 0x65, LARGE = 0x80; // accessed and dirty from the beginning
constexpr u64 SWAPPER = CODE_END + 0x5800;
constexpr u64 FUNCTION_BYTES = 0xa00;
constexpr unsigned FUNCTIONS = 24;

// Identity below 2 MiB but for the windows; the same once more at ALIAS; at BIG in large pages.
void make_tables(TestMachine& m, bool long_mode, u64 at, u64 window) {
  const u64 small = at + 0x3000, width = long_mode ? 8 : 4;
  const auto put = [&](u64 gpa, u64 value) { std::memcpy(m.at(gpa), &value, width); };
  for (u64 n = 0; n < 1024; ++n) {
    const u64 linear = n << PAGE_SHIFT, page = linear % ALIAS;
    u64 entry = page | PRESENT;
    if (linear == NOTHING) entry = 0;
    if (linear == READ_ONLY) entry = page | USER_ONLY_READ;
    if (linear == WINDOW) entry = window | PRESENT;
    put(small + width * n, entry);
  }
  if (!long_mode) {
    put(at, small | PRESENT);
    put(at + 4, 0 | PRESENT | LARGE);
    return;
  }
  put(at, (at + 0x1000) | PRESENT);
  put(at + 0x1000, (at + 0x2000) | PRESENT);
  put(at + 0x2000, small | PRESENT);
  put(at + 0x2008, (small + 0x1000) | PRESENT);
  put(at + 0x2010, 0 | PRESENT | LARGE | 0x100); // global
  put(at + 0x2018, 0 | PRESENT | LARGE);
}

u64 descriptor(u8 access, u8 flags) { return 0xffff | u64{access} << 40 | u64{0xf} << 48 | u64{flags} << 52; }

void make_descriptors(TestMachine& m, bool long_mode) {
  m.put<u64>(GDT + SEL_CODE32, descriptor(0x9b, 0xc));
  m.put<u64>(GDT + SEL_DATA, descriptor(0x93, 0xc));
  m.put<u64>(GDT + SEL_CODE64, descriptor(0x9b, 0xa));
  m.put<u64>(GDT + (SEL_USER_DATA & ~7), descriptor(0xf3, 0xc));
  m.put<u64>(GDT + (SEL_USER_CODE64 & ~7), descriptor(0xfb, 0xa));
  m.put<u64>(GDT + (SEL_USER_CODE32 & ~7), descriptor(0xfb, 0xc));
  m.put<u64>(GDT + SEL_TSS, 0x67 | TSS << 16 | u64{0x8b} << 40);
  for (u64 v = 0; v < 256; ++v) {
    const u64 handler = HANDLERS + 16 * std::min<u64>(v, 0x81);
    const u64 type = v == 0x80 || v == 3 ? 0xee : 0x8e;
    const u64 low = (handler & 0xffff) | u64{long_mode ? SEL_CODE64 : SEL_CODE32} << 16 | type << 40;
    m.put<u64>(IDT + (long_mode ? 16 : 8) * v, low);
    if (long_mode) m.put<u64>(IDT + 16 * v + 8, 0);
  }
  m.put<u32>(TSS + 4, STACK0); // RSP0 or ESP0, SS0
  m.put<u32>(TSS + 8, long_mode ? 0 : SEL_DATA);
}

void set_registers(TestMachine& m, bool long_mode, u64 entry) {
  VcpuRegisters r;
  r.cs = TestMachine::flat(long_mode ? SEL_CODE64 : SEL_CODE32, long_mode ? 0xa09b : 0xc09b);
  r.ss = TestMachine::flat(SEL_DATA, 0xc093);
  r.ds = r.es = r.fs = r.gs = TestMachine::flat(SEL_USER_DATA, 0xc0f3);
  if (long_mode) r.gs.base = DATA;
  r.tr = {SEL_TSS, 0x8b, 0x67, TSS};
  r.gdtr = {GDT, 0xff};
  r.idtr = {IDT, 0xfff};
  r.cr0 = 0x8001'0033;
  r.cr3 = TABLES;
  r.cr4 = long_mode ? 0x6b0 : 0x690;
  r.efer = long_mode ? 0xd01 : 0;
  r.dr[6] = 0xffff'0ff0;
  r.dr[7] = 0x400;
  r.rip = entry;
  r.gpr[RSP] = STACK;
  m.vcpu.set_registers(r);
}

} // namespace

void Program::load(TestMachine& m) const {
  std::fill(m.platform.ram.begin(), m.platform.ram.end(), u8{0});
  make_tables(m, long_mode, TABLES, VARIANTS);
  make_tables(m, long_mode, OTHER_TABLES, VARIANTS + PAGE_SIZE);
  make_descriptors(m, long_mode);
  std::mt19937_64 random(7);
  for (u64 at = DATA; at < DATA_END; at += 8) m.put<u64>(at, random());
  m.put<u64>(LOG_AT, LOG);
  for (const Chunk& c : code) {
    std::memcpy(m.at(c.at), c.bytes.data(), c.bytes.size());
    // Who replaces a large page may be running in it.
    if (c.at < CODE_END) std::memcpy(m.at(c.at + (u64{4} << 20)), c.bytes.data(), c.bytes.size());
  }
  m.code_pages.wrote(0, TestMachine::RAM);
  m.vcpu.reset();
  u8 image[512];
  m.vcpu.fpu_state(image);
  image[0] = 0x7f, image[1] = 3; // as after FNINIT
  m.vcpu.set_fpu_state(image);
  set_registers(m, long_mode, entry);
}

// --- code

template <class F>
void ProgramBuilder::assemble(u64 at, F&& body) {
  CodeHolder code;
  code.init(Environment(long_ ? Arch::kX64 : Arch::kX86), at);
  x86::Assembler a(&code);
  a_ = &a;
  at_ = at;
  body();
  a_ = nullptr;
  code.flatten();
  code.resolveUnresolvedLinks();
  code.relocateToBase(at);
  std::vector<u8> bytes(code.codeSize());
  code.copyFlattenedData(bytes.data(), bytes.size());
  if (bytes.size() > FUNCTION_BYTES - 0x100) throw std::length_error("a test's function is too long");
  program_.code.push_back({at, std::move(bytes)});
}

// Every vector has 16 bytes: its number, and an error code if the CPU has none.
void ProgramBuilder::stub(unsigned vector, bool error) {
  if (!error) a_->push(0);
  a_->push(static_cast<int>(vector));
}

void ProgramBuilder::handlers() {
  const int w = static_cast<int>(word());
  const Gp sp = reg(RSP, word()), ax = reg(RAX, word()), di = reg(RDI, word());
  const u64 common = HANDLERS + 0x900;
  for (unsigned v = 0; v <= 0x81; ++v)
    assemble(HANDLERS + 16 * v, [&] {
      stub(v, v == 8 || (v >= 10 && v <= 14) || v == 17);
      a_->jmp(common + (v == 0x80 ? 0x200 : v >= 0x40 ? 0x300 : v == 1 || v == 3 ? 0x180 : v == 7 ? 0x280 : 0x100));
    });
  const auto store = [&] { long_ ? a_->embed("\x48\xab", 2) : a_->embed("\xab", 1); }; // STOS
  const auto log = [&] { // vector, error code, RIP, flags, CR2
    a_->push(ax);
    a_->push(di);
    a_->cld();
    a_->mov(di, variable(LOG_AT, word()));
    for (const int n : {2, 3, 4, 6}) {
      a_->mov(ax, x86::ptr(sp, n * w));
      store();
    }
    a_->mov(ax, x86::cr2);
    store();
    const Label fits = a_->newLabel();
    a_->cmp(di, static_cast<int>(LOG_END));
    a_->jb(fits);
    a_->mov(di, static_cast<int>(LOG));
    a_->bind(fits);
    a_->mov(variable(LOG_AT, word()), di);
  };
  const auto done = [&] {
    a_->pop(di);
    a_->pop(ax);
    a_->lea(sp, x86::ptr(sp, 2 * w));
    long_ ? a_->iretq() : a_->iretd();
  };
  assemble(common + 0x100, [&] { // a fault: go on where the program says
    log();
    a_->test(x86::byte_ptr(sp, 5 * w), 3); // of the user: as if by INT 80h
    a_->jnz(common + 0x200);
    a_->and_(x86::dword_ptr(sp, 6 * w), ~0x1'0000); // RF: when it goes is no engine's promise
    a_->mov(ax, variable(RESUME, word()));
    a_->mov(x86::ptr(sp, 4 * w), ax);
    done();
  });
  assemble(common + 0x180, [&] { // a trap: once
    log();
    a_->and_(x86::dword_ptr(sp, 6 * w), ~0x100);
    done();
  });
  assemble(common + 0x200, [&] { // INT 80h: back to the kernel's stack
    a_->mov(x86::eax, SEL_DATA); // in long mode it is null now, which 32-bit code cannot have
    a_->mov(x86::ss, x86::eax);
    a_->mov(sp, variable(KERNEL_STACK, word()));
    a_->sti();
    a_->jmp(variable(RESUME, word()));
  });
  assemble(common + 0x280, [&] { // #NM: again
    log();
    a_->and_(x86::dword_ptr(sp, 6 * w), ~0x1'0000);
    a_->clts();
    done();
  });
  assemble(common + 0x300, [&] { // interrupts leave no trace of where they came
    a_->lock().inc(variable(INTERRUPTS, 4));
    a_->lea(sp, x86::ptr(sp, 2 * w));
    long_ ? a_->iretq() : a_->iretd();
  });
}

// The same instructions in every variant, with other constants: whoever looks at it through the window may have the
// page replaced under him.
void ProgramBuilder::variant(u64 at) {
  std::mt19937_64 shape(random_); // a copy: the same for every page
  static constexpr InstId OPS[] = {x86::Inst::kIdAdd, x86::Inst::kIdXor, x86::Inst::kIdSub, x86::Inst::kIdOr};
  assemble(at, [&] {
    for (unsigned n = 0; n < 6; ++n) {
      const unsigned guest = std::array<unsigned, 4>{RAX, RCX, RDX, RSI}[shape() % 4];
      a_->emit(OPS[shape() % 4], reg(guest, 4), Imm(0x1000'0000 | static_cast<int>(at >> PAGE_SHIFT << 8 | n)));
      if (n == 3) { // returns into the other page
        a_->mov(reg(RAX, word()), SWAPPER);
        a_->call(reg(RAX, word()));
      }
      if (shape() % 3 == 0) {
        const Label over = a_->newLabel();
        a_->jnz(over);
        a_->inc(reg(guest, 4));
        a_->bind(over);
      }
    }
    a_->ret();
  });
}

// Replaces the page in the window, also under its caller.
void ProgramBuilder::swapper() {
  assemble(SWAPPER, [&] {
    a_->invlpg(variable(WINDOW, 1)); // the user gets no further
    a_->xor_(variable(TABLES + 0x3000 + word() * (WINDOW >> PAGE_SHIFT), 4), static_cast<int>(PAGE_SIZE));
    a_->invlpg(variable(WINDOW, 1));
    a_->ret();
  });
}

void ProgramBuilder::recursive_function(u64 at) {
  recursive_ = at;
  assemble(at, [&] {
    const Label out = a_->newLabel();
    a_->dec(variable(DEPTH, 4));
    a_->jz(out);
    a_->call(at);
    a_->add(reg(RAX, 4), 3);
    a_->bind(out);
    a_->ret();
  });
}

void ProgramBuilder::function(unsigned n) {
  const u64 at = CODE + 0x800 + n * FUNCTION_BYTES + below(0x100);
  cost_ = 0;
  times_ = 1;
  assemble(at, [&] {
    for (unsigned left = 3 + static_cast<unsigned>(below(10)); left > 0 && a_->offset() < FUNCTION_BYTES - 0x400;
         --left)
      items(1);
    a_->ret();
  });
  functions_.push_back({at, cost_});
  program_.functions.push_back(at);
}

void ProgramBuilder::initialise() {
  const unsigned all = long_ ? 16 : 8;
  for (unsigned n = 0; n < all; ++n)
    if (n != RSP && n != RBX) a_->mov(reg(n, word()), static_cast<i64>(long_ ? random_() : random_() & 0x7fff'ffff));
  a_->mov(reg(RBX, word()), static_cast<int>(DATA + 0x100));
  for (unsigned n = 0; n < 8; ++n) a_->movups(x86::xmm(n), x86::ptr(DATA + 0x200 + 32 * n, 16));
  a_->sti();
}

void ProgramBuilder::main_function(u64 at) {
  program_.entry = at;
  assemble(at, [&] {
    initialise();
    const u64 counter = COUNTERS + 8 * counters_++;
    a_->mov(variable(counter, 4), 4);
    const Label again = a_->newLabel();
    a_->bind(again);
    times_ = 4;
    for (unsigned n = 0; n < 6; ++n) {
      const Function& f = functions_[below(functions_.size())];
      call_to(percent(25) ? alias(f.at) : f.at);
    }
    a_->dec(variable(counter, 4));
    a_->jnz(again);
    a_->out(0x80, x86::al);
    a_->cli(); // nothing goes on behind the end
    a_->hlt();
  });
}

Program ProgramBuilder::build() {
  program_.long_mode = long_;
  handlers();
  for (const u64 megabytes : {0, 2, 6})
    for (u64 n = 0; n < 4; ++n) variant((megabytes << 20) + VARIANTS + n * PAGE_SIZE);
  for (const u64 megabytes : {0, 4}) variant((megabytes << 20) + WINDOW); // what other mappings lead to
  swapper();
  recursive_function(CODE_END + 0x5000);
  for (unsigned n = FUNCTIONS; n-- > 0;) function(n);
  main_function(CODE + 0x100);
  return std::move(program_);
}

} // namespace transom::soft
