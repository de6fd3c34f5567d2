#include "tests/guests/lib/cpu.hpp"

alignas(4096) u8 tss[8192 + 256];
alignas(4096) u8 user_stack[4096];

extern "C" [[noreturn]] void leave_state();
extern "C" void enter_state(const State* state);

namespace {
bool armed;
Outcome outcome;
} // namespace

namespace {
u64 segment_base(u16 selector) {
  u64 d;
  if (selector & 4) {
    const u64 ldt = gdt[LDT_SELECTOR >> 3];
    d = at<u64>((ldt >> 16 & 0xffffff) + (selector & 0xfff8u));
  } else {
    d = gdt[selector >> 3];
  }
  return (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
}
bool at_end(const Outcome& o) {
  if (o.vector != UD) return false;
  const u64 base = o.s.flags & VM ? u64{o.s.cs} << 4 : segment_base(static_cast<u16>(o.s.cs));
  return at<u32>(base + o.s.ip) == END_MARK;
}
} // namespace

// From the handlers' side (machine64.cc, machine32.cc): does not return if a program is running.
void program_ended(const Outcome& o) {
  if (!armed) return;
  armed = false;
  outcome = o;
  outcome.cr2 = control<2>();
  if (at_end(o)) outcome.vector = END;
  leave_state();
}

Outcome run(const State& state) {
  const State copy = state;
  armed = true;
  enter_state(&copy);
  return outcome;
}

namespace {
void print_outcome(const Outcome& o) {
  print("  there came vector "), print_number(o.vector, 16), print(", error "), print_number(o.error, 16);
  print(" at "), print_number(o.s.cs, 16), print(":"), print_number(o.s.ip, 16);
  if (o.vector == PF) print(", cr2 "), print_number(o.cr2, 16);
  print("\n");
}
} // namespace

bool ended(const Outcome& o, const char* what) {
  if (check(o.vector == END, what)) return true;
  print_outcome(o);
  return false;
}
bool faulted(const Outcome& o, u8 vector, word error, const char* what) {
  if (check(o.vector == vector && o.error == error, what)) return true;
  print("  expected vector "), print_number(vector, 16), print(", error "), print_number(error, 16), print("\n");
  print_outcome(o);
  return false;
}
bool page_faulted(const Outcome& o, word error, word cr2, const char* what) {
  if (check(o.vector == PF && o.error == error && o.cr2 == cr2, what)) return true;
  print("  expected a page fault, error "), print_number(error, 16), print(", cr2 "), print_number(cr2, 16);
  print("\n");
  print_outcome(o);
  return false;
}
