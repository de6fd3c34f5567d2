// The stack, with the mode known when the instruction was decoded. Long: 64-bit code.
#pragma once

#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

template <class T, bool Long>
[[gnu::always_inline]] inline void stack_push(Cpu& cpu, T value) {
  if constexpr (Long) {
    const u64 top = cpu.gpr[RSP] - sizeof(T);
    write_linear<T>(cpu, top, value);
    cpu.gpr[RSP] = top;
  } else {
    push<T>(cpu, value);
  }
}
template <class T, bool Long>
[[gnu::always_inline]] inline T stack_pop(Cpu& cpu) {
  if constexpr (Long) {
    const T value = read_linear<T>(cpu, cpu.gpr[RSP]);
    cpu.gpr[RSP] += sizeof(T);
    return value;
  } else {
    return pop<T>(cpu);
  }
}

// (operand size, 64-bit code) as template arguments: 64-bit code has 8 and 2, the rest 4 and 2.
template <class F>
auto by_stack(const Decoded& d, F&& f) {
  if (d.code64()) return d.osz == 2 ? f.template operator()<u16, true>() : f.template operator()<u64, true>();
  return d.osz == 2 ? f.template operator()<u16, false>() : f.template operator()<u32, false>();
}

} // namespace transom::soft
