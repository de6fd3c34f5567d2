#include "tests/cpu/generator.hpp"

#include <algorithm>
#include <cstring>

namespace transom::cpu_test {

using soft::FLAG_AC;

namespace {

constexpr u64 SETTABLE_FLAGS = 0xcd5; // CF PF AF ZF SF DF OF

int gpr_number(ZydisRegister r) {
  const ZyanI8 id = ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
  switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: return id;
    default: return -1;
  }
}

bool string_instruction(const ZydisDecodedInstruction& insn) { return insn.meta.category == ZYDIS_CATEGORY_STRINGOP; }

void put_bytes(Case& c, unsigned at, u64 value, unsigned bytes) { std::memcpy(&c.code[at], &value, bytes); }

} // namespace

// --- bytes of one instruction

unsigned Generator::encode(const Slot& slot, u8* at) {
  Random& r = random_;
  u8 prefix[6];
  unsigned prefixes = 0;
  // FS and GS bases are the host's; without an override they do not matter.
  static constexpr u8 SEGMENTS[4] = {0x26, 0x2e, 0x36, 0x3e};
  if (r.percent(8)) prefix[prefixes++] = SEGMENTS[r.below(4)];
  if (r.percent(mode_ == Mode::bits64 ? 8 : 2)) prefix[prefixes++] = 0x67;
  if (slot.prefix == 0x66 || (slot.prefix != 0 && r.percent(8))) prefix[prefixes++] = 0x66;
  if (slot.prefix == 0xf2 || slot.prefix == 0xf3) prefix[prefixes++] = slot.prefix;
  if (slot.memory && r.percent(slot.map < 2 ? 20 : 2)) prefix[prefixes++] = 0xf0;
  for (unsigned n = prefixes; n > 1; --n) std::swap(prefix[n - 1], prefix[r.below(n)]);

  unsigned n = 0;
  for (; n < prefixes; ++n) at[n] = prefix[n];
  if (mode_ == Mode::bits64 && r.percent(60)) at[n++] = static_cast<u8>(0x40 | r.below(8) | (r.percent(40) ? 8 : 0));
  if (slot.map != 0) at[n++] = 0x0f;
  if (slot.map == 2) at[n++] = 0x38;
  if (slot.map == 3) at[n++] = 0x3a;
  at[n++] = slot.opcode;
  const bool small =
      std::find(prefix, prefix + prefixes, 0x67) != prefix + prefixes ? mode_ == Mode::bits32 : mode_ == Mode::bits16;
  const u8 absolute = small ? 6 : 5; // rm of an operand without registers
  if (slot.has_modrm) {
    // In a block, about half of the operands are absolute or relative to RIP, and need no loads.
    u8 modrm = slot.memory && block_ && r.percent(40) ? static_cast<u8>(absolute | r.below(8) << 3)
               : slot.memory                          ? static_cast<u8>(r.below(3) << 6 | r.below(64))
                                                      : static_cast<u8>(0xc0 | r.below(64));
    const u8 fixed = slot.memory ? slot.fixed & 0x38 : slot.fixed;
    modrm = static_cast<u8>((modrm & ~fixed) | (slot.modrm & fixed));
    at[n++] = modrm;
  }
  for (unsigned k = 0; k < 16; ++k) at[n + k] = r.percent(20) ? 0 : r.byte();
  return n;
}

// --- where operands are

