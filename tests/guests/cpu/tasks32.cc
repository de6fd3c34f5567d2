// Hardware task switches, and the I/O permission bitmap.
#include "tests/guests/lib/cpu.hpp"

namespace {

constexpr u16 TASK = 0x100, GATE = 0x108, THIRD = 0x110;
constexpr u8 V = 0x50;
alignas(128) u32 other[26]; // 32-bit TSSs
alignas(128) u32 third[26];
u8 other_stack[1024], other_stack0[4096];
enum : u32 {
  LINK,
  ESP0,
  SS0,
  CR3_SLOT = 7,
  EIP,
  EFLAGS,
  EAX,
  ECX,
  EDX,
  EBX,
  ESP,
  EBP,
  ESI,
  EDI,
  ES,
  CS,
  SS_SLOT,
  DS,
  FS,
  GS,
  LDTR
};
u32* first() { return reinterpret_cast<u32*>(tss); }
u8 type_of(u16 selector) { return static_cast<u8>(gdt[selector >> 3] >> 40 & 255); }

struct [[gnu::packed]] Far {
  u32 offset;
  u16 selector;
} target;
CODE(call_far, "lcall *(%edi)\nmov $0xbac, %ebp\npushf\npop %edx");
CODE(jump_far, "ljmp *(%edi)");
CODE(int_v, "int $0x50\nmov $0xbac, %ebp");
CODE(other_task, "str %eax\nmov %cr0, %ebx\npushf\npop %ecx\nmov %esp, %edx");
CODE(other_returns, "pushf\npop %ecx\niret\nmov $0x2d, %ebp\nsub $4, %esp"); // entered again behind IRET
CODE(task_call_nt, "iret");

void prepare(Program p, u32 flags = FLAGS) {
  for (u32& slot : other) slot = 0;
  other[ESP0] = reinterpret_cast<u32>(other_stack0 + sizeof other_stack0), other[SS0] = KDATA;
  other[EIP] = static_cast<u32>(address(p)), other[EFLAGS] = flags;
  other[ESP] = reinterpret_cast<u32>(other_stack + sizeof other_stack);
  other[CS] = KCODE, other[ES] = other[SS_SLOT] = other[DS] = KDATA;
  other[EBP] = 0xeb9, other[ESI] = 0xe51, other[EDI] = 0xed1;
  other[25] = 0x68u << 16;
  set_descriptor(TASK, descriptor(reinterpret_cast<u32>(other), 0x67, PRESENT | 9, 0));
  set_descriptor(GATE, gate(TASK, 0, PRESENT | DPL3 | 5));
}
void home() { // TR back to the guest's own TSS
  gdt[TSS_SELECTOR >> 3] &= ~(u64{2} << 40);
  asm volatile("ltr %0" : : "r"(u16{TSS_SELECTOR}));
  set_control<0>(control<0>() & ~CR0_TS);
}
Outcome go(Program p, u16 selector, bool as_user = false, word flags = FLAGS) {
  target = {0x12345678, selector};
  State s = as_user ? user(p) : kernel(p);
  s.di = reinterpret_cast<word>(&target), s.flags = flags;
  const Outcome o = run(s);
  return o;
}

void switches() {
  prepare(other_task, FLAGS | CF);
  Outcome o = go(jump_far, TASK, false, FLAGS | ZF);
  if (ended(o, "JMP to a TSS")) {
    check_equal(o.s.ax & 0xffff, TASK, "TR is the new task");
    check_equal(o.s.bx & CR0_TS, CR0_TS, "CR0.TS is set");
    check_equal(o.s.cx, FLAGS | CF, "EFLAGS of the new task, NT clear");
    check_equal(o.s.dx, reinterpret_cast<word>(other_stack + sizeof other_stack), "its stack");
    check(o.s.bp == 0xeb9 && o.s.si == 0xe51 && o.s.di == 0xed1, "its registers");
    check_equal(type_of(TASK), PRESENT | 11, "it is busy");
    check_equal(type_of(TSS_SELECTOR), PRESENT | 9, "the old one is not");
    check_equal(first()[EIP], address(jump_far) + 2, "the old EIP is saved");
    check_equal(first()[EFLAGS], FLAGS | ZF, "and EFLAGS");
    check_equal(first()[EDI], reinterpret_cast<word>(&target), "and registers");
    check(first()[CS] == KCODE && first()[SS_SLOT] == KDATA, "and segments");
    check_equal(other[LINK], 0, "JMP leaves no link");
  }
  home();
  prepare(other_task);
  o = go(call_far, TASK);
  if (ended(o, "CALL to a TSS")) {
    check_equal(o.s.cx, FLAGS | NT, "NT is set");
    check_equal(other[LINK], TSS_SELECTOR, "the link leads back");
    check(type_of(TASK) == (PRESENT | 11) && type_of(TSS_SELECTOR) == (PRESENT | 11), "both are busy");
  }
  home();
  prepare(other_returns);
  o = go(call_far, TASK);
  if (ended(o, "IRET from a nested task")) {
    check(o.s.bp == 0xbac && o.s.cs == KCODE, "goes on behind the CALL");
    check_equal(o.s.dx & NT, 0, "NT is clear again");
    check(type_of(TASK) == (PRESENT | 9) && type_of(TSS_SELECTOR) == (PRESENT | 11), "the nested task is not busy now");
    check_equal(other[EFLAGS] & NT, 0, "NT is clear in its saved flags");
    check_equal(other[EIP], address(other_returns) + 3, "its EIP is saved behind IRET");
  }
  set_control<0>(control<0>() & ~CR0_TS);
  o = go(call_far, TASK);
  check(o.vector == END && o.s.bp == 0x2d, "called again it goes on behind its IRET");
  home();
  prepare(other_task);
  o = go(call_far, GATE);
  check(o.vector == END && (o.s.ax & 0xffff) == TASK && other[LINK] == TSS_SELECTOR, "CALL through a task gate");
  home();
  prepare(other_task);
  o = go(call_far, GATE, true);
  check(o.vector == END && o.s.cs == KCODE, "from ring 3 through a gate of DPL 3: CPL is the new task's");
  check(first()[CS] == UCODE32 && first()[SS_SLOT] == UDATA && first()[ESP] == user_stack_top(), "ring 3 is saved");
  home();
}

void events() {
  prepare(other_task);
  set_gate(V, gate(TASK, 0, PRESENT | DPL3 | 5));
  Outcome o = run(user(int_v));
  check(o.vector == END && (o.s.ax & 0xffff) == TASK && (o.s.cx & NT) != 0, "INT n through a task gate");
  check_equal(first()[EIP], address(int_v) + 2, "saves the next EIP");
  home();
  // A fault with an error code: it is pushed on the new task's stack.
  const u64 old = gate_of(GP);
  prepare(other_task);
  set_gate(GP, gate(TASK, 0, PRESENT | 5));
  State s = kernel(call_far);
  target = {0, 0x1ff8};
  s.di = reinterpret_cast<word>(&target);
  o = run(s);
  check_equal(o.s.dx, reinterpret_cast<word>(other_stack + sizeof other_stack) - 4, "a fault's error code is pushed");
  check_equal(at<u32>(o.s.dx), 0x1ff8, "its value");
  check_equal(first()[EIP], address(call_far), "saves the EIP of the fault");
  check_equal(first()[EFLAGS] & RF, RF, "with RF");
  home();
  set_gate(GP, old);
  prepare(other_returns);
  o = run(user(int_v));
  check(o.vector == END && o.s.bp == 0xbac && o.s.cs == UCODE32, "and IRET goes back to ring 3");
  home();
}

void refused() {
  prepare(other_task);
  faulted(go(jump_far, TASK, true), GP, TASK, "a TSS of DPL 0 at CPL 3");
  faulted(go(jump_far, TASK | 3), GP, TASK, "a TSS of DPL 0 with RPL 3");
  set_descriptor(TASK, descriptor(reinterpret_cast<u32>(other), 0x67, PRESENT | 11, 0));
  faulted(go(jump_far, TASK), GP, TASK, "JMP to a busy task");
  faulted(go(call_far, TASK), GP, TASK, "CALL to a busy task");
  faulted(go(call_far, GATE), GP, TASK, "CALL to a busy task through a gate");
  set_descriptor(TASK, descriptor(reinterpret_cast<u32>(other), 0x67, 9, 0));
  faulted(go(jump_far, TASK), NP, TASK, "an absent TSS");
  set_descriptor(TASK, descriptor(reinterpret_cast<u32>(other), 0x66, PRESENT | 9, 0));
  faulted(go(jump_far, TASK), TS, TASK, "a TSS that is too small");
  set_descriptor(TASK, descriptor(reinterpret_cast<u32>(other), 0x67, PRESENT | 9, 0));
  set_descriptor(GATE, gate(TASK, 0, DPL3 | 5));
  faulted(go(jump_far, GATE), NP, GATE, "an absent task gate");
  set_descriptor(GATE, gate(KDATA, 0, PRESENT | 5));
  faulted(go(jump_far, GATE), GP, KDATA, "a task gate to data");
  set_descriptor(GATE, gate(TASK, 0, PRESENT | 5));
  faulted(go(jump_far, GATE, true), GP, GATE, "a task gate of DPL 0 at CPL 3");
  first()[LINK] = 0;
  faulted(go(task_call_nt, 0, false, FLAGS | NT), TS, 0, "IRET with NT and a null link");
  first()[LINK] = TASK;
  faulted(go(task_call_nt, 0, false, FLAGS | NT), TS, TASK, "IRET with NT and a link to a task that is not busy");
  first()[LINK] = KDATA;
  faulted(go(task_call_nt, 0, false, FLAGS | NT), TS, KDATA, "IRET with NT and a link to data");
  first()[LINK] = 0;
}

// In the new task, whose stack may not be there yet: #TS is a task too.
void new_task() {
  const u64 old = gate_of(TS);
  const auto bad = [](u32 slot, u32 value, word error, const char* what) {
    prepare(other_task);
    other[slot] = value;
    for (u32 n = 0; n < 26; ++n) third[n] = 0;
    third[EIP] = static_cast<u32>(address(other_task)), third[EFLAGS] = FLAGS;
    third[ESP] = reinterpret_cast<u32>(other_stack0 + 2048);
    third[CS] = KCODE, third[ES] = third[SS_SLOT] = third[DS] = KDATA;
    set_descriptor(THIRD, descriptor(reinterpret_cast<u32>(third), 0x67, PRESENT | 9, 0));
    set_gate(TS, gate(THIRD, 0, PRESENT | 5));
    const Outcome o = go(jump_far, TASK);
    if (check(o.vector == END && (o.s.ax & 0xffff) == THIRD, what)) {
      check_equal(at<u32>(o.s.dx), error, what);
      check(third[LINK] == TASK && other[EIP] == address(other_task), what);
    }
    home();
  };
  bad(LDTR, KDATA, KDATA, "LDT is data");
  bad(CS, KDATA, KDATA, "CS is data");
  bad(CS, 0, 0, "CS is null");
  bad(DS, 0x1ff8, 0x1ff8, "DS beyond the GDT");
  bad(SS_SLOT, UDATA & ~3u, UDATA & ~3u, "SS of another ring");
  bad(GS, TSS_SELECTOR, TSS_SELECTOR, "GS is a system segment");
  set_gate(TS, old);
}

void debug_trap() {
  prepare(other_task);
  other[25] |= 1;
  Outcome o = go(jump_far, TASK);
  word dr6;
  asm volatile("mov %%dr6, %0" : "=r"(dr6));
  check(o.vector == DB && o.s.ip == address(other_task), "the T flag: #DB before the first instruction");
  check_equal(dr6 & 0x8000, 0x8000, "DR6.BT");
  asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0));
  home();
}

