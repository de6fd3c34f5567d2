// The decoder against Zydis: which bytes are an instruction, how long it is, and where its memory operand lies.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <link.h>
#include <map>
#include <unistd.h>

#include "firmware/tests/debian_kernel.hpp"
#include "hypervisor/vcpu/soft/decode.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"
#include "tests/cpu/random.hpp"
#include "tests/cpu/slots.hpp"
#include "tests/cpu/soft_runner.hpp"

namespace transom::cpu_test {

using namespace soft;

namespace {

struct Machine {
  const char* name;
  u16 mode;
  ZydisDecoder zydis;
};

const Machine& machine(unsigned n) {
  static const auto decoder = [](ZydisMachineMode mode, ZydisStackWidth width) {
    ZydisDecoder d;
    ZydisDecoderInit(&d, mode, width);
    for (auto off : {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_LZCNT, ZYDIS_DECODER_MODE_TZCNT,
                     ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_KNC})
      ZydisDecoderEnableMode(&d, off, ZYAN_FALSE);
    return d;
  };
  static const Machine MACHINES[3] = {
      {"64-bit", MODE_64 | MODE_LONG | MODE_PE | MODE_FLAT_CS, zydis(Mode::bits64)},
      {"32-bit", MODE_CODE32 | MODE_STACK32 | MODE_PE | MODE_FLAT_CS,
       decoder(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32)},
      {"16-bit", MODE_PE, decoder(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16)},
  };
  return MACHINES[n];
}

int register_number(ZydisRegister r) {
  if (r == ZYDIS_REGISTER_NONE) return REG_ZERO;
  if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP) return REG_RIP;
  return ZydisRegisterGetId(r);
}

// Instructions that our tables decode and Zydis does not, or the other way round, with the reason; null: a bug.
const char* accepted(const ZydisDecodedInstruction& insn) {
  switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_RSM: return "#UD, so not in our tables";
    default: break;
  }
  switch (insn.meta.isa_set) {
    case ZYDIS_ISA_SET_CET:
    case ZYDIS_ISA_SET_MPX:
    case ZYDIS_ISA_SET_AMD3DNOW:
    case ZYDIS_ISA_SET_PREFETCHWT1: return "a hint: NOP where the extension is missing";
    case ZYDIS_ISA_SET_RDTSCP:
    case ZYDIS_ISA_SET_RDPID:
    case ZYDIS_ISA_SET_VTX:
    case ZYDIS_ISA_SET_SVM:
    case ZYDIS_ISA_SET_AMD: return "decided when it executes, by the model or the mode";
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_BMI1: return "BSR, BSF without the extension";
    default: return nullptr;
  }
}
bool undefined_when_executed(const Decoded& d) { // ReservedEncodingsAreUndefinedWhenExecuted checks that
  if (d.map == MAP_ONE && (d.opcode == 0x8c || d.opcode == 0x8e)) return true; // no such segment register
  // BOUND, LES and LDS of a register: VEX and EVEX where there is AVX
  if (d.map == MAP_ONE && !d.code64() && !d.memory()) return d.opcode == 0x62 || d.opcode == 0xc4 || d.opcode == 0xc5;
  if (d.map == MAP_0F && !d.code64() && d.opcode == 0x01) return d.modrm == 0xf8; // SWAPGS
  if (d.map != MAP_0F) return false;
  const bool far_pointer_in_register = (d.opcode == 0xb2 || d.opcode == 0xb4 || d.opcode == 0xb5) && !d.memory();
  return far_pointer_in_register || (d.opcode & 0xfc) == 0x20; // no such control or debug register
}

struct Disagreements {
  std::map<std::string, unsigned> kinds; // one example each
  std::string text;
  u64 instructions = 0;

  void add(const std::string& kind, const Machine& m, const u8* bytes, unsigned size) {
    if (++kinds[kind] > 1) return;
    std::string hex;
    char two[4];
    for (unsigned n = 0; n < size; ++n) {
      std::snprintf(two, sizeof two, " %02x", bytes[n]);
      hex += two;
    }
    text += std::string(m.name) + ":" + hex + ": " + kind + "\n";
  }
};

std::string numbers(const char* what, i64 zydis, i64 ours) {
  return std::string(what) + ": Zydis " + std::to_string(zydis) + ", ours " + std::to_string(ours);
}

