// Every x87, MMX and SSE instruction of the opcode maps asks whether it may run (SDM 3A tables 2-3 and 13-1): with
// CR0.TS, with CR0.EM, without CR4.OSFXSR.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>
#include <set>
#include <string>

#include "hypervisor/vcpu/soft/system_bench.hpp"
#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

using namespace soft;

namespace {

struct Unit {
  bool x87 = false, mmx = false, sse = false; // registers that it has operands in, or their state
};

// What asks for nothing: these touch no register of any unit.
const std::set<ZydisMnemonic> ALWAYS = {
    ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2,
    ZYDIS_MNEMONIC_MOVNTI,      ZYDIS_MNEMONIC_SFENCE,     ZYDIS_MNEMONIC_LFENCE,     ZYDIS_MNEMONIC_MFENCE,
    ZYDIS_MNEMONIC_CLFLUSH,     ZYDIS_MNEMONIC_PAUSE,      ZYDIS_MNEMONIC_CRC32,      ZYDIS_MNEMONIC_POPCNT,
    ZYDIS_MNEMONIC_FWAIT, // with MP alone
};

Unit unit_of(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
  Unit unit;
  if (ALWAYS.count(insn.mnemonic) != 0) return unit;
  for (unsigned n = 0; n < insn.operand_count; ++n) {
    if (operands[n].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const ZydisRegisterClass c = ZydisRegisterGetClass(operands[n].reg.value);
    unit.mmx |= c == ZYDIS_REGCLASS_MMX;
    unit.sse |= c == ZYDIS_REGCLASS_XMM || operands[n].reg.value == ZYDIS_REGISTER_MXCSR;
  }
  const std::string set = ZydisISASetGetString(insn.meta.isa_set);
  unit.x87 = set.find("X87") != std::string::npos || set == "FXSAVE" || set == "FXSAVE64";
  if (unit.x87) unit.mmx = unit.sse = false;
  if (insn.mnemonic == ZYDIS_MNEMONIC_EMMS) unit.mmx = true;
  unit.sse |= unit.mmx && insn.meta.category == ZYDIS_CATEGORY_CONVERT; // under MXCSR, also from memory
  return unit;
}

class Availability : public ::testing::Test {
 protected:
  void SetUp() override { b.long_mode_64(); }
  // The vector that the instruction at the code's beginning raises; -1: none.
  int vector(u64 cr0, u64 cr4) {
    b.cpu.cr0 = (b.cpu.cr0 & ~(CR0_TS | CR0_EM)) | cr0;
    b.cpu.cr4 = CR4_PAE | cr4;
    b.cpu.rip = Bench::CODE;
    b.cpu.gpr[RSP] = Bench::STACK;
    b.cpu.gpr[RBX] = 0x5000;
    b.cpu.halted = false;
    update_mode(b.cpu);
    b.step();
    const u64 at = b.cpu.rip - Bench::HANDLERS;
    return at < 256 * 16 ? static_cast<int>(at / 16) : -1;
  }
  void check(const Slot& slot) {
    u8 bytes[15] = {};
    unsigned n = 0;
    if (slot.prefix != 0) bytes[n++] = slot.prefix;
    if (slot.map != 0) bytes[n++] = 0x0f;
    if (slot.map > 1) bytes[n++] = slot.map == 2 ? 0x38 : 0x3a;
    bytes[n++] = slot.opcode;
    const u8 free = slot.memory ? 3 : 0xc1; // [rbx]
    if (slot.has_modrm) bytes[n++] = static_cast<u8>((slot.modrm & slot.fixed) | (free & ~slot.fixed));
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis(Mode::bits64), bytes, 15, &insn, operands))) return;
    const Unit unit = unit_of(insn, operands);
    if (!unit.x87 && !unit.mmx && !unit.sse) return;
    ++checked;
    for (unsigned at = 0; at < 15; ++at) b.put8(Bench::CODE + at, bytes[at]);
    EXPECT_EQ(vector(CR0_TS, CR4_OSFXSR), NM) << slot.name() << " with TS";
    EXPECT_EQ(vector(CR0_EM, CR4_OSFXSR), unit.x87 ? NM : UD) << slot.name() << " with EM";
    if (unit.sse)
      EXPECT_EQ(vector(0, 0), UD) << slot.name() << " without OSFXSR";
    else
      EXPECT_NE(vector(0, 0), UD) << slot.name() << " without OSFXSR";
    const int allowed = vector(0, CR4_OSFXSR); // what it computes with zeroes does not matter here
    EXPECT_TRUE(allowed != NM && allowed != UD) << slot.name() << " is " << allowed;
  }
  using Bench = SystemBench;
  Bench b;
  unsigned checked = 0;
};

} // namespace

TEST_F(Availability, EveryInstructionOfX87MmxAndSseAsksForIt) {
  for (const Slot& slot : slots(Mode::bits64))
    if (slot.verdict == Verdict::compare) check(slot);
  std::printf("%u slots checked\n", checked);
  EXPECT_GT(checked, 1000u);
}

} // namespace transom::cpu_test
