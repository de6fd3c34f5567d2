// Templates of the stack and of near branches, and the ways out of a translation.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;

namespace {
bool by_register_or_memory(const Decoded& d) { return d.has_modrm; }
} // namespace

// --- the stack. LEA moves the pointer: flags stay.

void BlockCompiler::move_stack(i32 by) {
  const Gp sp = x86::gpq(host_[RSP]);
  a.lea(sized(sp.id(), long_ ? 8 : 4), x86::ptr(sp, by));
}

void BlockCompiler::push(const Decoded& d) {
  const unsigned size = long_ ? 8 : 4;
  const bool imm = d.opcode == 0x68 || d.opcode == 0x6a;
  if (d.memory()) {
    const Mem m = address(d, size, false);
    a.mov(sized(0, size), m);
    a.mov(x86::ptr(x86::rsp, at::SCRATCH, 8), x86::rax);
  }
  const Mem top = stack_address(-static_cast<i32>(size), size, true);
  if (d.memory()) {
    a.mov(x86::rax, x86::ptr(x86::rsp, at::SCRATCH, 8));
    a.mov(top, sized(0, size));
  } else if (imm) {
    a.mov(top, Imm(static_cast<i32>(d.imm)));
  } else {
    a.mov(top, source(d.rm, size, x86::rax));
  }
  move_stack(-static_cast<i32>(size));
}

void BlockCompiler::pop(const Decoded& d) {
  const unsigned size = long_ ? 8 : 4;
  a.mov(sized(0, size), stack_address(0, size, false));
  move_stack(static_cast<i32>(size));
  store64(d.rm, x86::rax); // last: POP rSP
}

void BlockCompiler::leave_frame(const Decoded&) {
  const unsigned size = long_ ? 8 : 4;
  const Gp bp = x86::gpq(host_[RBP]), sp = x86::gpq(host_[RSP]);
  if (operand_[k_].slot >= 0) {
    a.mov(x86::rax, noted(grouped(operand_[k_], RBP, 0, 8), 8, false));
  } else {
    a.mov(sized(1, size), sized(host_[RBP], size));
    a.mov(sized(0, size), checked(size, false, false));
  }
  a.lea(sized(sp.id(), size), x86::ptr(bp, static_cast<i32>(size)));
  a.mov(bp, x86::rax);
}

// --- branches

u64 BlockCompiler::target(const Decoded& d) const {
  const u64 to = translation_.rip + offset_[k_] + d.length + d.imm;
  return long_ ? to : static_cast<u32>(to);
}

// What every way out needs: nothing of the guest's is in host registers but the general ones.
void BlockCompiler::settle() {
  save_flags(flags_);
  flags_ = {};
  xmm_write_back(xmm_);
  xmm_ = {};
  if (borrowed_) give_back();
  use_borrowed(false);
  slow_flags_ = flags_;
}

void BlockCompiler::jcc(const Decoded& d) {
  need_host_flags();
  const unsigned condition = d.opcode & 15;
  const InstId id = x86::Inst::jccFromCond(static_cast<x86::CondCode>(condition));
  const FlagState before = flags_;
  if (before.zero && condition == 4) flags_.again = FlagState::Again::known; // JZ taken
  a.emit(id, exit_to(target(d), counted_[k_ + 1]));
  flags_ = before;
  if (before.zero && condition == 5) flags_.again = FlagState::Again::known; // JNZ not taken
}

// rax: a target from a register or from memory. A bad one faults before anything has changed.
void BlockCompiler::check_canonical() {
  if (!long_) return;
  a.mov(x86::rcx, x86::rax);
  a.sar(x86::rcx, 47);
  a.add(x86::rcx, 1);
  a.cmp(x86::rcx, 1);
  a.ja(slow());
}
void BlockCompiler::load_target(const Decoded& d) {
  const unsigned size = long_ ? 8 : 4;
  if (d.memory())
    a.mov(sized(0, size), address(d, size, false));
  else
    a.emit(x86::Inst::kIdMov, sized(0, size), operand(d.rm, size));
  check_canonical();
}

void BlockCompiler::jump(const Decoded& d) {
  if (!by_register_or_memory(d)) return go_to(target(d), counted_[k_ + 1], false);
  settle();
  load_target(d);
  count(counted_[k_ + 1]);
  a.jmp(x86::ptr(x86::rsp, at::INDIRECT, 8));
}

// Pushes the return address, and tells RET where it leads.
void BlockCompiler::push_return(u64 rip) {
  const unsigned size = long_ ? 8 : 4;
  const Mem top = stack_address(-static_cast<i32>(size), size, true);
  immediate64(x86::rax, rip);
  a.mov(top, sized(0, size));
  move_stack(-static_cast<i32>(size));
  static_assert(RETURN_SITES * sizeof(ReturnSite) == 256);
  a.add(x86::byte_ptr(x86::rsp, at::RETURN_TOP), static_cast<int>(sizeof(ReturnSite)));
  a.movzx(x86::ecx, x86::byte_ptr(x86::rsp, at::RETURN_TOP));
  a.mov(x86::ptr(x86::rsp, x86::rcx, 0, at::RETURNS), x86::rax);
  a.lea(x86::rax, x86::ptr(exit_to(rip, 0, true)));
  a.mov(x86::ptr(x86::rsp, x86::rcx, 0, at::RETURNS + 8), x86::rax);
}

