// What happens between instructions: shadows of STI, MOV SS and POP SS, NMIs, HLT, single steps, the double-fault
// matrix.
#include "tests/guests/lib/cpu.hpp"
#include "tests/guests/lib/guest.hpp"

namespace {

// --- interrupts from the local APIC's own command register: to this CPU, as soon as it takes them
constexpr u64 APIC = 0xfee00000;
constexpr u8 V = 0x60;
volatile u32 taken;
volatile word taken_at;
void on_interrupt(Frame& f) {
  taken = taken + 1;
  if (taken_at == 0) taken_at = f.rip;
  put32(APIC + 0xb0, 0);
}
void send() { put32(APIC + 0x300, V | 0x40000); } // to self
void setup_apic() {
  put32(APIC + 0xf0, 0x1ff);
  handle(V, on_interrupt);
}

// Each sends the interrupt first, with IF = 0.
State with_apic(Program p) {
  State s = kernel(p);
  s.di = APIC;
  return s;
}
#define SEND "movl $0x40060, 0x300(%rdi)\n"
CODE(sti_nop, SEND "sti\nnop\n.globl after_sti\nafter_sti: nop\nnop\ncli");
CODE(sti_cli, SEND "sti\ncli\nnop\nnop");
CODE(sti_sti, SEND "sti\nsti\n.globl after_sti_sti\nafter_sti_sti: nop\ncli");
CODE(sti_mov_ss, SEND "mov %ss, %eax\nsti\nmov %eax, %ss\nnop\n.globl after_sti_ss\nafter_sti_ss: nop\ncli");
CODE(mov_ss, SEND "mov %ss, %eax\npushf\norl $0x200, (%rsp)\npopf\n.globl after_popf\nafter_popf: nop\ncli");
CODE(sti_hlt, SEND "sti\nhlt\n.globl after_hlt\nafter_hlt: cli");
CODE(hlt_first, "sti\nhlt\ncli");
extern "C" Program after_sti, after_sti_sti, after_sti_ss, after_popf, after_hlt;
void take(Program p, Program where, const char* what) {
  taken = 0;
  taken_at = 0;
  if (!ended(run(with_apic(p)), what)) return;
  check_equal(taken, 1, what);
  check_equal(taken_at, address(where), what);
}
void shadows() {
  take(sti_nop, after_sti, "STI lets one more instruction run");
  taken = 0;
  ended(run(with_apic(sti_cli)), "STI, CLI");
  check_equal(taken, 0, "STI, CLI let nothing in");
  taken_at = 0;
  enable(), disable();
  check_equal(taken, 1, "it comes when it may");
  take(sti_sti, after_sti_sti, "the second STI gives no shadow");
  take(mov_ss, after_popf, "POPF that sets IF has no shadow");
  take(sti_hlt, after_hlt, "STI, HLT: HLT is woken");
}

CODE(loose_nops, "nop\nnop\ncli");
void halts() {
  // IRET that sets IF lets it in before the first instruction.
  send();
  taken = 0;
  taken_at = 0;
  State s = kernel(loose_nops);
  s.flags |= IF;
  ended(run(s), "IRET that sets IF");
  check(taken == 1 && taken_at == s.ip, "has no shadow");
  s = user(hlt_first);
  faulted(run(s), GP, 0, "STI at CPL 3");
  s.flags |= IOPL3;
  Outcome o = run(s);
  check(o.vector == GP && o.s.ip == address(hlt_first) + 1 && (o.s.flags & IF) != 0, "HLT at CPL 3");
}

// --- NMIs
volatile u32 nmis, depth, deepest;
volatile word nmi_at;
volatile bool again;
void send_nmi() { put32(APIC + 0x310, 0), put32(APIC + 0x300, 0x400); }
#define SEND_NMI "movl $0, 0x310(%rdi)\nmovl $0x400, 0x300(%rdi)\n"
void on_nmi(Frame& f) {
  nmis = nmis + 1;
  depth = depth + 1;
  if (depth > deepest) deepest = depth;
  if (nmi_at == 0) nmi_at = f.rip;
  if (again) {
    again = false;
    send_nmi();
    for (u32 i = 0; i < 1000; ++i) asm volatile("pause");
  }
  depth = depth - 1;
}
CODE(nmi_in_shadow, "mov %ss, %eax\n" SEND_NMI "nop\nnop\nnop");
CODE(wait_for_nmi, "mov $100000, %ecx\n1: pause\nloop 1b");
void non_maskable() {
  handle(NMI, on_nmi);
  nmis = 0;
  nmi_at = 0;
  deepest = 0;
  send_nmi();
  wait_until([] { return nmis != 0; });
  check_equal(nmis, 1, "an NMI comes with IF = 0");
  again = true;
  send_nmi();
  wait_until([] { return nmis == 3; });
  check(nmis == 3 && deepest == 1, "the next one waits for IRET");
  // In a program's life the handler never executes IRET: it is left by leave_state(), which does.
  handle(NMI, nullptr);
  Outcome o = run(with_apic(nmi_in_shadow));
  if (o.vector == END) o = run(kernel(wait_for_nmi));
  check_equal(o.vector, NMI, "an NMI ends a program");
  handle(NMI, on_nmi);
  nmis = 0;
  send_nmi();
  wait_until([] { return nmis != 0; });
  check_equal(nmis, 1, "any IRET opens the way again");
}

// --- single steps
volatile u32 steps;
volatile word stepped[64];
void on_step(Frame& f) {
  if (steps < 64) stepped[steps] = f.rip;
  steps = steps + 1;
}
word dr6() {
  word v;
  asm volatile("mov %%dr6, %0" : "=r"(v));
  return v;
}
void clear_dr6() { asm volatile("mov %0, %%dr6" : : "r"(word{0xffff0ff0})); }
#define AT(label) ".globl " #label "\n" #label ": "
CODE(step_it, "nop\n" AT(step1) "nop\n" AT(step2) "ud2");
CODE(step_rep, "mov $3, %ecx\n" AT(rep1) "rep stosb\n" AT(rep2) "nop\n" AT(rep3) "ud2");
CODE(step_mov_ss, "mov %ss, %eax\n" AT(ss1) "mov %eax, %ss\n" AT(ss2) "nop\n" AT(ss3) "ud2");
CODE(step_popf, "pushf\n" AT(popf1) "andl $~0x100, (%rsp)\n" AT(popf2) "popf\n" AT(popf3) "nop\nud2");
CODE(start_by_popf, "pushf\norl $0x100, (%rsp)\npopf\n" AT(start1) "nop\n" AT(start2) "ud2");
CODE(step_sti, "sti\n" AT(sti1) "cli\n" AT(sti2) "ud2");
CODE(step_int, "int $0x61\n" AT(int1) "nop\n" AT(int2) "ud2");
CODE(step_jump, "jmp 1f\nnop\n" AT(jump1) "1: call 2f\n2: pop %rax\n" AT(jump3) "ud2");
extern "C" Program step1, step2, rep1, rep2, rep3, ss1, ss2, ss3, popf1, popf2, popf3, start1, start2, sti1, sti2, int1,
    int2, jump1, jump3;
void trace(Program p, const u8* const* where, u32 count, const char* what, word flags) {
  steps = 0;
  handle(DB, on_step);
  State s = kernel(p);
  s.flags |= flags, s.di = user_stack_top() - 1024;
  run(s);
  handle(DB, nullptr);
  bool same = steps == count;
  for (u32 i = 0; i < count && i < steps; ++i) same &= stepped[i] == address(where[i]);
  if (check(same, what)) return;
  for (u32 i = 0; i < steps && i < 16; ++i) print("  step at "), print_number(stepped[i], 16), print("\n");
}
void single_steps() {
  clear_dr6();
  handle(0x61, [](Frame&) {});
  const u8* const plain[] = {step1, step2};
  trace(step_it, plain, 2, "TF by IRET: a trap behind every instruction", TF);
  check_equal(dr6() & 0x600f, 0x4000, "DR6.BS");
  clear_dr6();
  const u8* const rep[] = {rep1, rep1, rep1, rep2, rep3};
  trace(step_rep, rep, 5, "REP traps after every iteration", TF);
  const u8* const ss[] = {ss1, ss3};
  trace(step_mov_ss, ss, 2, "MOV SS holds the trap back", TF);
  const u8* const popf[] = {popf1, popf2, popf3};
  trace(step_popf, popf, 3, "POPF that clears TF still traps", TF);
  const u8* const start[] = {start2};
  trace(start_by_popf, start, 1, "POPF that sets TF: the next instruction traps", 0);
  const u8* const sti[] = {sti1, sti2};
  trace(step_sti, sti, 2, "STI does not hold the trap back", TF);
  const u8* const interrupt[] = {int2};
  trace(step_int, interrupt, 1, "INT n clears TF for its handler; IRET sets it", TF);
  const u8* const jump[] = {jump1, jump1 + 5, jump3};
  trace(step_jump, jump, 3, "jumps and calls trap at their targets", TF);
  // A fault instead of the instruction: no step.
  State s = kernel(step2);
  s.flags |= TF;
  const Outcome o = run(s);
  check(o.vector == UD && (o.s.flags & TF) != 0, "a fault comes instead of the trap, with TF pushed");
}

// --- faults during delivery
alignas(16) u8 df_stack[4096];
CODE(divide, "xor %ecx, %ecx\ndiv %ecx");
CODE(page_fault, "movabs 0x40000000000, %eax");
CODE(protection, "mov $0x1ff8, %eax\nmov %eax, %ds");
CODE(undefined, "ud2\nnop\nnop\nnop");
CODE(soft_int, "int $0x62");
CODE(not_present, "mov $0x80, %eax\nmov %eax, %ds");
void double_faults() {
  const u64 t = reinterpret_cast<u64>(tss);
  put64(t + 0x24, reinterpret_cast<u64>(df_stack) + sizeof df_stack);
  idt[2 * DF] |= u64{1} << 32; // IST 1
  gdt[SPARE >> 3] = descriptor(0, 0, DPL3 | DATA, 0);
  // How the second fault comes: the first one's gate is bad, or leads to a stack whose page is absent.
  const auto absent = [](u8 v) { idt[2 * v] &= ~(u64{0x80} << 40); };
  const auto restore = [](u8 v) { idt[2 * v] |= u64{0x80} << 40, idt[2 * v] &= ~(u64{7} << 32); };
  put64(t + 0x2c, 0x40000001000); // IST 2: a page that is not there
  const auto no_stack = [](u8 v) { idt[2 * v] |= u64{2} << 32; };
  const auto go = [&](const u8* p, u8 first, bool paging, u8 expected, const char* what) {
    paging ? no_stack(first) : absent(first);
    const Outcome o = run(user(p));
    restore(first);
    check_equal(o.vector, expected, what);
    if (o.vector == DF) check_equal(o.error, 0, "a double fault has error code 0");
  };
  go(divide, DE, false, DF, "#DE then #NP: #DF");
  go(protection, GP, false, DF, "#GP then #NP: #DF");
  go(not_present, NP, true, PF, "#NP then #PF: #PF");
  go(divide, DE, true, PF, "#DE then #PF: #PF");
  go(protection, GP, true, PF, "#GP then #PF: #PF");
  go(page_fault, PF, false, DF, "#PF then #NP: #DF");
  go(page_fault, PF, true, DF, "#PF then #PF: #DF");
  go(undefined, UD, false, NP, "#UD then #NP: #NP");
  go(undefined, UD, true, PF, "#UD then #PF: #PF");
  idt[2 * 0x62] |= u64{DPL3} << 40;
  go(soft_int, 0x62, false, NP, "INT n then #NP: #NP");
  go(soft_int, 0x62, true, PF, "INT n then #PF: #PF");
  absent(UD);
  Outcome o = run(user(undefined));
  restore(UD);
  faulted(o, NP, UD * 8 + 3, "EXT is set when a fault's gate is absent");
  absent(0x62);
  o = run(user(soft_int));
  restore(0x62);
  faulted(o, NP, 0x62 * 8 + 2, "EXT is clear when INT n's gate is absent");
}

constexpr Part PARTS[] = {
    {"shadows", shadows}, {"halts", halts}, {"nmi", non_maskable}, {"steps", single_steps}, {"double", double_faults}};

} // namespace

void guest_main() {
  setup_cpu();
  setup_apic();
  run_parts(PARTS);
}
