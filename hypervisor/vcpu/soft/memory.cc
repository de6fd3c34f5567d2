// The slow halves of guest memory accesses: TLB misses, page crossings, devices, code pages, watched accesses.
#include "hypervisor/vcpu/soft/memory.hpp"

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

void segment_violation(Cpu& cpu, unsigned segment) { raise(cpu, segment == SS ? SS_FAULT : GP, 0); }

namespace {

void log_store(Cpu& cpu, const u8* at, unsigned width) {
  if (cpu.store_log != nullptr) [[unlikely]]
    cpu.store_log->add(at, width);
}

// Both pages of an access, translated before any byte moves.
struct Span {
  TlbInfo* first;
  TlbInfo* second; // null within one page
  unsigned offset; // in the first page
  unsigned head;   // bytes in the first page
};

// DR7: data breakpoints set their DR6 bit; the run loop raises the trap after the instruction (SDM 3B 17.2).
void watch(Cpu& cpu, u64 linear, unsigned width, Access access) {
  for (unsigned n = 0; n < 4; ++n) {
    const u64 control = cpu.dr[7] >> (16 + 4 * n) & 15, kind = control & 3;
    if (!(cpu.dr[7] >> (2 * n) & 3) || kind == 0 || kind == 2 || (kind == 1 && access != Access::write)) continue;
    static constexpr u8 LENGTH[4] = {1, 2, 8, 4};
    const u64 length = LENGTH[control >> 2], base = cpu.dr[n] & ~(length - 1);
    if (linear < base + length && base < linear + width) cpu.pending_debug |= u64{1} << n;
  }
}

Span span(Cpu& cpu, u64 linear, unsigned width, Access access, bool user) {
  if (cpu.tlb == cpu.slow_tlb) {
    if (user && (cpu.cr0 & CR0_AM) && (cpu.rflags & FLAG_AC) && width <= 8 && linear % width != 0) raise(cpu, AC, 0);
    if (cpu.dr[7] & 0xff) watch(cpu, linear, width, access);
  }
  const unsigned offset = linear % PAGE_SIZE;
  if (offset + width <= PAGE_SIZE) return {&resolve(cpu, linear, access, user), nullptr, offset, width};
  const unsigned head = static_cast<unsigned>(PAGE_SIZE) - offset;
  resolve(cpu, linear, access, user);
  TlbInfo* const second = &resolve(cpu, linear + head, access, user);
  // The two pages differ in their index, so filling the second left the first alone.
  return {&resolve(cpu, linear, access, user), second, offset, head};
}

u64 device_read(Cpu& cpu, u64 gpa, unsigned width) {
  u64 value = 0;
  if (width == 1 || width == 2 || width == 4 || width == 8)
    value = cpu.platform->mmio_read(gpa, width);
  else
    for (unsigned n = 0; n < width; ++n) value |= (cpu.platform->mmio_read(gpa + n, 1) & 0xff) << (8 * n);
  cpu.blocks->after_exit(cpu);
  return value;
}

void device_write(Cpu& cpu, u64 gpa, unsigned width, u64 value) {
  if (width == 1 || width == 2 || width == 4 || width == 8)
    cpu.platform->mmio_write(gpa, width, value);
  else
    for (unsigned n = 0; n < width; ++n) cpu.platform->mmio_write(gpa + n, 1, value >> (8 * n) & 0xff);
  cpu.blocks->after_exit(cpu);
}

// Up to 16 bytes within one page.
void read_part(Cpu& cpu, const TlbInfo& page, unsigned offset, u8* to, unsigned width) {
  if (page.host_read != nullptr) {
    std::memcpy(to, page.host_read + offset, width);
    return;
  }
  const u64 gpa = page.gpa | offset;
  for (unsigned done = 0; done < width; done += 8) {
    const unsigned part = width - done < 8 ? width - done : 8;
    const u64 value = device_read(cpu, gpa + done, part);
    std::memcpy(to + done, &value, part);
  }
}

void write_part(Cpu& cpu, const TlbInfo& page, unsigned offset, const u8* from, unsigned width) {
  if (page.host_write != nullptr) {
    if (page.ram_page != ~u64{0}) cpu.blocks->wrote(cpu, page.ram_page, offset, width);
    log_store(cpu, page.host_write + offset, width);
    std::memcpy(page.host_write + offset, from, width);
    return;
  }
  const u64 gpa = page.gpa | offset;
  for (unsigned done = 0; done < width; done += 8) {
    const unsigned part = width - done < 8 ? width - done : 8;
    u64 value = 0;
    std::memcpy(&value, from + done, part);
    device_write(cpu, gpa + done, part, value);
  }
}

void read_bytes(Cpu& cpu, u64 linear, u8* to, unsigned width, bool user) {
  const Span s = span(cpu, linear, width, Access::read, user);
  const TlbInfo first = *s.first;
  const TlbInfo second = s.second != nullptr ? *s.second : TlbInfo{};
  read_part(cpu, first, s.offset, to, s.head);
  if (s.second != nullptr) read_part(cpu, second, 0, to + s.head, width - s.head);
}

// A miss of the TLB alone, which is what most come here for: within a page, and nobody watches.
bool plain(const Cpu& cpu, u64 linear, unsigned width) {
  return linear % PAGE_SIZE + width <= PAGE_SIZE && cpu.tlb != cpu.slow_tlb;
}
template <class T>
void store_as(u8* to, u64 value) {
  const T narrow = static_cast<T>(value);
  std::memcpy(to, &narrow, sizeof narrow);
}
void store_value(u8* to, unsigned width, u64 value) {
  switch (width) {
    case 1: return store_as<u8>(to, value);
    case 2: return store_as<u16>(to, value);
    case 4: return store_as<u32>(to, value);
    default: return store_as<u64>(to, value);
  }
}
template <class T>
u64 load_as(const u8* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
u64 load_value(const u8* from, unsigned width) {
  switch (width) {
    case 1: return load_as<u8>(from);
    case 2: return load_as<u16>(from);
    case 4: return load_as<u32>(from);
    default: return load_as<u64>(from);
  }
}

// Copies, because a device's handler may change the memory map under the TLB.
void write_bytes(Cpu& cpu, u64 linear, const u8* from, unsigned width, bool user) {
  const Span s = span(cpu, linear, width, Access::write, user);
  const TlbInfo first = *s.first;
  const TlbInfo second = s.second != nullptr ? *s.second : TlbInfo{};
  write_part(cpu, first, s.offset, from, s.head);
  if (s.second != nullptr) write_part(cpu, second, 0, from + s.head, width - s.head);
}

} // namespace

u64 read_slow(Cpu& cpu, u64 linear, unsigned width, bool user) {
  if (plain(cpu, linear, width)) {
    const TlbInfo& page = resolve(cpu, linear, Access::read, user);
    if (page.host_read != nullptr) return load_value(page.host_read + linear % PAGE_SIZE, width);
  }
  u64 value = 0;
  u8 bytes[8];
  read_bytes(cpu, linear, bytes, width, user);
  std::memcpy(&value, bytes, width);
  return value;
}

Bytes16 read_slow_wide(Cpu& cpu, u64 linear, unsigned width, bool user) {
  u8 bytes[16] = {};
  read_bytes(cpu, linear, bytes, width, user);
  Bytes16 value;
  std::memcpy(&value, bytes, 16);
  return value;
}

void write_slow(Cpu& cpu, u64 linear, unsigned width, u64 value, bool user) {
  if (plain(cpu, linear, width)) {
    const TlbInfo page = resolve(cpu, linear, Access::write, user);
    if (page.host_write != nullptr) {
      if (page.ram_page != ~u64{0}) cpu.blocks->wrote(cpu, page.ram_page, linear % PAGE_SIZE, width);
      log_store(cpu, page.host_write + linear % PAGE_SIZE, width);
      return store_value(page.host_write + linear % PAGE_SIZE, width, value);
    }
  }
  u8 bytes[8];
  std::memcpy(bytes, &value, 8);
  write_bytes(cpu, linear, bytes, width, user);
}

void write_slow_wide(Cpu& cpu, u64 linear, unsigned width, u64 low, u64 high, bool user) {
  u8 bytes[16];
  std::memcpy(bytes, &low, 8);
  std::memcpy(bytes + 8, &high, 8);
  write_bytes(cpu, linear, bytes, width, user);
}

u8* rmw_slow(Cpu& cpu, u64 linear, unsigned width, bool user) {
  const Span s = span(cpu, linear, width, Access::write, user);
  const TlbInfo first = *s.first;
  if (s.second == nullptr && first.host_write != nullptr && first.host_write == first.host_read) {
    if (first.ram_page != ~u64{0}) cpu.blocks->wrote(cpu, first.ram_page, s.offset, width);
    log_store(cpu, first.host_write + s.offset, width);
    return first.host_write + s.offset;
  }
  const TlbInfo second = s.second != nullptr ? *s.second : TlbInfo{};
  read_part(cpu, first, s.offset, cpu.bounce, s.head);
  if (s.second != nullptr) read_part(cpu, second, 0, cpu.bounce + s.head, width - s.head);
  return cpu.bounce;
}

void rmw_commit(Cpu& cpu, u64 linear, unsigned width, bool user) { write_bytes(cpu, linear, cpu.bounce, width, user); }

} // namespace transom::soft