u64 Generator::data_address(unsigned size) {
  Random& r = random_;
  if (faulting_) return r.percent(50) ? DATA + DATA_SIZE + r.below(0x100) : DATA - 0x100 - r.below(0x100);
  // In blocks few fault: what came before must be right then, also flags that nobody else would have seen.
  if (block_ && r.percent(2)) return (r.percent(50) ? DATA + DATA_WRITABLE : DATA + DATA_SIZE) - r.below(size + 1);
  if (block_) return DATA + 0x100 + (r.below(DATA_WRITABLE - 0x400) & ~(r.percent(85) ? 15u : 0u));
  const u32 what = r.below(100);
  // Across the end, or right up to it: what reads more than it should faults there.
  if (what < 3) return DATA + DATA_SIZE - (r.percent(50) ? size : 1 + r.below(size + 1));
  if (what < 6) return DATA - r.below(size + 2); // across the beginning
  if (what < 8) return DATA + DATA_WRITABLE + r.below(0x800) - r.below(16);
  if (what < 10) return DATA + DATA_WRITABLE - r.below(size + 1); // into the read-only page
  u64 address = DATA + (what < 22 ? PAGE_SIZE - r.below(32) : 0x100 + r.below(DATA_WRITABLE - 0x400));
  if (r.percent(size >= 16 ? 85 : 40)) address &= ~u64{15};
  return address;
}
// A quarter of the 64-bit code lies above 4 GiB.
u64 Generator::high() { return mode_ == Mode::bits64 && random_.percent(25) ? HIGH : 0; }
// Somewhere in the INT3s behind the code.
u64 Generator::code_address(const Case& c) {
  const u64 behind = (c.start & ~HIGH) == CODE_START ? 0x800 : PAGE_SIZE + 0x800;
  return (c.start & HIGH) + CODE - code_base(mode_) + behind + random_.below(0x700);
}

void Generator::poke(Case& c, u64 address, u64 value) {
  if (address < DATA || address > DATA + DATA_WRITABLE - 8 || c.pokes == c.poke.size()) return;
  c.poke[c.pokes++] = {address, value};
}

// --- a random state

void Generator::initial_state(Case& c) {
  Random& r = random_;
  c.initial = State{};
  c.pokes = 0;
  for (u64& g : c.initial.gpr) g = interesting_integer(r);
  for (const unsigned n : {soft::RSP, soft::RBP, soft::RSI, soft::RDI, soft::RBX})
    if (r.percent(95))
      c.initial.gpr[n] =
          DATA - data_base(mode_) + 0x400 + r.below(0x1000) / (n == soft::RSP ? 8 : 1) * (n == soft::RSP ? 8 : 1);
  if (r.percent(60)) c.initial.gpr[soft::RCX] = r.below(24);
  c.initial.rflags = 0x202 | (r.next() & SETTABLE_FLAGS);

  soft::Fx& fx = c.initial.fx;
  fx.fcw = static_cast<u16>(0x40 | (r.next() & 0xf00) | (r.percent(75) ? 0x3f : r.next() & 0x3f));
  if (r.percent(50)) fx.fcw = 0x37f;
  fx.fsw = static_cast<u16>(r.next() & 0x7f7f);
  if (r.percent(90)) fx.fsw &= static_cast<u16>(0x7f40 | (fx.fcw & 0x3f)); // nothing pending
  if (r.percent(30)) fx.fsw = 0;
  soft::update_fsw_summary(fx);
  fx.ftw = r.percent(60) ? 0xff : r.percent(30) ? 0 : r.byte();
  for (u8(&value)[16] : fx.st) interesting_extended(r, value);
  fx.mxcsr = 0x1f80;
  if (r.percent(60)) fx.mxcsr |= r.next() & 0xe07f;
  if (r.percent(20)) fx.mxcsr &= ~(r.next() & 0x1f80);
  for (u8(&value)[16] : fx.xmm) {
    const u32 kind = r.below(3);
    for (unsigned at = 0; at < 16; at += 8) {
      u64 lane = kind == 0   ? interesting_double(r)
                 : kind == 1 ? interesting_integer(r)
                             : interesting_float(r) | u64{interesting_float(r)} << 32;
      std::memcpy(value + at, &lane, 8);
    }
  }
  c.initial.rip = c.start - code_base(mode_);
  if (mode_ != Mode::bits64)
    for (u64& g : c.initial.gpr) g = static_cast<u32>(g);
}

