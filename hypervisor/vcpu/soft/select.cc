// The one-byte opcode map: which family handles what.
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/handlers_simd.hpp"
#include "hypervisor/vcpu/soft/handlers_system.hpp"

namespace transom::soft {

namespace {

Selection select_system(const Decoded& d) {
  const bool mov_cr = d.map == MAP_0F && (d.opcode == 0x20 || d.opcode == 0x22);
  if (d.lock && !mov_cr) return {};
  const Choice c = system_handler({d.map, d.opcode, d.modrm, d.osz, d.code64(), d.prefix});
  Selection s;
  s.handler = c.handler;
  s.ends = c.ends_block;
  return s;
}

void byte_operands(Decoded& d, bool reg_is_register) {
  if (reg_is_register) d.reg = d.byte_reg(d.reg);
  if (d.has_modrm && d.mod == 3) d.rm = d.byte_reg(d.rm);
}

// Opcodes 00–3F, columns 0–5: ALU r/m,r; r,r/m; accumulator,imm.
Selection select_alu_row(Decoded& d) {
  const unsigned op = d.opcode >> 3, size = d.opcode & 1 ? d.osz : 1;
  const bool accumulator = (d.opcode & 4) != 0;
  if (accumulator) d.rm = 0;
  if (size == 1 && !accumulator) byte_operands(d, true);
  return select_alu(d, op, size, (d.opcode & 2) != 0, accumulator);
}

Selection select_group(Decoded& d) {
  const unsigned sub = d.modrm >> 3 & 7, size = d.opcode & 1 ? d.osz : 1;
  // The only memory that PUSH, POP and CALL with a register touch is the stack.
  if (d.mod == 3 && (d.opcode == 0x8f || d.opcode == 0xff)) d.segment = SS;
  switch (d.opcode) {
    case 0x80:
    case 0x81:
    case 0x82:
    case 0x83: {
      const unsigned width = d.opcode == 0x82 ? 1 : size;
      if (width == 1) byte_operands(d, false);
      return select_alu(d, sub, width, false, true);
    }
    case 0x8f: return sub == 0 ? select_pop(d) : Selection{};
    case 0xc0:
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: {
      if (size == 1) byte_operands(d, false);
      const bool by_cl = (d.opcode & 0xfe) == 0xd2, by_one = (d.opcode & 0xfe) == 0xd0;
      if (by_one) d.imm = 1;
      return select_shift(d, size, by_cl, by_one);
    }
    case 0xc6:
    case 0xc7:
      if (sub != 0) return {};
      if (size == 1) byte_operands(d, false);
      return select_mov(d, size, false, true);
    case 0xf6:
    case 0xf7:
      if (size == 1) byte_operands(d, false);
      if (sub < 2) return select_test(d, size, true);
      if (sub < 4) return select_unary(d, sub == 2 ? 3 : 2, size);
      return select_muldiv(d, size);
    case 0xfe:
      if (sub > 1) return {};
      byte_operands(d, false);
      return select_unary(d, sub, 1);
    default: // FF
      switch (sub) {
        case 0:
        case 1: return select_unary(d, sub, size);
        case 2: return select_call(d);
        case 4: return select_jump(d);
        case 6: return select_push(d);
        case 7: return {};
        default: return d.memory() ? select_system(d) : Selection{};
      }
  }
}

Selection no_op(const Decoded& d) {
  Selection s;
  if (d.lock) return s;
  const bool pause = d.map == MAP_ONE && d.rep;
  s.handler = pause ? spin_hint : no_operation;
  if (!pause) s.reads = 0;
  return s;
}

} // namespace

Selection select_one(Decoded& d) {
  const u8 op = d.opcode;
  const unsigned size = op & 1 ? d.osz : 1;
  if (op < 0x40) {
    if ((op & 7) < 6) return select_alu_row(d);
    if (op == 0x27 || op == 0x2f || op == 0x37 || op == 0x3f) return select_adjust(d);
    return select_system(d); // PUSH/POP segment
  }
  switch (op >> 3) {
    case 0x40 >> 3:
    case 0x48 >> 3: // INC, DEC (REX in 64-bit mode)
      d.rm = op & 7;
      return select_unary(d, (op >> 3) & 1, d.osz);
    case 0x50 >> 3:
    case 0x58 >> 3:
      d.rm = static_cast<u8>((op & 7) | (d.rex & 1) << 3);
      d.segment = SS;
      return op < 0x58 ? select_push(d) : select_pop(d);
    case 0x70 >> 3:
    case 0x78 >> 3: return select_jcc(d);
    case 0xb0 >> 3: d.rm = d.byte_reg(static_cast<u8>((op & 7) | (d.rex & 1) << 3)); return select_mov_imm_reg(d, 1);
    case 0xb8 >> 3: d.rm = static_cast<u8>((op & 7) | (d.rex & 1) << 3); return select_mov_imm_reg(d, d.osz);
    case 0xd8 >> 3: {
      if (d.lock) return {};
      d.imm = d.modrm; // for FOP
      const Choice c = x87_handler(op, d.modrm);
      Selection s;
      s.handler = c.handler;
      s.ends = c.ends_block;
      return s;
    }
    default: break;
  }
  switch (op) {
    case 0x60:
    case 0x61:
    case 0x9c:
    case 0x9d:
    case 0xc8:
    case 0xc9: d.segment = SS; return select_stack_misc(d);
    case 0x62: return d.memory() ? select_system(d) : Selection{}; // BOUND; with a register operand EVEX
    case 0x63: return d.code64() ? select_extend(d, 4, true) : select_system(d);
    case 0x68:
    case 0x6a: d.segment = SS; return select_push(d);
    case 0x69:
    case 0x6b: return select_imul(d, true);
    case 0x6c:
    case 0x6d:
    case 0x6e:
    case 0x6f: return select_io(d);
    case 0x80:
    case 0x81:
    case 0x82:
    case 0x83:
    case 0x8f:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xc7:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xf6:
    case 0xf7:
    case 0xfe:
    case 0xff: return select_group(d);
    case 0x84:
    case 0x85:
      if (size == 1) byte_operands(d, true);
      return select_test(d, size, false);
    case 0x86:
    case 0x87:
      if (size == 1) byte_operands(d, true);
      return select_xchg(d, size);
    case 0x88:
    case 0x89:
    case 0x8a:
    case 0x8b:
      if (size == 1) byte_operands(d, true);
      return select_mov(d, size, (op & 2) != 0, false);
    case 0x8c:
    case 0x8e: return select_system(d);
    case 0x8d: return select_lea(d);
    case 0x90:
    case 0x91:
    case 0x92:
    case 0x93:
    case 0x94:
    case 0x95:
    case 0x96:
    case 0x97:
      if (op == 0x90 && !(d.rex & 1)) return no_op(d);
      d.rm = static_cast<u8>((op & 7) | (d.rex & 1) << 3);
      d.reg = RAX;
      return select_xchg_rax(d);
    case 0x98:
    case 0x99:
    case 0x9e:
    case 0x9f:
    case 0xd6:
    case 0xd7:
    case 0xf5:
    case 0xf8:
    case 0xf9:
    case 0xfc:
    case 0xfd: return select_misc(d);
    case 0xc4: // LES, LDS; with a register operand VEX
    case 0xc5: return d.memory() ? select_system(d) : Selection{};
    case 0x9a:
    case 0xca:
    case 0xcb:
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
    case 0xea:
    case 0xf1: return select_system(d);
    case 0x9b: {
      if (d.lock) return {};
      const Choice c = x87_handler(op, 0);
      Selection s;
      s.handler = c.handler;
      s.ends = c.ends_block;
      return s;
    }
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa3: return select_moffs(d, size, op < 0xa2);
    case 0xa4:
    case 0xa5:
    case 0xa6:
    case 0xa7:
    case 0xaa:
    case 0xab:
    case 0xac:
    case 0xad:
    case 0xae:
    case 0xaf: return select_string(d);
    case 0xa8:
    case 0xa9: d.rm = 0; return select_test(d, size, true);
    case 0xc2:
    case 0xc3: d.segment = SS; return select_return(d);
    case 0xd4:
    case 0xd5: return select_adjust(d);
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3: return select_loop(d);
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7:
    case 0xec:
    case 0xed:
    case 0xee:
    case 0xef: return select_io(d);
    case 0xe8: d.segment = SS; return select_call(d);
    case 0xe9:
    case 0xeb: return select_jump(d);
    case 0xf4:
    case 0xfa:
    case 0xfb: return select_control(d);
    default: return {};
  }
}

namespace {

Selection select_simd(const Decoded& d) {
  if (d.lock) return {};
  const Choice c = simd_handler({static_cast<u8>(d.map), d.opcode, d.prefix, d.modrm, (d.rex & 8) != 0, d.code64()});
  Selection s;
  s.handler = c.handler;
  s.ends = c.ends_block;
  return s;
}

Selection select_0f_group(Decoded& d) {
  const unsigned sub = d.modrm >> 3 & 7;
  switch (d.opcode) {
    case 0xba: return sub < 4 ? Selection{} : select_bit(d, sub - 4, true);
    default: // C7
      if (d.memory() && sub == 1) return select_cmpxchg_wide(d);
      return d.mod == 3 && sub >= 6 ? select_system(d) : Selection{};
  }
}

} // namespace

Selection select_0f(Decoded& d) {
  const u8 op = d.opcode;
  if (d.map == MAP_0F38 || d.map == MAP_0F3A) {
    if (d.map == MAP_0F38 && op == 0xf0 && d.prefix == 0xf2) byte_operands(d, false);
    return select_simd(d);
  }
  const unsigned size = op & 1 ? d.osz : 1;
  switch (op >> 4) {
    case 0x4: return select_cmov(d);
    case 0x8: return select_jcc(d);
    case 0x9: byte_operands(d, false); return select_setcc(d);
    case 0x5:
    case 0x6:
    case 0x7:
    case 0xd:
    case 0xe: return select_simd(d);
    default: break;
  }
  switch (op) {
    case 0x00:
    case 0x01:
    case 0x02:
    case 0x03:
    case 0x05:
    case 0x06:
    case 0x07:
    case 0x08:
    case 0x09:
    case 0x20:
    case 0x21:
    case 0x22:
    case 0x23:
    case 0x30:
    case 0x31:
    case 0x32:
    case 0x33:
    case 0x34:
    case 0x35:
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa8:
    case 0xa9:
    case 0xaa: return select_system(d);
    case 0xb2: // LSS LFS LGS
    case 0xb4:
    case 0xb5: return d.memory() ? select_system(d) : Selection{};
    case 0x0d: return no_op(d); // PREFETCH, PREFETCHW
    case 0x18:
    case 0x19:
    case 0x1a:
    case 0x1b:
    case 0x1c:
    case 0x1d:
    case 0x1e:
    case 0x1f: return no_op(d); // hint NOPs, ENDBR
    case 0x10:
    case 0x11:
    case 0x12:
    case 0x13:
    case 0x14:
    case 0x15:
    case 0x16:
    case 0x17:
    case 0x28:
    case 0x29:
    case 0x2a:
    case 0x2b:
    case 0x2c:
    case 0x2d:
    case 0x2e:
    case 0x2f:
    case 0xae:
    case 0xc2:
    case 0xc3:
    case 0xc4:
    case 0xc5:
    case 0xc6: return select_simd(d);
    case 0xa3:
    case 0xab:
    case 0xb3:
    case 0xbb: return select_bit(d, (op >> 3) & 3, false);
    case 0xa4:
    case 0xa5: return select_double_shift(d, true, op == 0xa5);
    case 0xac:
    case 0xad: return select_double_shift(d, false, op == 0xad);
    case 0xaf: return select_imul(d, false);
    case 0xb0:
    case 0xb1:
      if (size == 1) byte_operands(d, true);
      return select_cmpxchg(d, size);
    case 0xb6:
    case 0xb7:
    case 0xbe:
    case 0xbf:
      if (d.lock) return {};
      if (size == 1 && d.mod == 3) d.rm = d.byte_reg(d.rm);
      return select_extend(d, op & 1 ? 2 : 1, op >= 0xbe);
    case 0xb8: return d.rep ? select_popcnt(d) : Selection{};
    case 0xba:
    case 0xc7: return select_0f_group(d);
    case 0xbc:
    case 0xbd: return select_scan(d, op == 0xbd);
    case 0xc0:
    case 0xc1:
      if (size == 1) byte_operands(d, true);
      return select_xadd(d, size);
    case 0xc8:
    case 0xc9:
    case 0xca:
    case 0xcb:
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: d.rm = static_cast<u8>((op & 7) | (d.rex & 1) << 3); return select_bswap(d);
    case 0xff: return {}; // UD0
    default: return op >= 0xf0 ? select_simd(d) : Selection{};
  }
}

} // namespace transom::soft
