// Every opcode-map slot of a mode: what the slot is, and whether the two CPUs can be compared on it.
#pragma once

#include <Zydis/Zydis.h>
#include <string>
#include <vector>

#include "tests/cpu/case.hpp"

namespace transom::cpu_test {

enum class Verdict : u8 {
  compare,     // run on both
  unsupported, // the host has it, our CPUID models do not: our CPU has to raise #UD
  skip,        // depends on time, kernel or hypervisor, or would hurt the test process
};

struct Slot {
  u8 map; // 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A
  u8 opcode;
  u8 prefix; // 0, 66, F3, F2
  bool has_modrm;
  bool memory; // ModRM.mod != 3
  u8 modrm;    // bits that choose the instruction are as here
  u8 fixed;    // those bits
  Verdict verdict;
  ZydisMnemonic mnemonic;
  ZydisInstructionCategory category;
  const char* reason; // of Verdict::skip, else null
  std::string name() const;
};

// Slots with verdict compare or unsupported; and the others, each with its reason.
const std::vector<Slot>& slots(Mode mode);
std::vector<Slot> excluded_slots(Mode mode);

const char* skip_reason(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands); // null: none
Verdict classify(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands);
const ZydisDecoder& zydis(Mode mode);

// Whether a block may have it drawn at random among its instructions: it goes on behind itself (what does not is made
// on purpose, see blocks.cc), and writes nothing that depends on the CPU's model.
bool fits_in_block(const Slot& slot);

// Instruction that never completes in user mode: privileged, or always #UD.
bool always_faults(const Slot& slot);

} // namespace transom::cpu_test
