// Says hello and runs until somebody ends it.
#include "tests/guests/lib/guest.hpp"

void guest_main() {
  print("hello\n");
  for (;;) asm volatile("pause");
}