#if TRANSOM_CHAIN_HANDLERS
// What the thunks call.
extern "C" {
[[gnu::used, gnu::visibility("hidden")]] transom::u64 transom_soft_do_read(transom::soft::Cpu* cpu, transom::u64 linear,
                                                                           unsigned width) {
  return transom::soft::read_slow(*cpu, linear, width, transom::soft::user_mode(*cpu));
}
[[gnu::used, gnu::visibility("hidden")]] void transom_soft_do_write(transom::soft::Cpu* cpu, transom::u64 linear,
                                                                    unsigned width, transom::u64 value) {
  transom::soft::write_slow(*cpu, linear, width, value, transom::soft::user_mode(*cpu));
}
[[gnu::used, gnu::visibility("hidden")]] transom::u8* transom_soft_do_rmw(transom::soft::Cpu* cpu, transom::u64 linear,
                                                                          unsigned width) {
  return transom::soft::rmw_slow(*cpu, linear, width, transom::soft::user_mode(*cpu));
}
[[gnu::used, gnu::visibility("hidden")]] void transom_soft_do_finish(transom::soft::Cpu* cpu, transom::u64 linear,
                                                                     unsigned width) {
  transom::soft::rmw_commit(*cpu, linear, width, transom::soft::user_mode(*cpu));
}
}

