// REP MOVS and REP STOS in 64-bit code, upwards and within a page on either side: the host's own instruction.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;

namespace {
x86::Mem bytes() { return x86::ptr(x86::rsp, at::SCRATCH, 8); } // of the whole instruction, at most a page
} // namespace

// rcx: the host's address of the guest's [reg], from where `bytes` bytes lie in one page that may be accessed so.
void BlockCompiler::string_address(unsigned reg, bool write) {
  const i32 tlb = at::tlb(user_);
  const i32 tag = tlb + static_cast<i32>(write ? offsetof(TlbEntry, write) : offsetof(TlbEntry, read));
  load64(x86::rcx, reg);
  a.mov(x86::eax, x86::ecx);
  a.shr(x86::eax, 7);
  a.and_(x86::eax, static_cast<int>((TLB_ENTRIES - 1) * sizeof(TlbEntry)));
  a.sub(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, tag, 8));
  a.cmp(x86::rcx, static_cast<int>(PAGE_SIZE - 1));
  a.ja(slow());
  a.add(x86::rcx, bytes());
  a.cmp(x86::rcx, static_cast<int>(PAGE_SIZE));
  a.ja(slow());
  a.sub(x86::rcx, bytes());
  a.add(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, tlb + static_cast<i32>(offsetof(TlbEntry, host)), 8));
}

void BlockCompiler::repeat_string(const Decoded& d) {
  static_assert(PINNED[RDI] == 7 && PINNED[RSI] == 6 && PINNED[RCX] != NOT_PINNED);
  const unsigned size = d.opcode & 1 ? d.osz : 1;
  const bool move = d.opcode < 0xa6;
  const Label done = a.newLabel();
  a.test(x86::dword_ptr(x86::rsp, at::RFLAGS), static_cast<i32>(FLAG_DF));
  a.jnz(slow());
  load64(x86::rax, RCX);
  a.test(x86::rax, x86::rax);
  a.jz(done);
  a.cmp(x86::rax, static_cast<int>(PAGE_SIZE / size));
  a.ja(slow());
  if (size > 1) a.shl(x86::eax, __builtin_ctz(size));
  a.mov(bytes(), x86::rax);
  string_address(RDI, true);
  if (move) {
    a.mov(x86::ptr(x86::rsp, at::SECOND_SCRATCH, 8), x86::rcx);
    string_address(RSI, false);
    a.mov(slot(RSI), x86::rsi);
    a.mov(slot(RDI), x86::rdi);
    a.mov(x86::rsi, x86::rcx);
    a.mov(x86::rdi, x86::ptr(x86::rsp, at::SECOND_SCRATCH, 8));
  } else {
    a.mov(slot(RDI), x86::rdi);
    a.mov(x86::rdi, x86::rcx);
    load64(x86::rax, RAX);
  }
  load64(x86::rcx, RCX);
  u8 code[4] = {0xf3};
  unsigned n = 1;
  if (size == 2) code[n++] = 0x66;
  if (size == 8) code[n++] = 0x48;
  code[n++] = static_cast<u8>((move ? 0xa4 : 0xaa) | (size > 1));
  a.embed(code, n);
  a.mov(x86::rdi, slot(RDI));
  a.add(x86::rdi, bytes());
  if (move) {
    a.mov(x86::rsi, slot(RSI));
    a.add(x86::rsi, bytes());
  }
  a.xor_(x86::ecx, x86::ecx);
  store64(RCX, x86::rcx);
  a.bind(done);
}

} // namespace transom::soft
