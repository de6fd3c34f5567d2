// A tour of long mode: what a compiler uses, exceptions with their frames, hypercalls.
#include "tests/guests/lib/guest.hpp"

namespace {

constexpr u64 WINDOW = 0x40000000;
volatile u64 vector, error, address;
volatile u64 resume; // where the handler goes on
void on_exception(Frame& f) {
  vector = f.vector;
  error = f.error;
  address = fault_address();
  f.rip = resume;
}
void faulted(u64 expected_vector, u64 expected_error, const char* what) {
  check_equal(vector, expected_vector, what);
  check_equal(error, expected_error, what);
  vector = 255;
}

void arithmetic() {
  u64 low, high, quotient, remainder;
  asm("mulq %3" : "=a"(low), "=d"(high) : "a"(0xfedcba9876543210), "r"(0x123456789abcdef1) : "cc");
  check(low == 0x224a4396cc6d0110 && high == 0x121fa00ad77d7423, "mul of 64 bits");
  asm("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(0x123456789abcdef1) : "cc");
  check(quotient == 0xfedcba9876543210 && remainder == 0, "div takes it back");
  u64 x = 0x8000000000000001;
  asm("rolq $4, %0" : "+r"(x) : : "cc");
  check_equal(x, 0x18, "rol");
  asm("bswap %0" : "+r"(x));
  check_equal(x, 0x1800000000000000, "bswap");
  u64 index;
  asm("bsrq %1, %0" : "=r"(index) : "r"(x) : "cc");
  check_equal(index, 60, "bsr");
  u64 old = 5, memory = 5;
  asm("lock; cmpxchgq %2, %1" : "+a"(old), "+m"(memory) : "r"(u64{9}) : "cc");
  check(memory == 9 && old == 5, "cmpxchg");
  u8 overflow, carry;
  asm("movb $0x7f, %%al; addb $1, %%al; seto %0; setc %1" : "=r"(overflow), "=r"(carry) : : "al", "cc");
  check(overflow == 1 && carry == 0, "flags of an addition");
  u64 wide = ~u64{0};
  asm("movl $1, %k0" : "+r"(wide));
  check_equal(wide, 1, "a 32-bit result clears the upper half");
  asm("movb $2, %b0" : "+r"(wide));
  check_equal(wide, 2, "an 8-bit one does not");
}

u64 fibonacci(u64 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

void strings() {
  u8 text[64] = {};
  for (u32 i = 0; i < 32; ++i) text[i] = static_cast<u8>('a' + i);
  u64 from = reinterpret_cast<u64>(text), to = from + 40, count = 5;
  asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(text[40] == 'a' && text[44] == 'e' && text[45] == 0, "rep movsb");
  to = reinterpret_cast<u64>(text), count = 64;
  asm volatile("repne scasb" : "+D"(to), "+c"(count) : "a"('d') : "memory", "cc");
  check_equal(to - reinterpret_cast<u64>(text), 4, "repne scasb stops behind what it found");
  from = reinterpret_cast<u64>(text), to = from + 40, count = 6;
  asm volatile("repe cmpsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory", "cc");
  check_equal(count, 0, "repe cmpsb stops at the difference");
}

void exceptions() {
  for (const u8 v : (const u8[]){0, 3, 6, 13, 14}) handle(v, on_exception);
#define RESUME "lea 1f(%%rip), %%rax; mov %%rax, %0; "
  asm volatile(RESUME "xor %%edx, %%edx; xor %%ecx, %%ecx; div %%ecx; 1:" : "=m"(resume) : : "rax", "rcx", "rdx", "cc");
  faulted(0, 0, "#DE");
  asm volatile(RESUME "int3; 1:" : "=m"(resume) : : "rax");
  faulted(3, 0, "#BP");
  asm volatile(RESUME "ud2; 1:" : "=m"(resume) : : "rax");
  faulted(6, 0, "#UD");
  asm volatile(RESUME "mov $0x1234567890abcdef, %%rcx; mov (%%rcx), %%rcx; 1:" : "=m"(resume) : : "rax", "rcx");
  faulted(13, 0, "#GP of an address that is not canonical");
  asm volatile(RESUME "mov $0x28, %%ecx; mov %%ecx, %%fs; 1:" : "=m"(resume) : : "rax", "rcx");
  faulted(13, 0x28, "#GP of a selector beyond the GDT");
  asm volatile(RESUME "mov $0x7fff, %%ecx; rdmsr; 1:" : "=m"(resume) : : "rax", "rcx", "rdx");
  faulted(13, 0, "#GP of an MSR that is not there");
  open_window(WINDOW);
  asm volatile(RESUME "movl $0x40000010, %%ecx; mov (%%rcx), %%ecx; 1:" : "=m"(resume) : : "rax", "rcx");
  faulted(14, 0, "#PF of a read");
  check_equal(address, WINDOW + 0x10, "CR2 is the address");
  asm volatile(RESUME "movl $0x40000ffe, %%ecx; movl %%ecx, (%%rcx); 1:" : "=m"(resume) : : "rax", "rcx", "memory");
  faulted(14, 2, "#PF of a write");
  map_page(WINDOW, WINDOW, 0x600000);
  at<u16>(0x600ffe) = 0x1111;
  asm volatile(RESUME "movl $0x40000ffe, %%ecx; movl %%ecx, (%%rcx); 1:" : "=m"(resume) : : "rax", "rcx", "memory");
  faulted(14, 2, "#PF of a write over the border");
  check_equal(address, WINDOW + 0x1000, "CR2 is the second page");
  check_equal(at<u16>(0x600ffe), 0x1111, "and nothing was written to the first");
#undef RESUME
}

// Without Xen, VMCALL and VMMCALL say so, and touch nothing but RAX.
void hypercalls() {
  for (u64 n = 0; n < 64; n += 7) {
    u64 rax = n, rbx = 1, rcx = 2, rdx = 3, rsi = 4, rdi = 5;
    asm volatile(".byte 0x0f, 0x01, 0xc1"
                 : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi), "+D"(rdi)
                 :
                 : "memory");
    check_equal(rax, static_cast<u64>(-38L), "VMCALL answers -ENOSYS");
    check(rbx == 1 && rcx == 2 && rdx == 3 && rsi == 4 && rdi == 5, "VMCALL keeps the other registers");
    rax = n;
    asm volatile(".byte 0x0f, 0x01, 0xd9"
                 : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx), "+S"(rsi), "+D"(rdi)
                 :
                 : "memory");
    check_equal(rax, static_cast<u64>(-38L), "VMMCALL answers -ENOSYS");
  }
  expect("exits.hypercall", 20);
}

} // namespace

void guest_main() {
  arithmetic();
  check_equal(fibonacci(20), 6765, "recursion");
  strings();
  exceptions();
  hypercalls();
  const u64 before = time_stamp();
  check(wait_until([before] { return time_stamp() > before; }), "the time stamp counter runs");
}
