// Run-time values to template arguments, once, when an instruction is decoded.
#pragma once

#include "hypervisor/vcpu/soft/decode.hpp"

namespace transom::soft {

template <class F>
auto by_size(unsigned bytes, F&& f) {
  switch (bytes) {
    case 1: return f.template operator()<u8>();
    case 2: return f.template operator()<u16>();
    case 4: return f.template operator()<u32>();
    default: return f.template operator()<u64>();
  }
}
template <class F>
auto by_wide_size(unsigned bytes, F&& f) { // 2, 4, 8
  switch (bytes) {
    case 2: return f.template operator()<u16>();
    case 4: return f.template operator()<u32>();
    default: return f.template operator()<u64>();
  }
}
template <class F>
auto by_form(Form form, F&& f) {
  switch (form) {
    case Form::reg: return f.template operator()<Form::reg>();
    case Form::flat: return f.template operator()<Form::flat>();
    case Form::full: return f.template operator()<Form::full>();
    default: return f.template operator()<Form::legacy>();
  }
}
template <class F>
auto by_memory_form(Form form, F&& f) {
  switch (form) {
    case Form::flat: return f.template operator()<Form::flat>();
    case Form::full: return f.template operator()<Form::full>();
    default: return f.template operator()<Form::legacy>();
  }
}
// 0 … N-1
template <unsigned N, unsigned At = 0, class F>
auto by_number(unsigned n, F&& f) {
  if constexpr (At + 1 == N)
    return f.template operator()<At>();
  else
    return n == At ? f.template operator()<At>() : by_number<N, At + 1>(n, static_cast<F&&>(f));
}

// Reads and writes of an r/m operand by form; sets cpu.current for the memory forms.
template <class T, Form F>
[[gnu::always_inline]] inline T read_rm(Cpu& cpu, const Insn* i) {
  if constexpr (F == Form::reg)
    return reg<T>(cpu, i->rm);
  else {
    cpu.current = i;
    return read_linear<T>(cpu, operand_address<F>(cpu, *i, sizeof(T), false));
  }
}
template <class T, Form F>
[[gnu::always_inline]] inline void write_rm(Cpu& cpu, const Insn* i, T value) {
  if constexpr (F == Form::reg)
    set_reg<T>(cpu, i->rm, value);
  else {
    cpu.current = i;
    write_linear<T>(cpu, operand_address<F>(cpu, *i, sizeof(T), true), value);
  }
}
template <class T, Form F, class Op>
[[gnu::always_inline]] inline auto rmw_rm(Cpu& cpu, const Insn* i, Op&& op) {
  cpu.current = i;
  return rmw_linear<T>(cpu, operand_address<F>(cpu, *i, sizeof(T), true), static_cast<Op&&>(op));
}

// --- one selector per family; each adjusts nothing but returns what decode.hpp describes. They live with their
// handlers.
Selection select_alu(const Decoded& d, unsigned op, unsigned size, bool to_reg, bool immediate);
Selection select_test(const Decoded& d, unsigned size, bool immediate);
Selection select_unary(const Decoded& d, unsigned which, unsigned size); // INC DEC NEG NOT
Selection select_muldiv(const Decoded& d, unsigned size);                // F6/F7 /4–/7
Selection select_imul(const Decoded& d, bool immediate);
Selection select_shift(const Decoded& d, unsigned size, bool by_cl, bool by_one);
Selection select_double_shift(const Decoded& d, bool left, bool by_cl);
Selection select_bit(const Decoded& d, unsigned op, bool immediate); // BT BTS BTR BTC
Selection select_scan(const Decoded& d, bool reverse);
Selection select_popcnt(const Decoded& d);
Selection select_adjust(const Decoded& d); // DAA DAS AAA AAS AAM AAD

Selection select_mov(const Decoded& d, unsigned size, bool to_reg, bool immediate);
Selection select_mov_imm_reg(const Decoded& d, unsigned size);
Selection select_moffs(const Decoded& d, unsigned size, bool to_reg);
Selection select_extend(const Decoded& d, unsigned from, bool sign); // MOVZX MOVSX MOVSXD
Selection select_lea(const Decoded& d);
Selection select_xchg(const Decoded& d, unsigned size);
Selection select_xchg_rax(const Decoded& d);
Selection select_cmpxchg(const Decoded& d, unsigned size);
Selection select_xadd(const Decoded& d, unsigned size);
Selection select_cmpxchg_wide(const Decoded& d);
Selection select_cmov(const Decoded& d);
Selection select_setcc(const Decoded& d);
Selection select_bswap(const Decoded& d);
Selection select_misc(const Decoded& d); // CBW CWD SAHF LAHF CLC … XLAT SALC NOP

Selection select_push(const Decoded& d); // PUSH reg, imm, r/m
Selection select_pop(const Decoded& d);
Selection select_stack_misc(const Decoded& d); // PUSHA POPA PUSHF POPF ENTER LEAVE

Selection select_jump(const Decoded& d);   // JMP rel, JMP r/m
Selection select_call(const Decoded& d);   // CALL rel, CALL r/m
Selection select_return(const Decoded& d); // RET, RET imm16
Selection select_jcc(const Decoded& d);
Selection select_loop(const Decoded& d);                                  // LOOPNE LOOPE LOOP JCXZ
Handler select_fused(const Insn& first, const Insn& branch, bool linked); // CMP/TEST + Jcc; null: not fused

Selection select_string(const Decoded& d);
Selection select_io(const Decoded& d);      // IN OUT INS OUTS
Selection select_control(const Decoded& d); // CLI STI CLD STD HLT

const Insn* undefined_opcode(Cpu& cpu, const Insn* i);
const Insn* too_long(Cpu& cpu, const Insn* i);
const Insn* no_operation(Cpu& cpu, const Insn* i);
const Insn* spin_hint(Cpu& cpu, const Insn* i); // PAUSE

} // namespace transom::soft