// --- operands

void Generator::set_register(Case& c, int n, u64 value) {
  if (block_)
    loads_.push_back({n, value});
  else
    c.initial.gpr[n] = value;
}

// Changes registers or displacement so that the operand lies at `target`.
bool Generator::point_at(Case& c, unsigned offset, const ZydisDecodedInstruction& insn, const ZydisDecodedOperand& op,
                         u64 target) {
  u64* const gpr = c.initial.gpr;
  const unsigned disp_bytes = insn.raw.disp.size / 8;
  const u64 mask = insn.address_width == 64 ? ~u64{0} : insn.address_width == 32 ? 0xffff'ffff : 0xffff;
  if (insn.raw.disp.offset == 0 && disp_bytes != 0) return false;
  if (op.mem.base == ZYDIS_REGISTER_RIP || op.mem.base == ZYDIS_REGISTER_EIP) {
    // The arena that is within reach.
    put_bytes(c, offset + insn.raw.disp.offset, target - ((c.start & ~HIGH) + offset + insn.length), 4);
    return true;
  }
  const int base = gpr_number(op.mem.base), index = gpr_number(op.mem.index);
  target -= data_base(mode_);
  const u64 disp = static_cast<u64>(op.mem.disp.has_displacement ? op.mem.disp.value : 0);
  if (base < 0 && index < 0) {
    if (disp_bytes < (mode_ == Mode::bits16 ? 2 : 4)) return false;
    put_bytes(c, offset + insn.raw.disp.offset, target, disp_bytes);
    return true;
  }
  const auto set = [&](int n, u64 value) {
    const bool whole = mask == ~u64{0} || mode_ != Mode::bits64;
    set_register(c, n, whole ? value & mask : (gpr[n] & ~mask) | (value & mask));
  };
  if (base >= 0 && base == index) return false;
  if (block_ && base >= 0 && index >= 0) set_register(c, index, random_.below(64));
  if (base >= 0) {
    const u64 at_index = index < 0 ? 0 : block_ ? loads_.back().value : gpr[index];
    const u64 scaled = at_index * op.mem.scale;
    set(base, target - disp - scaled);
    return true;
  }
  // Index without a base: the displacement takes up what the scale leaves.
  const u64 scaled = (target - disp) & ~u64{op.mem.scale - 1u};
  set(index,
      mask == ~u64{0} ? static_cast<u64>(static_cast<i64>(scaled) / op.mem.scale) : (scaled & mask) / op.mem.scale);
  return true;
}

void Generator::fix_control(Case& c, unsigned offset, const ZydisDecodedInstruction& insn,
                            const ZydisDecodedOperand* operands, u64 memory_target) {
  Random& r = random_;
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
      if (operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER && r.percent(95)) {
        const int n = gpr_number(operands[0].reg.value);
        if (n >= 0) c.initial.gpr[n] = code_address(c);
      } else if (operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY && r.percent(95)) {
        poke(c, memory_target, code_address(c));
      }
      break;
    case ZYDIS_MNEMONIC_RET: poke(c, c.initial.gpr[soft::RSP] + data_base(mode_), code_address(c)); break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: // no TF
      poke(c, c.initial.gpr[soft::RSP] + data_base(mode_), r.next() & 0x24'4cd5);
      break;
    case ZYDIS_MNEMONIC_CMPXCHG: // chance would hardly make them equal
      if (block_ || r.percent(50)) break;
      poke(c, memory_target, c.initial.gpr[soft::RAX]);
      if (operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(operands[0].reg.value) >= 0)
        c.initial.gpr[gpr_number(operands[0].reg.value)] = c.initial.gpr[soft::RAX];
      break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
      if (block_ || r.percent(50)) break;
      poke(c, memory_target, static_cast<u32>(c.initial.gpr[soft::RAX]) | c.initial.gpr[soft::RDX] << 32);
      break;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      if (block_ || r.percent(50)) break;
      poke(c, memory_target, c.initial.gpr[soft::RAX]);
      poke(c, memory_target + 8, c.initial.gpr[soft::RDX]);
      break;
    case ZYDIS_MNEMONIC_ENTER: put_bytes(c, offset + insn.raw.imm[0].offset, r.below(64), 2); break;
    default: break;
  }
  // Relative branches go forward, into the INT3s behind the code.
  if (insn.raw.imm[0].is_relative) {
    const u64 room = MAX_CODE - (offset + insn.length);
    put_bytes(c, offset + insn.raw.imm[0].offset, insn.raw.imm[0].size == 8 ? r.below(100) : room + r.below(200),
              insn.raw.imm[0].size / 8);
  }
}

