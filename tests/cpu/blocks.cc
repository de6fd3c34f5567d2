#include "tests/cpu/blocks.hpp"

#include <cstring>

#include "tests/cpu/compare.hpp"

namespace transom::cpu_test {

namespace {

constexpr u64 LOOP_COUNTER = DATA + 0x20; // operands of blocks are further up
constexpr unsigned MOST_BYTES = MAX_CODE - 100;

bool sets_flags(const Slot& s) {
  switch (s.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_FLAGOP:
    case ZYDIS_CATEGORY_SEMAPHORE: return s.map < 2;
    default: return false;
  }
}
bool uses_flags(const Slot& s) {
  switch (s.mnemonic) {
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE: return true;
    default:
      return s.category == ZYDIS_CATEGORY_COND_BR || s.category == ZYDIS_CATEGORY_CMOV ||
             s.category == ZYDIS_CATEGORY_SETCC || s.category == ZYDIS_CATEGORY_FCMOV;
  }
}

} // namespace

BlockPools::BlockPools(Mode mode) {
  for (const Slot& s : slots(mode)) {
    if (!fits_in_block(s)) continue;
    all.push_back(&s);
    if (sets_flags(s)) integer.push_back(&s);
    if (sets_flags(s) && !s.memory) integer.push_back(&s), integer.push_back(&s); // those whose flags may die
    if (uses_flags(s)) consumer.push_back(&s);
    const bool offset = s.map == 0 && s.opcode >= 0xa0 && s.opcode <= 0xa3; // MOV with an address and no ModRM
    if ((s.memory && s.map < 2) || offset) memory.push_back(&s);
  }
}

bool Generator::block(Case& c, const BlockPools& pools) {
  begin(c);
  block_ = true;
  used_.clear();
  c.start = (random_.percent(20) ? CODE + PAGE_SIZE - random_.below(160) : CODE_START) | high();
  initial_state(c);
  if (random_.percent(90)) { // with exceptions masked a block gets further
    c.initial.fx.mxcsr |= 0x1f80;
    c.initial.fx.fcw |= 0x3f;
    soft::update_fsw_summary(c.initial.fx);
  }
  return BlockBuilder(*this, c, pools).build();
}

// --- bytes

void BlockBuilder::emit(std::initializer_list<u8> bytes) {
  for (const u8 b : bytes) c_.code[at_++] = b;
}
void BlockBuilder::emit_value(u64 value, unsigned bytes) {
  std::memcpy(&c_.code[at_], &value, bytes);
  at_ += bytes;
}
void BlockBuilder::load(unsigned reg, u64 value) {
  const bool wide = c_.mode == Mode::bits64 && value > 0xffff'ffff;
  if (c_.mode == Mode::bits16) emit({0x66});
  if (wide || reg >= 8) emit({static_cast<u8>(0x40 | (wide ? 8 : 0) | (reg >= 8 ? 1 : 0))});
  emit({static_cast<u8>(0xb8 | (reg & 7))});
  emit_value(value, wide ? 8 : 4);
}
// The bytes to be emitted next hold the offset of a later instruction.
void BlockBuilder::patch_here(unsigned size, bool relative) {
  patches_.push_back({at_, size, relative ? at_ + size : 0, static_cast<unsigned>(boundaries_.size())});
}
void BlockBuilder::load_target(unsigned reg) {
  const unsigned size = high() ? 8 : 4;
  load(reg, high() ? ~u64{0} : 0);
  at_ -= size;
  patch_here(size, false);
  at_ += size;
}
// ModRM (with SIB in 64-bit mode) and displacement of an operand at that linear address.
void BlockBuilder::modrm_absolute(unsigned field, u64 address) {
  const u8 reg = static_cast<u8>(field << 3);
  if (c_.mode == Mode::bits64) emit({static_cast<u8>(reg | 4), 0x25});
  if (c_.mode == Mode::bits32) emit({static_cast<u8>(reg | 5)});
  if (c_.mode == Mode::bits16) emit({static_cast<u8>(reg | 6)});
  emit_value(address - data_base(c_.mode), c_.mode == Mode::bits16 ? 2 : 4);
}
// CMP or TEST of two registers, which cannot fault.
void BlockBuilder::define_flags() {
  static constexpr u8 OPCODE[] = {0x38, 0x39, 0x3a, 0x3b, 0x84, 0x85};
  emit({OPCODE[r_.below(sizeof OPCODE)], static_cast<u8>(0xc0 | r_.below(64))});
}

// --- instructions of the pools

// Appends the instruction with what it needs before and behind it.
bool BlockBuilder::place(const u8* bytes, const Slot* slot) {
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis(c_.mode), bytes, 15, &insn, operands)) ||
      classify(insn, operands) != Verdict::compare)
    return false;
  // Operands are found twice: which registers they need, and then, behind the loads, the displacement.
  const Random before = r_;
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      for (const Generator::Load& l : g_.loads_) load(static_cast<unsigned>(l.reg), l.value);
      r_ = before;
    }
    g_.loads_.clear();
    std::memcpy(&c_.code[at_], bytes, insn.length);
    g_.fix_operands(c_, at_, insn, operands);
  }
  at_ += insn.length;
  if (insn.raw.imm[0].is_relative) {
    const unsigned size = insn.raw.imm[0].size / 8u;
    patches_.push_back(
        {at_ - insn.length + insn.raw.imm[0].offset, size, at_, static_cast<unsigned>(boundaries_.size())});
  }
  if (undefined_flags(insn.mnemonic) != 0) define_flags();
  g_.used_.push_back(slot);
  return true;
}

