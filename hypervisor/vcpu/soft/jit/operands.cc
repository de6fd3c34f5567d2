// Guest registers and memory as operands of the host's instructions.
#include <bit>

#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;

x86::Mem BlockCompiler::slot(unsigned guest, unsigned size) { return x86::ptr(x86::rsp, at::gpr(guest), size); }

x86::Gp BlockCompiler::sized(unsigned host, unsigned size) {
  switch (size) {
    case 1: return x86::gpb(host);
    case 2: return x86::gpw(host);
    case 4: return x86::gpd(host);
    default: return x86::gpq(host);
  }
}

Operand BlockCompiler::operand(unsigned guest, unsigned size) {
  return pinned(guest) ? Operand(sized(host_[guest], size)) : Operand(slot(guest, size));
}

x86::Gp BlockCompiler::source(unsigned guest, unsigned size, const Gp& scratch) {
  if (pinned(guest)) return sized(host_[guest], size);
  const Gp to = sized(scratch.id(), size);
  a.mov(to, slot(guest, size));
  return to;
}

void BlockCompiler::load64(const Gp& to, unsigned guest) {
  if (pinned(guest))
    a.mov(to, x86::gpq(host_[guest]));
  else
    a.mov(to, slot(guest));
}
void BlockCompiler::store64(unsigned guest, const Gp& from) {
  if (pinned(guest))
    a.mov(x86::gpq(host_[guest]), from);
  else
    a.mov(slot(guest), from);
}

// A high byte is copied: only four host registers have one, and not beside a REX prefix.
Operand BlockCompiler::byte_source(unsigned offset, const Gp& scratch) {
  const unsigned guest = offset / 8;
  if (offset % 8 == 0) return operand(guest, 1);
  a.mov(x86::gpd(scratch.id()), x86::gpd(host_[guest])); // rax rcx rdx rbx: all pinned
  a.movzx(x86::gpd(scratch.id()), x86::gpb_hi(scratch.id()));
  return x86::gpb(scratch.id());
}

void BlockCompiler::store_byte(unsigned offset, const Gp& value, const Gp& scratch) {
  const unsigned guest = offset / 8;
  if (offset % 8 == 0) {
    if (pinned(guest))
      a.mov(x86::gpb(host_[guest]), value);
    else
      a.mov(slot(guest, 1), value);
    return;
  }
  a.mov(x86::gpq(scratch.id()), x86::gpq(host_[guest]));
  a.mov(x86::gpb_hi(scratch.id()), value);
  a.mov(x86::gpq(host_[guest]), x86::gpq(scratch.id()));
}

