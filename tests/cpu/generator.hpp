// Makes cases: an instruction for a slot, and a state in which its operands are worth looking at.
#pragma once

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "tests/cpu/random.hpp"
#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

// What blocks draw from.
struct BlockPools {
  explicit BlockPools(Mode mode);
  std::vector<const Slot*> all, integer /* sets flags */, consumer /* depends on flags */,
      memory /* has an operand there */;
};

class Generator {
 public:
  Generator(Mode mode, u64 seed) : mode_(mode), random_(seed) {}

  // Both answer whether the case can be run natively; if not, nothing in it may be used but the code (which Zydis says
  // is `verdict`).
  Verdict one(const Slot& slot, Case& c);                        // one instruction of that slot
  Verdict bytes(Case& c);                                        // random bytes, weighted towards opcodes that exist
  Verdict given(Case& c, const u8* code, unsigned size);         // that instruction
  bool block(Case& c, const BlockPools& pools);                  // 2 to 20 instructions; false: try again
  const std::vector<const Slot*>& used() const { return used_; } // by the last block

 private:
  friend class BlockBuilder;
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
  u64 high();
  u64 code_address(const Case& c);
  void set_register(Case& c, int n, u64 value);
  void poke(Case& c, u64 address, u64 value);

  Mode mode_;
  Random random_;
  ZydisMnemonic mnemonic_ = ZYDIS_MNEMONIC_INVALID; // of the last single instruction
  bool given_ = false;                              // somebody else knows that it can be compared
  // In a block nothing is known about registers: those that an operand needs are loaded right before.
  bool block_ = false;
  bool faulting_ = false; // the next operand in memory lies where nothing is
  struct Load {
    int reg;
    u64 value;
  };
  std::vector<Load> loads_;
  std::vector<const Slot*> used_;
};

} // namespace transom::cpu_test
