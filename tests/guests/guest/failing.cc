// The negative control of the harness: one check that fails, one that holds.
#include "tests/guests/lib/guest.hpp"

void guest_main() {
  check(true, "this holds");
  check_equal(1, 2, "this cannot hold");
  expect("debug.ioreqs", 0);
}