void BlockCompiler::immediate64(const Gp& to, u64 value) {
  if (value <= 0xffff'ffff)
    a.mov(to.r32(), static_cast<u32>(value));
  else
    a.mov(to.r64(), value);
}

// --- addresses

// Behind the slow path of an instruction that opens a group, the group would not be open.
Label BlockCompiler::slow() {
  if (operand_[k_].opens || stack_[k_].opens) return plain_exit();
  if (!slow_) slow_ = a.newLabel();
  return *slow_;
}

// base + index * scale + displacement into `to`; no flag changes. `rip_after`: offset of the following instruction.
void BlockCompiler::effective(const Decoded& d, const Gp& to, const Gp& scratch, unsigned rip_after) {
  const bool wide = d.asz == 8;
  const Gp result = sized(to.id(), wide ? 8 : 4);
  if (d.rip_relative) {
    const u64 at = translation_.rip + rip_after + static_cast<u64>(static_cast<i64>(d.disp));
    return immediate64(to, wide ? at : static_cast<u32>(at));
  }
  const bool has_base = d.base != REG_ZERO, has_index = d.index != REG_ZERO;
  if (!has_base && !has_index) {
    const u64 at = static_cast<u64>(static_cast<i64>(d.disp));
    return immediate64(to, wide ? at : static_cast<u32>(at));
  }
  Gp base, index;
  if (has_index) index = source(d.index, 8, has_base ? scratch : to);
  if (has_base) base = source(d.base, 8, to);
  if (has_base && has_index)
    a.lea(result, x86::ptr(base, index, d.scale, d.disp));
  else if (has_index)
    a.lea(result, x86::ptr(static_cast<u64>(static_cast<i64>(d.disp)), index, d.scale));
  else if (d.disp != 0)
    a.lea(result, x86::ptr(base, d.disp));
  else if (base.id() != to.id() || !wide)
    a.mov(result, sized(base.id(), wide ? 8 : 4));
}

x86::Mem BlockCompiler::address(const Decoded& d, unsigned size, bool write, bool aligned) {
  const unsigned after = offset_[k_] + d.length;
  if (operand_[k_].slot >= 0 && !aligned) return noted(grouped(operand_[k_], d.base, d.disp, size), size, write);
  const bool constant = d.rip_relative || (d.base == REG_ZERO && d.index == REG_ZERO);
  if (constant && d.segment < FS) {
    u64 at = static_cast<u64>(static_cast<i64>(d.disp));
    if (d.rip_relative) at += translation_.rip + after;
    if (d.asz == 4) at = static_cast<u32>(at);
    return constant_address(at, size, write, aligned);
  }
  effective(d, x86::rcx, x86::rax, after);
  if (d.segment >= FS) a.add(x86::rcx, x86::ptr(x86::rsp, at::segment_base(d.segment), 8));
  return checked(size, write, aligned);
}

x86::Mem BlockCompiler::stack_address(i32 displacement, unsigned size, bool write) {
  if (stack_[k_].slot >= 0) return noted(grouped(stack_[k_], RSP, displacement, size), size, write);
  const Gp sp = x86::gpq(host_[RSP]);
  a.lea(sized(1, long_ ? 8 : 4), x86::ptr(sp, displacement));
  return checked(size, write, false);
}

// Tlb: the entry's tag and one compare answer for page, rights and crossing (memory.hpp).
x86::Mem BlockCompiler::checked(unsigned size, bool write, bool aligned) {
  const i32 tlb = at::tlb(user_);
  if (aligned) {
    a.test(x86::cl, static_cast<int>(size - 1));
    a.jnz(slow());
  }
  a.mov(x86::eax, x86::ecx);
  a.shr(x86::eax, 7);
  static_assert(sizeof(TlbEntry) == 32);
  a.and_(x86::eax, static_cast<int>((TLB_ENTRIES - 1) * sizeof(TlbEntry)));
  a.sub(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0,
                           tlb + static_cast<i32>(write ? offsetof(TlbEntry, write) : offsetof(TlbEntry, read)), 8));
  a.cmp(x86::rcx, static_cast<int>(PAGE_SIZE - size));
  a.ja(slow());
  a.add(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, tlb + static_cast<i32>(offsetof(TlbEntry, host)), 8));
  return noted(x86::ptr(x86::rcx, 0, size), size, write);
}

x86::Mem BlockCompiler::constant_address(u64 linear, unsigned size, bool write, bool aligned) {
  const u64 page = linear & PAGE_MASK, offset = linear % PAGE_SIZE;
  const i32 entry = at::tlb(user_) + static_cast<i32>((linear >> PAGE_SHIFT) % TLB_ENTRIES * sizeof(TlbEntry));
  const i32 tag = entry + static_cast<i32>(write ? offsetof(TlbEntry, write) : offsetof(TlbEntry, read));
  if (offset + size > PAGE_SIZE || (aligned && offset % size != 0)) {
    a.jmp(slow());
  } else if (page == static_cast<u64>(static_cast<i64>(static_cast<i32>(page)))) {
    a.cmp(x86::ptr(x86::rsp, tag, 8), static_cast<i32>(page));
    a.jne(slow());
  } else {
    immediate64(x86::rcx, page);
    a.cmp(x86::ptr(x86::rsp, tag, 8), x86::rcx);
    a.jne(slow());
  }
  a.mov(x86::rcx, x86::ptr(x86::rsp, entry + static_cast<i32>(offsetof(TlbEntry, host)), 8));
  return noted(x86::ptr(x86::rcx, static_cast<i32>(offset), size), size, write);
}

// Flags stay as they are, and so do all registers but rax.
x86::Mem BlockCompiler::noted(const Mem& m, unsigned size, bool write) {
  if (translator_.checker_ == nullptr) return m;
  Mem address = m;
  address.setSize(8);
  a.lea(x86::rax, address);
  a.mov(x86::qword_ptr(x86::rsp, at::NOTE_WHAT), static_cast<int>(size | (write ? JournalEntry::STORE : 0)));
  a.call(x86::ptr(x86::rsp, at::NOTE + 8 * std::countr_zero(size), 8));
  return m;
}

} // namespace transom::soft
