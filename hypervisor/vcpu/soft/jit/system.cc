// Templates of instructions that keep more than arithmetic flags in RFLAGS: CLI STI PUSHF POPF, in flat code alone.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;

namespace {
x86::Mem rflags() { return x86::dword_ptr(x86::rsp, at::RFLAGS); }
constexpr u32 STAYS_IN_RFLAGS = static_cast<u32>(FLAGS_DEFINED & ~FLAGS_ARITHMETIC);
} // namespace

// Any CPL but 0 is the handler's: IOPL decides.
void BlockCompiler::cli(const Decoded&) {
  a.cmp(x86::byte_ptr(x86::rsp, at::CPL), 0);
  a.jne(slow());
  a.and_(rflags(), static_cast<i32>(~static_cast<u32>(FLAG_IF)));
}

// An instruction of the same block follows, and nobody looks before it is done: that is the shadow.
void BlockCompiler::sti(const Decoded&) {
  const Label done = a.newLabel();
  a.cmp(x86::byte_ptr(x86::rsp, at::CPL), 0);
  a.jne(slow());
  a.test(rflags(), static_cast<i32>(FLAG_IF));
  a.jnz(done);
  a.cmp(x86::byte_ptr(x86::rsp, at::QUIET), 0);
  a.je(slow());
  a.or_(rflags(), static_cast<i32>(FLAG_IF));
  a.bind(done);
}

void BlockCompiler::pushf(const Decoded&) {
  save_flags(flags_);
  flags_.memory = true;
  flags_.host = false;                                   // what follows computes
  a.movzx(x86::eax, x86::word_ptr(x86::rsp, at::FLAGS)); // SF ZF 0 AF 0 PF 1 CF in 15:8, OF in 0
  a.mov(x86::ecx, x86::eax);
  a.shr(x86::ecx, 8);
  a.and_(x86::ecx, 0xd5);
  a.and_(x86::eax, 1);
  a.shl(x86::eax, 11);
  a.lea(x86::eax, x86::ptr(x86::rax, x86::rcx, 0, 2));
  a.mov(x86::ecx, rflags());
  a.and_(x86::ecx, static_cast<i32>(STAYS_IN_RFLAGS & ~static_cast<u32>(FLAG_VM | FLAG_RF)));
  a.or_(x86::eax, x86::ecx);
  a.mov(x86::ptr(x86::rsp, at::SCRATCH, 8), x86::rax);
  const unsigned size = long_ ? 8 : 4;
  const Mem top = stack_address(-static_cast<i32>(size), size, true);
  a.mov(x86::rax, x86::ptr(x86::rsp, at::SCRATCH, 8));
  a.mov(top, sized(0, size));
  move_stack(-static_cast<i32>(size));
}

// Only arithmetic flags and IF may change here, and IF must not meet somebody who waits for it.
void BlockCompiler::popf(const Decoded&) {
  const unsigned size = long_ ? 8 : 4;
  const Label same_if = a.newLabel();
  a.cmp(x86::byte_ptr(x86::rsp, at::CPL), 0);
  a.jne(slow());
  Mem top = stack_address(0, size, false);
  top.setSize(4); // what is above is reserved
  a.mov(x86::ecx, top);
  a.mov(x86::eax, x86::ecx);
  a.xor_(x86::eax, rflags());
  a.test(x86::eax, static_cast<i32>(STAYS_IN_RFLAGS & ~static_cast<u32>(FLAG_IF | FLAG_RF)));
  a.jnz(slow());
  a.test(x86::dword_ptr(x86::rsp, at::RFLAGS), static_cast<i32>(FLAG_RF));
  a.jnz(slow());
  a.test(x86::eax, static_cast<i32>(FLAG_IF));
  a.jz(same_if);
  a.cmp(x86::byte_ptr(x86::rsp, at::QUIET), 0);
  a.je(slow());
  a.xor_(rflags(), static_cast<i32>(FLAG_IF));
  a.bind(same_if);
  a.mov(x86::eax, x86::ecx); // to where LAHF and SETO would have put them
  a.shl(x86::ecx, 8);
  a.shr(x86::eax, 11);
  a.and_(x86::ecx, 0xd500);
  a.and_(x86::eax, 1);
  a.lea(x86::eax, x86::ptr(x86::rax, x86::rcx, 0, 0x200));
  a.mov(x86::word_ptr(x86::rsp, at::FLAGS), x86::ax);
  move_stack(static_cast<i32>(size));
  flags_ = {};
  flags_set_ = true;
}

} // namespace transom::soft
