// MOVS STOS LODS CMPS SCAS. Repeated forms go page by page at host speed and commit run by run.
#include <cstring>

#include "hypervisor/vcpu/soft/alu.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/string_ops.hpp"

namespace transom::soft {

namespace {

enum class Repeat : u8 { none, rep, repne };

u64 source(const Cpu& cpu, const Insn* i) { return cpu.gpr[RSI] & address_mask(i); }
u64 destination(const Cpu& cpu, const Insn* i) { return cpu.gpr[RDI] & address_mask(i); }

template <class T>
T element(const u8* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <class T>
void set_element(u8* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// --- each operation: one element, and a run at host speed that answers how many it did (0: do one slowly).
template <class T>
struct Movs {
  static constexpr bool SCANS = false;
  static bool one(Cpu& cpu, const Insn* i) {
    const T value = read<T>(cpu, i->segment, source(cpu, i));
    write<T>(cpu, ES, destination(cpu, i), value);
    advance(cpu, i, RSI, step(cpu, sizeof(T)));
    advance(cpu, i, RDI, step(cpu, sizeof(T)));
    return true;
  }
  static u64 many(Cpu& cpu, const Insn* i, u64 count, bool&) {
    const Run from = page_run(cpu, i, i->segment, source(cpu, i), sizeof(T), count, false);
    const Run to = page_run(cpu, i, ES, destination(cpu, i), sizeof(T), from.count, true);
    const u64 n = to.count;
    if (n == 0) return 0;
    const u8* s = direct_read(cpu, from.linear);
    u8* t = direct_write(cpu, to.linear);
    if (s == nullptr || t == nullptr) return 0;
    const u64 bytes = n * sizeof(T);
    if (backward(cpu)) {
      for (u64 k = 0; k < n; ++k, s -= sizeof(T), t -= sizeof(T)) set_element<T>(t, element<T>(s));
    } else if (t > s && t < s + bytes) { // overlapping upwards: what was written is read again
      for (u64 k = 0; k < n; ++k, s += sizeof(T), t += sizeof(T)) set_element<T>(t, element<T>(s));
    } else {
      std::memmove(t, s, bytes);
    }
    advance(cpu, i, RSI, step(cpu, sizeof(T)) * n);
    advance(cpu, i, RDI, step(cpu, sizeof(T)) * n);
    return n;
  }
};

template <class T>
struct Stos {
  static constexpr bool SCANS = false;
  static bool one(Cpu& cpu, const Insn* i) {
    write<T>(cpu, ES, destination(cpu, i), reg<T>(cpu, RAX));
    advance(cpu, i, RDI, step(cpu, sizeof(T)));
    return true;
  }
  static u64 many(Cpu& cpu, const Insn* i, u64 count, bool&) {
    const Run to = page_run(cpu, i, ES, destination(cpu, i), sizeof(T), count, true);
    u8* t = to.count != 0 ? direct_write(cpu, to.linear) : nullptr;
    if (t == nullptr) return 0;
    const T value = reg<T>(cpu, RAX);
    if (backward(cpu)) t -= (to.count - 1) * sizeof(T);
    if constexpr (sizeof(T) == 1)
      std::memset(t, value, to.count);
    else
      for (u64 k = 0; k < to.count; ++k) set_element<T>(t + k * sizeof(T), value);
    advance(cpu, i, RDI, step(cpu, sizeof(T)) * to.count);
    return to.count;
  }
};

template <class T>
struct Lods {
  static constexpr bool SCANS = false;
  static bool one(Cpu& cpu, const Insn* i) {
    set_reg<T>(cpu, RAX, read<T>(cpu, i->segment, source(cpu, i)));
    advance(cpu, i, RSI, step(cpu, sizeof(T)));
    return true;
  }
  static u64 many(Cpu&, const Insn*, u64, bool&) { return 0; }
};

// Compare operations set the flags of their last comparison and say whether it was equal.
template <class T>
bool compare(Cpu& cpu, T a, T b) {
  u16 flags;
  alu<Alu::cmp, T>(a, b, 0, flags);
  cpu.flags = flags;
  return a == b;
}

template <class T>
struct Cmps {
  static constexpr bool SCANS = true;
  static bool one(Cpu& cpu, const Insn* i) {
    const T a = read<T>(cpu, i->segment, source(cpu, i));
    const T b = read<T>(cpu, ES, destination(cpu, i));
    advance(cpu, i, RSI, step(cpu, sizeof(T)));
    advance(cpu, i, RDI, step(cpu, sizeof(T)));
    return compare<T>(cpu, a, b);
  }
  static u64 many(Cpu& cpu, const Insn* i, u64 count, bool& equal) {
    const bool while_equal = equal;
    const Run from = page_run(cpu, i, i->segment, source(cpu, i), sizeof(T), count, false);
    const Run to = page_run(cpu, i, ES, destination(cpu, i), sizeof(T), from.count, false);
    if (to.count == 0) return 0;
    const u8 *s = direct_read(cpu, from.linear), *t = direct_read(cpu, to.linear);
    if (s == nullptr || t == nullptr) return 0;
    const i64 move = static_cast<i64>(step(cpu, sizeof(T)));
    u64 n = 0;
    T a, b;
    do {
      a = element<T>(s + static_cast<i64>(n) * move);
      b = element<T>(t + static_cast<i64>(n) * move);
      ++n;
    } while (n < to.count && (a == b) == while_equal);
    equal = compare<T>(cpu, a, b);
    advance(cpu, i, RSI, step(cpu, sizeof(T)) * n);
    advance(cpu, i, RDI, step(cpu, sizeof(T)) * n);
    return n;
  }
};

template <class T>
struct Scas {
  static constexpr bool SCANS = true;
  static bool one(Cpu& cpu, const Insn* i) {
    const T b = read<T>(cpu, ES, destination(cpu, i));
    advance(cpu, i, RDI, step(cpu, sizeof(T)));
    return compare<T>(cpu, reg<T>(cpu, RAX), b);
  }
  static u64 many(Cpu& cpu, const Insn* i, u64 count, bool& equal) {
    const bool while_equal = equal;
    const Run to = page_run(cpu, i, ES, destination(cpu, i), sizeof(T), count, false);
    const u8* t = to.count != 0 ? direct_read(cpu, to.linear) : nullptr;
    if (t == nullptr) return 0;
    const i64 move = static_cast<i64>(step(cpu, sizeof(T)));
    const T a = reg<T>(cpu, RAX);
    u64 n = 0;
    T b;
    do {
      b = element<T>(t + static_cast<i64>(n) * move);
      ++n;
    } while (n < to.count && (a == b) == while_equal);
    equal = compare<T>(cpu, a, b);
    advance(cpu, i, RDI, step(cpu, sizeof(T)) * n);
    return n;
  }
};

template <class Op, Repeat R>
const Insn* string_op(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  if constexpr (R == Repeat::none) {
    Op::one(cpu, i);
    return next(cpu, i);
  }
  for (;;) {
    const u64 count = cpu.gpr[RCX] & address_mask(i);
    if (count == 0) return next(cpu, i);
    const bool stepping = (cpu.rflags & FLAG_TF) != 0;
    bool equal = R == Repeat::rep; // in: go on while comparisons say this; out: what the last one said
    u64 done = stepping || cpu.tlb == cpu.slow_tlb ? 0 : Op::many(cpu, i, count, equal);
    if (done == 0) {
      equal = Op::one(cpu, i);
      done = 1;
    }
    advance(cpu, i, RCX, ~done + 1);
    if (done == count || (Op::SCANS && equal != (R == Repeat::rep))) return next(cpu, i);
    if (interrupted(cpu)) return resume_later(cpu, i);
  }
}

template <template <class> class Op>
Handler pick(const Decoded& d, unsigned size) {
  return by_size(size, [&]<class T>() -> Handler {
    if (d.rep) return string_op<Op<T>, Repeat::rep>;
    if (!d.repne) return string_op<Op<T>, Repeat::none>;
    return Op<T>::SCANS ? string_op<Op<T>, Repeat::repne> : string_op<Op<T>, Repeat::rep>;
  });
}

} // namespace

Selection select_string(const Decoded& d) {
  if (d.lock) return {};
  const unsigned size = d.opcode & 1 ? d.osz : 1;
  Selection s;
  switch (d.opcode & 0xfe) {
    case 0xa4: s.handler = pick<Movs>(d, size); break;
    case 0xa6: s.handler = pick<Cmps>(d, size); break;
    case 0xaa: s.handler = pick<Stos>(d, size); break;
    case 0xac: s.handler = pick<Lods>(d, size); break;
    default: s.handler = pick<Scas>(d, size); break;
  }
  return s;
}

} // namespace transom::soft
