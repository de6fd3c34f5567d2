// Posts writes and then touches nothing: only the doorbell can make Dom0 take them.
#include "tests/guests/lib/mmio_test.hpp"

void guest_main() {
  print("posting\n");
  for (u64 i = 0; i < 5; ++i) mmio0.reg(TestDevice::POSTED) = i;
  mmio0.reg(TestDevice::DOORBELL) = 1;
  for (;;) asm volatile("cli; hlt");
}