void compare_memory(const Machine& m, const ZydisDecodedInstruction& insn, const ZydisDecodedOperand& op,
                    const Decoded& d, const u8* bytes, Disagreements& out) {
  const std::string name = ZydisMnemonicGetString(insn.mnemonic);
  const auto check = [&](const char* what, i64 zydis, i64 ours) {
    if (zydis != ours) out.add(name + " " + numbers(what, zydis, ours), m, bytes, insn.length);
  };
  // With 67, Zydis 4.0 takes REX.B into account for "no base" (mod 00, base 101); SDM 2A table 2-5 says it is not
  // decoded.
  if (d.asz == 4 && d.code64() && d.base == REG_ZERO && insn.raw.sib.base == 5 && insn.raw.modrm.mod == 0) return;
  int base = register_number(op.mem.base), index = register_number(op.mem.index);
  unsigned scale = index == REG_ZERO ? 0 : static_cast<unsigned>(__builtin_ctz(op.mem.scale | 16u));
  check("base", base, d.base);
  check("index", index, d.index);
  if (index != REG_ZERO) check("scale", scale, d.scale);
  check("displacement", op.mem.disp.has_displacement ? static_cast<i32>(op.mem.disp.value) : 0, d.disp);
  if (!(m.mode & MODE_64) && op.mem.type == ZYDIS_MEMOP_TYPE_MEM)
    check("segment", ZydisRegisterGetId(op.mem.segment), d.segment);
  check("address size", insn.address_width / 8, d.asz);
}

void compare_one(const Machine& m, const u8* bytes, Disagreements& out) {
  ZydisDecodedInstruction insn;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  const ZyanStatus status = ZydisDecoderDecodeFull(&m.zydis, bytes, 15, &insn, operands);
  const Decoded d = decode(bytes, 15, m.mode);
  ++out.instructions;
  if (!ZYAN_SUCCESS(status)) {
    if (d.status == DecodeStatus::ok && status != ZYDIS_STATUS_NO_MORE_DATA &&
        status != ZYDIS_STATUS_INSTRUCTION_TOO_LONG && !undefined_when_executed(d)) {
      char kind[64];
      std::snprintf(kind, sizeof kind, "invalid for Zydis (map %u opcode %02X prefix %02X /%u)", d.map, d.opcode,
                    d.prefix, d.modrm >> 3 & 7);
      out.add(kind, m, bytes, d.length);
    }
    return;
  }
  const Verdict verdict = classify(insn, operands);
  const bool legacy = insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  const std::string name = ZydisMnemonicGetString(insn.mnemonic);
  if (accepted(insn) != nullptr) return;
  if (verdict == Verdict::unsupported) {
    if (d.status == DecodeStatus::ok && !undefined_when_executed(d))
      out.add("not in any model, yet decoded: " + name, m, bytes, insn.length);
    return;
  }
  if (!legacy) return;
  if (d.status != DecodeStatus::ok) return out.add("not decoded: " + name, m, bytes, insn.length);
  if (d.length != insn.length)
    return out.add(name + " " + numbers("length", insn.length, d.length), m, bytes, insn.length);
  for (unsigned n = 0; n < insn.operand_count_visible; ++n) {
    const ZydisDecodedOperand& op = operands[n];
    const bool explicit_memory = op.type == ZYDIS_OPERAND_TYPE_MEMORY && op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    if (explicit_memory && !d.memory()) out.add(name + " has a memory operand", m, bytes, insn.length);
    if (explicit_memory && d.memory()) compare_memory(m, insn, op, d, bytes, out);
    if (op.type == ZYDIS_OPERAND_TYPE_REGISTER && op.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM && d.memory())
      out.add(name + " has a register operand", m, bytes, insn.length);
  }
}

void random_bytes(Random& r, u8 (&bytes)[16]) {
  static constexpr u8 PREFIXES[] = {0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x48, 0x41, 0x4f};
  unsigned n = 0;
  while (n < 8 && r.percent(30)) bytes[n++] = PREFIXES[r.below(sizeof PREFIXES)];
  if (r.percent(45)) {
    bytes[n++] = 0x0f;
    if (r.percent(20)) bytes[n++] = r.percent(50) ? 0x38 : 0x3a;
  }
  while (n < 16) bytes[n++] = r.byte();
}

// Every instruction of the executable parts of an ELF file, one after the other.
u64 compare_file(const std::string& path, Disagreements& out) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0) return 0;
  Elf64_Ehdr head;
  std::memcpy(&head, bytes.data(), sizeof head);
  const Machine& m = machine(0);
  u64 count = 0;
  for (unsigned n = 0; n < head.e_phnum; ++n) {
    Elf64_Phdr segment;
    const u64 at = head.e_phoff + u64{n} * sizeof segment;
    if (at + sizeof segment > bytes.size()) break;
    std::memcpy(&segment, bytes.data() + at, sizeof segment);
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X) || segment.p_offset + segment.p_filesz > bytes.size())
      continue;
    const u8* const text = reinterpret_cast<const u8*>(bytes.data()) + segment.p_offset;
    for (u64 pos = 0; pos + 16 <= segment.p_filesz; ++count) {
      compare_one(m, text + pos, out);
      ZydisDecodedInstruction insn;
      const bool valid = ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&m.zydis, nullptr, text + pos, 15, &insn));
      pos += valid ? insn.length : 1;
    }
  }
  return count;
}

