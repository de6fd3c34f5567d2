// Gates of long mode: interrupt, trap and call gates, IST, changes of ring and back, forms of IRET.
#include "tests/guests/lib/cpu.hpp"

namespace {

alignas(16) u8 ist_stack[4096];
u64 top_of(u8* stack) { return reinterpret_cast<u64>(stack) + 4096; }
constexpr u8 V = 0x50; // the vector that tests use
void gate64(u8 vector, u16 selector, u64 offset, u32 access, u32 ist = 0) {
  idt[2 * vector] = gate(selector, static_cast<u32>(offset), access, ist);
  idt[2 * vector + 1] = offset >> 32;
}
u64 stub(u8 vector) { // as boot.asm made it
  const u64 low = idt[2 * vector];
  return (low & 0xffff) | (low >> 32 & 0xffff0000) | idt[2 * vector + 1] << 32;
}

CODE(int_v, "int $0x50\nnop");
CODE(int3, "int3");
CODE(into_it, ".byte 0xf1");
CODE(divide, "xor %ecx, %ecx\ndiv %ecx");
CODE(where_am_i, "mov %rsp, %rax\nmov %ss, %ebx\nmov %cs, %ecx\npushf\npop %rdx");
void interrupts() {
  const u64 handler = stub(V);
  gate64(V, KCODE, handler, PRESENT | 0xe);
  Outcome o = run(kernel(int_v));
  check(o.vector == V && o.s.ip == address(int_v) + 2, "INT n pushes the next RIP");
  faulted(run(user(int_v)), GP, V * 8 + 2, "INT n at CPL 3 through a gate of DPL 0");
  gate64(V, KCODE, handler, PRESENT | DPL3 | 0xe);
  o = run(user(int_v));
  check(o.vector == V && o.s.cs == UCODE && o.s.ss == UDATA && o.s.sp == user_stack_top(),
        "INT n at CPL 3 through a gate of DPL 3 pushes the outer stack");
  State s = user(int_v);
  s.flags = FLAGS | IF | CF | DIRECTION | ACF | RF;
  o = run(s);
  check_equal(o.s.flags & ~RF, FLAGS | IF | CF | DIRECTION | ACF, "and the flags");
  gate64(V, KCODE, handler, DPL3 | 0xe);
  faulted(run(user(int_v)), NP, V * 8 + 2, "a gate that is not present");
  gate64(V, KCODE, handler, PRESENT | DPL3 | 6);
  faulted(run(user(int_v)), GP, V * 8 + 2, "a 16-bit gate in long mode");
  gate64(V, KCODE, handler, PRESENT | DPL3 | 5);
  faulted(run(user(int_v)), GP, V * 8 + 2, "a task gate in long mode");
  gate64(V, KCODE32, handler, PRESENT | DPL3 | 0xe);
  faulted(run(user(int_v)), GP, KCODE32, "a gate to 32-bit code");
  gate64(V, KDATA, handler, PRESENT | DPL3 | 0xe);
  faulted(run(user(int_v)), GP, KDATA, "a gate to data");
  gate64(V, 0, handler, PRESENT | DPL3 | 0xe);
  faulted(run(user(int_v)), GP, 0, "a gate with a null selector");
  gate64(V, UCODE64, handler, PRESENT | DPL3 | 0xe);
  faulted(run(kernel(int_v)), GP, UCODE64 & ~3, "a gate to an outer ring");
  gate64(V, 0x1f8, handler, PRESENT | DPL3 | 0xe);
  gdt[0x1f8 >> 3] = descriptor(0, 0, CODE, PAGES64);
  faulted(run(user(int_v)), NP, 0x1f8, "a gate to code that is not present");
  gate64(V, KCODE, u64{1} << 48, PRESENT | DPL3 | 0xe);
  faulted(run(user(int_v)), GP, 0, "a gate to a non-canonical address");
  gate64(V, KCODE, handler, PRESENT | DPL3 | 0xe);
  load_idt(V * 16 + 14);
  faulted(run(user(int_v)), GP, V * 8 + 2, "a vector beyond the IDT's limit");
  load_idt(V * 16 + 15);
  check_equal(run(user(int_v)).vector, V, "a vector that just fits");
  load_idt();
  faulted(run(user(int3)), GP, BP * 8 + 2, "INT3 at CPL 3 through a gate of DPL 0");
  o = run(kernel(int3));
  check(o.vector == BP && o.s.ip == address(int3) + 1, "INT3 is a trap");
  o = run(user(into_it));
  check(o.vector == DB && o.s.ip == address(into_it) + 1, "INT1 needs no DPL");
  o = run(user(divide));
  check(o.vector == DE && o.s.ip == address(divide) + 2, "#DE at CPL 3 through a gate of DPL 0 is a fault");
  check_equal(o.s.flags & RF, RF, "a fault pushes RF = 1");
}

// The handlers of these are programs themselves: they end at once and so show where the processor had gone.
void stacks() {
  gate64(V, KCODE, address(where_am_i), PRESENT | DPL3 | 0xe);
  State s = user(int_v);
  s.flags |= IF;
  Outcome o = run(s);
  check_equal(o.s.ax, reinterpret_cast<word>(stack0_top) - 40, "from ring 3: RSP0, five words");
  check(o.s.bx == 0 && (o.s.cx & 3) == 0, "SS is null, CPL 0");
  check_equal(o.s.dx & (IF | TF | NT | RF | VM), 0, "an interrupt gate clears IF");
  gate64(V, KCODE, address(where_am_i), PRESENT | DPL3 | 0xf);
  o = run(s);
  check_equal(o.s.dx & (IF | TF | NT | RF | VM), IF, "a trap gate leaves IF alone");
  s = kernel(int_v);
  s.sp = user_stack_top() - 3;
  o = run(s);
  check_equal(o.s.ax, ((user_stack_top() - 3) & ~word{15}) - 40, "in ring 0 the stack is aligned to 16 bytes");
  check_equal(o.s.bx, KDATA, "and SS stays");
  check_equal(at<u64>(o.s.ax + 24), user_stack_top() - 3, "the frame has the old RSP");
  put64(reinterpret_cast<u64>(tss) + 0x24, top_of(ist_stack)); // IST1
  gate64(V, KCODE, address(where_am_i), PRESENT | DPL3 | 0xe, 1);
  check_equal(run(s).s.ax, top_of(ist_stack) - 40, "IST in ring 0");
  o = run(user(int_v));
  check_equal(o.s.ax, top_of(ist_stack) - 40, "IST from ring 3");
  check_equal(o.s.bx, 0, "SS is null");
  put64(reinterpret_cast<u64>(tss) + 0x24, u64{1} << 48);
  faulted(run(user(int_v)), SS, 0, "a non-canonical IST");
  gate64(V, KCODE, address(where_am_i), PRESENT | DPL3 | 0xe, 7);
  put64(reinterpret_cast<u64>(tss) + 0x54, top_of(ist_stack));
  check_equal(run(s).s.ax, top_of(ist_stack) - 40, "IST 7");
  // A conforming handler runs at the ring that it found.
  gdt[0x1f0 >> 3] = descriptor(0, 0xfffff, PRESENT | CODE | CONFORMING, PAGES64);
  gate64(V, 0x1f0, address(where_am_i), PRESENT | DPL3 | 0xe);
  o = run(user(int_v));
  check(o.s.cx == (0x1f0 | 3) && (o.s.bx & 3) == 3, "conforming code stays at CPL 3");
  check_equal(o.s.ax, (user_stack_top() & ~word{15}) - 40, "on the same stack");
}

CODE(call_gate, "lcall *(%rdi)");
CODE(jump_gate, "ljmp *(%rdi)");
CODE(through, "mov %rsp, %rax\nmov %ss, %ebx\nmov %cs, %ecx");
CODE(and_back, "lretq");
struct [[gnu::packed]] {
  u32 offset;
  u16 selector;
} target;
constexpr u16 GATE = 0x1e0;
void call_gates() {
  const auto set = [](u16 selector, u64 offset, u32 access) {
    gdt[GATE >> 3] = gate(selector, static_cast<u32>(offset), access);
    gdt[(GATE >> 3) + 1] = offset >> 32;
  };
  const auto go = [](Program p, bool as_user, u16 rpl = 0) {
    target = {0x12345678, static_cast<u16>(GATE | rpl)};
    State s = as_user ? user(p) : kernel(p);
    s.di = reinterpret_cast<word>(&target);
    return run(s);
  };
  set(KCODE, address(through), PRESENT | DPL3 | 12);
  Outcome o = go(call_gate, true, 3);
  if (ended(o, "a call gate from ring 3")) {
    check_equal(o.s.ax, reinterpret_cast<word>(stack0_top) - 32, "RSP0, four words");
    check(o.s.bx == 0 && o.s.cx == KCODE, "SS null, CPL 0");
    check_equal(at<u64>(o.s.ax), address(call_gate) + 2, "RIP on the stack");
    check_equal(at<u64>(o.s.ax + 8), UCODE64, "CS on the stack");
    check_equal(at<u64>(o.s.ax + 16), user_stack_top(), "RSP on the stack");
    check_equal(at<u64>(o.s.ax + 24), UDATA, "SS on the stack");
  }
  o = go(call_gate, false);
  check(o.vector == END && o.s.ax == user_stack_top() - 16, "a call gate in ring 0 pushes two words");
  set(KCODE, address(and_back), PRESENT | DPL3 | 12);
  o = go(call_gate, true, 3);
  check(o.vector == END && o.s.cs == UCODE64 && o.s.sp == user_stack_top() && o.s.ss == UDATA,
        "and a far RET goes back");
  faulted(go(jump_gate, true, 3), GP, KCODE, "JMP through a call gate to an inner ring");
  set(KCODE, address(through), PRESENT | DPL3 | 12);
  o = go(jump_gate, false);
  check(o.vector == END && o.s.ax == user_stack_top(), "JMP through a call gate in ring 0");
  set(KCODE, address(through), PRESENT | 12);
  faulted(go(call_gate, true), GP, GATE, "a call gate of DPL 0 at CPL 3");
  faulted(go(call_gate, false, 3), GP, GATE, "a call gate of DPL 0 with RPL 3");
  set(KCODE, address(through), DPL3 | 12);
  faulted(go(call_gate, true, 3), NP, GATE, "a call gate that is not present");
  set(KCODE, address(through), PRESENT | DPL3 | 4);
  faulted(go(call_gate, true, 3), GP, GATE, "a 16-bit call gate in long mode");
  set(KCODE32, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), GP, KCODE32, "a call gate to 32-bit code");
  set(0, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), GP, 0, "a call gate with a null selector");
  set(KCODE, u64{1} << 48, PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), GP, 0, "a call gate to a non-canonical address");
  set(KCODE, address(through), PRESENT | DPL3 | 12);
  gdt[(GATE >> 3) + 1] |= u64{1} << 40;
  faulted(go(call_gate, true, 3), GP, GATE, "a type in the upper half");
  target = {static_cast<u32>(address(through)), TSS_SELECTOR};
  State s = kernel(call_gate);
  s.di = reinterpret_cast<word>(&target);
  faulted(run(s), GP, TSS_SELECTOR, "CALL to a TSS in long mode");
}

