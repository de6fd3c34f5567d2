// Guest memory as instructions see it: through segmentation, paging, the A20 gate, device pages and code pages.
//
// Every access faults before anything is committed, also when it crosses a page. `cpu.current` must be set (or null
// between instructions, when cpu.rip names the instruction). T is u8, u16, u32, u64, Bytes10 or Bytes16.
//
//   read_linear/write_linear/rmw_linear   with the rights of the current CPL
//   read_system/write_system              supervisor-implicit: descriptor tables, TSS, IDT
//   read/write/rmw(cpu, segment, offset)  segment checks first (any mode)
//   load/store/modify(cpu, insn)          the instruction's ModRM memory operand
#pragma once

#include <cstring>

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"

namespace transom::soft {

struct Bytes16 {
  u64 low, high;
};
struct Bytes10 { // x87 extended: 64-bit significand, then sign and exponent
  u64 low;
  u16 high;
};
template <class T>
inline constexpr unsigned WIDTH = sizeof(T);
template <>
inline constexpr unsigned WIDTH<Bytes10> = 10;

enum class Access : u8 { read, write, exec };

// --- slow halves (memory.cc). `user`: check as CPL 3.
u64 read_slow(Cpu& cpu, u64 linear, unsigned width, bool user);
Bytes16 read_slow_wide(Cpu& cpu, u64 linear, unsigned width, bool user);
void write_slow(Cpu& cpu, u64 linear, unsigned width, u64 value, bool user);
void write_slow_wide(Cpu& cpu, u64 linear, unsigned width, u64 low, u64 high, bool user);
// Host address to modify in place, or cpu.bounce filled with the present value, to be finished by rmw_commit().
u8* rmw_slow(Cpu& cpu, u64 linear, unsigned width, bool user);
void rmw_commit(Cpu& cpu, u64 linear, unsigned width, bool user);

// Guest-physical address of `linear`; raises #PF (or #GP/#SS for a non-canonical one). Sets A/D as that access would.
u64 translate(Cpu& cpu, u64 linear, Access access, bool user);
// Raises what an access of `length` bytes (at most a page) would raise, and does nothing else.
void probe(Cpu& cpu, u64 linear, unsigned length, Access access, bool user);

inline bool user_mode(const Cpu& cpu) { return cpu.cpl == 3; }

// The slow halves for accesses with the current rights. When handlers chain, they are called by thunks (memory.cc) that
// keep every register, from inline assembly: the handler stays a leaf function without a frame of its own. That needs
// -mno-red-zone wherever this header is included.
inline u64 read_miss(Cpu& cpu, u64 linear, unsigned width) {
  if constexpr (!CHAINED) return read_slow(cpu, linear, width, user_mode(cpu));
  u64 value;
  asm volatile("call transom_soft_read_miss" : "=a"(value) : "D"(&cpu), "S"(linear), "d"(width) : "cc", "memory");
  return value;
}
inline void write_miss(Cpu& cpu, u64 linear, unsigned width, u64 value) {
  if constexpr (!CHAINED) return write_slow(cpu, linear, width, value, user_mode(cpu));
  u64 scratch;
  asm volatile("call transom_soft_write_miss"
               : "=a"(scratch)
               : "D"(&cpu), "S"(linear), "d"(width), "c"(value)
               : "cc", "memory");
}
inline u8* rmw_miss(Cpu& cpu, u64 linear, unsigned width) {
  if constexpr (!CHAINED) return rmw_slow(cpu, linear, width, user_mode(cpu));
  u8* p;
  asm volatile("call transom_soft_rmw_miss" : "=a"(p) : "D"(&cpu), "S"(linear), "d"(width) : "cc", "memory");
  return p;
}
inline void rmw_finish(Cpu& cpu, u64 linear, unsigned width) {
  if constexpr (!CHAINED) return rmw_commit(cpu, linear, width, user_mode(cpu));
  u64 scratch;
  asm volatile("call transom_soft_rmw_finish" : "=a"(scratch) : "D"(&cpu), "S"(linear), "d"(width) : "cc", "memory");
}

namespace detail {
template <class T>
[[gnu::always_inline]] inline T read_through(Cpu& cpu, const TlbEntry* tlb, u64 linear, bool user) {
  const TlbEntry& e = tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.read <= PAGE_SIZE - WIDTH<T>) [[likely]] {
    T value{};
    std::memcpy(&value, reinterpret_cast<const void*>(linear + e.addend), WIDTH<T>);
    return value;
  }
  if constexpr (sizeof(T) <= 8) {
    return static_cast<T>(read_slow(cpu, linear, WIDTH<T>, user));
  } else {
    const Bytes16 wide = read_slow_wide(cpu, linear, WIDTH<T>, user);
    if constexpr (sizeof(T) == sizeof(Bytes16) && WIDTH<T> == 16)
      return T{wide.low, wide.high};
    else
      return T{wide.low, static_cast<u16>(wide.high)};
  }
}
template <class T>
[[gnu::always_inline]] inline void write_through(Cpu& cpu, const TlbEntry* tlb, u64 linear, T value, bool user) {
  const TlbEntry& e = tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.write <= PAGE_SIZE - WIDTH<T>) [[likely]] {
    std::memcpy(reinterpret_cast<void*>(linear + e.addend), &value, WIDTH<T>);
    return;
  }
  if constexpr (sizeof(T) <= 8)
    write_slow(cpu, linear, WIDTH<T>, static_cast<u64>(value), user);
  else
    write_slow_wide(cpu, linear, WIDTH<T>, value.low, value.high, user);
}
} // namespace detail