// Thunks: arguments and result as in the System V ABI, but every register except rax is kept and the stack is aligned
// here.
asm(R"(
  .macro transom_thunk name, target
  .globl \name
  .hidden \name
  .type \name, @function
\name:
  .cfi_startproc
  push %rbp
  .cfi_def_cfa_offset 16
  .cfi_offset %rbp, -16
  mov %rsp, %rbp
  .cfi_def_cfa_register %rbp
  push %rcx
  push %rdx
  push %rsi
  push %rdi
  push %r8
  push %r9
  push %r10
  push %r11
  sub $256, %rsp
  and $-16, %rsp
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movaps %xmm\n, 16*\n(%rsp)
  .endr
  call \target
  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
  movaps 16*\n(%rsp), %xmm\n
  .endr
  lea -64(%rbp), %rsp
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rdi
  pop %rsi
  pop %rdx
  pop %rcx
  pop %rbp
  .cfi_def_cfa %rsp, 8
  ret
  .cfi_endproc
  .size \name, . - \name
  .endm
  .text
  transom_thunk transom_soft_read_miss, transom_soft_do_read
  transom_thunk transom_soft_write_miss, transom_soft_do_write
  transom_thunk transom_soft_rmw_miss, transom_soft_do_rmw
  transom_thunk transom_soft_rmw_finish, transom_soft_do_finish
)");
#endif
