// Debug registers: breakpoints on execution, data and ports, general detect, RF, INT1, what reads back.
#include "tests/guests/lib/cpu.hpp"
#include "tests/guests/lib/guest.hpp"

namespace {

enum : u64 { EXECUTE = 0, WRITE = 1, PORT = 2, ACCESS = 3 };
enum : u64 { ONE = 0, TWO = 1, EIGHT = 2, FOUR = 3 };
constexpr u64 GD = 0x2000, CLEAR6 = 0xffff0ff0, CLEAR7 = 0x400;

template <u32 N>
u64 dr() {
  u64 v;
  if constexpr (N == 0) asm volatile("mov %%dr0, %0" : "=r"(v));
  if constexpr (N == 1) asm volatile("mov %%dr1, %0" : "=r"(v));
  if constexpr (N == 3) asm volatile("mov %%dr3, %0" : "=r"(v));
  if constexpr (N == 6) asm volatile("mov %%dr6, %0" : "=r"(v));
  if constexpr (N == 7) asm volatile("mov %%dr7, %0" : "=r"(v));
  return v;
}
template <u32 N>
void set_dr(u64 v) {
  if constexpr (N == 0) asm volatile("mov %0, %%dr0" : : "r"(v));
  if constexpr (N == 1) asm volatile("mov %0, %%dr1" : : "r"(v));
  if constexpr (N == 3) asm volatile("mov %0, %%dr3" : : "r"(v));
  if constexpr (N == 6) asm volatile("mov %0, %%dr6" : : "r"(v));
  if constexpr (N == 7) asm volatile("mov %0, %%dr7" : : "r"(v));
}
u64 enabled(u32 n, u64 kind, u64 length) { return u64{1} << 2 * n | (kind | length << 2) << (16 + 4 * n); }

struct Watched {
  Outcome o;
  u64 dr6;
};
Watched watch(const State& s, u64 dr7) {
  set_dr<6>(CLEAR6);
  set_dr<7>(CLEAR7 | dr7);
  Watched w;
  w.o = run(s);
  w.dr6 = dr<6>();
  set_dr<7>(CLEAR7);
  set_dr<6>(CLEAR6);
  return w;
}

CODE(three_nops, "nop\n.globl second_nop\nsecond_nop: nop\nnop");
CODE(load4, "mov (%rdi), %eax\n.globl after_load\nafter_load: nop");
CODE(store4, "mov %eax, (%rdi)\n.globl after_store\nafter_store: nop");
CODE(change4, "incl (%rdi)\n.globl after_change\nafter_change: nop");
CODE(push_it, "push %rax\n.globl after_push\nafter_push: nop");
CODE(out_it, "out %al, $0x80\n.globl after_out\nafter_out: nop");
CODE(copy, "rep movsb\n.globl after_copy\nafter_copy: nop");
CODE(load_ss, "movw (%rdi), %ss\n.globl in_shadow\nin_shadow: nop\n.globl behind_shadow\nbehind_shadow: nop");
CODE(get_dr0, "mov %dr0, %rax");
CODE(set_dr7, "mov %rax, %dr7");
CODE(get_dr4, ".byte 0x0f, 0x21, 0xe0");
CODE(get_dr8, ".byte 0x44, 0x0f, 0x21, 0xc0");
CODE(int1, ".byte 0xf1\n.globl after_int1\nafter_int1: nop");
extern "C" Program second_nop, after_load, after_store, after_change, after_push, after_out, after_copy, in_shadow,
    behind_shadow, after_int1;
alignas(64) u8 data[64];

void execution() {
  set_dr<0>(address(second_nop));
  Watched w = watch(kernel(three_nops), enabled(0, EXECUTE, ONE));
  check(w.o.vector == DB && w.o.s.ip == address(second_nop), "an instruction breakpoint is a fault");
  check_equal(w.dr6 & 0xe00f, 1, "DR6.B0");
  check_equal(w.o.s.flags & RF, 0, "RF is not set by it");
  State s = kernel(three_nops);
  s.ip = address(second_nop), s.flags |= RF;
  w = watch(s, enabled(0, EXECUTE, ONE));
  ended(w.o, "IRET with RF passes it");
  s.ip = address(three_nops);
  w = watch(s, enabled(0, EXECUTE, ONE));
  check_equal(w.o.vector, DB, "RF lasts for one instruction");
  w = watch(user(three_nops), enabled(0, EXECUTE, ONE));
  check(w.o.vector == DB && w.o.s.cs == UCODE, "at CPL 3");
  w = watch(kernel(three_nops), enabled(0, EXECUTE, ONE) << 1 & 2);
  check_equal(w.o.vector, DB, "by the global enable bit");
  w = watch(kernel(three_nops), 0);
  ended(w.o, "not enabled");
  set_dr<3>(address(three_nops) + 2);
  w = watch(kernel(three_nops), enabled(0, EXECUTE, ONE) | enabled(3, EXECUTE, ONE));
  check(w.o.vector == DB && (w.dr6 & 15) == 1, "the first of two");
  s = kernel(three_nops);
  s.ip = address(second_nop), s.flags |= RF;
  w = watch(s, enabled(0, EXECUTE, ONE) | enabled(3, EXECUTE, ONE));
  check(w.o.vector == DB && (w.dr6 & 15) == 8, "then the second: DR6.B3");
  set_dr<0>(address(out_it) + 1);
  ended(watch(kernel(out_it), enabled(0, EXECUTE, ONE)).o, "only the first byte of an instruction counts");
}

void data_accesses() {
  const auto at_data = [](Program p, word offset = 0) {
    State s = kernel(p);
    s.di = reinterpret_cast<word>(data) + offset;
    return s;
  };
  const word base = reinterpret_cast<word>(data);
  set_dr<0>(base + 8);
  Watched w = watch(at_data(store4, 8), enabled(0, WRITE, FOUR));
  check(w.o.vector == DB && w.o.s.ip == address(after_store), "a write breakpoint is a trap");
  check_equal(w.dr6 & 0xe00f, 1, "DR6.B0 of it");
  check_equal(w.o.s.flags & RF, 0, "a trap pushes RF = 0");
  ended(watch(at_data(load4, 8), enabled(0, WRITE, FOUR)).o, "a read passes a write breakpoint");
  w = watch(at_data(load4, 8), enabled(0, ACCESS, FOUR));
  check(w.o.vector == DB && w.o.s.ip == address(after_load), "a read of an access breakpoint");
  w = watch(at_data(change4, 8), enabled(0, WRITE, FOUR));
  check(w.o.vector == DB && w.o.s.ip == address(after_change), "a read-modify-write");
  check_equal(watch(at_data(store4, 11), enabled(0, WRITE, FOUR)).o.vector, DB, "one byte of overlap at the end");
  check_equal(watch(at_data(store4, 5), enabled(0, WRITE, FOUR)).o.vector, DB, "one byte of overlap at the start");
  ended(watch(at_data(store4, 4), enabled(0, WRITE, FOUR)).o, "just before");
  ended(watch(at_data(store4, 12), enabled(0, WRITE, FOUR)).o, "just behind");
  set_dr<0>(base + 10); // its low bits are ignored by length
  check_equal(watch(at_data(store4, 6), enabled(0, WRITE, FOUR)).o.vector, DB, "the address is aligned to the length");
  set_dr<0>(base + 8);
  ended(watch(at_data(store4, 9), enabled(0, WRITE, ONE)).o, "length 1: the byte behind");
  check_equal(watch(at_data(store4, 5), enabled(0, WRITE, ONE)).o.vector, DB, "length 1: the byte itself");
  check_equal(watch(at_data(store4, 15), enabled(0, WRITE, EIGHT)).o.vector, DB, "length 8: the last byte");
  ended(watch(at_data(store4, 16), enabled(0, WRITE, EIGHT)).o, "length 8: the byte behind");
  State s = user(push_it);
  set_dr<1>(s.sp - 8);
  w = watch(s, enabled(1, WRITE, EIGHT));
  check(w.o.vector == DB && w.o.s.ip == address(after_push) && (w.dr6 & 15) == 2, "a push at CPL 3");
  set_dr<0>(base + 8), set_dr<1>(base + 10);
  w = watch(at_data(store4, 8), enabled(0, WRITE, TWO) | enabled(1, WRITE, TWO));
  check(w.o.vector == DB && (w.dr6 & 15) == 3, "two at once");
  w = watch(at_data(store4, 8), enabled(0, WRITE, TWO));
  check_equal(w.dr6 & 1, 1, "one that is enabled");
  set_dr<0>(base + 32);
  s = kernel(copy);
  s.cx = 8, s.si = base, s.di = base + 28;
  w = watch(s, enabled(0, WRITE, ONE));
  check_equal(w.o.vector, DB, "in the middle of REP MOVS");
  check(w.o.s.cx == 3 && w.o.s.ip == address(copy), "it stops after that iteration");
  put16(base, KDATA);
  set_dr<0>(base);
  w = watch(at_data(load_ss), enabled(0, ACCESS, TWO));
  check(w.o.vector == DB && w.o.s.ip == address(behind_shadow), "MOV SS holds its own breakpoint back");
}

void ports() {
  set_control<4>(control<4>() | CR4_DE);
  set_dr<0>(0x80);
  Watched w = watch(kernel(out_it), enabled(0, PORT, ONE));
  check(w.o.vector == DB && w.o.s.ip == address(after_out) && (w.dr6 & 15) == 1, "a port breakpoint is a trap");
  set_dr<0>(0x81);
  ended(watch(kernel(out_it), enabled(0, PORT, ONE)).o, "another port");
  faulted(run(kernel(get_dr4)), UD, 0, "DR4 with CR4.DE");
  set_control<4>(control<4>() & ~CR4_DE);
  set_dr<6>(CLEAR6 | 5);
  const Outcome o = run(kernel(get_dr4));
  check(o.vector == END && (o.s.ax & 15) == 5, "DR4 is DR6 without CR4.DE");
  faulted(run(kernel(get_dr8)), UD, 0, "DR8");
}

void registers() {
  set_dr<6>(0xffffffff);
  check_equal(dr<6>() & 0xffff0fff, 0xffff0fff, "DR6: what can be set");
  set_dr<6>(0);
  check_equal(dr<6>() & 0xffff1fff & ~u64{0x10800}, 0xfffe07f0, "DR6: fixed bits");
  set_dr<7>(0);
  check_equal(dr<7>(), 0x400, "DR7: bit 10 is fixed");
  set_dr<1>(0x123456789abcdef0);
  check_equal(dr<1>(), 0x123456789abcdef0, "DR1 has 64 bits");
  State s = kernel(set_dr7);
  s.ax = u64{1} << 32;
  faulted(run(s), GP, 0, "the upper half of DR7");
  faulted(run(user(get_dr0)), GP, 0, "at CPL 3");
  set_dr<6>(CLEAR6);
  Watched w = watch(kernel(get_dr0), GD);
  check(w.o.vector == DB && w.o.s.ip == address(get_dr0), "general detect is a fault");
  check_equal(w.dr6 & 0x2000, 0x2000, "DR6.BD");
  set_dr<6>(CLEAR6);
  set_dr<7>(CLEAR7 | GD);
  run(kernel(get_dr0));
  check_equal(dr<7>() & GD, 0, "and clears GD for its handler");
  w = watch(user(int1), 0);
  check(w.o.vector == DB && w.o.s.ip == address(after_int1) && (w.dr6 & 0x600f) == 0, "INT1 leaves DR6 alone");
  // A step and a breakpoint together.
  set_dr<0>(reinterpret_cast<u64>(data));
  s = kernel(store4);
  s.di = reinterpret_cast<word>(data), s.flags |= TF;
  w = watch(s, enabled(0, WRITE, FOUR));
  check(w.o.vector == DB && (w.dr6 & 0x400f) == 0x4001, "a step and a breakpoint are one #DB");
}

constexpr Part PARTS[] = {
    {"execution", execution}, {"data", data_accesses}, {"ports", ports}, {"registers", registers}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
