// x87 instructions with nothing but their operands in the host's registers: FXRSTOR and FXSAVE of the whole state cost
// far more than the instruction. The guest's opcode still does the work, on the host's ST(0) and ST(1); TOP and tags
// are kept here. Only while every exception is masked, and only where no stack fault can come of it: each operand
// there, each result into an empty register. Anything else goes to x87_whole_handler().
#include <type_traits>

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "hypervisor/vcpu/soft/handlers_simd.hpp"
#include "hypervisor/vcpu/soft/x87_state.hpp"

namespace transom::soft {

namespace {

// Condition bits that are results of an instruction; the others stay.
constexpr u16 C1 = FSW_C1, C1_C2 = 0x600, C0_TO_C3 = 0x4700;

// Executes an instruction and returns the status word. `a` is ST(0), or the new ST(0); `b` is ST(i), and where one of
// two operands is left it is that. A memory operand is at [rdi].
template <u8 Opcode, u8 Modrm, unsigned Operands, unsigned Results, bool Flags>
u16 native(u8* a, u8* b, void* operand, u16& flags) {
  u32 status;
  asm volatile(
      ".if %c[operands] > 1\n\tfldt (%[b])\n\t.endif\n\t"
      ".if %c[operands] > 0\n\tfldt (%[a])\n\t.endif\n\t"
      ".byte %c[opcode], %c[modrm]\n\t"
      ".if %c[flags]\n\tlahf\n\tseto %%al\n\tmovw %%ax, (%[to])\n\t.endif\n\t"
      "fnstsw %%ax\n\t"
      ".if %c[results] > 1\n\tfstpt (%[a])\n\t.endif\n\t"
      ".if %c[results] > 0\n\t.if %c[operands] > 1\n\tfstpt (%[b])\n\t.else\n\tfstpt (%[a])\n\t.endif\n\t.endif\n\t"
      : "=&a"(status)
      : [a] "S"(a), [b] "d"(b), "D"(operand), [to] "c"(&flags), [opcode] "i"(0xd8 + Opcode), [modrm] "i"(int{Modrm}),
        [operands] "i"(Operands), [results] "i"(Results), [flags] "i"(int{Flags})
      : "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
  return static_cast<u16>(status);
}

// --- when and on what
bool usable(const Cpu& cpu) {
  if (cpu.fp_loaded & LOADED_FCW) return true;
  return !(cpu.cr0 & (CR0_EM | CR0_TS)) && (cpu.fx.fcw & FCW_MASKS) == FCW_MASKS && !(cpu.fx.fsw & FSW_ES);
}
void ensure_loaded(Cpu& cpu) { // only now: reaching a device may have unloaded it
  if (!(cpu.fp_loaded & LOADED_FCW)) load_fcw(cpu);
}
unsigned physical(const Fx& fx, unsigned n) { return (fsw_top(fx) + n) & 7; }
bool holds_value(const Fx& fx, unsigned n) { return (fx.ftw >> physical(fx, n)) & 1; }

void pop(Fx& fx) {
  fx.ftw &= static_cast<u8>(~(1u << fsw_top(fx)));
  set_top(fx, fsw_top(fx) + 1);
}
void push(Fx& fx) {
  set_top(fx, fsw_top(fx) - 1);
  fx.ftw |= static_cast<u8>(1u << fsw_top(fx));
}

// FCOMI: SDM 2A has C1 cleared, AMD's processors leave it alone. Shown by a C1 that FXAM of a negative number has set.
bool fcomi_keeps_c1() {
  u32 status;
  asm volatile("fld1\n\tfchs\n\tfxam\n\tfcomi %%st(0), %%st\n\tfnstsw %%ax\n\tfstp %%st(0)"
               : "=a"(status)
               :
               : "cc", "st");
  return (status & C1) != 0;
}
const u16 FCOMI_CONDITIONS = fcomi_keeps_c1() ? 0 : C1;

void record(Cpu& cpu, const Insn& i, u16 status, u16 conditions) {
  Fx& fx = cpu.fx;
  fx.fsw = static_cast<u16>((fx.fsw & ~conditions) | (status & (conditions | FSW_EXCEPTIONS)));
  fx.fop = static_cast<u16>((i.opcode & 7) << 8 | (i.imm & 0xff));
  fx.fip = x87_code_pointer(cpu);
}

const Insn* whole_x87(Cpu& cpu, const Insn* i) {
  return x87_whole_handler(i->opcode, static_cast<u8>(i->imm)).handler(cpu, i);
}

// --- on registers. Index: of the second operand; -1: ModRM.rm says it.
template <u8 Opcode, u8 Modrm, unsigned Operands, unsigned Results, u16 Conditions, int Index, bool Flags>
bool on_registers(Cpu& cpu, const Insn& i) {
  constexpr unsigned POPS = Operands - Results;
  Fx& fx = cpu.fx;
  const unsigned n = Index < 0 ? i.rm & 7u : static_cast<unsigned>(Index);
  if (!usable(cpu) || !holds_value(fx, 0)) return false;
  if (Operands == 2 && (n == 0 || !holds_value(fx, n))) return false;
  ensure_loaded(cpu);
  const u16 status = native<Opcode, Modrm, Operands, Results, Flags>(st(fx, 0), st(fx, n), nullptr, cpu.flags);
  record(cpu, i, status, Flags ? FCOMI_CONDITIONS : Conditions);
  for (unsigned k = 0; k < POPS; ++k) pop(fx);
  return true;
}
template <u8 Modrm>
bool constant(Cpu& cpu, const Insn& i) { // FLD1 … FLDZ
  Fx& fx = cpu.fx;
  if (!usable(cpu) || holds_value(fx, 7)) return false;
  ensure_loaded(cpu);
  record(cpu, i, native<1, Modrm, 0, 1, false>(st(fx, 7), nullptr, nullptr, cpu.flags), C1);
  push(fx);
  return true;
}

// --- moves between registers change nothing but C1
bool load_register(Cpu& cpu, const Insn& i) { // FLD ST(i)
  Fx& fx = cpu.fx;
  if (!usable(cpu) || !holds_value(fx, i.rm & 7u) || holds_value(fx, 7)) return false;
  std::memcpy(st(fx, 7), st(fx, i.rm & 7u), 10);
  record(cpu, i, 0, C1);
  push(fx);
  return true;
}
bool exchange(Cpu& cpu, const Insn& i) { // FXCH
  Fx& fx = cpu.fx;
  if (!usable(cpu) || !holds_value(fx, 0) || !holds_value(fx, i.rm & 7u)) return false;
  u8 *const a = st(fx, 0), *const b = st(fx, i.rm & 7u);
  const __m128i va = _mm_load_si128(reinterpret_cast<const __m128i*>(a));
  const __m128i vb = _mm_load_si128(reinterpret_cast<const __m128i*>(b));
  _mm_store_si128(reinterpret_cast<__m128i*>(a), vb);
  _mm_store_si128(reinterpret_cast<__m128i*>(b), va);
  record(cpu, i, 0, C1);
  return true;
}
template <bool Pop>
bool store_register(Cpu& cpu, const Insn& i) { // FST ST(i), FSTP ST(i)
  Fx& fx = cpu.fx;
  if (!usable(cpu) || !holds_value(fx, 0)) return false;
  if ((i.rm & 7) != 0) std::memcpy(st(fx, i.rm & 7u), st(fx, 0), 10);
  fx.ftw |= static_cast<u8>(1u << physical(fx, i.rm & 7u));
  record(cpu, i, 0, C1);
  if (Pop) pop(fx);
  return true;
}

// --- with memory
enum class Memory : u8 { operand, compare, compare_pop, load, store, store_pop };

template <class T, u8 Opcode, u8 Reg, Memory M>
bool with_memory(Cpu& cpu, const Insn& i) {
  constexpr bool STORES = M == Memory::store || M == Memory::store_pop;
  constexpr bool POPS = M == Memory::store_pop || M == Memory::compare_pop;
  constexpr unsigned OPERANDS = M == Memory::load ? 0 : 1;
  Fx& fx = cpu.fx;
  if (!usable(cpu) || holds_value(fx, M == Memory::load ? 7 : 0) != (M != Memory::load)) return false;
  const u64 pointer = x87_data_pointer(cpu, i);
  T operand{};
  if constexpr (!STORES) operand = load<T>(cpu, i);
  ensure_loaded(cpu);
  const u16 status = native < Opcode, Reg << 3 | 7, OPERANDS, POPS ? 0 : 1,
            false > (st(fx, M == Memory::load ? 7 : 0), nullptr, &operand, cpu.flags);
  if constexpr (STORES) store<T>(cpu, i, operand);
  record(cpu, i, status, M == Memory::compare || M == Memory::compare_pop ? C0_TO_C3 : C1);
  fx.fdp = pointer;
  if (POPS) pop(fx);
  if (M == Memory::load) push(fx);
  return true;
}

// --- tables
template <bool (*Direct)(Cpu&, const Insn&)>
const Insn* direct(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  if (Direct(cpu, *i)) [[likely]]
    return next(cpu, i);
  return whole_x87(cpu, i);
}

// ADD MUL COM COMP SUB SUBR DIV DIVR with a memory operand: D8 DA DC DE
template <class T, u8 Opcode>
Handler arithmetic_memory(unsigned reg) {
  switch (reg) {
    case 0: return direct<with_memory<T, Opcode, 0, Memory::operand>>;
    case 1: return direct<with_memory<T, Opcode, 1, Memory::operand>>;
    case 2: return direct<with_memory<T, Opcode, 2, Memory::compare>>;
    case 3: return direct<with_memory<T, Opcode, 3, Memory::compare_pop>>;
    case 4: return direct<with_memory<T, Opcode, 4, Memory::operand>>;
    case 5: return direct<with_memory<T, Opcode, 5, Memory::operand>>;
    case 6: return direct<with_memory<T, Opcode, 6, Memory::operand>>;
    default: return direct<with_memory<T, Opcode, 7, Memory::operand>>;
  }
}
// Load; FISTTP; FIST or FST; FISTP or FSTP: D9 DB DD DF
template <class T, u8 Opcode>
Handler move_memory(unsigned reg) {
  switch (reg) {
    case 0: return direct<with_memory<T, Opcode, 0, Memory::load>>;
    case 1: return Opcode == 1 ? nullptr : direct<with_memory<T, Opcode, 1, Memory::store_pop>>;
    case 2: return direct<with_memory<T, Opcode, 2, Memory::store>>;
    case 3: return direct<with_memory<T, Opcode, 3, Memory::store_pop>>;
    default: return nullptr;
  }
}
Handler memory_form(unsigned opcode, unsigned reg) {
  switch (opcode) {
    case 0: return arithmetic_memory<u32, 0>(reg);
    case 1: return move_memory<u32, 1>(reg);
    case 2: return arithmetic_memory<u32, 2>(reg);
    case 3:
      if (reg == 5) return direct<with_memory<Bytes10, 3, 5, Memory::load>>;
      if (reg == 7) return direct<with_memory<Bytes10, 3, 7, Memory::store_pop>>;
      return move_memory<u32, 3>(reg);
    case 4: return arithmetic_memory<u64, 4>(reg);
    case 5: return move_memory<u64, 5>(reg);
    case 6: return arithmetic_memory<u16, 6>(reg);
    default:
      if (reg == 5) return direct<with_memory<u64, 7, 5, Memory::load>>;
      if (reg == 7) return direct<with_memory<u64, 7, 7, Memory::store_pop>>;
      return move_memory<u16, 7>(reg);
  }
}

constexpr int BY_RM = -1;
// On ST(0) and ST(i), the opcode's ModRM with rm = 1.
template <u8 Opcode, u8 Reg, unsigned Results, u16 Conditions = C1, bool Flags = false>
constexpr Handler pair = direct<on_registers<Opcode, 0xc1 | Reg << 3, 2, Results, Conditions, BY_RM, Flags>>;
// D9 with ModRM E0 and up: on ST(0), or on ST(0) and ST(1)
template <u8 Modrm, u16 Conditions = C1>
constexpr Handler alone = direct<on_registers<1, Modrm, 1, 1, Conditions, 0, false>>;
template <u8 Modrm, unsigned Results, u16 Conditions = C1>
constexpr Handler with_second = direct<on_registers<1, Modrm, 2, Results, Conditions, 1, false>>;

template <u8 Opcode, unsigned Results>
Handler arithmetic_pair(unsigned reg) {
  switch (reg) {
    case 0: return pair<Opcode, 0, Results>;
    case 1: return pair<Opcode, 1, Results>;
    case 4: return pair<Opcode, 4, Results>;
    case 5: return pair<Opcode, 5, Results>;
    case 6: return pair<Opcode, 6, Results>;
    case 7: return pair<Opcode, 7, Results>;
    default: return nullptr;
  }
}
// FPREM and FPREM1 are not here: which conditions they change depends on their operands.
Handler d9_form(u8 modrm) {
  switch (modrm) {
    case 0xe0: return alone<0xe0>;            // FCHS
    case 0xe1: return alone<0xe1>;            // FABS
    case 0xe4: return alone<0xe4, C0_TO_C3>;  // FTST
    case 0xe5: return alone<0xe5, C0_TO_C3>;  // FXAM
    case 0xe8: return direct<constant<0xe8>>; // FLD1
    case 0xe9: return direct<constant<0xe9>>; // FLDL2T
    case 0xea: return direct<constant<0xea>>; // FLDL2E
    case 0xeb: return direct<constant<0xeb>>; // FLDPI
    case 0xec: return direct<constant<0xec>>; // FLDLG2
    case 0xed: return direct<constant<0xed>>; // FLDLN2
    case 0xee: return direct<constant<0xee>>; // FLDZ
    case 0xf0: return alone<0xf0>;            // F2XM1
    case 0xf1: return with_second<0xf1, 1>;   // FYL2X
    case 0xf3: return with_second<0xf3, 1>;   // FPATAN
    case 0xf9: return with_second<0xf9, 1>;   // FYL2XP1
    case 0xfa: return alone<0xfa>;            // FSQRT
    case 0xfc: return alone<0xfc>;            // FRNDINT
    case 0xfd: return with_second<0xfd, 2>;   // FSCALE
    case 0xfe: return alone<0xfe, C1_C2>;     // FSIN
    case 0xff: return alone<0xff, C1_C2>;     // FCOS
    default: break;
  }
  if (modrm < 0xc8) return direct<load_register>;
  if (modrm < 0xd0) return direct<exchange>;
  return nullptr;
}
Handler register_form(unsigned opcode, u8 modrm) {
  const unsigned reg = (modrm >> 3) & 7;
  switch (opcode) {
    case 0:
      if (reg == 2) return pair<0, 2, 2, C0_TO_C3>; // FCOM
      if (reg == 3) return pair<0, 3, 1, C0_TO_C3>; // FCOMP
      return arithmetic_pair<0, 2>(reg);
    case 1: return d9_form(modrm);
    case 2: return modrm == 0xe9 ? direct<on_registers<2, 0xe9, 2, 0, C0_TO_C3, 1, false>> : nullptr; // FUCOMPP
    case 3:
      return reg == 5   ? pair<3, 5, 2, C1, true> // FUCOMI
             : reg == 6 ? pair<3, 6, 2, C1, true> // FCOMI
                        : nullptr;
    case 4: return arithmetic_pair<4, 2>(reg);
    case 5:
      switch (reg) {
        case 2: return direct<store_register<false>>;
        case 3: return direct<store_register<true>>;
        case 4: return pair<5, 4, 2, C0_TO_C3>; // FUCOM
        case 5: return pair<5, 5, 1, C0_TO_C3>; // FUCOMP
        default: return nullptr;
      }
    case 6: return modrm == 0xd9 ? direct<on_registers<6, 0xd9, 2, 0, C0_TO_C3, 1, false>> : arithmetic_pair<6, 1>(reg);
    default:
      return reg == 5   ? pair<7, 5, 1, C1, true> // FUCOMIP
             : reg == 6 ? pair<7, 6, 1, C1, true> // FCOMIP
                        : nullptr;
  }
}

} // namespace

Choice x87_direct_handler(u8 opcode, u8 modrm) {
  return {modrm < 0xc0 ? memory_form(opcode & 7u, (modrm >> 3) & 7u) : register_form(opcode & 7u, modrm), false};
}

} // namespace transom::soft
