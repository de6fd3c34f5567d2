// Which template an instruction has, and what it reads and writes.
#include "hypervisor/vcpu/soft/jit/compiler.hpp"

namespace transom::soft {

namespace {

using Kind = Effects::Kind;

constexpr u8 CONDITION_READS[8] = {SET_OF, SET_CF, SET_ZF,          SET_CF | SET_ZF,
                                   SET_SF, SET_PF, SET_SF | SET_OF, SET_ZF | SET_SF | SET_OF};

u32 bit(unsigned guest) { return 1u << guest; }
bool byte_op(const Decoded& d) { return !(d.opcode & 1); }
unsigned sub(const Decoded& d) { return d.modrm >> 3 & 7; }
u32 reg_of(const Decoded& d, bool byte) { return bit(byte ? d.reg / 8u : d.reg); }
u32 rm_of(const Decoded& d, bool byte) { return d.memory() ? 0 : bit(byte ? d.rm / 8u : d.rm); }

// In a host register, and no high byte.
bool simple_register(unsigned n, bool byte) { return byte ? n % 8 == 0 && pinned(n / 8) : pinned(n); }

Effects make(Kind kind, const Decoded& d, u8 reads, u8 writes, u32 registers) {
  Effects e;
  e.kind = kind;
  e.memory = d.memory();
  e.reads = reads;
  e.writes = writes;
  e.registers = registers;
  return e;
}

Effects shift(const Decoded& d) {
  const bool byte = byte_op(d), by_cl = (d.opcode & 0xfe) == 0xd2;
  const unsigned op = sub(d);
  if (op == 2 || op == 3) return {}; // RCL, RCR
  const unsigned size = byte ? 1 : d.osz;
  const bool none = !by_cl && (d.imm & (size == 8 ? 63 : 31)) == 0;
  if (none) return {};
  const u8 writes = by_cl ? 0 : op < 2 ? SET_CF | SET_OF : SET_ALL;
  return make(Kind::shift, d, 0, writes, rm_of(d, byte));
}

Effects group3(const Decoded& d) {
  const bool byte = byte_op(d);
  switch (sub(d)) {
    case 0:
    case 1: return make(Kind::test, d, 0, SET_ALL, 0);
    case 2: return make(Kind::not_, d, 0, 0, rm_of(d, byte));
    case 3: return make(Kind::neg, d, 0, SET_ALL, rm_of(d, byte));
    case 4:
    case 5:
      if (byte || d.osz == 2) return {};
      return make(Kind::mul, d, 0, SET_CF | SET_OF, bit(RAX) | bit(RDX));
    default: return {}; // DIV, IDIV may fault
  }
}

Effects stack(Kind kind, const Decoded& d, u32 registers) {
  if (d.osz == 2) return {};
  Effects e = make(kind, d, 0, 0, registers | bit(RSP));
  e.memory = true;
  return e;
}

Effects one_byte(const Decoded& d) {
  const u8 op = d.opcode;
  const bool byte = byte_op(d);
  if (op < 0x40) {
    if ((op & 7) > 5) return {};
    const unsigned alu = op >> 3;
    const u8 reads = alu == 2 || alu == 3 ? SET_CF : 0;
    const u32 to = op & 4 ? bit(RAX) : op & 2 ? reg_of(d, byte) : rm_of(d, byte);
    return make(Kind::alu, d, reads, SET_ALL, alu == 7 ? 0 : to);
  }
  if (op < 0x50) return make(Kind::inc_dec, d, 0, SET_ALL & ~SET_CF, bit(d.rm)); // not in 64-bit code
  if (op < 0x58) return stack(Kind::push, d, 0);
  if (op < 0x60) return stack(Kind::pop, d, bit(d.rm));
  if ((op & 0xf0) == 0x70) return d.osz == 2 ? Effects{} : make(Kind::jcc, d, CONDITION_READS[op >> 1 & 7], 0, 0);
  if ((op & 0xf0) == 0xb0) return make(Kind::mov, d, 0, 0, bit(op < 0xb8 ? d.rm / 8u : d.rm));
  switch (op) {
    case 0x63: return d.code64() ? make(Kind::extend, d, 0, 0, bit(d.reg)) : Effects{};
    case 0x68:
    case 0x6a: return stack(Kind::push, d, 0);
    case 0x69:
    case 0x6b: return make(Kind::imul, d, 0, SET_CF | SET_OF, bit(d.reg));
    case 0x80:
    case 0x81:
    case 0x82:
    case 0x83: {
      const bool narrow = op == 0x80 || op == 0x82;
      const unsigned alu = sub(d);
      return make(Kind::alu, d, alu == 2 || alu == 3 ? SET_CF : 0, SET_ALL, alu == 7 ? 0 : rm_of(d, narrow));
    }
    case 0x84:
    case 0x85:
    case 0xa8:
    case 0xa9: return make(Kind::test, d, 0, SET_ALL, 0);
    case 0x86:
      if (!d.memory()) return {};
      [[fallthrough]];
    case 0x87: return make(Kind::xchg, d, 0, 0, reg_of(d, byte) | rm_of(d, byte));
    case 0x88:
    case 0x89: return make(Kind::mov, d, 0, 0, rm_of(d, byte));
    case 0x8a:
    case 0x8b: return make(Kind::mov, d, 0, 0, reg_of(d, byte));
    case 0xc6:
    case 0xc7: return make(Kind::mov, d, 0, 0, rm_of(d, byte));
    case 0x8d: {
      Effects e = make(Kind::lea, d, 0, 0, bit(d.reg));
      e.memory = false;
      return e;
    }
    case 0x8f: return d.memory() ? Effects{} : stack(Kind::pop, d, bit(d.rm));
    case 0x90: return d.rex & 1 ? make(Kind::xchg, d, 0, 0, bit(RAX) | bit(d.rm)) : make(Kind::nop, d, 0, 0, 0);
    case 0x91:
    case 0x92:
    case 0x93:
    case 0x94:
    case 0x95:
    case 0x96:
    case 0x97: return make(Kind::xchg, d, 0, 0, bit(RAX) | bit(d.rm));
    case 0x98: return make(Kind::widen, d, 0, 0, bit(RAX));
    case 0x99: return make(Kind::widen_pair, d, 0, 0, bit(RDX));
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: return shift(d);
    case 0xc2:
    case 0xc3: return stack(Kind::ret, d, 0);
    case 0x9c: {
      Effects e = stack(Kind::pushf, d, 0);
      e.reads = e.kind == Kind::none ? 0 : SET_ALL; // also where its push needs no check
      return e;
    }
    case 0x9d: {
      Effects e = stack(Kind::popf, d, 0);
      e.writes = SET_ALL;
      return e;
    }
    case 0xfa:
    case 0xfb: {
      Effects e = make(op == 0xfa ? Kind::cli : Kind::sti, d, 0, 0, 0);
      e.memory = true; // its checks are as an address's
      return e;
    }
    case 0xa4:
    case 0xa5:
    case 0xaa:
    case 0xab: {
      if (!d.code64() || d.asz != 8 || d.segment >= FS || !(d.rep || d.repne)) return {};
      Effects e = make(Kind::repeat_string, d, 0, 0, bit(RDI) | bit(RCX) | (op < 0xa6 ? bit(RSI) : 0));
      e.memory = true;
      return e;
    }
    case 0xc9: return stack(Kind::leave_frame, d, bit(RBP));
    case 0xe8: return stack(Kind::call, d, 0);
    case 0xe9:
    case 0xeb: return d.osz == 2 ? Effects{} : make(Kind::jump, d, 0, 0, 0);
    case 0xf5:
    case 0xf8:
    case 0xf9: return make(Kind::carry, d, op == 0xf5 ? SET_CF : 0, SET_CF, 0);
    case 0xf6:
    case 0xf7: return group3(d);
    case 0xfe: return make(Kind::inc_dec, d, 0, SET_ALL & ~SET_CF, rm_of(d, true));
    case 0xff:
      switch (sub(d)) {
        case 0:
        case 1: return make(Kind::inc_dec, d, 0, SET_ALL & ~SET_CF, rm_of(d, false));
        case 2: return stack(Kind::call, d, 0);
        case 4: return d.osz == 2 ? Effects{} : make(Kind::jump, d, 0, 0, 0);
        case 6: return stack(Kind::push, d, 0);
        default: return {};
      }
    default: return {};
  }
}

Effects two_byte(const Decoded& d) {
  const u8 op = d.opcode;
  const bool byte = byte_op(d);
  switch (op >> 4) {
    case 0x4: return make(Kind::cmov, d, CONDITION_READS[op >> 1 & 7], 0, bit(d.reg));
    case 0x8: return d.osz == 2 ? Effects{} : make(Kind::jcc, d, CONDITION_READS[op >> 1 & 7], 0, 0);
    case 0x9: return make(Kind::setcc, d, CONDITION_READS[op >> 1 & 7], 0, rm_of(d, true));
    default: break;
  }
  switch (op) {
    case 0x0d:
    case 0x18:
    case 0x19:
    case 0x1a:
    case 0x1b:
    case 0x1c:
    case 0x1d:
    case 0x1e:
    case 0x1f: {
      Effects e = make(Kind::nop, d, 0, 0, 0);
      e.memory = false;
      return e;
    }
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb:
      if (d.memory()) return {};
      return make(Kind::bit, d, 0, SET_CF, op == 0xa3 ? 0 : bit(d.rm));
    case 0xba: return make(Kind::bit, d, 0, SET_CF, sub(d) == 4 ? 0 : rm_of(d, false));
    case 0xa4:
    case 0xa5:
    case 0xac:
    case 0xad:
      if (d.memory() || !pinned(d.rm) || !pinned(d.reg)) return {};
      return make(Kind::double_shift, d, 0, 0, bit(d.rm));
    case 0xaf: return make(Kind::imul, d, 0, SET_CF | SET_OF, bit(d.reg));
    case 0xb0:
    case 0xb1:
      if (!simple_register(d.reg, byte) ||
          (!d.memory() && (!simple_register(d.rm, byte) || rm_of(d, byte) == bit(RAX))))
        return {};
      return make(Kind::cmpxchg, d, 0, SET_ALL, rm_of(d, byte) | bit(RAX));
    case 0xb6:
    case 0xb7:
    case 0xbe:
    case 0xbf: return make(Kind::extend, d, 0, 0, bit(d.reg));
    case 0xb8:
      if (!__builtin_cpu_supports("popcnt")) return {};
      return make(Kind::popcnt, d, 0, SET_ALL, bit(d.reg));
    case 0xbc:
    case 0xbd: return make(Kind::scan, d, 0, SET_ZF, bit(d.reg));
    case 0xc0:
    case 0xc1:
      if (!d.memory() || (byte && d.reg % 8 != 0)) return {};
      return make(Kind::xadd, d, 0, SET_ALL, rm_of(d, byte) | reg_of(d, byte));
    default: break;
  }
  if (op >= 0xc8 && op < 0xd0 && d.osz != 2) return make(Kind::bswap, d, 0, 0, bit(d.rm));
  return {};
}

} // namespace

Effects effects_of(const Decoded& d) {
  Effects e;
  if (!d.code64() && d.memory() && (d.asz == 2 || d.segment >= FS || d.segment == CS)) {
    // no template: the segment has to be checked
  } else if (sse_form(d).shape != SseForm::Shape::none) {
    e = make(Kind::sse, d, 0, 0, 0);
    const SseForm form = sse_form(d);
    if ((form.shape == SseForm::Shape::to_general && !d.memory())) e.registers = bit(d.rm);
    if (form.shape == SseForm::Shape::mask) e.registers = bit(d.reg);
    if (form.shape == SseForm::Shape::index) e.registers = bit(RCX);
    if (form.shape == SseForm::Shape::index || form.shape == SseForm::Shape::compare) e.writes = SET_ALL;
    e.memory = true;
  } else if (d.map == MAP_ONE) {
    e = one_byte(d);
  } else if (d.map == MAP_0F) {
    e = two_byte(d);
  }
  if (d.rep && d.map == MAP_ONE && d.opcode == 0x90) e = {}; // PAUSE
  if (e.kind == Kind::none && d.selection.ends) e.kind = Kind::leave;
  return e;
}

} // namespace transom::soft
