// Virtual-8086 mode: entry and exit, addresses, instructions that depend on IOPL, interrupts, ports.
#include "tests/guests/lib/cpu.hpp"

namespace {

constexpr u16 SEGMENT = 0x700; // programs run at 700h:0
constexpr u8 V = 0x50;
constexpr u16 SPARE_CODE = SPARE;

CODE16(segments, "mov %cs, %ax\nmov %ds, %bx\nmov %es, %cx\nmov %ss, %dx\nmov %fs, %si\nmov %gs, %di");
CODE16(addresses,
       "mov $0x1234, %ax\nmov %ax, %ds\nmovb $0x5a, (0x0010)\nmov $0xffff, %ax\nmov %ax, %es\nmovb %es:(0x0020), %bl");
CODE16(beyond, "movb (%esi), %al");
CODE16(beyond_word, "movw (%esi), %ax");
CODE16(clear_if, "cli");
CODE16(set_if, "sti");
CODE16(push_flags, "pushf\npop %ax");
CODE16(pop_flags, "push %ax\npopf");
CODE16(int_v, "int $0x50");
CODE16(int3, "int3");
CODE16(into_it, "movb $0x7f, %al\naddb %al, %al\ninto");
CODE16(iret16, "push %ax\npush %cs\npushw $5\niret\nnop");
CODE16(halt, "hlt");
CODE16(port_in, "inb %dx, %al");
CODE16(privileged_cr0, "mov %cr0, %eax");
CODE16(privileged_lgdt, "lgdtl (0)");
CODE16(no_lldt, "lldt %ax");
CODE16(no_str, "str %ax");
CODE16(no_verr, "verr %ax");
CODE16(no_lar, "lar %ax, %bx");
CODE16(no_arpl, "arpl %ax, %bx");
CODE16(smsw_it, "smsw %ax");
CODE16(far_jump, "ljmp $0x600, $0x2010");
CODE16(far_call, "lcall $0x600, $0x2010");
CODE16(segments_after, "mov %cs, %ax");
CODE16(bad, "ud2");

State vm(Program p, word flags = 0) {
  for (u32 i = 0; i < 96; ++i) put8(SEGMENT * 16 + i, p[i]);
  State s;
  s.ip = 0, s.cs = SEGMENT, s.flags = FLAGS | VM | flags, s.ss = 0x8000, s.sp = 0x1000;
  s.ds = 0x1111, s.es = 0x2222, s.fs = 0x3333, s.gs = 0x4444;
  return s;
}

void entry_and_exit() {
  State s = vm(segments);
  Outcome o = run(s);
  if (ended(o, "IRET with VM")) {
    check(o.s.cs == SEGMENT && o.s.ss == 0x8000 && o.s.sp == 0x1000, "an exception pushes CS and SS:ESP");
    check(o.s.ds == 0x1111 && o.s.es == 0x2222 && o.s.fs == 0x3333 && o.s.gs == 0x4444, "and the data segments");
    check((o.s.flags & VM) != 0, "and EFLAGS with VM");
    check((o.s.ax & 0xffff) == SEGMENT && (o.s.bx & 0xffff) == 0x1111 && (o.s.cx & 0xffff) == 0x2222 &&
              (o.s.dx & 0xffff) == 0x8000 && (o.s.si & 0xffff) == 0x3333 && (o.s.di & 0xffff) == 0x4444,
          "the segments as they were given");
  }
  s = vm(bad);
  o = run(s);
  check(o.vector == UD && (o.s.flags & RF) != 0, "a fault pushes RF");
  s.cs = 0x0003, s.ip = SEGMENT * 16 - 0x30; // no RPL
  check_equal(run(s).vector, UD, "CS with bits 0 and 1 set is an address");
}

void addressing() {
  put8(0x12350, 0), put8(0x100010, 0x77);
  Outcome o = run(vm(addresses));
  ended(o, "addresses of segment and offset");
  check_equal(at<u8>(0x12350), 0x5a, "1234h:0010h");
  check_equal(o.s.bx & 0xff, 0x77, "FFFFh:0020h lies above 1 MiB");
  State s = vm(beyond);
  s.si = 0xffff;
  ended(run(s), "offset FFFFh");
  s.si = 0x10000;
  faulted(run(s), GP, 0, "offset 10000h");
  s = vm(beyond_word);
  s.si = 0xffff;
  faulted(run(s), GP, 0, "a word at offset FFFFh");
  for (u32 i = 0; i < 16; ++i) put8(0x6000 + 0x2010 + i, segments_after[i]);
  o = run(vm(far_jump));
  check(o.vector == END && o.s.cs == 0x600 && (o.s.ax & 0xffff) == 0x600, "a far jump");
  o = run(vm(far_call));
  check(o.vector == END && o.s.cs == 0x600, "a far call");
  check_equal(o.s.sp, 0xffc, "it pushes two words");
  check_equal(at<u32>(0x80ffc), SEGMENT << 16 | 5, "CS and IP");
}

void io_privilege() {
  static constexpr struct {
    const u8* program;
    const char *without, *with;
  } SENSITIVE[] = {{clear_if, "CLI with IOPL 0", "CLI with IOPL 3"},
                   {set_if, "STI with IOPL 0", "STI with IOPL 3"},
                   {push_flags, "PUSHF with IOPL 0", "PUSHF with IOPL 3"},
                   {pop_flags, "POPF with IOPL 0", "POPF with IOPL 3"},
                   {iret16, "IRET with IOPL 0", "IRET with IOPL 3"}};
  for (const auto& i : SENSITIVE) {
    faulted(run(vm(i.program)), GP, 0, i.without);
    ended(run(vm(i.program, IOPL3)), i.with);
  }
  check_equal(run(vm(clear_if, IOPL3 | IF)).s.flags & IF, 0, "CLI clears IF");
  check_equal(run(vm(set_if, IOPL3)).s.flags & IF, IF, "STI sets IF");
  State s = vm(push_flags, IOPL3 | IF);
  check_equal(run(s).s.ax & 0xffff, FLAGS | IOPL3 | IF, "PUSHF shows IOPL and IF");
  s = vm(pop_flags, IOPL3);
  s.ax = FLAGS | IF | CF;
  check_equal(run(s).s.flags & 0xffff, FLAGS | IOPL3 | IF | CF, "POPF sets IF, not IOPL");
  s = vm(iret16, IOPL3);
  s.ax = FLAGS | IF | ZF;
  Outcome o = run(s);
  check_equal(o.s.flags & 0x2ffff, FLAGS | VM | IOPL3 | IF | ZF, "IRET of words sets IF, not IOPL, and leaves VM");
  faulted(run(vm(halt, IOPL3)), GP, 0, "HLT");
  faulted(run(vm(privileged_cr0, IOPL3)), GP, 0, "MOV from CR0");
  faulted(run(vm(privileged_lgdt, IOPL3)), GP, 0, "LGDT");
  static constexpr struct {
    const u8* program;
    const char* what;
  } ABSENT[] = {{no_lldt, "LLDT"}, {no_str, "STR"}, {no_verr, "VERR"}, {no_lar, "LAR"}, {no_arpl, "ARPL"}};
  for (const auto& i : ABSENT) faulted(run(vm(i.program, IOPL3)), UD, 0, i.what);
  ended(run(vm(smsw_it)), "SMSW");
}

u32 stub(u8 vector) { return static_cast<u32>((gate_of(vector) & 0xffff) | (gate_of(vector) >> 32 & 0xffff0000)); }
CODE(look, "mov %esp, %eax\nmov %ds, %ebx\nmov %gs, %ecx\npushf\npop %edx");
void interrupts() {
  const u32 handler = stub(V);
  set_gate(V, gate(KCODE, handler, PRESENT | DPL3 | 0xe));
  faulted(run(vm(int_v)), GP, 0, "INT n with IOPL 0");
  Outcome o = run(vm(int_v, IOPL3));
  check(o.vector == V && o.s.ip == 2 && (o.s.flags & VM) != 0, "INT n with IOPL 3 goes through the IDT");
  set_gate(V, gate(KCODE, handler, PRESENT | 0xe));
  faulted(run(vm(int_v, IOPL3)), GP, V * 8 + 2, "INT n through a gate of DPL 0");
  set_descriptor(SPARE_CODE, descriptor(0, 0xfffff, PRESENT | CODE | CONFORMING, PAGES32));
  set_gate(V, gate(SPARE_CODE, handler, PRESENT | DPL3 | 0xe));
  faulted(run(vm(int_v, IOPL3)), GP, SPARE_CODE, "a conforming handler");
  set_descriptor(SPARE_CODE, descriptor(0, 0xfffff, PRESENT | 1 << 5 | CODE, PAGES32));
  faulted(run(vm(int_v, IOPL3)), GP, SPARE_CODE, "a handler in ring 1");
  set_gate(V, gate(KCODE, static_cast<u32>(address(look)), PRESENT | DPL3 | 0xe));
  o = run(vm(int_v, IOPL3 | IF));
  const word top = reinterpret_cast<word>(stack0_top);
  check(o.vector == END && o.s.ax == top - 36, "nine doublewords on ring 0's stack");
  check((o.s.bx & 0xffff) == 0 && (o.s.cx & 0xffff) == 0, "the handler's data segments are null");
  check_equal(o.s.dx & (VM | IF | TF), 0, "VM and IF are clear");
  check(at<u32>(top - 4) == 0x4444 && at<u32>(top - 8) == 0x3333 && at<u32>(top - 12) == 0x1111 &&
            at<u32>(top - 16) == 0x2222,
        "GS, FS, DS, ES on the stack");
  set_gate(BP, gate(KCODE, stub(BP), PRESENT | DPL3 | 0xe));
  o = run(vm(int3));
  check(o.vector == BP && o.s.ip == 1, "INT3 does not ask for IOPL");
  set_gate(BP, gate(KCODE, stub(BP), PRESENT | 0xe));
  faulted(run(vm(int3)), GP, BP * 8 + 2, "but for the gate's DPL");
  set_gate(OF, gate(KCODE, stub(OF), PRESENT | DPL3 | 0xe));
  check_equal(run(vm(into_it)).vector, OF, "INTO does not ask for IOPL");
}

void ports() {
  const u32 t = reinterpret_cast<u32>(tss);
  State s = vm(port_in);
  s.dx = 0x80;
  faulted(run(s), GP, 0, "IN without a bitmap");
  s.flags |= IOPL3;
  faulted(run(s), GP, 0, "IOPL 3 does not replace it");
  put16(t + 0x66, 0x68);
  set_descriptor(TSS_SELECTOR, descriptor(t, 0x68 + 32, PRESENT | 9, 0));
  asm volatile("ltr %0" : : "r"(u16{TSS_SELECTOR}));
  for (u32 i = 0; i < 33; ++i) put8(t + 0x68 + i, 0xff);
  put8(t + 0x68 + 16, 0xfe);
  s.flags &= ~IOPL3;
  ended(run(s), "IN of a port whose bit is clear");
  s.dx = 0x81;
  faulted(run(s), GP, 0, "IN of a port whose bit is set");
}

constexpr Part PARTS[] = {{"entry", entry_and_exit},
                          {"addresses", addressing},
                          {"iopl", io_privilege},
                          {"interrupts", interrupts},
                          {"ports", ports}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