CODE(iret64, "iretq");
CODE(iret32, "iretl");
CODE(far_return, "lretq");
CODE(far_return8, "lretq $8");
void returns() {
  const auto with = [](Program p, word ip, word cs, word flags, word sp, word ss, word now = FLAGS) {
    State s = kernel(p);
    word* frame = reinterpret_cast<word*>(user_stack + 2048);
    frame[0] = ip, frame[1] = cs, frame[2] = flags, frame[3] = sp, frame[4] = ss;
    s.sp = reinterpret_cast<word>(frame), s.flags = now;
    return run(s);
  };
  const word top = user_stack_top(), here = address(where_am_i);
  Outcome o = with(iret64, here, UCODE64, FLAGS | CF | IF, top, UDATA);
  check(o.vector == END && o.s.ax == top && o.s.bx == UDATA && o.s.cx == UCODE64, "IRETQ to ring 3");
  check_equal(o.s.dx, FLAGS | CF | IF, "takes the flags");
  o = with(iret64, here, KCODE, FLAGS, top, KDATA);
  check(o.vector == END && o.s.ax == top, "IRETQ in ring 0 takes RSP too");
  check_equal(with(iret64, here, KCODE, FLAGS, top, 0).s.bx, 0, "IRETQ in ring 0 with SS null");
  faulted(with(iret64, here, UCODE64, FLAGS, top, 0), GP, 0, "IRETQ to ring 3 with SS null");
  faulted(with(iret64, here, UCODE64, FLAGS, top, KDATA), GP, KDATA, "IRETQ to ring 3 with an inner SS");
  faulted(with(iret64, here, UCODE64 & ~3, FLAGS, top, KDATA), GP, UCODE64 & ~3, "IRETQ with RPL 0 to code of DPL 3");
  faulted(with(iret64, here, KCODE | 3, FLAGS, top, UDATA), GP, KCODE, "IRETQ with RPL 3 to code of DPL 0");
  faulted(with(iret64, here, KDATA, FLAGS, top, KDATA), GP, KDATA, "IRETQ to data");
  faulted(with(iret64, here, 0, FLAGS, top, KDATA), GP, 0, "IRETQ with CS null");
  faulted(with(iret64, here, 0x1ff8, FLAGS, top, KDATA), GP, 0x1ff8, "IRETQ with CS beyond the GDT");
  faulted(with(iret64, u64{1} << 47, UCODE64, FLAGS, top, UDATA), GP, 0, "IRETQ to a non-canonical RIP");
  o = with(iret64, here, KCODE, FLAGS, top, KDATA, FLAGS | NT);
  faulted(o, GP, 0, "IRETQ with NT in long mode");
  check(o.s.ip == address(iret64) && (o.s.flags & NT) != 0, "and NT stays");
  o = with(iret64, here, KCODE, FLAGS | VM, top, KDATA);
  check(o.vector == END && (o.s.dx & VM) == 0, "IRETQ does not set VM");
  o = with(far_return, here, UCODE64, top, UDATA, 0);
  check(o.vector == END && o.s.ax == top && o.s.cx == UCODE64, "a far RET to ring 3");
  word* frame = reinterpret_cast<word*>(user_stack + 2048);
  frame[0] = here, frame[1] = UCODE64, frame[2] = 0x77, frame[3] = top, frame[4] = UDATA;
  State s = kernel(far_return8);
  s.sp = reinterpret_cast<word>(frame);
  o = run(s);
  check(o.vector == END && o.s.ax == top + 8, "a far RET with parameters takes them off both stacks");
  faulted(with(far_return, here, KCODE | 3, top, UDATA, 0), GP, KCODE, "a far RET with RPL 3 to code of DPL 0");
  // Data segments that ring 3 may not use become null.
  s = kernel(iret64);
  frame[0] = here, frame[1] = UCODE64, frame[2] = FLAGS, frame[3] = top, frame[4] = UDATA;
  s.sp = reinterpret_cast<word>(frame), s.ds = KDATA, s.es = UDATA, s.fs = KDATA, s.gs = UDATA;
  o = run(s);
  check(o.s.ds == 0 && o.s.fs == 0, "segments of ring 0 become null on the way to ring 3");
  check(o.s.es == UDATA && o.s.gs == UDATA, "others stay");
  // IRETL pops three or five doublewords.
  u32* small = reinterpret_cast<u32*>(frame);
  small[0] = static_cast<u32>(here), small[1] = UCODE64, small[2] = FLAGS, small[3] = static_cast<u32>(top);
  small[4] = UDATA;
  s = kernel(iret32);
  s.sp = reinterpret_cast<word>(frame);
  o = run(s);
  check(o.vector == END && o.s.ax == top && o.s.cx == UCODE64, "IRET of doublewords to ring 3");
  // IF and IOPL at CPL 3.
  s = user(iret64);
  frame[0] = here, frame[1] = UCODE64, frame[2] = FLAGS | IF | IOPL3 | ZF, frame[3] = top, frame[4] = UDATA;
  s.sp = reinterpret_cast<word>(frame);
  o = run(s);
  check(o.vector == END && o.s.dx == (FLAGS | ZF), "IRETQ at CPL 3 changes neither IF nor IOPL");
  s.flags = FLAGS | IOPL3;
  o = run(s);
  check_equal(o.s.dx, FLAGS | ZF | IF | IOPL3, "with IOPL 3 it changes IF");
}

constexpr Part PARTS[] = {
    {"interrupts", interrupts}, {"stacks", stacks}, {"call-gates", call_gates}, {"returns", returns}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
