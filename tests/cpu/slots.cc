#include "tests/cpu/slots.hpp"

#include <algorithm>
#include <cstring>

namespace transom::cpu_test {

namespace {

// Instruction sets that every CPUID model shows or that cannot be hidden; what is not here has to be #UD.
bool modelled(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42: return true;
    default: return false;
  }
}

// Instruction sets whose encodings are something else (or nothing) on a CPU without them.
const char* ambiguous(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_LZCNT: return "BSR without LZCNT, which the host has";
    case ZYDIS_ISA_SET_BMI1: return "BSF without BMI1, which the host has";
    case ZYDIS_ISA_SET_CET: return "a NOP without CET, which the host may have";
    case ZYDIS_ISA_SET_MPX:
    case ZYDIS_ISA_SET_CLDEMOTE: return "a NOP, or #UD on hosts that check its operand";
    case ZYDIS_ISA_SET_RDTSCP: return "reads the time, or the number of the host's CPU";
    case ZYDIS_ISA_SET_RDPMC: return "the host's CR4.PCE";
    case ZYDIS_ISA_SET_AMD: return "an instruction of AMD's alone";
    default: return nullptr;
  }
}

const char* skipped(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_INT: return "calls the host kernel";
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3: return "the fuzzer's own traps";
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ: return "loads segments of the host kernel's tables";
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL: return "calls the host's hypervisor";
    case ZYDIS_MNEMONIC_RDTSC: return "reads the time, or the number of the host's CPU";
    case ZYDIS_MNEMONIC_CPUID: return "shows the host's model";
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW: return "shows the host kernel's tables, or #GP with UMIP";
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS: return "loads segments of the host kernel's tables";
    default: return nullptr;
  }
}

// The host's FS and GS bases are its C library's.
bool uses_fs_or_gs(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  for (unsigned n = 0; n < insn.operand_count; ++n)
    if (operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
        (operands[n].mem.segment == ZYDIS_REGISTER_FS || operands[n].mem.segment == ZYDIS_REGISTER_GS))
      return true;
  return false;
}

