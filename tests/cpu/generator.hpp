// Makes cases: an instruction for a slot, and a state in which its operands are worth looking at.
#pragma once

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "tests/cpu/random.hpp"
#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

class Generator {
 public:
  Generator(Mode mode, u64 seed) : mode_(mode), random_(seed) {}

  // Both answer whether the case can be run natively; if not, nothing in it may be used but the code (which Zydis says
  // is `verdict`).
  Verdict one(const Slot& slot, Case& c);                    // one instruction of that slot
  Verdict bytes(Case& c);                                    // random bytes, weighted towards opcodes that exist
  Verdict given(Case& c, const u8* code, unsigned size);     // that instruction
  bool block(Case& c, const std::vector<const Slot*>& pool); // 2 to 20 instructions; false: try again

 private:
  unsigned encode(const Slot& slot, u8* at);
  void begin(Case& c);
  Verdict finish(Case& c);
  void initial_state(Case& c);
  void fix_operands(Case& c, unsigned offset, const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands);
  bool point_at(Case& c, unsigned offset, const ZydisDecodedInstruction& insn, const ZydisDecodedOperand& op,
                u64 target);
  void fix_control(Case& c, unsigned offset, const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands,
                   u64 memory_target);
  u64 data_address(unsigned size);
  u64 code_address();
  void poke(Case& c, u64 address, u64 value);

  Mode mode_;
  Random random_;
  ZydisMnemonic mnemonic_ = ZYDIS_MNEMONIC_INVALID; // of the last single instruction
  bool block_ = false; // several instructions: registers that hold pointers are left to the case
};

} // namespace transom::cpu_test
