// Makes blocks: 2 to 20 instructions that run into each other.
#pragma once

#include "tests/cpu/generator.hpp"

namespace transom::cpu_test {

// Instructions come from the pools; some are followed or preceded by others that make them worth running: a load of the
// register that points at their operand, a comparison behind those that leave flags undefined. In between stand pairs
// that random choice would hardly make: CMP or TEST with the conditional branch behind it, calls and returns through
// registers and memory, POPF, divisions that do not fault, a loop. Branches go forward to any instruction, or to the
// end; the loop goes back. Some end with a fault between two comparisons: it shows the flags of the first one.
class BlockBuilder {
 public:
  BlockBuilder(Generator& generator, Case& c, const BlockPools& pools)
      : g_(generator), r_(g_.random_), c_(c), pools_(pools) {}
  bool build(); // false: try again

 private:
  struct Patch {
    unsigned at, size;
    unsigned end;  // of the instruction; relative displacements count from there. 0: an absolute offset
    unsigned from; // the first boundary that may be the target
  };

  bool step();
  bool draw(const std::vector<const Slot*>& pool);
  bool place(const u8* bytes, const Slot* slot);
  void emit(std::initializer_list<u8> bytes);
  void emit_value(u64 value, unsigned bytes);
  void load(unsigned reg, u64 value); // MOV r, imm
  void load_target(unsigned reg);
  bool high() const { return (c_.start & HIGH) != 0; }
  void patch_here(unsigned size, bool relative);
  void modrm_absolute(unsigned field, u64 address);
  void define_flags();

  void compare_and_branch();
  void return_somewhere();
  void jump_through_register();
  void jump_through_memory();
  void load_flags();
  void divide();
  void end_loop();
  bool end_in_fault();
  bool resolve();

  Generator& g_;
  Random& r_;
  Case& c_;
  const BlockPools& pools_;
  unsigned at_ = 0;
  std::vector<unsigned> boundaries_; // where instructions begin that may be jumped to
  std::vector<Patch> patches_;
  int loop_start_ = -1; // offset; the loop counter lies in the arena
};

} // namespace transom::cpu_test
