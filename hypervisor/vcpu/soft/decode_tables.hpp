// Which opcodes take a ModRM byte and what immediate follows (SDM volume 2 appendix A).
#pragma once

#include "core/types.hpp"

namespace transom::soft {

enum OperandBits : u8 {
  NONE = 0,
  MODRM = 1,
  IMM_B = 2,    // 8 bits, sign-extended
  IMM_W = 4,    // 16 bits, zero-extended
  IMM_Z = 8,    // 16 or 32 bits by operand size, sign-extended
  IMM_V = 16,   // 16, 32 or 64 bits by operand size
  MOFFS = 32,   // address-size offset
  POINTER = 64, // ptr16:16 or ptr16:32
  BAD64 = 128,  // #UD in 64-bit mode
};

struct OpcodeTable {
  u8 bits[256];
};
extern const OpcodeTable ONE_BYTE, TWO_BYTE;

} // namespace transom::soft
