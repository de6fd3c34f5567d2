// Ends in a triple fault, by the way that the command line names ("only=PART").
#include "tests/guests/lib/cpu.hpp"

namespace {

void no_table() {
  load_idt(0);
  asm volatile("ud2");
}
void no_stack() { // #PF pushes onto an absent page, and so does #DF
  asm volatile("mov %0, %%rsp\npush %%rax" : : "r"(word{1} << 45) : "memory");
}
void no_gate() { // of #DF
  idt[2 * DF] = 0;
  idt[2 * GP] = 0;
  asm volatile("mov %0, %%ds" : : "r"(0x1ff8));
}
constexpr Part PARTS[] = {{"no-table", no_table}, {"no-stack", no_stack}, {"no-gate", no_gate}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
  print("survived\n");
}
