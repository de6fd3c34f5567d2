// Where the guest's arithmetic flags are.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;
using Again = FlagState::Again;

void BlockCompiler::save_flags(const FlagState& s) {
  if (s.memory) return;
  if (s.again == Again::known) return void(a.mov(x86::word_ptr(x86::rsp, at::FLAGS), FlagState::ZERO));
  if (!s.host) make_flags(s);
  a.lahf();
  a.seto(x86::al);
  a.mov(x86::word_ptr(x86::rsp, at::FLAGS), x86::ax);
}

// By the same operation on the same operands; what an addition has overwritten is subtracted again first.
void BlockCompiler::make_flags(const FlagState& s) {
  if (s.again <= Again::known) {
    if (s.again == Again::known)
      a.mov(x86::eax, FlagState::ZERO);
    else
      a.movzx(x86::eax, x86::word_ptr(x86::rsp, at::FLAGS));
    a.add(x86::al, 0x7f);
    a.sahf();
    return;
  }
  if (s.again >= Again::inc) {
    const i32 back = s.again == Again::inc ? -1 : 1;
    a.lea(x86::rax, x86::ptr(source(s.a, 8, x86::rax), back));
    a.bt(x86::word_ptr(x86::rsp, at::FLAGS), 8);
    a.emit(s.again == Again::inc ? x86::Inst::kIdInc : x86::Inst::kIdDec, sized(0, s.size));
    return;
  }
  const Operand b = s.imm ? Operand(Imm(*s.imm)) : operand(s.b, s.size);
  const Gp left = source(s.a, s.size, x86::rax);
  switch (s.again) {
    case Again::compare: a.emit(x86::Inst::kIdCmp, left, b); break;
    case Again::logic: a.emit(x86::Inst::kIdTest, left, left); break;
    case Again::test:
      if (b.isMem())
        a.emit(x86::Inst::kIdTest, b, left);
      else
        a.emit(x86::Inst::kIdTest, left, b);
      break;
    default: {
      const Gp scratch = sized(0, s.size);
      if (pinned(s.a)) a.mov(sized(0, s.size < 4 ? 4 : s.size), sized(host_[s.a], s.size < 4 ? 4 : s.size));
      const bool add = s.again == Again::add;
      a.emit(add ? x86::Inst::kIdSub : x86::Inst::kIdAdd, scratch, b);
      a.emit(add ? x86::Inst::kIdAdd : x86::Inst::kIdSub, scratch, b);
    }
  }
}

void BlockCompiler::need_host_flags() {
  if (flags_.host) return;
  FlagState s = flags_;
  if (s.memory && (s.again == Again::add || s.again == Again::sub)) s.again = Again::no;
  make_flags(s);
  flags_.host = true;
}

// CF alone: the others may be anything.
void BlockCompiler::need_carry() {
  if (flags_.host) return;
  if (flags_.again == Again::known)
    a.clc();
  else if (flags_.memory)
    a.bt(x86::word_ptr(x86::rsp, at::FLAGS), 8);
  else
    make_flags(flags_);
}

void BlockCompiler::set_flags(Again again, u8 size, u8 left, u8 right, std::optional<i64> imm) {
  const bool zero = again == Again::compare || again == Again::test || again == Again::logic || again == Again::sub;
  flags_ = {true, !needed_[k_], again, size, left, imm, right, zero};
  flags_set_ = true;
}

} // namespace transom::soft
