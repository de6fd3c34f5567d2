// Gates of protected mode: interrupts of 16 and 32 bits, call gates with parameters, changes of ring and back.
#include "tests/guests/lib/cpu.hpp"

namespace {

constexpr u8 V = 0x50; // the vector that tests use
constexpr u16 GATE = 0x1e0, S = SPARE;
u32 stub(u8 vector) { return static_cast<u32>((gate_of(vector) & 0xffff) | (gate_of(vector) >> 32 & 0xffff0000)); }

CODE(int_v, "int $0x50");
CODE(into_it, "movb $0x7f, %al\naddb %al, %al\ninto");
CODE(int1, ".byte 0xf1");
CODE(bound_it, "bound %eax, (%edi)");
CODE(where_am_i, "mov %esp, %eax\nmov %ss, %ebx\nmov %cs, %ecx\npushf\npop %edx");
void interrupts() {
  const u32 handler = stub(V);
  set_gate(V, gate(KCODE, handler, PRESENT | 0xe));
  faulted(run(user(int_v)), GP, V * 8 + 2, "INT n at CPL 3 through a gate of DPL 0");
  check_equal(run(kernel(int_v)).vector, V, "INT n in ring 0");
  set_gate(V, gate(KCODE, handler, PRESENT | DPL3 | 0xe));
  Outcome o = run(user(int_v));
  check(o.vector == V && o.s.ip == address(int_v) + 2 && o.s.sp == user_stack_top() && o.s.ss == UDATA,
        "INT n from ring 3 pushes the outer stack");
  set_gate(V, gate(KCODE, handler, DPL3 | 0xe));
  faulted(run(user(int_v)), NP, V * 8 + 2, "a gate that is not present");
  set_gate(V, gate(KCODE, handler, PRESENT | DPL3 | 12));
  faulted(run(user(int_v)), GP, V * 8 + 2, "a call gate in the IDT");
  set_gate(V, gate(KDATA, handler, PRESENT | DPL3 | 0xe));
  faulted(run(user(int_v)), GP, KDATA, "a gate to data");
  set_gate(V, gate(0, handler, PRESENT | DPL3 | 0xe));
  faulted(run(user(int_v)), GP, 0, "a gate with a null selector");
  set_gate(V, gate(UCODE32, handler, PRESENT | DPL3 | 0xe));
  faulted(run(kernel(int_v)), GP, UCODE32 & ~3, "a gate to an outer ring");
  set_descriptor(S, descriptor(0, 0xfff, PRESENT | CODE, BYTES32));
  set_gate(V, gate(S, handler, PRESENT | DPL3 | 0xe));
  faulted(run(user(int_v)), GP, 0, "a handler beyond its segment's limit");
  set_gate(V, gate(KCODE, handler, PRESENT | DPL3 | 0xe));
  load_idt(V * 8 + 6);
  faulted(run(user(int_v)), GP, V * 8 + 2, "a vector beyond the IDT's limit");
  load_idt();
  set_gate(OF, gate(KCODE, stub(OF), PRESENT | DPL3 | 0xe));
  o = run(user(into_it));
  check(o.vector == OF && o.s.ip == address(into_it) + 5, "INTO is a trap");
  set_gate(OF, gate(KCODE, stub(OF), PRESENT | 0xe));
  faulted(run(user(into_it)), GP, OF * 8 + 2, "INTO through a gate of DPL 0");
  o = run(user(int1));
  check(o.vector == DB && o.s.ip == address(int1) + 1, "INT1 needs no DPL");
  static const u32 bounds[] = {static_cast<u32>(-3), 5};
  State s = user(bound_it);
  s.di = reinterpret_cast<word>(bounds), s.ax = static_cast<word>(-3);
  ended(run(s), "BOUND inside");
  s.ax = 6;
  o = run(s);
  check(o.vector == BR && o.s.ip == address(bound_it), "BOUND outside is a fault");
}

void stacks() {
  set_gate(V, gate(KCODE, static_cast<u32>(address(where_am_i)), PRESENT | DPL3 | 0xe));
  State s = user(int_v);
  s.flags |= IF | CF;
  Outcome o = run(s);
  const word top = reinterpret_cast<word>(stack0_top);
  check(o.s.ax == top - 20 && o.s.bx == KDATA && o.s.cx == KCODE, "SS0:ESP0, five doublewords");
  check_equal(o.s.dx & (IF | CF), CF, "an interrupt gate clears IF");
  check(at<u32>(top - 20) == address(int_v) + 2 && at<u32>(top - 16) == UCODE32 && at<u32>(top - 12) == s.flags &&
            at<u32>(top - 8) == user_stack_top() && at<u32>(top - 4) == UDATA,
        "EIP, CS, EFLAGS, ESP, SS");
  set_gate(V, gate(KCODE, static_cast<u32>(address(where_am_i)), PRESENT | DPL3 | 0xf));
  check_equal(run(s).s.dx & IF, IF, "a trap gate leaves IF alone");
  o = run(kernel(int_v));
  check(o.s.ax == user_stack_top() - 12, "in ring 0: three doublewords on the same stack");
}

// --- 16-bit gates push words
CODE16(where16, "movl %esp, %eax\nmov %ss, %bx\nmov %cs, %cx");
void narrow_gates() {
  // Code below 64 KiB: at 7000h.
  for (u32 i = 0; i < 64; ++i) put8(0x7000 + i, where16[i]);
  set_descriptor(S, descriptor(0, 0xffff, PRESENT | CODE, BYTES16));
  set_gate(V, gate(S, 0x7000, PRESENT | DPL3 | 6));
  State s = user(int_v);
  s.flags |= CF;
  Outcome o = run(s);
  const word top = reinterpret_cast<word>(stack0_top);
  check_equal(o.s.ax, top - 10, "a 16-bit gate pushes five words");
  check(at<u16>(top - 10) == ((address(int_v) + 2) & 0xffff) && at<u16>(top - 8) == UCODE32 &&
            at<u16>(top - 6) == (FLAGS | CF) && at<u16>(top - 4) == (user_stack_top() & 0xffff) &&
            at<u16>(top - 2) == UDATA,
        "IP, CS, FLAGS, SP, SS");
}

// --- call gates
CODE(call_gate, "push $0x11\npush $0x22\npush $0x33\nlcall *(%edi)\nmov $0x600d, %ebp");
CODE(jump_gate, "ljmp *(%edi)");
CODE(through, "mov %esp, %eax\nmov %ss, %ebx\nmov %cs, %ecx");
CODE(and_back, "lret $12");
struct [[gnu::packed]] Far {
  u32 offset;
  u16 selector;
} target;
Outcome go(Program p, bool as_user, u16 rpl = 0) {
  target = {0x12345678, static_cast<u16>(GATE | rpl)};
  State s = as_user ? user(p) : kernel(p);
  s.di = reinterpret_cast<word>(&target);
  return run(s);
}
void call_gates() {
  const auto set = [](u16 selector, word offset, u32 access, u32 parameters = 0) {
    set_descriptor(GATE, gate(selector, static_cast<u32>(offset), access, parameters));
  };
  const word top = reinterpret_cast<word>(stack0_top), sp = user_stack_top() - 12;
  set(KCODE, address(through), PRESENT | DPL3 | 12, 3);
  Outcome o = go(call_gate, true, 3);
  check(o.vector == END && o.s.ax == top - 28 && o.s.bx == KDATA && o.s.cx == KCODE, "a call gate with 3 parameters");
  check(at<u32>(top - 4) == UDATA && at<u32>(top - 8) == sp && at<u32>(top - 24) == UCODE32,
        "SS, ESP, CS on the stack");
  check(at<u32>(top - 12) == 0x11 && at<u32>(top - 16) == 0x22 && at<u32>(top - 20) == 0x33, "the parameters in order");
  set(KCODE, address(and_back), PRESENT | DPL3 | 12, 3);
  o = go(call_gate, true, 3);
  check(o.vector == END && o.s.bp == 0x600d && o.s.cs == UCODE32 && o.s.sp == user_stack_top() && o.s.ss == UDATA,
        "a far RET takes the parameters off both stacks");
  set(KCODE, address(through), PRESENT | DPL3 | 12, 3);
  o = go(call_gate, false);
  check(o.vector == END && o.s.ax == sp - 8, "in ring 0 there are no parameters");
  set(KCODE, address(through), PRESENT | 12);
  faulted(go(call_gate, true), GP, GATE, "a gate of DPL 0 at CPL 3");
  faulted(go(call_gate, false, 3), GP, GATE, "a gate of DPL 0 with RPL 3");
  set(KCODE, address(through), DPL3 | 12);
  faulted(go(call_gate, true, 3), NP, GATE, "a gate that is not present");
  set(0, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), GP, 0, "a gate with a null selector");
  set(KDATA, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), GP, KDATA, "a gate to data");
  set(UCODE32, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, false), GP, UCODE32 & ~3, "a gate to an outer ring");
  set_descriptor(S, descriptor(0, 0xfffff, CODE, PAGES32));
  set(S, address(through), PRESENT | DPL3 | 12);
  faulted(go(call_gate, true, 3), NP, S, "a gate to absent code");
  set(KCODE, address(through), PRESENT | DPL3 | 12);
  faulted(go(jump_gate, true, 3), GP, KCODE, "JMP through a gate to an inner ring");
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | CODE | CONFORMING, PAGES32));
  set(S, address(through), PRESENT | DPL3 | 12);
  o = go(jump_gate, true, 3);
  check(o.vector == END && o.s.cx == (S | 3), "JMP through a gate to conforming code stays at CPL 3");
  // 16-bit: words, parameters too.
  set_descriptor(S, descriptor(0, 0xffff, PRESENT | CODE, BYTES16));
  set(S, 0x7000, PRESENT | DPL3 | 4, 2);
  for (u32 i = 0; i < 64; ++i) put8(0x7000 + i, where16[i]);
  o = go(call_gate, true, 3);
  check_equal(o.s.ax, top - 12, "a 16-bit gate with 2 parameters pushes six words");
  check(at<u16>(top - 2) == UDATA && at<u16>(top - 4) == (sp & 0xffff) && at<u16>(top - 8) == 0x33, "words all");
  // Through the LDT and to a null inner stack.
  const word t = reinterpret_cast<word>(tss);
  set(KCODE, address(through), PRESENT | DPL3 | 12);
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | 1 << 5 | CODE, PAGES32)); // ring 1
  set(S, address(through), PRESENT | DPL3 | 12);
  put16(t + 16, 0), put32(t + 12, static_cast<u32>(top) - 4096);
  faulted(go(call_gate, true, 3), TS, 0, "SS1 is null");
  put16(t + 16, KDATA);
  faulted(go(call_gate, true, 3), TS, KDATA, "SS1 of another ring");
  put16(t + 16, 0x1ff8 | 1);
  faulted(go(call_gate, true, 3), TS, 0x1ff8, "SS1 beyond the GDT");
  set_descriptor(0x1d8, descriptor(0, 0xfffff, PRESENT | 1 << 5 | 0x11, PAGES32));
  put16(t + 16, 0x1d8 | 1);
  faulted(go(call_gate, true, 3), TS, 0x1d8, "SS1 is read-only");
  set_descriptor(0x1d8, descriptor(0, 0xfffff, 1 << 5 | DATA, PAGES32));
  faulted(go(call_gate, true, 3), SS, 0x1d8, "SS1 is absent");
  set_descriptor(0x1d8, descriptor(0, 15, PRESENT | 1 << 5 | DATA, BYTES32));
  put32(t + 12, 12);
  faulted(go(call_gate, true, 3), SS, 0x1d8, "ESP1 has no room");
  set_descriptor(0x1d8, descriptor(0, 0xfffff, PRESENT | 1 << 5 | DATA, PAGES32));
  put32(t + 12, static_cast<u32>(top) - 4096);
  o = go(call_gate, true, 3);
  check(o.vector == END && o.s.cx == (S | 1) && o.s.bx == (0x1d8 | 1), "ring 1");
}