bool BlockBuilder::draw(const std::vector<const Slot*>& pool) {
  const Slot* const slot = pool[r_.below(static_cast<u32>(pool.size()))];
  u8 bytes[48];
  g_.encode(*slot, bytes);
  return place(bytes, slot);
}

// --- pairs

void BlockBuilder::compare_and_branch() {
  const bool wide = c_.mode == Mode::bits64 && r_.percent(50);
  if (wide) emit({static_cast<u8>(0x40 | r_.below(16))});
  const u8 reg = static_cast<u8>(0xc0 | r_.below(64));
  switch (r_.below(6)) {
    case 0: emit({0x83, static_cast<u8>(reg | 0x38), r_.byte()}); break;
    case 1: emit({0x80, static_cast<u8>(reg | 0x38), r_.byte()}); break;
    case 2: emit({0x3c, r_.byte()}); break;
    default: {
      static constexpr u8 OPCODE[] = {0x38, 0x39, 0x84, 0x85};
      emit({OPCODE[r_.below(4)], reg});
    }
  }
  if (r_.percent(20)) boundaries_.push_back(at_); // somebody may jump in between
  const u8 cc = static_cast<u8>(r_.below(16));
  const bool near = r_.percent(50);
  const unsigned size = near ? (c_.mode == Mode::bits16 ? 2 : 4) : 1;
  if (near)
    emit({0x0f, static_cast<u8>(0x80 | cc)});
  else
    emit({static_cast<u8>(0x70 | cc)});
  patch_here(size, true);
  at_ += size;
}

void BlockBuilder::return_somewhere() { // PUSH target; RET
  if (high()) {
    load_target(soft::RAX);
    emit({0x50});
  } else {
    const unsigned size = c_.mode == Mode::bits16 ? 2 : 4;
    emit({0x68});
    patch_here(size, false);
    at_ += size;
  }
  if (r_.percent(50))
    emit({0xc3});
  else
    emit({0xc2, static_cast<u8>(r_.below(4) * 8), 0});
}

void BlockBuilder::jump_through_register() { // JMP or CALL
  static constexpr u8 REGISTERS[] = {0, 1, 2, 3, 6, 7};
  const u8 reg = REGISTERS[r_.below(6)];
  load_target(reg);
  emit({0xff, static_cast<u8>((r_.percent(50) ? 0xe0 : 0xd0) | reg)});
}

