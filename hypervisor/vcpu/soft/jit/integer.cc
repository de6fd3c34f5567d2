// Templates of integer instructions: the guest's own operation on the host's registers.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"

namespace transom::soft {

using namespace asmjit;
using Again = FlagState::Again;

namespace {

constexpr InstId ALU[8] = {x86::Inst::kIdAdd, x86::Inst::kIdOr,  x86::Inst::kIdAdc, x86::Inst::kIdSbb,
                           x86::Inst::kIdAnd, x86::Inst::kIdSub, x86::Inst::kIdXor, x86::Inst::kIdCmp};
constexpr InstId SHIFT[8] = {x86::Inst::kIdRol, x86::Inst::kIdRor, x86::Inst::kIdRcl, x86::Inst::kIdRcr,
                             x86::Inst::kIdShl, x86::Inst::kIdShr, x86::Inst::kIdShl, x86::Inst::kIdSar};
constexpr InstId BIT[4] = {x86::Inst::kIdBt, x86::Inst::kIdBts, x86::Inst::kIdBtr, x86::Inst::kIdBtc};
enum AluOp : unsigned { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP };

unsigned size_of(const Decoded& d) { return d.opcode & 1 ? d.osz : 1; }
unsigned sub(const Decoded& d) { return d.modrm >> 3 & 7; }

i64 immediate(const Decoded& d, unsigned size) {
  switch (size) {
    case 1: return static_cast<i8>(d.imm);
    case 2: return static_cast<i16>(d.imm);
    case 4: return static_cast<i32>(d.imm);
    default: return static_cast<i64>(d.imm);
  }
}

} // namespace

// 32-bit results clear the upper half, also in a slot.
template <class Op>
void BlockCompiler::to_register(unsigned guest, unsigned size, bool read, Op&& op) {
  if (pinned(guest)) return op(sized(host_[guest], size));
  if (read || size < 4) a.mov(x86::rax, slot(guest));
  op(sized(0, size));
  a.mov(slot(guest), x86::rax);
}

void BlockCompiler::mov(const Decoded& d) {
  const bool fixed = (d.opcode & 0xf0) == 0xb0; // register in the opcode
  const unsigned size = fixed ? (d.opcode < 0xb8 ? 1u : d.osz) : size_of(d);
  const bool imm = fixed || d.opcode == 0xc6 || d.opcode == 0xc7, to_reg = !imm && (d.opcode & 2);
  if (d.memory() && !fixed) {
    const Mem m = address(d, size, !to_reg);
    if (imm) {
      a.mov(m, Imm(immediate(d, size)));
    } else if (to_reg && size == 1) {
      if (d.reg % 8 == 0 && pinned(d.reg / 8)) return void(a.mov(x86::gpb(host_[d.reg / 8]), m));
      a.mov(x86::al, m);
      store_byte(d.reg, x86::al, x86::rcx);
    } else if (to_reg) {
      to_register(d.reg, size, false, [&](const Gp& r) { a.mov(r, m); });
    } else if (size == 1) {
      Operand from = byte_source(d.reg, x86::rax);
      if (from.isMem()) {
        a.emit(x86::Inst::kIdMov, x86::al, from);
        from = x86::al;
      }
      a.emit(x86::Inst::kIdMov, m, from);
    } else {
      a.mov(m, source(d.reg, size, x86::rax));
    }
    return;
  }
  const unsigned to = to_reg ? d.reg : d.rm, from = to_reg ? d.rm : d.reg;
  if (size == 1) {
    if (imm)
      a.mov(x86::eax, static_cast<u32>(d.imm & 0xff));
    else if (Operand b = byte_source(from, x86::rax); to % 8 == 0 && pinned(to / 8))
      return void(a.emit(x86::Inst::kIdMov, x86::gpb(host_[to / 8]), b));
    else if (!b.isReg() || b.as<Gp>().id() != 0)
      a.emit(x86::Inst::kIdMov, x86::al, b);
    return store_byte(to, x86::al, x86::rcx);
  }
  to_register(to, size, false, [&](const Gp& r) {
    if (!imm)
      a.emit(x86::Inst::kIdMov, r, operand(from, size));
    else if (size == 8)
      static_cast<u64>(d.imm) <= 0xffff'ffff ? a.mov(r.r32(), static_cast<u32>(d.imm)) : a.mov(r, d.imm);
    else
      a.mov(r, Imm(immediate(d, size)));
  });
}

void BlockCompiler::extend(const Decoded& d) { // MOVZX MOVSX MOVSXD
  const unsigned from = d.map == MAP_ONE ? 4 : d.opcode & 1 ? 2 : 1;
  const bool sign = d.map == MAP_ONE || d.opcode >= 0xbe;
  Operand b;
  if (d.memory())
    b = address(d, from, false);
  else
    b = from == 1 ? byte_source(d.rm, x86::rcx) : operand(d.rm, from);
  to_register(d.reg, d.osz, false, [&](const Gp& r) {
    if (from >= d.osz) {
      if (b.isMem())
        b.as<Mem>().setSize(d.osz);
      else
        b = sized(b.as<Gp>().id(), d.osz);
      a.emit(x86::Inst::kIdMov, r, b);
    } else {
      a.emit(from == 4 ? x86::Inst::kIdMovsxd : sign ? x86::Inst::kIdMovsx : x86::Inst::kIdMovzx, r, b);
    }
  });
}

void BlockCompiler::lea(const Decoded& d) {
  const auto in_register = [this](unsigned n) { return n == REG_ZERO || n == REG_RIP || pinned(n); };
  const bool direct = pinned(d.reg) && in_register(d.base) && in_register(d.index) && d.osz == 8 && d.asz == 8;
  const Gp to = direct ? x86::gpq(host_[d.reg]) : x86::gpq(1);
  effective(d, to, x86::rax, offset_[k_] + d.length);
  if (direct) return;
  to_register(d.reg, d.osz, false, [&](const Gp& r) { a.mov(r, sized(1, d.osz)); });
}

void BlockCompiler::alu(const Decoded& d) {
  const bool group = d.opcode >= 0x80;
  const unsigned op = group ? sub(d) : d.opcode >> 3;
  const unsigned size = d.opcode == 0x82 ? 1 : size_of(d);
  const bool imm = group || (d.opcode & 4), to_reg = !group && !(d.opcode & 4) && (d.opcode & 2);
  const bool reads_carry = op == ADC || op == SBB;
  const bool zero = op != ADD && !reads_carry;
  std::optional<Mem> m;
  if (d.memory()) m = address(d, size, !to_reg && op != CMP);
  if (reads_carry) need_carry();
  if (m && !to_reg) { // [m] op= register or immediate
    Operand b = Imm(immediate(d, size));
    if (!imm && size > 1) b = source(d.reg, size, x86::rax);
    if (!imm && size == 1) {
      b = byte_source(d.reg, x86::rax);
      if (b.isMem()) {
        a.emit(x86::Inst::kIdMov, x86::al, b);
        b = x86::al;
      }
    }
    if (d.lock) a.lock();
    a.emit(ALU[op], *m, b);
    return zero ? set_flags_zero() : set_flags();
  }
  const unsigned to = to_reg ? d.reg : d.rm, from = to_reg ? d.rm : d.reg;
  Operand b;
  if (m)
    b = *m;
  else if (imm)
    b = Imm(immediate(d, size));
  else
    b = size == 1 ? byte_source(from, x86::rcx) : operand(from, size);
  bool plain = true; // the operands are whole registers
  if (size > 1) {
    if (op == CMP)
      a.emit(ALU[op], source(to, size, x86::rax), b);
    else
      to_register(to, size, true, [&](const Gp& r) { a.emit(ALU[op], r, b); });
  } else if (to % 8 == 0 && pinned(to / 8)) {
    a.emit(ALU[op], x86::gpb(host_[to / 8]), b);
    plain = imm || from % 8 == 0;
  } else {
    plain = to % 8 == 0 && (imm || from % 8 == 0);
    const Operand left = byte_source(to, x86::rax);
    if (left.isMem()) a.emit(x86::Inst::kIdMov, x86::al, left);
    a.emit(ALU[op], x86::al, b);
    if (op != CMP) store_byte(to, x86::al, x86::rcx);
  }
  const u8 left = static_cast<u8>(size == 1 ? to / 8 : to), right = static_cast<u8>(size == 1 ? from / 8 : from);
  if (!plain || m || reads_carry) return zero ? set_flags_zero() : set_flags();
  const std::optional<i64> value = imm ? std::optional<i64>(immediate(d, size)) : std::nullopt;
  const u8 bytes = static_cast<u8>(size);
  if (op == CMP) return set_flags(Again::compare, bytes, left, right, value);
  if (op == AND || op == OR || op == XOR || (op == SUB && !imm && left == right))
    return set_flags(Again::logic, bytes, left);
  if (!imm && left == right) return set_flags();
  set_flags(op == ADD ? Again::add : Again::sub, bytes, left, right, value);
}

void BlockCompiler::test(const Decoded& d) {
  const bool imm = d.opcode != 0x84 && d.opcode != 0x85;
  const unsigned size = size_of(d);
  if (d.memory()) {
    const Mem m = address(d, size, false);
    if (imm)
      a.test(m, Imm(immediate(d, size)));
    else if (size > 1)
      a.test(m, source(d.reg, size, x86::rax));
    else if (const Operand b = byte_source(d.reg, x86::rax); b.isMem()) {
      a.emit(x86::Inst::kIdMov, x86::al, b);
      a.test(m, x86::al);
    } else
      a.emit(x86::Inst::kIdTest, m, b);
    return set_flags_zero();
  }
  const bool byte = size == 1;
  Operand left = byte ? byte_source(d.rm, x86::rax) : operand(d.rm, size);
  Operand right = imm ? Operand(Imm(immediate(d, size))) : byte ? byte_source(d.reg, x86::rcx) : operand(d.reg, size);
  if (left.isMem() && right.isMem()) {
    a.emit(x86::Inst::kIdMov, sized(1, size), right);
    right = sized(1, size);
  }
  if (right.isMem()) std::swap(left, right);
  a.emit(x86::Inst::kIdTest, left, right);
  if (byte && (d.rm % 8 != 0 || (!imm && d.reg % 8 != 0))) return set_flags_zero();
  const u8 x = static_cast<u8>(byte ? d.rm / 8 : d.rm), y = static_cast<u8>(byte ? d.reg / 8 : d.reg);
  if (imm) return set_flags(Again::test, static_cast<u8>(size), x, 0, immediate(d, size));
  if (x == y) return set_flags(Again::logic, static_cast<u8>(size), x);
  set_flags(Again::test, static_cast<u8>(size), x, y);
}

void BlockCompiler::unary(const Decoded& d) { // INC DEC NEG NOT
  const Effects::Kind kind = e_[k_].kind;
  const bool in_opcode = d.map == MAP_ONE && d.opcode < 0x50;
  const unsigned size = in_opcode ? d.osz : size_of(d);
  const InstId id = kind == Effects::Kind::neg                     ? x86::Inst::kIdNeg
                    : kind == Effects::Kind::not_                  ? x86::Inst::kIdNot
                    : (in_opcode ? d.opcode >= 0x48 : sub(d) == 1) ? x86::Inst::kIdDec
                                                                   : x86::Inst::kIdInc;
  std::optional<Mem> m;
  if (d.memory() && !in_opcode) m = address(d, size, true);
  // CF stays in memory for whoever wants it, if that is nobody in this block.
  const bool later =
      kind == Effects::Kind::inc_dec && needed_[k_] && !read_[k_] && flags_.memory && !m && (size > 1 || d.rm % 8 == 0);
  if (kind == Effects::Kind::inc_dec && needed_[k_] && !later) need_carry();
  if (m) {
    if (d.lock) a.lock();
    a.emit(id, *m);
  } else if (size > 1) {
    to_register(d.rm, size, true, [&](const Gp& r) { a.emit(id, r); });
  } else if (d.rm % 8 == 0) {
    a.emit(id, operand(d.rm / 8, 1));
  } else {
    a.emit(id, byte_source(d.rm, x86::rax));
    store_byte(d.rm, x86::al, x86::rcx);
  }
  if (kind == Effects::Kind::not_) return;
  set_flags();
  if (!later) return;
  flags_.host = false; // but for CF
  flags_.again = id == x86::Inst::kIdInc ? Again::inc : Again::dec;
  flags_.size = static_cast<u8>(size);
  flags_.a = static_cast<u8>(size == 1 ? d.rm / 8 : d.rm);
}

void BlockCompiler::shift(const Decoded& d) {
  const bool by_cl = (d.opcode & 0xfe) == 0xd2;
  const unsigned size = size_of(d);
  const InstId id = SHIFT[sub(d)];
  Operand count = Imm(d.imm & 0xff);
  std::optional<Mem> m;
  if (d.memory()) m = address(d, size, true);
  if (needed_[k_] && e_[k_].writes != SET_ALL) need_host_flags();
  if (by_cl) {
    if (m) {
      a.mov(x86::rax, x86::rcx);
      m->setBase(x86::rax);
    }
    load64(x86::rcx, RCX);
    count = x86::cl;
  }
  if (m)
    a.emit(id, *m, count);
  else if (size > 1)
    to_register(d.rm, size, true, [&](const Gp& r) { a.emit(id, r, count); });
  else if (d.rm % 8 == 0)
    a.emit(id, operand(d.rm / 8, 1), count);
  else {
    a.emit(id, byte_source(d.rm, x86::rax), count);
    store_byte(d.rm, x86::al, x86::rcx);
  }
  set_flags();
}

void BlockCompiler::double_shift(const Decoded& d) { // registers, both pinned
  if (needed_[k_]) need_host_flags();
  const InstId id = d.opcode < 0xa8 ? x86::Inst::kIdShld : x86::Inst::kIdShrd;
  Operand count = Imm(d.imm & 0xff);
  if (d.opcode & 1) {
    load64(x86::rcx, RCX);
    count = x86::cl;
  }
  a.emit(id, sized(host_[d.rm], d.osz), sized(host_[d.reg], d.osz), count);
  set_flags();
}

// The r/m operand, 16 bits and more.
Operand BlockCompiler::read_operand(const Decoded& d) {
  return d.memory() ? Operand(address(d, d.osz, false)) : operand(d.rm, d.osz);
}

void BlockCompiler::imul(const Decoded& d) {
  const Operand b = read_operand(d);
  if (needed_[k_]) need_host_flags();
  const bool imm = d.map == MAP_ONE;
  to_register(d.reg, d.osz, !imm, [&](const Gp& r) {
    if (imm)
      a.emit(x86::Inst::kIdImul, r, b, Imm(immediate(d, d.osz)));
    else
      a.emit(x86::Inst::kIdImul, r, b);
  });
  set_flags();
}

void BlockCompiler::mul(const Decoded& d) { // rDX:rAX = rAX * r/m, 32 and 64 bits
  const Operand b = read_operand(d);
  if (needed_[k_]) need_host_flags();
  load64(x86::rax, RAX);
  a.emit(sub(d) == 4 ? x86::Inst::kIdMul : x86::Inst::kIdImul, b);
  static_assert(PINNED[RDX] == 2);
  store64(RAX, x86::rax);
  set_flags();
}

void BlockCompiler::bit(const Decoded& d) {
  const bool imm = d.opcode == 0xba;
  const InstId id = BIT[imm ? sub(d) - 4 : d.opcode >> 3 & 3];
  std::optional<Mem> m;
  if (d.memory()) m = address(d, d.osz, id != x86::Inst::kIdBt);
  if (needed_[k_]) need_host_flags();
  const Operand index = imm ? Operand(Imm(d.imm & (8u * d.osz - 1))) : Operand(source(d.reg, d.osz, x86::rcx));
  if (m) {
    if (d.lock) a.lock();
    a.emit(id, *m, index);
  } else if (id == x86::Inst::kIdBt) {
    a.emit(id, source(d.rm, d.osz, x86::rax), index);
  } else {
    to_register(d.rm, d.osz, true, [&](const Gp& r) { a.emit(id, r, index); });
  }
  set_flags();
}

void BlockCompiler::scan(const Decoded& d) { // BSF BSR POPCNT
  const Operand b = read_operand(d);
  const bool popcnt = e_[k_].kind == Effects::Kind::popcnt;
  if (!popcnt && needed_[k_]) need_host_flags();
  const InstId id = popcnt ? x86::Inst::kIdPopcnt : d.opcode == 0xbd ? x86::Inst::kIdBsr : x86::Inst::kIdBsf;
  to_register(d.reg, d.osz, true, [&](const Gp& r) { a.emit(id, r, b); });
  set_flags();
}

void BlockCompiler::bswap(const Decoded& d) {
  to_register(d.rm, d.osz, true, [&](const Gp& r) { a.bswap(r); });
}

void BlockCompiler::xchg(const Decoded& d) {
  const bool in_opcode = (d.opcode & 0xf8) == 0x90;
  const unsigned size = in_opcode ? d.osz : size_of(d);
  if (!in_opcode && d.memory()) { // locked by itself
    const Mem m = address(d, size, true);
    if (size == 1) {
      const Operand b = byte_source(d.reg, x86::rax);
      if (!b.isReg() || b.as<Gp>().id() != 0) a.emit(x86::Inst::kIdMov, x86::al, b);
      a.xchg(m, x86::al);
      return store_byte(d.reg, x86::al, x86::rcx);
    }
    a.emit(x86::Inst::kIdMov, sized(0, size), operand(d.reg, size));
    a.xchg(m, sized(0, size));
    if (size == 2)
      a.emit(x86::Inst::kIdMov, operand(d.reg, 2), x86::ax);
    else
      store64(d.reg, x86::rax);
    return;
  }
  const unsigned x = in_opcode ? unsigned{RAX} : d.reg, y = d.rm; // 16 bits and more
  a.emit(x86::Inst::kIdMov, sized(0, size), operand(x, size));
  a.emit(x86::Inst::kIdMov, sized(1, size), operand(y, size));
  if (size == 2) {
    a.emit(x86::Inst::kIdMov, operand(x, 2), x86::cx);
    a.emit(x86::Inst::kIdMov, operand(y, 2), x86::ax);
  } else {
    store64(x, x86::rcx);
    store64(y, x86::rax);
  }
}

// The source is a pinned register, no high byte; the destination is not rAX.
void BlockCompiler::cmpxchg(const Decoded& d) {
  const unsigned size = size_of(d), from = size == 1 ? d.reg / 8u : d.reg;
  Operand to;
  if (d.memory())
    to = address(d, size, true);
  else
    to = sized(host_[size == 1 ? d.rm / 8 : d.rm], size);
  load64(x86::rax, RAX);
  if (d.lock) a.lock();
  a.emit(x86::Inst::kIdCmpxchg, to, sized(host_[from], size));
  store64(RAX, x86::rax);
  set_flags();
}

void BlockCompiler::xadd(const Decoded& d) { // with memory; no high byte
  const unsigned size = size_of(d), from = size == 1 ? d.reg / 8u : d.reg;
  const Mem m = address(d, size, true);
  load64(x86::rax, from);
  if (d.lock) a.lock();
  a.xadd(m, sized(0, size));
  store64(from, x86::rax);
  set_flags();
}

void BlockCompiler::cmov(const Decoded& d) {
  const Operand b = read_operand(d);
  need_host_flags();
  const InstId id = x86::Inst::cmovccFromCond(static_cast<x86::CondCode>(d.opcode & 15));
  to_register(d.reg, d.osz, true, [&](const Gp& r) { a.emit(id, r, b); });
}

void BlockCompiler::setcc(const Decoded& d) {
  std::optional<Mem> m;
  if (d.memory()) m = address(d, 1, true);
  need_host_flags();
  const InstId id = x86::Inst::setccFromCond(static_cast<x86::CondCode>(d.opcode & 15));
  if (m)
    a.emit(id, *m);
  else if (d.rm % 8 == 0)
    a.emit(id, operand(d.rm / 8, 1));
  else {
    a.emit(id, x86::al);
    store_byte(d.rm, x86::al, x86::rcx);
  }
}

void BlockCompiler::widen(const Decoded& d) {
  static_assert(PINNED[RAX] != NOT_PINNED && PINNED[RDX] == 2);
  const unsigned r = host_[RAX];
  if (d.opcode == 0x98) { // CBW CWDE CDQE
    if (d.osz == 8)
      a.movsxd(x86::gpq(r), x86::gpd(r));
    else
      a.emit(x86::Inst::kIdMovsx, sized(r, d.osz), sized(r, d.osz / 2u));
    return;
  }
  a.mov(x86::rax, x86::gpq(r)); // CWD CDQ CQO
  a.emit(d.osz == 8 ? x86::Inst::kIdCqo : d.osz == 4 ? x86::Inst::kIdCdq : x86::Inst::kIdCwd);
}

void BlockCompiler::carry(const Decoded& d) {
  if (needed_[k_]) need_host_flags();
  a.emit(d.opcode == 0xf5 ? x86::Inst::kIdCmc : d.opcode == 0xf8 ? x86::Inst::kIdClc : x86::Inst::kIdStc);
  set_flags();
}

} // namespace transom::soft