void Generator::fix_operands(Case& c, unsigned offset, const ZydisDecodedInstruction& insn,
                             const ZydisDecodedOperand* operands) {
  Random& r = random_;
  if (string_instruction(insn) && r.percent(95)) set_register(c, soft::RCX, r.below(24));
  u64 target = 0;
  for (unsigned n = 0; n < insn.operand_count; ++n) {
    const ZydisDecodedOperand& op = operands[n];
    if (op.type != ZYDIS_OPERAND_TYPE_MEMORY || op.mem.type != ZYDIS_MEMOP_TYPE_MEM) continue;
    if (op.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) continue;
    // Bit offsets in a register reach beyond the operand.
    target = data_address(op.size / 8);
    const bool bit_test = insn.meta.category == ZYDIS_CATEGORY_BITBYTE && insn.operand_count > 1 &&
                          operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    if (bit_test && (block_ || r.percent(90))) {
      const int bits = gpr_number(operands[1].reg.value);
      if (bits >= 0) set_register(c, bits, block_ ? r.below(2048) : r.below(8192) - (r.percent(50) ? 4096u : 0u));
    }
    point_at(c, offset, insn, op, target);
  }
  fix_control(c, offset, insn, operands, target);
}

// --- cases

// Decodes what is at the beginning of the code, and makes a state for it.
Verdict Generator::finish(Case& c) {
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  c.code_size = 15;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis(mode_), c.code.data(), 15, &insn, operands))) return Verdict::skip;
  c.code_size = insn.length;
  const Verdict verdict = given_ ? Verdict::compare : classify(insn, operands);
  if (verdict == Verdict::compare) fix_operands(c, 0, insn, operands);
  mnemonic_ = insn.mnemonic;
  return verdict;
}

Verdict Generator::one(const Slot& slot, Case& c) {
  begin(c);
  encode(slot, c.code.data());
  const Verdict verdict = finish(c);
  return mnemonic_ == slot.mnemonic || verdict == Verdict::compare ? verdict : Verdict::skip;
}

Verdict Generator::given(Case& c, const u8* code, unsigned size) {
  begin(c);
  std::memcpy(c.code.data(), code, size);
  given_ = true;
  return finish(c);
}

Verdict Generator::bytes(Case& c) {
  Random& r = random_;
  begin(c);
  static constexpr u8 PREFIXES[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x48, 0x4f, 0x41};
  unsigned n = 0;
  while (n < 6 && r.percent(35)) c.code[n++] = PREFIXES[r.below(sizeof PREFIXES)];
  if (r.percent(45)) c.code[n++] = 0x0f;
  while (n < 15) c.code[n++] = r.byte();
  return finish(c);
}

void Generator::begin(Case& c) {
  block_ = false;
  mnemonic_ = ZYDIS_MNEMONIC_INVALID;
  c.mode = mode_;
  c.code.fill(0xcc);
  // Some lie across the end of the first page.
  c.start = (random_.percent(10) ? CODE + PAGE_SIZE - random_.below(12) : CODE_START) | high();
  initial_state(c);
}

} // namespace transom::cpu_test
