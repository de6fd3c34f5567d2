// Three guest registers have no host register (registers.hpp). A block that works with them and leaves others alone
// borrows theirs: the owner waits in its slot.
#include <algorithm>

#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using Kind = Effects::Kind;

namespace {

constexpr unsigned WORTH = 4; // uses; a borrow costs four accesses of memory

// Registers that an instruction may name or imply; a few more do no harm.
u32 mentioned(const Decoded& d, const Effects& e) {
  u32 mask = e.registers;
  const auto add = [&](unsigned n) {
    if (n < 16) mask |= 1u << n;
  };
  add(d.base);
  add(d.index);
  add(d.reg);
  add(d.reg / 8u); // byte registers are offsets
  if (!d.memory()) {
    add(d.rm);
    add(d.rm / 8u);
  }
  switch (e.kind) {
    case Kind::push:
    case Kind::pop:
    case Kind::pushf:
    case Kind::popf:
    case Kind::call:
    case Kind::ret: add(RSP); break;
    case Kind::leave_frame:
      add(RSP);
      add(RBP);
      break;
    case Kind::mul:
    case Kind::widen:
    case Kind::widen_pair:
      add(RAX);
      add(RDX);
      break;
    case Kind::cmpxchg:
    case Kind::repeat_string: add(RAX); break;
    case Kind::shift:
    case Kind::double_shift: add(RCX); break;
    default: break;
  }
  return mask;
}

} // namespace

void BlockCompiler::find_borrows() {
  unsigned uses[16] = {};
  for (unsigned k = 0; k < count_; ++k) {
    if (e_[k].kind == Kind::none || e_[k].kind == Kind::leave) continue; // they work on the slots
    const u32 mask = mentioned(d_[k], e_[k]);
    for (unsigned n = 0; n < 16; ++n) uses[n] += mask >> n & 1;
  }
  for (u8 guest = 0; guest < 16; ++guest) {
    if (PINNED[guest] != NOT_PINNED || uses[guest] < WORTH) continue;
    for (u8 owner = 0; owner < 16; ++owner) {
      if (PINNED[owner] == NOT_PINNED || uses[owner] != 0 || owner == RSP) continue;
      borrows_.push_back({guest, owner, PINNED[owner]});
      uses[owner] = 1; // once
      break;
    }
  }
}

void BlockCompiler::use_borrowed(bool borrowed) {
  borrowed_ = borrowed;
  std::copy(std::begin(PINNED), std::end(PINNED), host_);
  if (!borrowed) return;
  for (const Borrow& b : borrows_) {
    host_[b.owner] = NOT_PINNED;
    host_[b.guest] = b.host;
  }
}

void BlockCompiler::borrow() {
  for (const Borrow& b : borrows_) a.mov(slot(b.owner), asmjit::x86::gpq(b.host));
  borrow_again();
  use_borrowed(true);
}
void BlockCompiler::borrow_again() {
  for (const Borrow& b : borrows_) a.mov(asmjit::x86::gpq(b.host), slot(b.guest));
}
void BlockCompiler::give_back() {
  for (const Borrow& b : borrows_) {
    a.mov(slot(b.guest), asmjit::x86::gpq(b.host));
    a.mov(asmjit::x86::gpq(b.host), slot(b.owner));
  }
}

} // namespace transom::soft