bool writes_segment(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  return insn.operand_count > 0 && operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
         ZydisRegisterGetClass(operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
         (operands[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

struct Forms {
  bool valid = false;
  ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
  Verdict verdict = Verdict::skip;
  const char* reason = nullptr; // of Verdict::skip
  bool has_modrm = false;
  ZydisInstructionCategory category = ZYDIS_CATEGORY_INVALID;
};

Forms probe_slot(Mode mode, u8 map, u8 prefix, u8 opcode, u8 modrm) {
  u8 bytes[24] = {};
  unsigned n = 0;
  if (prefix != 0) bytes[n++] = prefix;
  if (map != 0) bytes[n++] = 0x0f;
  if (map == 2) bytes[n++] = 0x38;
  if (map == 3) bytes[n++] = 0x3a;
  bytes[n++] = opcode;
  bytes[n++] = modrm;
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  Forms f;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis(mode), bytes, sizeof bytes, &insn, operands))) return f;
  if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && insn.encoding != ZYDIS_INSTRUCTION_ENCODING_3DNOW) return f;
  f.valid = true;
  f.mnemonic = insn.mnemonic;
  f.verdict = classify(insn, operands);
  f.reason = skip_reason(insn, operands);
  f.category = insn.meta.category;
  f.has_modrm = (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  return f;
}

bool prefix_or_escape(Mode mode, u8 map, u8 opcode) {
  if (map == 1) return opcode == 0x38 || opcode == 0x3a;
  if (map != 0) return false;
  if (mode == Mode::bits64 && (opcode & 0xf0) == 0x40) return true;
  for (u8 p : {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x0f, 0xc4, 0xc5, 0x62})
    if (opcode == p && !(mode != Mode::bits64 && (p == 0xc4 || p == 0xc5 || p == 0x62))) return true;
  return false;
}

void add_forms(Mode mode, u8 map, u8 prefix, u8 opcode, std::vector<Slot>& all) {
  std::array<Forms, 256> form;
  for (unsigned m = 0; m < 256; ++m)
    if (m >= 0xc0 || (m & 0xc7) == 0) form[m] = probe_slot(mode, map, prefix, opcode, static_cast<u8>(m));
  if (form[0].valid && !form[0].has_modrm) {
    all.push_back(
        {map, opcode, prefix, false, false, 0, 0, form[0].verdict, form[0].mnemonic, form[0].category, form[0].reason});
    return;
  }
  const auto same = [&](unsigned a, unsigned b) {
    return form[a].valid == form[b].valid && form[a].mnemonic == form[b].mnemonic && form[a].verdict == form[b].verdict;
  };
  const auto add = [&](unsigned modrm, u8 fixed) {
    const Forms& f = form[modrm];
    if (f.valid)
      all.push_back({map, opcode, prefix, true, modrm < 0xc0, static_cast<u8>(modrm), fixed, f.verdict, f.mnemonic,
                     f.category, f.reason});
  };
  for (const bool memory : {true, false}) {
    const unsigned base = memory ? 0 : 0xc0, rms = memory ? 1 : 8;
    bool reg_matters = false, rm_matters = false;
    for (unsigned reg = 0; reg < 8; ++reg)
      for (unsigned rm = 0; rm < rms; ++rm) {
        reg_matters |= !same(base, base | reg << 3);
        rm_matters |= !same(base | reg << 3, base | reg << 3 | rm);
      }
    for (unsigned reg = 0; reg < (reg_matters || rm_matters ? 8u : 1u); ++reg)
      for (unsigned rm = 0; rm < (rm_matters ? rms : 1u); ++rm)
        add(base | reg << 3 | rm, static_cast<u8>((reg_matters || rm_matters ? 0x38 : 0) | (rm_matters ? 7 : 0)));
  }
}

std::vector<Slot> enumerate(Mode mode) {
  std::vector<Slot> all;
  for (u8 map = 0; map < 4; ++map)
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      if (prefix_or_escape(mode, map, static_cast<u8>(opcode))) continue;
      for (u8 prefix : {0x00, 0x66, 0xf3, 0xf2}) add_forms(mode, map, prefix, static_cast<u8>(opcode), all);
    }
  return all;
}

bool has_prefix(const ZydisDecodedInstruction& insn, u8 prefix) {
  for (unsigned n = 0; n < insn.raw.prefix_count; ++n)
    if (insn.raw.prefixes[n].value == prefix) return true;
  return false;
}

// 0F 0D: PREFETCH and PREFETCHW come with long mode; the reserved ones are hints as well.
bool prefetch_row(const ZydisDecodedInstruction& insn) {
  return insn.opcode_map == ZYDIS_OPCODE_MAP_0F && insn.opcode == 0x0d;
}

// Where CPUs of different vendors disagree, and no program can depend on it.
const char* vendors_differ(const ZydisDecodedInstruction& insn) {
  const bool near = insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
  if (near && insn.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && (insn.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE))
    return "66 with a near branch in 64-bit code: AMD truncates RIP, Intel ignores it (APM 3, Jcc; SDM 2A, Jcc)";
  const bool repeat = insn.mnemonic == ZYDIS_MNEMONIC_LOOPE || insn.mnemonic == ZYDIS_MNEMONIC_LOOPNE;
  if (repeat && (has_prefix(insn, 0xf2) || has_prefix(insn, 0xf3)))
    return "F2 and F3 are reserved with LOOPcc (SDM 2A 2.1.1); this host takes them as part of the condition";
  if (prefetch_row(insn) && insn.raw.modrm.mod == 3)
    return "0F 0D with a register: AMD #UD (APM 3, PREFETCH), Intel NOP (SDM 2D A.3)";
  return nullptr;
}

} // namespace

