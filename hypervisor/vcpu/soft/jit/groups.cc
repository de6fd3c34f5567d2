// Memory operands that one look at the TLB answers for.
//
// What a block reaches through one register, at distances known when it is compiled (fields of a structure, pushes and
// pops), mostly lies in one page. The first of such accesses checks the whole range and keeps host − linear in a slot;
// the others need no check, so they cannot fault, and the flags before them need not be saved. If the range does not
// lie in one page, or is not in the TLB, the rest of the block runs as a translation without groups.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;
using Kind = Effects::Kind;

namespace {

constexpr i32 MOST_BYTES_OF_GROUP = 256; // a range of n bytes crosses a page's end in n of 4096 places

u8 log2_width(const Decoded& d) { return d.opcode & 1 ? d.osz : 1; }

// Bytes of the ModRM memory operand, and whether it is written; 0: not for a group.
struct Operand {
  u8 size = 0;
  bool write = false;
};
Operand operand_of(const Decoded& d, Kind kind) {
  if (!d.memory()) return {};
  const u8 op = d.opcode, sub = d.modrm >> 3 & 7;
  switch (kind) {
    case Kind::mov: return {log2_width(d), op != 0x8a && op != 0x8b};
    case Kind::extend: return {static_cast<u8>(d.map == MAP_ONE ? 4 : op & 1 ? 2 : 1), false};
    case Kind::alu: {
      const bool group = op >= 0x80, compare = group ? sub == 7 : op >> 3 == 7;
      const bool to_register = !group && (op & 2);
      return {op == 0x82 ? u8{1} : log2_width(d), !compare && !to_register};
    }
    case Kind::test: return {log2_width(d), false};
    case Kind::inc_dec:
    case Kind::neg:
    case Kind::not_:
    case Kind::shift:
    case Kind::xchg:
    case Kind::cmpxchg:
    case Kind::xadd: return {log2_width(d), true};
    case Kind::imul:
    case Kind::mul:
    case Kind::scan:
    case Kind::popcnt:
    case Kind::cmov: return {d.osz, false};
    case Kind::bit: return {d.osz, sub != 4};
    case Kind::setcc: return {1, true};
    case Kind::push:
    case Kind::jump:
    case Kind::call: return {8, false};
    default: return {};
  }
}

// What the instruction adds to a register; false: it does something else to it.
bool known_change(const Decoded& d, Kind kind, unsigned reg, i32& change) {
  switch (kind) {
    case Kind::push:
    case Kind::pushf:
    case Kind::call: change = -8; return reg == RSP;
    case Kind::popf: change = 8; return reg == RSP;
    case Kind::pop: change = 8; return reg == RSP && d.rm != RSP;
    case Kind::lea: change = d.disp; return d.base == reg && d.index == REG_ZERO && d.osz == 8 && d.asz == 8;
    case Kind::alu: {
      const bool group = d.opcode == 0x81 || d.opcode == 0x83, accumulator = d.opcode == 0x05 || d.opcode == 0x2d;
      const unsigned op = group ? d.modrm >> 3 & 7u : d.opcode >> 3;
      if (!(group || accumulator) || d.osz != 8 || (op != 0 && op != 5)) return false;
      const i64 value = static_cast<i64>(d.imm);
      if (value < -4096 || value > 4096) return false;
      change = static_cast<i32>(op == 0 ? value : -value);
      return true;
    }
    default: return false;
  }
}

} // namespace