CODE(iret32, "iretl");
CODE(iret16, "iretw");
CODE(far_return, "lret");
void returns() {
  const auto with = [](Program p, u32 ip, u32 cs, u32 flags, u32 sp, u32 ss, word ds = KDATA) {
    State s = kernel(p);
    u32* frame = reinterpret_cast<u32*>(user_stack + 2048);
    frame[0] = ip, frame[1] = cs, frame[2] = flags, frame[3] = sp, frame[4] = ss;
    s.sp = reinterpret_cast<word>(frame), s.ds = ds;
    return run(s);
  };
  const u32 top = static_cast<u32>(user_stack_top()), here = static_cast<u32>(address(where_am_i));
  Outcome o = with(iret32, here, UCODE32, FLAGS | CF | IF, top, UDATA);
  check(o.vector == END && o.s.ax == top && o.s.bx == UDATA && o.s.cx == UCODE32 && o.s.dx == (FLAGS | CF | IF),
        "IRET to ring 3");
  check(o.s.ds == 0, "a segment of ring 0 becomes null");
  o = with(iret32, here, KCODE, FLAGS | ZF, 0, 0);
  check(o.vector == END && o.s.ax == reinterpret_cast<word>(user_stack + 2048 + 12), "IRET in ring 0 pops three");
  faulted(with(iret32, here, UCODE32, FLAGS, top, 0), GP, 0, "IRET to ring 3 with SS null");
  faulted(with(iret32, here, UCODE32, FLAGS, top, KDATA), GP, KDATA, "IRET to ring 3 with an inner SS");
  faulted(with(iret32, here, KCODE | 3, FLAGS, top, UDATA), GP, KCODE, "IRET with RPL 3 to code of DPL 0");
  faulted(with(iret32, here, UCODE32 & ~3, FLAGS, top, UDATA), GP, UCODE32 & ~3, "IRET with RPL 0 to code of DPL 3");
  faulted(with(iret32, here, KDATA, FLAGS, top, UDATA), GP, KDATA, "IRET to data");
  faulted(with(iret32, here, 0, FLAGS, top, UDATA), GP, 0, "IRET with CS null");
  set_descriptor(S, descriptor(0, 0xfffff, CODE, PAGES32));
  faulted(with(iret32, here, S, FLAGS, top, UDATA), NP, S, "IRET to absent code");
  set_descriptor(S, descriptor(0, 0xfffff, DPL3 | DATA, PAGES32));
  faulted(with(iret32, here, UCODE32, FLAGS, top, S | 3), SS, S, "IRET to an absent stack");
  set_descriptor(S, descriptor(0, 0xfff, PRESENT | DPL3 | CODE, BYTES32));
  faulted(with(iret32, here, S | 3, FLAGS, top, UDATA), GP, 0, "IRET beyond the limit");
  o = with(far_return, here, UCODE32, top, UDATA, 0);
  check(o.vector == END && o.s.ax == top && o.s.cx == UCODE32, "a far RET to ring 3");
  faulted(with(far_return, here, KCODE | 3, top, UDATA, 0), GP, KCODE, "a far RET with RPL 3 to code of DPL 0");
  // IRETW: words; the upper halves of EFLAGS stay.
  for (u32 i = 0; i < 64; ++i) put8(0x7000 + i, where_am_i[i]);
  State s = kernel(iret16);
  u16* words = reinterpret_cast<u16*>(user_stack + 2048);
  words[0] = 0x7000, words[1] = KCODE, words[2] = FLAGS | ZF;
  s.sp = reinterpret_cast<word>(words), s.flags = FLAGS | ACF;
  o = run(s);
  check(o.vector == END && o.s.ax == reinterpret_cast<word>(words + 3), "IRETW pops three words");
  check_equal(o.s.dx, FLAGS | ZF | ACF, "and leaves the upper flags alone");
  // IOPL and IF at CPL 3.
  s = user(iret32);
  u32* frame = reinterpret_cast<u32*>(user_stack + 2048);
  frame[0] = here, frame[1] = UCODE32, frame[2] = FLAGS | IF | IOPL3 | ZF;
  s.sp = reinterpret_cast<word>(frame);
  check_equal(run(s).s.dx, FLAGS | ZF, "IRET at CPL 3 changes neither IF nor IOPL");
  s.flags |= IOPL3, frame[2] = FLAGS | IF | IOPL3 | ZF;
  check_equal(run(s).s.dx, FLAGS | ZF | IF | IOPL3, "with IOPL 3 it changes IF");
}

constexpr Part PARTS[] = {{"interrupts", interrupts},
                          {"stacks", stacks},
                          {"narrow", narrow_gates},
                          {"call-gates", call_gates},
                          {"returns", returns}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
