// Data movement: MOV in all forms, MOVZX MOVSX, LEA, CMOV, SETcc, BSWAP, conversions, flag bits.
#include <type_traits>

#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

namespace {

template <class T, Form F>
const Insn* mov_to_reg(Cpu& cpu, const Insn* i) {
  set_reg<T>(cpu, i->reg, read_rm<T, F>(cpu, i));
  return next(cpu, i);
}
template <class T, Form F>
const Insn* mov_to_rm(Cpu& cpu, const Insn* i) {
  write_rm<T, F>(cpu, i, reg<T>(cpu, i->reg));
  return next(cpu, i);
}
template <class T, Form F>
const Insn* mov_imm(Cpu& cpu, const Insn* i) {
  write_rm<T, F>(cpu, i, static_cast<T>(i->imm));
  return next(cpu, i);
}
template <class T>
const Insn* mov_imm_reg(Cpu& cpu, const Insn* i) {
  set_reg<T>(cpu, i->rm, static_cast<T>(i->imm));
  return next(cpu, i);
}

inline u64 moffs_address(Cpu& cpu, const Insn* i, unsigned width, bool write) {
  cpu.current = i;
  return segment_address(cpu, i->segment, i->imm, width, write);
}
template <class T>
const Insn* mov_from_offset(Cpu& cpu, const Insn* i) {
  set_reg<T>(cpu, RAX, read_linear<T>(cpu, moffs_address(cpu, i, sizeof(T), false)));
  return next(cpu, i);
}
template <class T>
const Insn* mov_to_offset(Cpu& cpu, const Insn* i) {
  write_linear<T>(cpu, moffs_address(cpu, i, sizeof(T), true), reg<T>(cpu, RAX));
  return next(cpu, i);
}

template <class From, class To, Form F, bool Signed>
const Insn* extend(Cpu& cpu, const Insn* i) {
  const From value = read_rm<From, F>(cpu, i);
  if constexpr (Signed)
    set_reg<To>(cpu, i->reg, static_cast<To>(static_cast<i64>(static_cast<std::make_signed_t<From>>(value))));
  else
    set_reg<To>(cpu, i->reg, static_cast<To>(value));
  return next(cpu, i);
}

template <class T, bool Flat>
const Insn* lea(Cpu& cpu, const Insn* i) {
  const u64 address = Flat ? cpu.gpr[i->base] + static_cast<u64>(static_cast<i64>(i->disp)) : effective_offset(cpu, *i);
  set_reg<T>(cpu, i->reg, static_cast<T>(address));
  return next(cpu, i);
}

template <class T, Form F, unsigned CC>
const Insn* cmov(Cpu& cpu, const Insn* i) {
  const T value = read_rm<T, F>(cpu, i); // read, and faulted on, whatever the condition says
  set_reg<T>(cpu, i->reg, condition(CC, cpu.flags) ? value : reg<T>(cpu, i->reg));
  return next(cpu, i);
}
template <Form F, unsigned CC>
const Insn* setcc(Cpu& cpu, const Insn* i) {
  write_rm<u8, F>(cpu, i, condition(CC, cpu.flags));
  return next(cpu, i);
}

template <class T>
const Insn* bswap(Cpu& cpu, const Insn* i) {
  if constexpr (sizeof(T) == 8)
    cpu.gpr[i->rm] = __builtin_bswap64(cpu.gpr[i->rm]);
  else if constexpr (sizeof(T) == 4)
    set_reg<u32>(cpu, i->rm, __builtin_bswap32(reg<u32>(cpu, i->rm)));
  else
    set_reg<u16>(cpu, i->rm, 0); // undefined; processors clear the register
  return next(cpu, i);
}

// CBW CWDE CDQE
template <class T>
const Insn* convert_up(Cpu& cpu, const Insn* i) {
  if constexpr (sizeof(T) == 2) set_reg<u16>(cpu, RAX, static_cast<u16>(static_cast<i8>(cpu.gpr[RAX])));
  if constexpr (sizeof(T) == 4) set_reg<u32>(cpu, RAX, static_cast<u32>(static_cast<i16>(cpu.gpr[RAX])));
  if constexpr (sizeof(T) == 8) cpu.gpr[RAX] = static_cast<u64>(static_cast<i64>(static_cast<i32>(cpu.gpr[RAX])));
  return next(cpu, i);
}
// CWD CDQ CQO
template <class T>
const Insn* convert_pair(Cpu& cpu, const Insn* i) {
  set_reg<T>(cpu, RDX, static_cast<T>(static_cast<std::make_signed_t<T>>(reg<T>(cpu, RAX)) < 0 ? ~T{0} : T{0}));
  return next(cpu, i);
}

const Insn* sahf(Cpu& cpu, const Insn* i) {
  const u16 ah = static_cast<u8>(cpu.gpr[RAX] >> 8);
  cpu.flags = static_cast<u16>(((ah & 0xd5) << 8) | 0x200 | (cpu.flags & LAHF_OF));
  return next(cpu, i);
}
const Insn* lahf(Cpu& cpu, const Insn* i) {
  set_reg<u8>(cpu, 1, static_cast<u8>(((cpu.flags >> 8) & 0xd5) | 2));
  return next(cpu, i);
}
const Insn* clc(Cpu& cpu, const Insn* i) {
  cpu.flags &= static_cast<u16>(~LAHF_CF);
  return next(cpu, i);
}
const Insn* stc(Cpu& cpu, const Insn* i) {
  cpu.flags |= LAHF_CF;
  return next(cpu, i);
}
const Insn* cmc(Cpu& cpu, const Insn* i) {
  cpu.flags ^= LAHF_CF;
  return next(cpu, i);
}
const Insn* cld(Cpu& cpu, const Insn* i) {
  cpu.rflags &= ~FLAG_DF;
  return next(cpu, i);
}
const Insn* std_(Cpu& cpu, const Insn* i) {
  cpu.rflags |= FLAG_DF;
  return next(cpu, i);
}
const Insn* salc(Cpu& cpu, const Insn* i) {
  set_reg<u8>(cpu, 0, static_cast<u8>(cpu.flags & LAHF_CF ? 0xff : 0));
  return next(cpu, i);
}
const Insn* xlat(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  u64 offset = cpu.gpr[RBX] + static_cast<u8>(cpu.gpr[RAX]);
  if (i->asz == 1) offset = static_cast<u32>(offset);
  if (i->asz == 0) offset = static_cast<u16>(offset);
  set_reg<u8>(cpu, 0, read<u8>(cpu, i->segment, offset));
  return next(cpu, i);
}

Selection pure(Handler handler, const Decoded& d, u8 reads = 0, u8 writes = 0) {
  Selection s;
  if (d.lock) return s;
  s.handler = handler;
  s.reads = d.memory() ? u8{SET_ALL} : reads;
  s.writes = writes;
  return s;
}

} // namespace