template <class T>
[[gnu::always_inline]] inline T read_linear(Cpu& cpu, u64 linear) {
  if constexpr (sizeof(T) <= 8) {
    const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
    if (linear - e.read > PAGE_SIZE - sizeof(T)) [[unlikely]]
      return static_cast<T>(read_miss(cpu, linear, sizeof(T)));
    T value;
    std::memcpy(&value, reinterpret_cast<const void*>(linear + e.addend), sizeof(T));
    return value;
  }
  return detail::read_through<T>(cpu, cpu.tlb, linear, user_mode(cpu));
}
template <class T>
[[gnu::always_inline]] inline void write_linear(Cpu& cpu, u64 linear, T value) {
  if constexpr (sizeof(T) <= 8) {
    const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
    if (linear - e.write > PAGE_SIZE - sizeof(T)) [[unlikely]]
      return write_miss(cpu, linear, sizeof(T), static_cast<u64>(value));
    std::memcpy(reinterpret_cast<void*>(linear + e.addend), &value, sizeof(T));
    return;
  }
  detail::write_through<T>(cpu, cpu.tlb, linear, value, user_mode(cpu));
}
// `f(T* p)` modifies the value in place and returns whatever the caller wants. `p` is guest memory itself unless the
// access crosses a page or reaches a device; a locked instruction uses a host atomic on it.
template <class T, class F>
[[gnu::always_inline]] inline auto rmw_linear(Cpu& cpu, u64 linear, F&& f) {
  const TlbEntry& e = cpu.tlb[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (linear - e.write <= PAGE_SIZE - WIDTH<T>) [[likely]]
    return f(reinterpret_cast<T*>(linear + e.addend));
  u8* const p = rmw_miss(cpu, linear, WIDTH<T>);
  const auto result = f(reinterpret_cast<T*>(p));
  if (p == cpu.bounce) rmw_finish(cpu, linear, WIDTH<T>);
  return result;
}

template <class T>
inline T read_system(Cpu& cpu, u64 linear) {
  return detail::read_through<T>(cpu, cpu.tlbs[0].entry, linear, false);
}
template <class T>
inline void write_system(Cpu& cpu, u64 linear, T value) {
  detail::write_through<T>(cpu, cpu.tlbs[0].entry, linear, value, false);
}
// With the rights of another CPL: the new stack of an inter-privilege transfer.
template <class T>
inline T read_as(Cpu& cpu, u64 linear, unsigned cpl) {
  return detail::read_through<T>(cpu, cpu.tlbs[cpl == 3].entry, linear, cpl == 3);
}
template <class T>
inline void write_as(Cpu& cpu, u64 linear, T value, unsigned cpl) {
  detail::write_through<T>(cpu, cpu.tlbs[cpl == 3].entry, linear, value, cpl == 3);
}

// --- segmentation. Linear address of segment:offset for an access of `width` bytes; raises #GP(0) or #SS(0).
// In 64-bit mode adds FS/GS base; the canonical check happens in the access itself.
[[noreturn]] void segment_violation(Cpu& cpu, unsigned segment);
// Non-canonical addresses are #SS(0) on the stack. The access itself knows only of instructions whose memory operand is
// there.
inline void check_stack_canonical(Cpu& cpu, u64 linear) {
  if (!canonical(linear)) [[unlikely]]
    raise(cpu, SS_FAULT, 0);
}
inline u64 segment_address(Cpu& cpu, unsigned segment, u64 offset, unsigned width, bool write) {
  const Segment& s = cpu.segment[segment];
  if (code64(cpu)) {
    if (segment == SS) check_stack_canonical(cpu, offset);
    return segment >= FS ? s.base + offset : offset;
  }
  const u32 first = static_cast<u32>(offset), end = first + (width - 1);
  if (!(write ? s.writable : s.readable)) [[unlikely]]
    segment_violation(cpu, segment);
  if (end < first || (!s.flat && (first < s.first || end > s.last))) [[unlikely]] // flat ones do not wrap either
    segment_violation(cpu, segment);
  return static_cast<u32>(s.base + first);
}
template <class T>
inline T read(Cpu& cpu, unsigned segment, u64 offset) {
  return read_linear<T>(cpu, segment_address(cpu, segment, offset, WIDTH<T>, false));
}
template <class T>
inline void write(Cpu& cpu, unsigned segment, u64 offset, T value) {
  write_linear<T>(cpu, segment_address(cpu, segment, offset, WIDTH<T>, true), value);
}

// --- the ModRM memory operand
// Offset within the segment (LEA), masked to the address size.
inline u64 effective_offset(const Cpu& cpu, const Insn& i) {
  const u64 sum = cpu.gpr[i.base] + (cpu.gpr[i.index] << i.scale) + static_cast<u64>(static_cast<i64>(i.disp));
  return i.asz == 2 ? sum : i.asz == 1 ? static_cast<u32>(sum) : static_cast<u16>(sum);
}
// Linear address, by form; the templates on F are for handlers specialised on it.
template <Form F>
[[gnu::always_inline]] inline u64 operand_address(Cpu& cpu, const Insn& i, unsigned width, bool write) {
  if constexpr (F == Form::flat)
    return cpu.gpr[i.base] + static_cast<u64>(static_cast<i64>(i.disp));
  else if constexpr (F == Form::full) {
    u64 sum = cpu.gpr[i.base] + (cpu.gpr[i.index] << i.scale) + static_cast<u64>(static_cast<i64>(i.disp));
    if (i.asz == 1) sum = static_cast<u32>(sum);
    return i.segment >= FS ? sum + cpu.segment[i.segment].base : sum;
  } else
    return segment_address(cpu, i.segment, effective_offset(cpu, i), width, write);
}
inline u64 operand_address(Cpu& cpu, const Insn& i, unsigned width, bool write) {
  return i.form == Form::flat   ? operand_address<Form::flat>(cpu, i, width, write)
         : i.form == Form::full ? operand_address<Form::full>(cpu, i, width, write)
                                : operand_address<Form::legacy>(cpu, i, width, write);
}
// Ten bytes are eight and two with checks of their own; a store makes all of them before it writes.
template <class T>
inline T load(Cpu& cpu, const Insn& i) {
  if constexpr (WIDTH<T> == 10) {
    if (i.form == Form::legacy) {
      const u64 offset = effective_offset(cpu, i);
      const u64 low = read<u64>(cpu, i.segment, offset);
      return {low, read<u16>(cpu, i.segment, offset + 8)};
    }
  }
  return read_linear<T>(cpu, operand_address(cpu, i, WIDTH<T>, false));
}
template <class T>
inline void store(Cpu& cpu, const Insn& i, T value) {
  if constexpr (WIDTH<T> == 10) {
    if (i.form == Form::legacy) {
      const u64 offset = effective_offset(cpu, i);
      probe(cpu, segment_address(cpu, i.segment, offset, 8, true), 8, Access::write, user_mode(cpu));
      const u64 top = segment_address(cpu, i.segment, offset + 8, 2, true);
      probe(cpu, top, 2, Access::write, user_mode(cpu));
      write<u64>(cpu, i.segment, offset, value.low);
      return write_linear<u16>(cpu, top, value.high);
    }
  }
  write_linear<T>(cpu, operand_address(cpu, i, WIDTH<T>, true), value);
}
template <class T, class F>
inline auto modify(Cpu& cpu, const Insn& i, F&& f) {
  return rmw_linear<T>(cpu, operand_address(cpu, i, WIDTH<T>, true), static_cast<F&&>(f));
}

// --- the stack in its current width (SS.B, 64-bit mode)
inline u64 stack_mask(const Cpu& cpu) {
  return code64(cpu) ? ~u64{0} : (cpu.mode & MODE_STACK32) ? 0xffff'ffff : 0xffff;
}
inline void set_stack_pointer(Cpu& cpu, u64 value) {
  if (code64(cpu))
    cpu.gpr[RSP] = value;
  else if (cpu.mode & MODE_STACK32)
    cpu.gpr[RSP] = static_cast<u32>(value);
  else
    set_reg<u16>(cpu, RSP, static_cast<u16>(value));
}
template <class T>
inline void push(Cpu& cpu, T value) {
  const u64 top = (cpu.gpr[RSP] - sizeof(T)) & stack_mask(cpu);
  write<T>(cpu, SS, top, value);
  set_stack_pointer(cpu, top);
}
template <class T>
inline T peek(Cpu& cpu, u64 displacement) {
  return read<T>(cpu, SS, (cpu.gpr[RSP] + displacement) & stack_mask(cpu));
}
template <class T>
inline T pop(Cpu& cpu) {
  const T value = peek<T>(cpu, 0);
  set_stack_pointer(cpu, cpu.gpr[RSP] + sizeof(T));
  return value;
}

// --- translations
void flush_tlb(Cpu& cpu);       // everything, global pages too: MOV CR0/CR4 that matter, EFER, A20, memory map
void flush_tlb_local(Cpu& cpu); // MOV CR3: all but global pages
void flush_tlb_page(Cpu& cpu, u64 linear); // INVLPG

} // namespace transom::soft