const ZydisDecoder& zydis(Mode mode) {
  static const auto make = [](ZydisMachineMode machine, ZydisStackWidth width) {
    ZydisDecoder d;
    ZydisDecoderInit(&d, machine, width);
    // Optional instructions that look like others on a CPU without them.
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_LZCNT, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_TZCNT, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    return d;
  };
  static const ZydisDecoder wide = make(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  static const ZydisDecoder narrow = make(ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  static const ZydisDecoder small = make(ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_32);
  return mode == Mode::bits64 ? wide : mode == Mode::bits32 ? narrow : small;
}

const char* skip_reason(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return nullptr;
  if (const char* reason = ambiguous(insn.meta.isa_set)) return reason;
  if (const char* reason = skipped(insn.mnemonic)) return reason;
  if (!modelled(insn.meta.isa_set) && !prefetch_row(insn)) return nullptr;
  // LZCNT and TZCNT execute on this host, where a CPU without them would execute BSR and BSF.
  const bool bit_scan = insn.mnemonic == ZYDIS_MNEMONIC_BSF || insn.mnemonic == ZYDIS_MNEMONIC_BSR;
  if (bit_scan && has_prefix(insn, 0xf3))
    return insn.mnemonic == ZYDIS_MNEMONIC_BSF ? ambiguous(ZYDIS_ISA_SET_BMI1) : ambiguous(ZYDIS_ISA_SET_LZCNT);
  if (const char* reason = vendors_differ(insn)) return reason;
  if (uses_fs_or_gs(insn, operands)) return "the host's FS and GS are its C library's";
  if (writes_segment(insn, operands) || insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
    return "loads segments of the host kernel's tables";
  return nullptr;
}

Verdict classify(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  if (skip_reason(insn, operands) != nullptr) return Verdict::skip;
  const bool modelled_set = modelled(insn.meta.isa_set) || prefetch_row(insn);
  const bool ours = insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && modelled_set;
  return ours ? Verdict::compare : Verdict::unsupported;
}

bool always_faults(const Slot& slot) {
  switch (slot.mnemonic) {
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_INVD:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_LIDT:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_LMSW:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_SWAPGS: return true;
    case ZYDIS_MNEMONIC_MOV: return slot.map == 1; // MOV CR, MOV DR
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_RET: return slot.prefix == 0x66; // a 16-bit IP, and nothing is mapped there
    default: return false;
  }
}

bool fits_in_block(const Slot& slot) {
  if (slot.verdict != Verdict::compare || always_faults(slot)) return false;
  switch (slot.mnemonic) {
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_FXSAVE: // MXCSR_MASK, and pointers of the host
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FNSTENV: // FIP: the host's is zero when nothing is pending
    case ZYDIS_MNEMONIC_FNSAVE: return false;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL: return !slot.has_modrm;
    default: return true;
  }
}

std::string Slot::name() const {
  char text[96];
  std::snprintf(text, sizeof text, "%s%s%02X%s %s",
                prefix == 0      ? ""
                : prefix == 0x66 ? "66 "
                : prefix == 0xf3 ? "F3 "
                                 : "F2 ",
                map == 0   ? ""
                : map == 1 ? "0F "
                : map == 2 ? "0F38 "
                           : "0F3A ",
                opcode,
                !has_modrm ? ""
                : memory   ? " mem"
                           : " reg",
                ZydisMnemonicGetString(mnemonic));
  std::string name = text;
  if (fixed != 0) name += " /" + std::to_string(modrm >> 3 & 7);
  return name;
}

namespace {
std::vector<Slot> select(Mode mode, bool skip) {
  std::vector<Slot> all = enumerate(mode);
  all.erase(std::remove_if(all.begin(), all.end(), [=](const Slot& s) { return (s.reason != nullptr) != skip; }),
            all.end());
  return all;
}
} // namespace

const std::vector<Slot>& slots(Mode mode) {
  static const std::vector<Slot> wide = select(Mode::bits64, false), narrow = select(Mode::bits32, false),
                                 small = select(Mode::bits16, false);
  return mode == Mode::bits64 ? wide : mode == Mode::bits32 ? narrow : small;
}

std::vector<Slot> excluded_slots(Mode mode) { return select(mode, true); }

} // namespace transom::cpu_test