const Insn* no_operation(Cpu& cpu, const Insn* i) { return next(cpu, i); }

const Insn* undefined_opcode(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  raise(cpu, UD);
}
const Insn* too_long(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  raise(cpu, GP, 0);
}

Selection select_mov(const Decoded& d, unsigned size, bool to_reg, bool immediate) {
  return pure(by_size(size,
                      [&]<class T>() {
                        return by_form(d.form(), [&]<Form F>() -> Handler {
                          return immediate ? mov_imm<T, F> : to_reg ? mov_to_reg<T, F> : mov_to_rm<T, F>;
                        });
                      }),
              d);
}
Selection select_mov_imm_reg(const Decoded& d, unsigned size) {
  return pure(by_size(size, []<class T>() -> Handler { return mov_imm_reg<T>; }), d);
}
Selection select_moffs(const Decoded& d, unsigned size, bool to_reg) {
  return pure(by_size(size, [&]<class T>() -> Handler { return to_reg ? mov_from_offset<T> : mov_to_offset<T>; }), d,
              SET_ALL);
}
Selection select_extend(const Decoded& d, unsigned from, bool sign) {
  return pure(by_number<3>(from == 1   ? 0
                           : from == 2 ? 1
                                       : 2,
                           [&]<unsigned N>() {
                             using From = std::conditional_t<N == 0, u8, std::conditional_t<N == 1, u16, u32>>;
                             return by_wide_size(d.osz, [&]<class To>() {
                               return by_form(d.form(), [&]<Form F>() -> Handler {
                                 return sign ? extend<From, To, F, true> : extend<From, To, F, false>;
                               });
                             });
                           }),
              d);
}
Selection select_lea(const Decoded& d) {
  if (!d.memory()) return {};
  const bool flat = d.code64() && d.asz == 8 && d.index == REG_ZERO;
  Selection s = pure(by_wide_size(d.osz, [&]<class T>() -> Handler { return flat ? lea<T, true> : lea<T, false>; }), d);
  s.reads = 0;
  return s;
}
Selection select_cmov(const Decoded& d) {
  return pure(by_number<16>(d.opcode & 15,
                            [&]<unsigned CC>() {
                              return by_wide_size(d.osz, [&]<class T>() {
                                return by_form(d.form(), [&]<Form F>() -> Handler { return cmov<T, F, CC>; });
                              });
                            }),
              d, SET_ALL);
}
Selection select_setcc(const Decoded& d) {
  return pure(by_number<16>(
                  d.opcode & 15,
                  [&]<unsigned CC>() { return by_form(d.form(), [&]<Form F>() -> Handler { return setcc<F, CC>; }); }),
              d, SET_ALL);
}
Selection select_bswap(const Decoded& d) {
  return pure(by_wide_size(d.osz, []<class T>() -> Handler { return bswap<T>; }), d);
}

Selection select_misc(const Decoded& d) {
  switch (d.opcode) {
    case 0x90: return pure(no_operation, d);
    case 0x98: return pure(by_wide_size(d.osz, []<class T>() -> Handler { return convert_up<T>; }), d);
    case 0x99: return pure(by_wide_size(d.osz, []<class T>() -> Handler { return convert_pair<T>; }), d);
    case 0x9e: return pure(sahf, d, SET_OF, SET_ALL & ~SET_OF);
    case 0x9f: return pure(lahf, d, SET_ALL);
    case 0xd6: return pure(salc, d, SET_CF);
    case 0xd7: return pure(xlat, d, SET_ALL);
    case 0xf5: return pure(cmc, d, SET_CF);
    case 0xf8: return pure(clc, d, 0, SET_CF);
    case 0xf9: return pure(stc, d, 0, SET_CF);
    case 0xfc: return pure(cld, d);
    case 0xfd: return pure(std_, d);
    default: return {};
  }
}

} // namespace transom::soft