void BlockCompiler::call(const Decoded& d) {
  settle();
  const bool indirect = by_register_or_memory(d);
  if (indirect) {
    load_target(d);
    a.mov(x86::ptr(x86::rsp, at::SCRATCH, 8), x86::rax);
  }
  const u64 back = translation_.rip + offset_[k_] + d.length;
  push_return(long_ ? back : static_cast<u32>(back));
  if (!indirect) return go_to(target(d), counted_[k_ + 1], false);
  a.mov(x86::rax, x86::ptr(x86::rsp, at::SCRATCH, 8));
  count(counted_[k_ + 1]);
  a.jmp(x86::ptr(x86::rsp, at::INDIRECT, 8));
}

void BlockCompiler::ret(const Decoded& d) {
  settle();
  const unsigned size = long_ ? 8 : 4;
  const i32 release = static_cast<i32>(size) + static_cast<i32>(d.opcode == 0xc2 ? d.imm & 0xffff : 0);
  const Label miss = a.newLabel();
  a.mov(sized(0, size), stack_address(0, size, false));
  a.movzx(x86::ecx, x86::byte_ptr(x86::rsp, at::RETURN_TOP));
  a.cmp(x86::rax, x86::ptr(x86::rsp, x86::rcx, 0, at::RETURNS, 8));
  a.jne(miss);
  move_stack(release);
  count(counted_[k_ + 1]);
  a.sub(x86::byte_ptr(x86::rsp, at::RETURN_TOP), static_cast<int>(sizeof(ReturnSite)));
  a.jmp(x86::ptr(x86::rsp, x86::rcx, 0, at::RETURNS + 8, 8));

  a.section(cold_);
  a.bind(miss);
  check_canonical();
  move_stack(release);
  count(counted_[k_ + 1]);
  a.jmp(x86::ptr(x86::rsp, at::INDIRECT, 8));
  a.section(code_.textSection());
}

// --- ways out

void BlockCompiler::count(unsigned executed) {
  if (executed != 0) a.add(x86::qword_ptr(x86::rsp, at::INSTRUCTIONS), executed);
}

Label BlockCompiler::exit_to(u64 rip, unsigned executed, bool bare) {
  const Label entry = a.newLabel();
  exit_paths_.push_back({entry, flags_, xmm_, rip, executed, bare, k_, false, borrowed_});
  return entry;
}

void BlockCompiler::go_to(u64 rip, unsigned executed, bool bare) {
  if (!long_) rip = static_cast<u32>(rip);
  exit_code({{}, flags_, xmm_, rip, executed, bare, k_, false, borrowed_});
}

// Loops go backward somewhere, or through an indirect branch: there the exit flag is looked at. And before code of
// another page, which may be what a device has just written.
void BlockCompiler::exit_code(const ExitPath& e) {
  const Label unresolved = a.newLabel();
  const bool same_page = !e.bare && ((e.rip ^ translation_.rip) >> PAGE_SHIFT) == 0;
  const u32 site = static_cast<u32>(translator_.exits_.size());
  const u16 executed = e.bare ? ExitSite::ALL : static_cast<u16>(e.index + (e.plain ? 0 : 1));
  translator_.exits_.push_back({e.rip, nullptr, nullptr, e.plain, executed});
  use_borrowed(e.borrowed);
  save_flags(e.flags);
  xmm_write_back(e.xmm);
  if (borrowed_) give_back();
  count(e.executed);
  if (!e.bare && !e.plain && (!same_page || e.rip <= translation_.rip + offset_[e.index])) {
    a.mov(x86::rcx, x86::ptr(x86::rsp, at::EXIT_FLAG, 8));
    a.cmp(x86::dword_ptr(x86::rcx), 0);
    a.jne(unresolved);
  }
  if (!same_page) {
    a.long_().mov(x86::rax, u64{0x7fff'ffff'ffff'ffff}); // no tag
    patches_.push_back({a.offset() - 8, site, true});
    a.cmp(x86::ptr(x86::rsp, at::code_tag_slot(user_, e.rip), 8), x86::rax);
    a.jne(unresolved);
  }
  a.jmp(unresolved);
  patches_.push_back({a.offset() - 4, site, false});
  a.section(cold_);
  a.bind(unresolved);
  a.mov(x86::eax, site);
  a.jmp(x86::ptr(x86::rsp, at::RESOLVE, 8));
  a.section(code_.textSection());
}

void BlockCompiler::finish_exits() {
  for (std::size_t n = 0; n < exit_paths_.size(); ++n) {
    const ExitPath e = exit_paths_[n];
    a.bind(e.entry);
    exit_code(e);
  }
}

} // namespace transom::soft
