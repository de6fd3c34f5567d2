// The code that all translations share: in, out, and the calls of C++.
//
// Those calls run on the host's stack. Before them the guest's registers go to Cpu::gpr, so a fault may leave by
// longjmp from anywhere behind.
#include <stdexcept>

#include "hypervisor/vcpu/soft/jit/layout.hpp"
#include "hypervisor/vcpu/soft/jit/registers.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"

namespace transom::soft {

using namespace asmjit;

namespace {

class Thunks {
 public:
  explicit Thunks(CodeHolder& code) : a(&code) {}

  void spill(int shift = 0) {
    for (unsigned n = 0; n < 16; ++n)
      if (pinned(n)) a.mov(x86::ptr(x86::rsp, at::gpr(n) + shift, 8), x86::gpq(PINNED[n]));
  }
  void fill(int shift = 0) {
    for (unsigned n = 0; n < 16; ++n)
      if (pinned(n)) a.mov(x86::gpq(PINNED[n]), x86::ptr(x86::rsp, at::gpr(n) + shift, 8));
  }
  // f(Cpu*, rsi) on the host's stack; rbx keeps ours.
  void call(u64 f, int shift = 0) {
    a.lea(x86::rdi, x86::ptr(x86::rsp, shift - at::CPU));
    a.mov(x86::rbx, x86::rsp);
    a.mov(x86::rsp, x86::ptr(x86::rsp, at::HOST_RSP + shift));
    a.mov(x86::rax, f);
    a.call(x86::rax);
    a.mov(x86::rsp, x86::rbx);
  }

  static constexpr u8 SAVED[] = {3, 5, 12, 13, 14, 15}; // rbx rbp r12–r15: the caller's

  void enter() { // enter(rdi = &gpr[0], rsi = code)
    for (const u8 r : SAVED) a.push(x86::gpq(r));
    a.sub(x86::rsp, 8); // aligned for calls
    a.mov(x86::ptr(x86::rdi, at::HOST_RSP), x86::rsp);
    a.mov(x86::rsp, x86::rdi);
    a.mov(x86::rax, x86::rsi);
    fill();
    a.jmp(x86::rax);
  }
  // The registers are in Cpu::gpr; rax: the record to go on with, or 1.
  void leave_spilled() {
    const Label record = a.newLabel();
    a.mov(x86::rsp, x86::ptr(x86::rsp, at::HOST_RSP));
    a.add(x86::rsp, 8);
    for (unsigned n = sizeof SAVED; n-- > 0;) a.pop(x86::gpq(SAVED[n]));
    a.cmp(x86::rax, 1);
    a.jne(record);
    a.xor_(x86::eax, x86::eax);
    a.bind(record);
    a.ret();
  }
  void leave() { // rax: the record
    spill();
    a.bind(left);
    leave_spilled();
  }
  void step() { handlers(reinterpret_cast<u64>(&Translator::step)); }
  void run_handlers() { handlers(reinterpret_cast<u64>(&Translator::run_handlers)); }
  void handlers(u64 f) { // called; rax: the second argument
    const Label out = a.newLabel();
    spill(8);
    a.mov(x86::rsi, x86::rax);
    call(f, 8);
    a.test(x86::rax, x86::rax);
    a.jnz(out);
    fill(8);
    a.ret();
    a.bind(out);
    a.add(x86::rsp, 8);
    a.jmp(left);
  }
  void ask(u64 f) { // rsi is set; goes to the answer
    const Label out = a.newLabel();
    call(f);
    a.test(x86::rax, x86::rax);
    a.jz(out);
    fill();
    a.jmp(x86::rax);
    a.bind(out);
    a.mov(x86::rax, x86::ptr(x86::rsp, at::SCRATCH));
    a.jmp(left);
  }
  void resolve() { // eax: the site
    spill();
    a.mov(x86::esi, x86::eax);
    ask(reinterpret_cast<u64>(&Translator::resolve));
  }
  void indirect() { // rax: where to
    const Label slow = a.newLabel();
    a.mov(x86::ptr(x86::rsp, at::SCRATCH), x86::rax);
    a.mov(x86::rcx, x86::ptr(x86::rsp, at::EXIT_FLAG));
    a.cmp(x86::dword_ptr(x86::rcx), 0);
    a.jne(slow);
    a.movzx(x86::ecx, x86::word_ptr(x86::rsp, at::MODE));
    a.shl(x86::rcx, 48);
    a.xor_(x86::rcx, x86::rax);
    a.and_(x86::eax, static_cast<int>(JUMP_ENTRIES - 1));
    a.shl(x86::eax, 5);
    static_assert(sizeof(JumpEntry) == 32);
    a.cmp(x86::ptr(x86::rsp, x86::rax, 0, at::JUMPS), x86::rcx);
    a.jne(slow);
    a.mov(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, at::JUMPS + static_cast<int>(offsetof(JumpEntry, slot))));
    a.mov(x86::rcx, x86::ptr(x86::rcx));
    a.cmp(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, at::JUMPS + static_cast<int>(offsetof(JumpEntry, tag))));
    a.jne(slow);
    a.jmp(x86::ptr(x86::rsp, x86::rax, 0, at::JUMPS + static_cast<int>(offsetof(JumpEntry, code))));
    a.bind(slow);
    a.mov(x86::rax, x86::ptr(x86::rsp, at::SCRATCH));
    spill();
    a.mov(x86::rsi, x86::rax);
    ask(reinterpret_cast<u64>(&Translator::resolve_indirect));
  }

