// Which host register holds which guest register in translated code.
//
// rax and rcx are for the translator: LAHF, shifts by CL and the addresses of memory operands want them. rsp is
// &Cpu::gpr[0]. That leaves thirteen; the three guest registers that compilers use least stay in Cpu::gpr.
#pragma once

#include <asmjit/x86.h>

#include "core/types.hpp"

namespace transom::soft {

inline constexpr u8 NOT_PINNED = 0xff;
inline constexpr u8 PINNED[16] = {
    9, 10,         2,          3,          11, 5,  6,  7, // rax rcx rdx rbx rsp rbp rsi rdi
    8, NOT_PINNED, NOT_PINNED, NOT_PINNED, 12, 13, 14, 15};
inline bool pinned(unsigned guest) { return PINNED[guest] != NOT_PINNED; }

} // namespace transom::soft
