// Calls a function three times and says what came of it; a debugger may change that.
#include "tests/guests/lib/guest.hpp"

extern "C" {
u64 told = 1;

[[gnu::noinline]] u64 meeting(u64 a, u64 b) {
  asm volatile("" : "+r"(a), "+r"(b) : : "memory"); // neither is known before
  return a + b;
}

[[gnu::noinline]] void never_called() { asm volatile("" : : : "memory"); }

// The same code in a loop: a breakpoint in the middle of it.
[[gnu::noinline]] u64 count(u64 turns) {
  u64 turn = 0;
  asm volatile(
      "1: inc %0\n"
      "counting: dec %1\n"
      "jnz 1b"
      : "+r"(turn), "+r"(turns));
  return turn;
}
}

void guest_main() {
  for (u64 n = 1; n <= 3; ++n) print("meeting "), print_number(meeting(n, 10)), print("\n");
  print("counted "), print_number(count(1000)), print("\n");
  print("told "), print_number(told), print("\n");
  if (told == 0) never_called();
  check(true, "came to the end");
}