  // Called; rax: host address of a memory operand. Flags stay, and every register but rax.
  template <unsigned Size>
  void note() {
    constexpr int shift = 8, before = static_cast<int>(offsetof(JournalEntry, before));
    a.mov(x86::ptr(x86::rsp, at::NOTE_SAVED + shift), x86::rdx);
    a.mov(x86::ptr(x86::rsp, at::NOTE_SAVED + 8 + shift), x86::rcx);
    a.mov(x86::rdx, x86::ptr(x86::rsp, at::JOURNAL_USED + shift));
    a.lea(x86::rcx, x86::ptr(x86::rdx, static_cast<int>(sizeof(JournalEntry))));
    a.mov(x86::ptr(x86::rsp, at::JOURNAL_USED + shift), x86::rcx);
    a.lea(x86::rdx, x86::ptr(x86::rsp, x86::rdx, 0, at::JOURNAL + shift));
    a.mov(x86::ptr(x86::rdx, static_cast<int>(offsetof(JournalEntry, at))), x86::rax);
    a.mov(x86::rcx, x86::ptr(x86::rsp, at::NOTE_WHAT + shift));
    a.mov(x86::ptr(x86::rdx, static_cast<int>(offsetof(JournalEntry, what))), x86::rcx);
    const x86::Gp wide = Size == 4 ? x86::Gp(x86::ecx) : x86::Gp(x86::rcx);
    const x86::Gp part = Size == 1 ? x86::Gp(x86::cl) : Size == 2 ? x86::Gp(x86::cx) : wide;
    for (unsigned at = 0; at < Size; at += 8) {
      a.mov(part, x86::ptr(x86::rax, static_cast<int>(at)));
      a.mov(x86::ptr(x86::rdx, before + static_cast<int>(at)), part);
    }
    a.mov(x86::rdx, x86::ptr(x86::rsp, at::NOTE_SAVED + shift));
    a.mov(x86::rcx, x86::ptr(x86::rsp, at::NOTE_SAVED + 8 + shift));
    a.ret();
  }

  x86::Assembler a;
  Label left = a.newLabel();
};

} // namespace

void Translator::make_thunks() {
  CodeHolder code;
  code.init(Environment::host());
  Thunks t(code);
  std::size_t offset[11];
  const auto place = [&](unsigned n, void (Thunks::*make)()) {
    t.a.align(AlignMode::kCode, 64);
    offset[n] = t.a.offset();
    (t.*make)();
  };
  place(0, &Thunks::enter);
  place(1, &Thunks::leave);
  place(2, &Thunks::step);
  place(3, &Thunks::resolve);
  place(4, &Thunks::indirect);
  place(5, &Thunks::run_handlers);
  place(6, &Thunks::note<1>);
  place(7, &Thunks::note<2>);
  place(8, &Thunks::note<4>);
  place(9, &Thunks::note<8>);
  place(10, &Thunks::note<16>);
  code.flatten();
  code.resolveUnresolvedLinks();
  const u8* const base = arena_.next(arena_.hot);
  if (code.relocateToBase(reinterpret_cast<u64>(base)) != kErrorOk ||
      code.copyFlattenedData(arena_.writable(base), arena_.left(arena_.hot)) != kErrorOk)
    throw std::runtime_error("the translator's common code does not assemble");
  enter_ = reinterpret_cast<Enter>(reinterpret_cast<u64>(base + offset[0]));
  TranslatedState& s = cpu_.translated;
  s.leave = base + offset[1];
  s.step = base + offset[2];
  s.resolve = base + offset[3];
  s.indirect = base + offset[4];
  s.run_handlers = base + offset[5];
  for (unsigned n = 0; n < 5; ++n) s.note[n] = base + offset[6 + n];
  thunk_bytes_ = (code.codeSize() + 63) / 64 * 64;
  arena_.hot.used = thunk_bytes_;
}

} // namespace transom::soft