// --- I/O permission bitmap
CODE(in1, "inb %dx, %al");
CODE(in2, "inw %dx, %ax");
CODE(in4, "inl %dx, %eax");
CODE(string_in, "insb");
CODE(interrupts_off, "cli");
void port_rights() {
  const u32 t = reinterpret_cast<u32>(tss);
  const auto with = [](Program p, word port, word flags = FLAGS) {
    State s = user(p);
    s.dx = port, s.flags = flags, s.di = user_stack_top() - 512;
    return run(s);
  };
  const auto limit = [&](u32 l) {
    set_descriptor(TSS_SELECTOR, descriptor(t, l, PRESENT | 9, 0));
    asm volatile("ltr %0" : : "r"(u16{TSS_SELECTOR}));
  };
  faulted(with(in1, 0xe9), GP, 0, "no bitmap");
  ended(with(in1, 0xe9, FLAGS | IOPL3), "IOPL 3 needs none");
  faulted(with(interrupts_off, 0), GP, 0, "CLI at CPL 3");
  ended(with(interrupts_off, 0, FLAGS | IOPL3), "CLI with IOPL 3");
  put16(t + 0x66, 0x68);
  limit(0x68 + 64);
  for (u32 i = 0; i < 65; ++i) put8(t + 0x68 + i, 0xff);
  put8(t + 0x68 + 0x10, 0xf0); // ports 80h-83h
  ended(with(in1, 0x80), "a port whose bit is clear");
  faulted(with(in1, 0x84), GP, 0, "a port whose bit is set");
  ended(with(in2, 0x82), "two ports");
  faulted(with(in2, 0x83), GP, 0, "the second of two");
  ended(with(in4, 0x80), "four ports");
  faulted(with(in4, 0x81), GP, 0, "the last of four");
  ended(with(string_in, 0x80), "INS");
  faulted(with(string_in, 0x84), GP, 0, "INS of a port whose bit is set");
  put8(t + 0x68 + 0x10, 0x0f), put8(t + 0x68 + 0x11, 0xfe);
  ended(with(in2, 0x87), "two ports of different bytes");
  faulted(with(in4, 0x86), GP, 0, "four ports of different bytes");
  put8(t + 0x68 + 63, 0);
  ended(with(in1, 0x1ff), "the last port of the bitmap");
  faulted(with(in1, 0x200), GP, 0, "a port beyond it");
  limit(0x68 + 63);
  faulted(with(in1, 0x1ff), GP, 0, "without the byte of ones behind it");
  put16(t + 0x66, 0x1000);
  faulted(with(in1, 0x80), GP, 0, "a bitmap beyond the TSS");
  ended(run(kernel(in1)), "ring 0 asks nobody");
  put16(t + 0x66, TSS_LIMIT + 1);
  limit(TSS_LIMIT);
}

constexpr Part PARTS[] = {{"switches", switches}, {"events", events},   {"refused", refused},
                          {"new-task", new_task}, {"trap", debug_trap}, {"ports", port_rights}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