std::string libc_path() {
  std::string path;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        if (std::strstr(info->dlpi_name, "libc.so") != nullptr) *static_cast<std::string*>(out) = info->dlpi_name;
        return 0;
      },
      &path);
  return path;
}

} // namespace

static std::string mode_name(const testing::TestParamInfo<unsigned>& mode) {
  return mode.param == 0 ? "In64BitCode" : mode.param == 1 ? "In32BitCode" : "In16BitCode";
}
class RandomBytes : public testing::TestWithParam<unsigned> {};

TEST_P(RandomBytes, DecodeAsZydisDecodesThem) {
  const char* const cases = std::getenv("TRANSOM_FUZZ_CASES");
  const u64 count = cases != nullptr ? std::strtoull(cases, nullptr, 0) : 2'000'000;
  Random random(7 + GetParam());
  Disagreements found;
  for (u64 n = 0; n < count; ++n) {
    u8 bytes[16];
    random_bytes(random, bytes);
    compare_one(machine(GetParam()), bytes, found);
  }
  EXPECT_EQ(found.text, "");
}
INSTANTIATE_TEST_SUITE_P(Decoder, RandomBytes, testing::Values(0u, 1u, 2u), mode_name);

TEST(Decoder, EveryInstructionOfTheCLibraryDecodesAsInZydis) {
  const std::string path = libc_path();
  if (path.empty()) GTEST_SKIP() << "no libc.so among the loaded objects";
  Disagreements found;
  EXPECT_GT(compare_file(path, found), 100'000u) << path;
  EXPECT_EQ(found.text, "");
}

// TRANSOM_DECODER_CORPUS names another ELF file to take instead.
TEST(Decoder, EveryInstructionOfDebiansKernelDecodesAsInZydis) {
  const char* const given = std::getenv("TRANSOM_DECODER_CORPUS");
  std::string path =
      given != nullptr ? given : (std::filesystem::temp_directory_path() / "transom-vmlinux-XXXXXX").string();
  if (given == nullptr) {
    const firmware::Bytes vmlinux = firmware::debian_vmlinux();
    ::close(::mkstemp(path.data()));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(vmlinux.data()), static_cast<std::streamsize>(vmlinux.size()));
  }
  Disagreements found;
  EXPECT_GT(compare_file(path, found), given != nullptr ? 0u : 1'000'000u)
      << path << " is not a 64-bit ELF file with code";
  EXPECT_EQ(found.text, "");
  if (given == nullptr) std::filesystem::remove(path);
}

TEST(Decoder, ReservedEncodingsAreUndefinedWhenExecuted) {
  SoftRunner runner;
  const std::vector<std::vector<u8>> both = {
      {0x0f, 0xb2, 0xc0}, {0x0f, 0xb4, 0xc1}, {0x0f, 0xb5, 0xf1}, // LSS, LFS, LGS of registers
      {0x8c, 0xf0},       {0x8c, 0xf8},                           // MOV from segment registers 6, 7
      {0x8e, 0xc8},       {0x8e, 0xf0},       {0x8e, 0xf8},       // MOV to CS, 6, 7
  };
  const std::vector<std::vector<u8>> only_32 = {{0x62, 0xc0}, {0xc4, 0xd1}, {0xc5, 0xff}, {0x0f, 0x01, 0xf8}};
  const auto check = [&](Mode mode, const std::vector<u8>& code) {
    Case c;
    c.mode = mode;
    c.initial.rip = c.start - code_base(mode);
    std::copy(code.begin(), code.end(), c.code.begin());
    c.code_size = static_cast<unsigned>(code.size());
    Outcome o;
    runner.run(c, Way::stepped, o);
    EXPECT_EQ(o.vector, UD) << describe(c);
  };
  for (const std::vector<u8>& code : both) {
    check(Mode::bits64, code);
    check(Mode::bits32, code);
  }
  for (const std::vector<u8>& code : only_32) check(Mode::bits32, code);
}

// The comparison notices a wrong length: a byte more in front is another instruction.
TEST(Decoder, ComparisonNoticesAnotherMode) {
  Machine wrong = machine(0);
  wrong.mode = MODE_CODE32 | MODE_PE;
  const u8 bytes[16] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}; // MOV rax, imm64; in 32-bit code DEC eax
  Disagreements found;
  compare_one(wrong, bytes, found);
  EXPECT_NE(found.text, "");
}

} // namespace transom::cpu_test
