#include "hypervisor/vcpu/soft/decode.hpp"

#include <cstring>

#include "hypervisor/vcpu/soft/decode_tables.hpp"

namespace transom::soft {

namespace {

constexpr unsigned MAX_LENGTH = 15;

// Reads on, and remembers when it could not.
struct Reader {
  const u8* bytes;
  unsigned limit; // bytes that may be read
  unsigned at = 0;
  bool short_ = false;

  u8 byte() {
    if (at >= limit) {
      short_ = true;
      return 0;
    }
    return bytes[at++];
  }
  u64 little(unsigned width) {
    u64 value = 0;
    if (at + width > limit) {
      short_ = true;
      at = limit;
      return 0;
    }
    std::memcpy(&value, bytes + at, width);
    at += width;
    return value;
  }
  u64 extended(unsigned width) {
    const unsigned shift = 64 - 8 * width;
    return static_cast<u64>(static_cast<i64>(little(width) << shift) >> shift);
  }
};

struct Prefixes {
  bool osz = false, asz = false;
};

// Legacy prefixes in any order, then REX. Returns the first opcode byte.
u8 read_prefixes(Reader& r, Decoded& d, Prefixes& p) {
  for (;;) {
    const u8 b = r.byte();
    if (r.short_) return 0;
    switch (b) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e: // ES CS SS DS: ignored in 64-bit mode
        if (!d.code64()) {
          d.segment = (b >> 3) & 3;
          d.segment_override = true;
        }
        break;
      case 0x64:
      case 0x65:
        d.segment = b - 0x60;
        d.segment_override = true;
        break;
      case 0x66: p.osz = true; break;
      case 0x67: p.asz = true; break;
      case 0xf0: d.lock = true; break;
      case 0xf2:
        d.repne = true;
        d.rep = false;
        break;
      case 0xf3:
        d.rep = true;
        d.repne = false;
        break;
      default:
        if (d.code64() && (b & 0xf0) == 0x40) { // REX counts only directly before the opcode
          const u8 after = r.byte();
          if (r.short_) return 0;
          --r.at;
          const bool more = after == 0x26 || after == 0x2e || after == 0x36 || after == 0x3e || after == 0x64 ||
                            after == 0x65 || after == 0x66 || after == 0x67 || after == 0xf0 || after == 0xf2 ||
                            after == 0xf3 || (after & 0xf0) == 0x40;
          if (more) continue;
          d.rex = b;
          return r.byte();
        }
        return b;
    }
  }
}

void read_modrm_16(Reader& r, Decoded& d) {
  static constexpr u8 BASE[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
  static constexpr u8 INDEX[8] = {RSI, RDI, RSI, RDI, REG_ZERO, REG_ZERO, REG_ZERO, REG_ZERO};
  if (d.mod == 0 && d.rm == 6) {
    d.disp = static_cast<i16>(r.little(2));
    return;
  }
  d.base = BASE[d.rm];
  d.index = INDEX[d.rm];
  if (d.base == RBP && !d.segment_override) d.segment = SS;
  if (d.mod == 1) d.disp = static_cast<i8>(r.byte());
  if (d.mod == 2) d.disp = static_cast<i16>(r.little(2));
}

void read_modrm_32(Reader& r, Decoded& d) {
  const u8 low = d.modrm & 7;
  bool no_base = false;
  if (low == 4) {
    const u8 sib = r.byte();
    d.scale = sib >> 6;
    const u8 index = static_cast<u8>((sib >> 3 & 7) | (d.rex & 2) << 2);
    if (index != 4) d.index = index;
    if ((sib & 7) == 5 && d.mod == 0)
      no_base = true;
    else
      d.base = static_cast<u8>((sib & 7) | (d.rex & 1) << 3);
  } else if (low == 5 && d.mod == 0) {
    no_base = true;
    if (d.code64()) {
      d.rip_relative = true;
      d.base = REG_RIP;
    }
  } else {
    d.base = d.rm;
  }
  if (no_base || d.mod == 2)
    d.disp = static_cast<i32>(r.little(4));
  else if (d.mod == 1)
    d.disp = static_cast<i8>(r.byte());
  if ((d.base == RSP || d.base == RBP) && !d.segment_override) d.segment = SS;
}

void read_modrm(Reader& r, Decoded& d) {
  d.has_modrm = true;
  d.modrm = r.byte();
  d.mod = d.modrm >> 6;
  d.reg = static_cast<u8>((d.modrm >> 3 & 7) | (d.rex & 4) << 1);
  d.rm = static_cast<u8>((d.modrm & 7) | (d.rex & 1) << 3);
  if (d.map == MAP_0F && (d.opcode & 0xfc) == 0x20) d.mod = 3; // MOV CR/DR: the field is ignored
  if (d.mod == 3) return;
  if (d.asz == 2)
    read_modrm_16(r, d);
  else
    read_modrm_32(r, d);
}

void read_immediate(Reader& r, Decoded& d, u8 bits) {
  const unsigned z = d.osz == 2 ? 2 : 4;
  if (bits & POINTER) {
    const u64 offset = r.little(z);
    d.imm = offset | r.little(2) << 32;
    return;
  }
  if (bits & MOFFS) {
    const u64 offset = r.little(d.asz);
    d.imm = offset;
    return;
  }
  if (bits & IMM_V) d.imm = r.little(d.osz);
  if (bits & IMM_Z) d.imm = r.extended(z);
  if (bits & IMM_W) d.imm = r.little(2);
  if (bits & IMM_B) {
    const u64 value = r.extended(1);
    d.imm = bits & IMM_W ? d.imm | (value & 0xff) << 16 : value; // ENTER: size | level << 16
  }
}

// Near branches, PUSH, POP and friends have 64-bit operands in 64-bit mode without asking.
bool default_64(u8 map, u8 op, u8 modrm) {
  if (map == MAP_0F) return (op & 0xf0) == 0x80 || op == 0xa0 || op == 0xa1 || op == 0xa8 || op == 0xa9;
  switch (op) {
    case 0x68:
    case 0x6a:
    case 0x8f:
    case 0x9c:
    case 0x9d:
    case 0xc2:
    case 0xc3:
    case 0xc8:
    case 0xc9: return true;
    case 0xff: return (modrm >> 3 & 7) == 2 || (modrm >> 3 & 7) == 4 || (modrm >> 3 & 7) == 6;
    default: return (op & 0xf0) == 0x50;
  }
}
// Near branches ignore 66 in 64-bit mode.
bool force_64(u8 map, u8 op, u8 modrm) {
  if (map == MAP_0F) return (op & 0xf0) == 0x80;
  switch (op) {
    case 0xc2:
    case 0xc3:
    case 0xe8:
    case 0xe9:
    case 0xeb:
    case 0xe0:
    case 0xe1:
    case 0xe2:
    case 0xe3: return true;
    case 0xff: return (modrm >> 3 & 7) == 2 || (modrm >> 3 & 7) == 4;
    default: return (op & 0xf0) == 0x70;
  }
}

u8 read_opcode(Reader& r, Decoded& d, u8 first) {
  u8 op = first;
  if (op == 0x0f) {
    d.map = MAP_0F;
    op = r.byte();
    if (op == 0x38 || op == 0x3a) {
      d.map = op == 0x38 ? MAP_0F38 : MAP_0F3A;
      op = r.byte();
    }
  }
  d.opcode = op;
  switch (d.map) {
    case MAP_ONE: return ONE_BYTE.bits[op];
    case MAP_0F: return TWO_BYTE.bits[op];
    case MAP_0F38: return MODRM;
    default: return MODRM | IMM_B;
  }
}

} // namespace

Form Decoded::form() const {
  if (!memory()) return Form::reg;
  if (!code64()) return Form::legacy;
  return index == REG_ZERO && asz == 8 && segment < FS ? Form::flat : Form::full;
}

Decoded decode(const u8* bytes, unsigned available, u16 mode) {
  Decoded d;
  d.mode = mode;
  const bool cut = available < MAX_LENGTH;
  Reader r{bytes, cut ? available : MAX_LENGTH};
  const auto give_up = [&] {
    d.status = cut ? DecodeStatus::truncated : DecodeStatus::too_long;
    d.length = static_cast<u8>(r.at);
    return d;
  };

  Prefixes p;
  const u8 first = read_prefixes(r, d, p);
  if (r.short_) return give_up();
  const u8 bits = read_opcode(r, d, first);
  if (r.short_) return give_up();
  d.prefix = d.repne ? 0xf2 : d.rep ? 0xf3 : p.osz ? 0x66 : 0;

  const bool code32 = d.code64() || (mode & MODE_CODE32);
  d.osz = code32 != p.osz ? 4 : 2;
  if (d.rex & 8) d.osz = 8;
  d.asz = d.code64() ? (p.asz ? 4 : 8) : (code32 != p.asz ? 4 : 2);

  if (bits & MODRM) read_modrm(r, d);
  if (r.short_) return give_up();
  if (d.code64()) {
    if (d.osz == 4 && default_64(d.map, d.opcode, d.modrm)) d.osz = 8;
    if (force_64(d.map, d.opcode, d.modrm)) d.osz = 8;
  }
  u8 immediate = bits & static_cast<u8>(~MODRM & ~BAD64);
  if (d.map == MAP_ONE && (d.opcode & 0xfe) == 0xf6 && (d.modrm & 0x30) == 0) immediate = d.opcode & 1 ? IMM_Z : IMM_B;
  read_immediate(r, d, immediate);
  if (r.short_) return give_up();

  d.length = static_cast<u8>(r.at);
  if ((bits & BAD64) && d.code64()) return d;
  d.selection = select(d);
  if (d.selection.handler != nullptr) d.status = DecodeStatus::ok;
  return d;
}

Selection select(Decoded& d) { return d.map == MAP_ONE ? select_one(d) : select_0f(d); }

Insn make_insn(const Decoded& d) {
  Insn i{};
  i.handler = d.selection.handler;
  i.imm = d.imm;
  i.disp = d.disp;
  i.length = d.length;
  i.reg = d.reg;
  i.rm = d.rm;
  i.base = d.base;
  i.index = d.index;
  i.scale = d.scale;
  i.segment = d.segment;
  i.asz = d.asz == 8 ? 2 : d.asz == 4 ? 1 : 0;
  i.flags = static_cast<u8>((d.lock ? INSN_LOCK : 0) | (d.rep ? INSN_REP : 0) | (d.repne ? INSN_REPNE : 0) |
                            (d.rex & 8 ? INSN_REX_W : 0));
  i.form = d.form();
  i.osz = d.osz & 15;
  i.opcode = d.opcode;
  return i;
}

} // namespace transom::soft
