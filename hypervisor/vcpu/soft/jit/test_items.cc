// Random programs: the instructions between the events.
#include <array>

#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/jit/test_program.hpp"

namespace transom::soft {

using namespace asmjit;
using namespace place;
using I = x86::Inst::Id;

// --- operands. RSP is the stack's, RBX points to the data.

unsigned ProgramBuilder::free_register() {
  static constexpr u8 FREE[] = {RAX, RCX, RDX, RBP, RSI, RDI, 8, 9, 10, 11, 12, 13, 14, 15};
  return FREE[below(long_ ? 14 : 6)];
}

x86::Gp ProgramBuilder::reg(unsigned n, unsigned size) const {
  switch (size) {
    case 1: return x86::gpb(n);
    case 2: return x86::gpw(n);
    case 4: return x86::gpd(n);
    default: return x86::gpq(n);
  }
}

x86::Gp ProgramBuilder::random_reg(unsigned size) {
  if (size > 1 || long_) return reg(free_register(), size);
  const unsigned n = static_cast<unsigned>(below(3)); // AL CL DL, AH CH DH
  return percent(50) ? Gp(x86::gpb_lo(n)) : Gp(x86::gpb_hi(n));
}

x86::Mem ProgramBuilder::variable(u64 at, unsigned size) const {
  Mem m = x86::ptr(at, size);
  m.setAddrType(Mem::AddrType::kAbs);
  return m;
}

// Somewhere in the data, through every kind of address; now and then across the end of a page.
x86::Mem ProgramBuilder::memory(unsigned size) {
  const i32 disp = percent(6) ? static_cast<i32>(0xf00 - below(8)) : static_cast<i32>(below(0x2c00));
  Mem m;
  switch (below(6)) {
    case 0: m = x86::ptr(DATA + 0x100 + static_cast<u64>(disp), size); break; // relative to RIP where it can be
    case 1: m = variable(DATA + 0x100 + static_cast<u64>(disp) + (percent(50) ? ALIAS : BIG), size); break;
    case 2: {
      const unsigned index = free_register(), from = long_ ? index : static_cast<unsigned>(below(3));
      a_->movzx(reg(index, 4), reg(from, 1));
      m = x86::ptr(reg(RBX, word()), reg(index, word()), static_cast<u32>(below(4)), disp, size);
      break;
    }
    case 3: {
      const unsigned base = free_register();
      a_->lea(reg(base, word()), x86::ptr(reg(RBX, word()), disp));
      m = x86::ptr(reg(base, word()), static_cast<i32>(below(32)), size);
      break;
    }
    case 4: m = x86::ptr(x86::ebx, disp, size); break;
    default: m = x86::ptr(reg(RBX, word()), disp, size);
  }
  if (long_ && percent(5)) {
    m = variable(u64{0x100} + static_cast<u64>(disp), size);
    m.setSegment(x86::gs);
  }
  return m;
}

Operand ProgramBuilder::register_or_memory(unsigned size) {
  return percent(40) ? Operand(memory(size)) : Operand(random_reg(size));
}

// --- instructions

void ProgramBuilder::binary() {
  static constexpr I OPS[] = {I::kIdAdd, I::kIdOr,  I::kIdAdc, I::kIdSbb,  I::kIdAnd, I::kIdSub,
                              I::kIdXor, I::kIdCmp, I::kIdCmp, I::kIdTest, I::kIdTest};
  const I op = OPS[below(11)];
  const unsigned size = random_size();
  const Operand to = register_or_memory(size);
  if (percent(30)) {
    const i64 value = percent(50) ? static_cast<i8>(random_()) : static_cast<i32>(random_());
    a_->emit(op, to, Imm(size == 1 ? static_cast<i8>(value) : size == 2 ? static_cast<i16>(value) : value));
  } else if (to.isReg() && op != I::kIdTest && percent(35)) {
    const Mem m = memory(size);
    a_->emit(op, to, m);
  } else {
    const bool locked = to.isMem() && op != I::kIdCmp && op != I::kIdTest && percent(20);
    if (locked) a_->lock();
    a_->emit(op, to, random_reg(size));
  }
}

void ProgramBuilder::unary() {
  static constexpr I OPS[] = {I::kIdInc, I::kIdDec, I::kIdNeg, I::kIdNot};
  const Operand to = register_or_memory(random_size());
  if (to.isMem() && percent(20)) a_->lock();
  a_->emit(OPS[below(4)], to);
}

void ProgramBuilder::shift() {
  static constexpr I OPS[] = {I::kIdShl, I::kIdShr, I::kIdSar, I::kIdRol, I::kIdRor, I::kIdRcl, I::kIdRcr};
  if (percent(20)) {
    const unsigned size = long_ && percent(50) ? 8 : 4;
    const Gp to = random_reg(size), from = random_reg(size);
    const I op = percent(50) ? I::kIdShld : I::kIdShrd;
    percent(50) ? a_->emit(op, to, from, Imm(below(32))) : a_->emit(op, to, from, x86::cl);
    return;
  }
  const Operand to = register_or_memory(random_size());
  const I op = OPS[below(7)];
  percent(60) ? a_->emit(op, to, Imm(below(64))) : a_->emit(op, to, x86::cl);
}

void ProgramBuilder::multiply() {
  const unsigned size = long_ && percent(50) ? 8 : percent(30) ? 2 : 4;
  switch (below(4)) {
    case 0: {
      const Operand from = register_or_memory(size);
      a_->emit(I::kIdImul, random_reg(size), from);
      break;
    }
    case 1: {
      const Operand from = register_or_memory(size);
      a_->emit(I::kIdImul, random_reg(size), from, Imm(static_cast<i8>(random_())));
      break;
    }
    default: {
      const Operand from = register_or_memory(size);
      const I op = percent(50) ? I::kIdMul : I::kIdImul;
      a_->emit(op, from);
    }
  }
}

void ProgramBuilder::bits() {
  static constexpr I OPS[] = {I::kIdBt, I::kIdBts, I::kIdBtr, I::kIdBtc};
  const unsigned size = long_ && percent(50) ? 8 : 4;
  switch (below(4)) {
    case 0: a_->emit(OPS[below(4)], register_or_memory(size), Imm(below(8 * size))); break;
    case 1: a_->emit(OPS[below(4)], random_reg(size), random_reg(size)); break;
    case 2: {
      const Operand from = register_or_memory(size);
      a_->emit(percent(50) ? I::kIdBsf : I::kIdBsr, random_reg(size), from);
      break;
    }
    default: a_->bswap(random_reg(size));
  }
}

void ProgramBuilder::moves() {
  const unsigned size = random_size();
  switch (below(6)) {
    case 0: {
      const Mem m = memory(size);
      a_->mov(random_reg(size), m);
      break;
    }
    case 1: {
      const Mem m = memory(size);
      a_->mov(m, random_reg(size));
      break;
    }
    case 2: a_->mov(random_reg(size), random_reg(size)); break;
    case 3: a_->mov(random_reg(4), static_cast<i32>(random_())); break;
    case 4: {
      const unsigned from = 1u << below(2);
      const Operand source = register_or_memory(from);
      a_->emit(percent(50) ? I::kIdMovzx : I::kIdMovsx, reg(free_register(), 4), source);
      break;
    }
    default:
      a_->lea(reg(free_register(), word()), x86::ptr(reg(free_register(), word()), reg(free_register(), word()),
                                                     static_cast<u32>(below(4)), static_cast<i32>(random_())));
  }
}

void ProgramBuilder::exchanges() {
  const unsigned size = random_size();
  const Operand to = register_or_memory(size);
  if (to.isMem() && percent(50)) a_->lock();
  switch (below(3)) {
    case 0: a_->emit(I::kIdXchg, to, random_reg(size)); break;
    case 1: a_->emit(I::kIdXadd, to, random_reg(size)); break;
    default: a_->emit(I::kIdCmpxchg, to, random_reg(size));
  }
}

// Who looks at flags without leaving the block.
void ProgramBuilder::conditional() {
  const auto cc = static_cast<x86::CondCode>(below(16));
  switch (below(5)) {
    case 0: {
      const Operand to = register_or_memory(1);
      a_->emit(x86::Inst::setccFromCond(cc), to);
      break;
    }
    case 1: {
      const unsigned size = percent(20) ? 2 : long_ && percent(50) ? 8 : 4;
      const Operand from = register_or_memory(size);
      a_->emit(x86::Inst::cmovccFromCond(cc), random_reg(size), from);
      break;
    }
    case 2: percent(50) ? a_->cmc() : percent(50) ? a_->stc() : a_->clc(); break;
    case 3: percent(50) ? a_->lahf() : a_->sahf(); break;
    default: percent(50) ? a_->cdq() : percent(50) ? a_->cwde() : a_->cbw();
  }
}

void ProgramBuilder::stack() {
  switch (below(5)) {
    case 0:
      a_->push(reg(free_register(), word()));
      a_->emit(I::kIdPop, percent(70) ? Operand(reg(free_register(), word())) : Operand(memory(word())));
      break;
    case 1:
      a_->emit(I::kIdPush, memory(word()));
      a_->pop(reg(free_register(), word()));
      break;
    case 2:
      a_->push(static_cast<i32>(random_()));
      a_->pop(reg(free_register(), word()));
      break;
    case 3:
      long_ ? a_->pushfq() : a_->pushfd();
      a_->pop(reg(free_register(), word()));
      break;
    default: // a frame
      a_->push(reg(RBP, word()));
      a_->mov(reg(RBP, word()), reg(RSP, word()));
      a_->sub(reg(RSP, word()), 0x20);
      a_->mov(x86::ptr(reg(RBP, word()), -8, 4), x86::eax);
      a_->leave();
  }
}

void ProgramBuilder::strings() {
  a_->lea(reg(RSI, word()), x86::ptr(reg(RBX, word()), static_cast<i32>(0x400 + below(0x1000))));
  a_->lea(reg(RDI, word()), x86::ptr(reg(RBX, word()), static_cast<i32>(0x400 + below(0x2000))));
  a_->mov(reg(RCX, 4), static_cast<u32>(below(20)));
  percent(80) ? a_->cld() : a_->std();
  static constexpr u8 OPS[] = {0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xa7, 0xae, 0xaf, 0xac, 0xad};
  const u8 bytes[2] = {percent(50) ? u8{0xf3} : u8{0xf2}, OPS[below(10)]};
  a_->embed(bytes, 2);
  a_->cld();
}

void ProgramBuilder::sse() {
  const auto x = [&] { return x86::xmm(static_cast<u32>(below(long_ ? 16 : 8))); };
  static constexpr I PACKED[] = {I::kIdAddps,   I::kIdMulpd,     I::kIdSubps,    I::kIdDivpd,
                                 I::kIdSqrtps,  I::kIdMaxpd,     I::kIdPaddd,    I::kIdPxor,
                                 I::kIdPcmpeqb, I::kIdPunpcklbw, I::kIdPmaddwd,  I::kIdAndps,
                                 I::kIdPsubq,   I::kIdCvtps2pd,  I::kIdCvtdq2ps, I::kIdUnpckhpd};
  static constexpr I SCALAR[] = {I::kIdAddss,  I::kIdMulsd,    I::kIdDivss, I::kIdSubsd,
                                 I::kIdSqrtsd, I::kIdCvtss2sd, I::kIdMinss};
  Mem m = x86::ptr(reg(RBX, word()), static_cast<i32>(below(0x200) * 16), 16); // aligned: the data begin 100h in
  switch (below(10)) {
    case 0: a_->movups(x(), memory(16)); break;
    case 1: a_->movups(memory(16), x()); break;
    case 2: percent(50) ? a_->movdqa(x(), m) : a_->movaps(m, x()); break;
    case 3: a_->emit(PACKED[below(16)], x(), x()); break;
    case 4: a_->emit(PACKED[below(13)], x(), m); break;
    case 5: a_->emit(SCALAR[below(7)], x(), x()); break;
    case 6: {
      Mem s = memory(8);
      percent(50) ? a_->movsd(x(), s) : a_->mulsd(x(), s);
      break;
    }
    case 7:
      percent(50) ? a_->cvtsi2sd(x(), reg(free_register(), 4)) : a_->movd(x(), reg(free_register(), 4));
      percent(50) ? a_->cvttsd2si(reg(free_register(), 4), x()) : a_->pmovmskb(reg(free_register(), 4), x());
      break;
    case 8:
      a_->ucomisd(x(), x());
      conditional();
      break;
    default:
      percent(50) ? a_->pshufd(x(), x(), static_cast<int>(below(256))) : a_->psrldq(x(), static_cast<int>(below(18)));
  }
  if (percent(10)) a_->stmxcsr(variable(MXCSR, 4));
}

void ProgramBuilder::x87() {
  a_->fld(memory(percent(50) ? 4 : 8));
  switch (below(4)) {
    case 0: a_->fadd(memory(8)); break;
    case 1: a_->fmul(memory(4)); break;
    case 2: a_->fild(memory(4)), a_->faddp(); break;
    default: a_->fsqrt();
  }
  a_->fstp(memory(percent(50) ? 4 : 8));
  if (percent(20)) a_->fnstsw(x86::ax);
}

void ProgramBuilder::plain() {
  const u64 what = below(100);
  cost_ += 2 * times_;
  if (what < 30) return binary();
  if (what < 38) return unary();
  if (what < 46) return shift();
  if (what < 50) return multiply();
  if (what < 54) return bits();
  if (what < 68) return moves();
  if (what < 73) return exchanges();
  if (what < 81) return conditional();
  if (what < 86) return stack();
  if (what < 88) return cost_ += 20 * times_, strings();
  if (what < 97) return sse();
  x87();
}

} // namespace transom::soft