void BlockCompiler::find_groups() {
  if (!long_ || translation_.plain) return;
  struct Open { // the group of a register's present value
    i32 offset = 0;
    std::vector<Access*> members;
    std::vector<i32> at;
    std::vector<u8> size;
    bool write = false;
    i32 low = 0, high = 0;
  };
  Open open[16];
  unsigned groups = 0;
  const auto close = [&](Open& o) {
    if (o.members.size() >= 2 && groups < GROUPS) {
      for (std::size_t n = 0; n < o.members.size(); ++n)
        *o.members[n] = {static_cast<i8>(groups), n == 0, o.write, o.low - o.at[n], static_cast<u16>(o.high - o.low)};
      ++groups;
    }
    o = {};
  };
  const auto access = [&](Access& which, unsigned reg, i32 disp, u8 size, bool write) {
    Open& o = open[reg];
    const i32 at = o.offset + disp;
    const bool fits = o.members.empty() || std::max(o.high, at + size) - std::min(o.low, at) <= MOST_BYTES_OF_GROUP;
    if (!fits) {
      const i32 offset = o.offset;
      close(o);
      o.offset = offset;
    }
    if (o.members.empty()) {
      o.low = at;
      o.high = at + size;
    }
    o.low = std::min(o.low, at);
    o.high = std::max(o.high, at + size);
    o.write |= write;
    o.members.push_back(&which);
    o.at.push_back(at - disp); // the register's own value, relative to the group's
    o.size.push_back(size);
  };
  for (unsigned k = 0; k < count_; ++k) {
    const Decoded& d = d_[k];
    const Effects& e = e_[k];
    if (e.kind == Kind::none || e.kind == Kind::leave) {
      for (Open& o : open) close(o);
      continue;
    }
    const bool plain = d.base < 16 && d.index == REG_ZERO && d.asz == 8 && d.segment < FS;
    if (const Operand o = operand_of(d, e.kind); o.size != 0 && plain)
      access(operand_[k], d.base, d.disp, o.size, o.write);
    if (e.kind == Kind::leave_frame) access(operand_[k], RBP, 0, 8, false);
    if (e.kind == Kind::push || e.kind == Kind::pushf || e.kind == Kind::call) access(stack_[k], RSP, -8, 8, true);
    if (e.kind == Kind::pop || e.kind == Kind::popf || e.kind == Kind::ret) access(stack_[k], RSP, 0, 8, false);
    for (unsigned n = 0; n < 16; ++n) {
      if (!(e.registers >> n & 1)) continue;
      i32 change = 0;
      if (known_change(d, e.kind, n, change))
        open[n].offset += change;
      else
        close(open[n]);
    }
  }
  for (Open& o : open) close(o);
  for (unsigned k = 0; k < count_; ++k) only_members(k);
}

// An instruction whose memory operands all need no check has no slow path.
void BlockCompiler::only_members(unsigned k) {
  const Kind kind = e_[k].kind;
  const bool stack = kind == Kind::push || kind == Kind::pop || kind == Kind::pushf;
  const bool leaves = kind == Kind::call || kind == Kind::ret || kind == Kind::jump;
  const bool others =
      kind == Kind::sse || kind == Kind::cli || kind == Kind::sti || kind == Kind::popf || kind == Kind::repeat_string;
  if (!e_[k].memory || leaves || others) return;
  const bool operand = d_[k].memory() || kind == Kind::leave_frame;
  const auto checked = [](const Access& access) { return access.slot < 0 || access.opens; };
  if ((operand && checked(operand_[k])) || (stack && checked(stack_[k]))) return;
  e_[k].memory = false;
}

x86::Mem BlockCompiler::grouped(const Access& access, unsigned reg, i32 disp, unsigned size) {
  const i32 slot_at = at::GROUPS + 8 * access.slot;
  const Gp base = source(reg, 8, x86::rax);
  if (access.opens) {
    const i32 tlb = at::tlb(user_);
    const i32 tag = tlb + static_cast<i32>(access.write ? offsetof(TlbEntry, write) : offsetof(TlbEntry, read));
    a.lea(x86::rcx, x86::ptr(base, access.low));
    a.mov(x86::eax, x86::ecx);
    a.shr(x86::eax, 7);
    a.and_(x86::eax, static_cast<int>((TLB_ENTRIES - 1) * sizeof(TlbEntry)));
    a.sub(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, tag, 8));
    a.cmp(x86::rcx, static_cast<int>(PAGE_SIZE) - access.range);
    a.ja(plain_exit());
    a.mov(x86::rcx, x86::ptr(x86::rsp, x86::rax, 0, tlb + static_cast<i32>(offsetof(TlbEntry, addend)), 8));
    a.mov(x86::ptr(x86::rsp, slot_at, 8), x86::rcx);
  } else {
    a.mov(x86::rcx, x86::ptr(x86::rsp, slot_at, 8));
  }
  if (pinned(reg)) return x86::ptr(x86::rcx, base, 0, disp, size);
  a.mov(x86::rax, slot(reg));
  a.lea(x86::rcx, x86::ptr(x86::rcx, x86::rax, 0, disp));
  return x86::ptr(x86::rcx, 0, size);
}

// To the same instruction in a translation without groups.
Label BlockCompiler::plain_exit() {
  if (plain_exit_) return *plain_exit_;
  FlagState before = flags_;
  before.host = false;
  const Label entry = a.newLabel();
  plain_exit_ = entry;
  exit_paths_.push_back(
      {entry, before, xmm_, translation_.rip + offset_[k_], counted_[k_], false, k_, true, borrowed_});
  return entry;
}

} // namespace transom::soft
