// Code that changes: under the instruction pointer, ahead of it, across pages, through another mapping.
#include "tests/guests/cpu/paging.hpp"

extern "C" u64 pml4[512];

namespace {

// mov eax, imm32; ret
void write_function(u8* where, u32 value) {
  where[0] = 0xb8;
  for (u32 i = 0; i < 4; ++i) where[1 + i] = static_cast<u8>(value >> 8 * i);
  where[5] = 0xc3;
}
u32 call(u64 where) {
  u32 value;
  asm volatile("call *%1" : "=a"(value) : "r"(where) : "memory", "cc");
  return value;
}
u8 *page_a, *page_b;
u64 place(u8* p) { return reinterpret_cast<u64>(p); }

void replaced() {
  bool fine = true;
  for (u32 i = 0; i < 1000; ++i) {
    write_function(page_a, i);
    fine &= call(place(page_a)) == i;
  }
  check(fine, "a function that is written anew every time");
  fine = true;
  for (u32 i = 0; i < 1000; ++i) {
    page_a[1] = static_cast<u8>(i);
    fine &= (call(place(page_a)) & 0xff) == (i & 0xff);
  }
  check(fine, "one byte of it");
  fine = true;
  for (u32 i = 0; i < 200; ++i) { // two functions in one page, 64 bytes apart and closer
    write_function(page_a + 128, 1), write_function(page_a + 138, 2);
    fine &= call(place(page_a + 128)) == 1 && call(place(page_a + 138)) == 2;
    put32(place(page_a + 139), i);
    fine &= call(place(page_a + 128)) == 1 && call(place(page_a + 138)) == i;
  }
  check(fine, "a neighbour in the same line");
  put32(place(page_a + 1024), 5);
  write_function(page_a + 1030, 7);
  fine = true;
  for (u32 i = 0; i < 200; ++i) { // data beside code
    put32(place(page_a + 1024), i);
    fine &= call(place(page_a + 1030)) == 7;
  }
  check(fine, "data beside code changes nothing");
}

// Stores into what follows. RDI: the code's own copy in a page that can be written.
#define MEASURE(name, text)            \
  extern "C" Program name, name##_end; \
  asm(".pushsection .text\n.globl " #name ", " #name "_end\n" #name ":\n" text "\n" #name "_end:\n.popsection")
MEASURE(next_insn, "movb $2, 9f + 1(%rip)\n9: mov $1, %eax\nret");
MEASURE(later_insn, "movb $3, 9f + 1(%rip)\nnop\nadd $0, %ecx\nnop\n9: mov $1, %eax\nret");
MEASURE(own_block,
        "xor %edx, %edx\nmov $1, %ecx\n8: mov $10, %eax\nadd %eax, %edx\nmovb $20, 8b + 1(%rip)\n"
        "dec %ecx\njns 8b\nmov %edx, %eax\nret"); // 10 + 20
MEASURE(itself, "movb $0x90, 9f(%rip)\n9: nop\nmov $4, %eax\nret");
MEASURE(by_string,
        "push %rdi\nlea 9f + 1(%rip), %rdi\nmov $5, %eax\nmov $1, %ecx\nrep stosb\npop %rdi\n"
        "9: mov $1, %eax\nret");
MEASURE(by_push,
        "mov %rsp, %rdx\nlea 9f + 9(%rip), %rsp\nmov $0x00000006b8909090, %rcx\npush %rcx\nmov %rdx, %rsp\n"
        "nop\n9: nop\n.byte 0x90, 0x90, 0x90, 0xb8, 1, 0, 0, 0\nret");
MEASURE(by_sse,
        "movups 7f(%rip), %xmm0\nmovups %xmm0, 9f(%rip)\njmp 9f\n7: .byte 0xb8, 7, 0, 0, 0, 0xc3\n.fill 10, 1, 0x90\n"
        "9: mov $1, %eax\nret\n.fill 10, 1, 0x90");
MEASURE(by_atomic, "mov $9, %eax\nlock xaddb %al, 9f + 1(%rip)\n9: mov $1, %eax\nret"); // 1 + 9
u32 run_copy(Program from, Program to, u8* where) {
  for (const u8* p = from; p != to; ++p) where[p - from] = *p;
  return call(place(where));
}
void ahead() {
  set_control<4>(control<4>() | CR4_FXSR);
  static constexpr struct {
    const u8 *from, *to;
    u32 value;
    const char* what;
  } TESTS[] = {{next_insn, next_insn_end, 2, "a store into the next instruction"},
               {later_insn, later_insn_end, 3, "a store further ahead"},
               {own_block, own_block_end, 30, "a loop that changes its own beginning"},
               {itself, itself_end, 4, "a store that changes nothing"},
               {by_string, by_string_end, 5, "by REP STOS"},
               {by_push, by_push_end, 6, "by PUSH"},
               {by_sse, by_sse_end, 7, "by a store of 16 bytes"},
               {by_atomic, by_atomic_end, 10, "by LOCK XADD"}};
  for (const auto& t : TESTS)
    for (u32 again = 0; again < 3; ++again) check_equal(run_copy(t.from, t.to, page_a + 256), t.value, t.what);
  // Over the border of two pages, code and store.
  u8* const border = page_a + 4096; // page_b follows
  for (u32 back = 1; back < 24; ++back) {
    const u32 got = run_copy(next_insn, next_insn_end, border - back);
    if (got != 2) check_equal(got, 2, "a store into the next instruction, on the border of two pages");
  }
  bool fine = true;
  for (u32 i = 0; i < 300; ++i) { // a function on the border, changed in the second page
    write_function(border - 3, 0x01010101 * (i & 0xff));
    fine &= call(place(border - 3)) == 0x01010101 * (i & 0xff);
    put8(place(border), 0x77);
    fine &= (call(place(border - 3)) >> 16 & 0xff) == 0x77;
  }
  check(fine, "a function on the border of two pages, changed in the second");
  write_function(border - 2, 0);
  fine = true;
  for (u32 i = 0; i < 300; ++i) { // one store over the border
    put32(place(border - 1), i * 0x01010101);
    fine &= call(place(border - 2)) == i * 0x01010101;
  }
  check(fine, "a store over the border");
}

void aliases() {
  u64* const l3 = reinterpret_cast<u64*>(new_page());
  u64* const l2 = reinterpret_cast<u64*>(new_page());
  u64* const l1 = reinterpret_cast<u64*>(new_page());
  const auto table = [](const void* t) { return reinterpret_cast<word>(t) | P | W | U; };
  constexpr u64 WINDOW = u64{1} << 39;
  pml4[1] = table(l3), l3[0] = table(l2), l2[0] = table(l1);
  l1[0] = place(page_a) | P | W | U, l1[1] = place(page_a) | P | W | U;
  flush_tlb();
  bool fine = true;
  for (u32 i = 0; i < 500; ++i) {
    write_function(reinterpret_cast<u8*>(WINDOW + 0x100), i);
    fine &= call(place(page_a) + 0x100) == i;
    write_function(page_a + 0x100, i + 1);
    fine &= call(WINDOW + 0x100) == i + 1 && call(WINDOW + 0x1100) == i + 1;
  }
  check(fine, "through another mapping");
  write_function(page_a + 0x200, 1), write_function(page_b + 0x200, 2);
  fine = true;
  for (u32 i = 0; i < 200; ++i) {
    l1[0] = place(i % 2 == 0 ? page_b : page_a) | P | W | U;
    invlpg(WINDOW);
    fine &= call(WINDOW + 0x200) == (i % 2 == 0 ? 2u : 1u);
  }
  check(fine, "another page under the same address");
  write_function(page_a + 0x300, 3);
  call(WINDOW + 0x1300);
  l1[1] = 0;
  invlpg(WINDOW + 0x1000);
  State s = kernel(read_it);
  s.ip = WINDOW + 0x1300;
  check_equal(run(s).vector, PF, "code that is unmapped");
  l1[1] = place(page_a) | P | W | U | NX;
  write_msr(EFER, read_msr(EFER) | EFER_NXE);
  flush_tlb();
  check_equal(run(s).vector, PF, "code that must not run any more");
  // The same bytes in two modes.
  static const u8 both[] = {0x48, 0xff, 0xc0, 0x0f, 0x0b, 'E', 'N'}; // 64-bit: inc rax; 32-bit: dec eax, inc eax
  for (u32 i = 0; i < sizeof both; ++i) page_a[0x400 + i] = both[i];
  s = user(read_it);
  s.ip = place(page_a) + 0x400, s.ax = 0xffffffff;
  for (u32 i = 0; i < 3; ++i) {
    s.cs = UCODE64;
    check_equal(run(s).s.ax, 0x100000000, "64-bit code");
    s.cs = UCODE32;
    check_equal(run(s).s.ax, 0xffffffff, "the same bytes as 32-bit code");
  }
}

constexpr Part PARTS[] = {{"replaced", replaced}, {"ahead", ahead}, {"aliases", aliases}};

} // namespace

void guest_main() {
  setup_cpu();
  page_a = new_page(), page_b = new_page();
  run_parts(PARTS);
}
