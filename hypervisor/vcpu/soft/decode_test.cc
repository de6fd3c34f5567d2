// The decoder against Zydis: length and validity of random bytes, in all three code sizes.
#include "hypervisor/vcpu/soft/decode.hpp"

#include <Zydis/Zydis.h>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <string>

namespace transom::soft {
namespace {

struct CodeSize {
  u16 mode;
  ZydisMachineMode machine;
  ZydisStackWidth stack;
  const char* name;
};
constexpr CodeSize SIZES[] = {
    {MODE_PE | MODE_LONG | MODE_64 | MODE_FLAT_CS, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64, "64"},
    {MODE_PE | MODE_CODE32 | MODE_STACK32 | MODE_FLAT_CS, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32, "32"},
    {MODE_PE, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16, "16"},
};

// What this CPU is meant to have; everything else it refuses.
bool supported(const ZydisDecodedInstruction& z) {
  if (z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  switch (z.meta.isa_set) {
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
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_RDTSCP: return true;
    default: return false;
  }
}

// Accepted here by design: hints that are NOPs, BSF/BSR with an F3 that means nothing to them, and what the handler
// itself refuses at run time. Refused by design: what exists to be refused.
bool accepted_by_design(const std::string& name) {
  return name.rfind("bnd", 0) == 0 || name == "cldemote" || name == "prefetchwt1" || name == "tzcnt" ||
         name == "lzcnt" || name == "rdpmc" || name == "syscall" || name == "sysret";
}
bool refused_by_design(const std::string& name) {
  return name == "ud0" || name == "ud1" || name == "ud2" || name == "rsm";
}

std::string text(const u8* bytes, unsigned n) {
  std::string s;
  char two[4];
  for (unsigned k = 0; k < n; ++k) {
    snprintf(two, sizeof two, "%02x ", bytes[k]);
    s += two;
  }
  return s;
}

TEST(Decode, AgreesWithZydisOnRandomBytes) {
  std::mt19937_64 random(20261120);
  for (const CodeSize& size : SIZES) {
    ZydisDecoder decoder;
    ASSERT_TRUE(ZYAN_SUCCESS(ZydisDecoderInit(&decoder, size.machine, size.stack)));
    std::map<std::string, unsigned> complaints;
    unsigned agreed = 0;
    for (unsigned n = 0; n < 400'000; ++n) {
      u8 bytes[16];
      const u64 low = random(), high = random();
      std::memcpy(bytes, &low, 8);
      std::memcpy(bytes + 8, &high, 8);
      // Dense in the interesting corners: half of them start with a prefix or 0F.
      static constexpr u8 STARTS[] = {0x66, 0xf2, 0xf3, 0xf0, 0x0f, 0x0f, 0x48, 0x67, 0x41, 0x2e, 0x64};
      unsigned at = 0;
      while (random() % 2 && at < 4) bytes[at++] = STARTS[random() % sizeof STARTS];
      const Decoded ours = decode(bytes, 15, size.mode);
      ZydisDecodedInstruction z;
      const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, nullptr, bytes, 15, &z);
      const bool valid = ZYAN_SUCCESS(status) && supported(z);
      const bool mine = ours.status == DecodeStatus::ok;
      if (mine && valid && ours.length == z.length) {
        ++agreed;
        continue;
      }
      if (!mine && !valid) continue;
      const std::string name = ZYAN_SUCCESS(status) ? ZydisMnemonicGetString(z.mnemonic) : "";
      if (mine && !valid && accepted_by_design(name) && ours.length == z.length) continue;
      if (!mine && refused_by_design(name)) continue;
      // MOV with a segment, control, debug or bounds register that does not exist (or SWAPGS outside 64-bit mode): #UD
      // comes from the handler, and the last are NOPs here.
      if (mine && !ZYAN_SUCCESS(status) && ours.map == MAP_0F &&
          ((ours.opcode & 0xfc) == 0x20 || (ours.opcode & 0xfe) == 0x1a || ours.opcode == 0x01))
        continue;
      if (mine && !ZYAN_SUCCESS(status) && ours.map == MAP_ONE && (ours.opcode == 0x8c || ours.opcode == 0x8e))
        continue;
      std::string key =
          mine ? (ZYAN_SUCCESS(status) ? (valid ? "length: " : "accepted: ") : "accepted, Zydis fails: ") : "refused: ";
      key += name;
      if (complaints[key]++ < 2)
        ADD_FAILURE() << size.name << "-bit " << key << " " << text(bytes, 15) << " map " << +ours.map << " opcode "
                      << std::hex << +ours.opcode;
    }
    EXPECT_GT(agreed, 100'000u) << size.name;
  }
}

} // namespace
} // namespace transom::soft