void BlockBuilder::jump_through_memory() {
  const u64 address = g_.data_address(8);
  if (high()) load_target(soft::RAX);
  if (c_.mode == Mode::bits64) emit({0x48});
  emit({static_cast<u8>(high() ? 0x89 : 0xc7)}); // MOV m, RAX or an immediate
  modrm_absolute(0, address);
  if (!high()) {
    const unsigned size = c_.mode == Mode::bits16 ? 2 : 4;
    patch_here(size, false);
    at_ += size;
  }
  emit({0xff});
  modrm_absolute(r_.percent(50) ? 4 : 2, address);
}

void BlockBuilder::load_flags() { // PUSH imm; POPF
  emit({0x68});
  emit_value(r_.next() & 0x4cd5, c_.mode == Mode::bits16 ? 2 : 4); // no TF, AC
  emit({0x9d});
}

void BlockBuilder::divide() { // RDX < RCX, so that only the divisor's own size decides
  load(soft::RDX, r_.below(16));
  load(soft::RCX, 16 + r_.below(0x7fff'0000));
  const u8 opcode = 0xf7, modrm = static_cast<u8>(0xf1 | r_.below(2) << 3); // DIV or IDIV ECX
  const u8 rex = 0x48;
  if (c_.mode == Mode::bits64 && r_.percent(40)) emit({rex});
  emit({opcode, modrm});
  define_flags();
}

void BlockBuilder::end_loop() { // SUB byte [counter], 1; JNZ back
  emit({0x80});
  modrm_absolute(5, LOOP_COUNTER);
  emit({1});
  const unsigned size = c_.mode == Mode::bits16 ? 2 : 4;
  emit({0x0f, 0x85});
  const u64 distance = static_cast<u64>(loop_start_) - (at_ + size);
  emit_value(distance, size);
  loop_start_ = -1;
}

// Nobody overwrites flags before a fault that shows them, whatever the instruction does with them itself.
bool BlockBuilder::end_in_fault() {
  boundaries_.push_back(at_);
  define_flags();
  g_.faulting_ = true;
  const bool placed = draw(pools_.memory);
  g_.faulting_ = false;
  define_flags();
  return placed;
}

// --- the block

bool BlockBuilder::step() {
  const u32 what = r_.below(100);
  if (what < 35) return draw(pools_.all);
  if (what < 65) return draw(pools_.integer);
  if (what < 80) return draw(pools_.consumer);
  if (what < 88) return compare_and_branch(), true;
  if (what < 90) return return_somewhere(), true;
  if (what < 92) return jump_through_register(), true;
  if (what < 94) return jump_through_memory(), true;
  if (what < 97) return load_flags(), true;
  return divide(), true;
}

// Targets of the branches.
bool BlockBuilder::resolve() {
  for (const Patch& p : patches_) {
    const u32 choices = static_cast<u32>(boundaries_.size()) - p.from;
    const unsigned target = boundaries_[p.from + r_.below(choices)];
    if (p.end != 0 && p.size == 1 && target - p.end > 127) return false;
    const u64 value = p.end != 0 ? target - p.end : c_.start + target - code_base(c_.mode);
    std::memcpy(&c_.code[p.at], &value, p.size);
  }
  return true;
}

bool BlockBuilder::build() {
  const unsigned wanted = 2 + r_.below(19);
  const unsigned loop_from = r_.percent(25) ? r_.below(wanted) : wanted, loop_to = loop_from + 1 + r_.below(6);
  for (unsigned n = 0; n < wanted && at_ < MOST_BYTES; ++n) {
    boundaries_.push_back(at_);
    if (n == loop_from) loop_start_ = static_cast<int>(at_);
    bool placed = false;
    for (int attempt = 0; attempt < 8 && !placed; ++attempt) placed = step();
    if (!placed) return false;
    if (loop_start_ >= 0 && (n == loop_to || n + 1 == wanted)) {
      boundaries_.push_back(at_);
      end_loop();
    }
  }
  if (r_.percent(20) && at_ < MOST_BYTES && !end_in_fault()) return false;
  boundaries_.push_back(at_);
  c_.code_size = at_;
  g_.poke(c_, LOOP_COUNTER, 2 + r_.below(4));
  return resolve();
}

} // namespace transom::cpu_test
