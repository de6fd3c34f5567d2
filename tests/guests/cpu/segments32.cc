// Segmentation: limits, types, rings, null selectors, conforming code, the LDT, accessed bits, real mode with large
// limits.
#include "tests/guests/lib/cpu.hpp"

namespace {

alignas(4096) u8 arena[8192];
u64 ldt[8];
constexpr u16 S = SPARE; // the descriptor under test
u32 base() { return reinterpret_cast<u32>(arena); }

CODE(read1, "movb (%esi), %al");
CODE(read4, "movl (%esi), %eax");
CODE(write1, "movb %al, (%esi)");
CODE(write4, "movl %eax, (%esi)");
CODE(read_cs, "movb %cs:(%esi), %al");
CODE(write_cs, "movb %al, %cs:(%esi)");
CODE(read_ss, "movl %ss:(%esi), %eax");
CODE(push4, "push %eax");
CODE(push_high, "movl $0x12340104, %esp\npush %eax");
CODE(load_ds, "mov %eax, %ds\nmov %ds, %ebx");
CODE(load_ss, "mov %eax, %ss\nmov %ss, %ebx");
CODE(load_fs, "mov %eax, %fs\nmov %fs, %ebx");
CODE(load_lldt, "lldt %ax");
CODE(load_ltr, "ltr %ax");
CODE(far_jump, "ljmp *(%edi)");
CODE(far_call, "lcall *(%edi)");
CODE(far_load, "lds (%edi), %eax");
CODE(nothing, "mov %cs, %ecx");

Outcome access(Program p, word at, u16 ds = S | 3, bool as_user = true) {
  State s = as_user ? user(p) : kernel(p);
  s.si = at, s.ds = ds;
  return run(s);
}

void limits() {
  const u32 rw = PRESENT | DPL3 | DATA;
  set_descriptor(S, descriptor(base(), 0xff, rw, BYTES32));
  put32(base() + 0xfc, 0x12345678);
  ended(access(read1, 0xff), "the last byte");
  faulted(access(read1, 0x100), GP, 0, "one byte behind the limit");
  check_equal(access(read4, 0xfc).s.ax, 0x12345678, "the last doubleword, and the base is added");
  faulted(access(read4, 0xfd), GP, 0, "a doubleword over the limit");
  faulted(access(write4, 0xfd), GP, 0, "a write over the limit");
  faulted(access(read4, 0xfffffffe), GP, 0, "a doubleword that wraps");
  faulted(access(read1, 0xffffffff), GP, 0, "the last byte of 4 GiB");
  set_descriptor(S, descriptor(base(), 0, rw, BYTES32));
  ended(access(read1, 0), "limit 0 has one byte");
  faulted(access(read4, 0), GP, 0, "and not four");
  set_descriptor(S, descriptor(base(), 0, rw, PAGES32));
  ended(access(read4, 0xffc), "limit 0 in pages is 4 KiB");
  faulted(access(read1, 0x1000), GP, 0, "and no more");
  set_descriptor(S, descriptor(base(), 0xff, rw | DOWN, BYTES32)); // expand-down: above the limit
  faulted(access(read1, 0xff), GP, 0, "expand-down: the limit itself is outside");
  ended(access(read1, 0x100), "expand-down: above it is inside");
  ended(access(read4, 0x100), "expand-down: a doubleword above it");
  faulted(access(read4, 0xfd), GP, 0, "expand-down: a doubleword over the limit");
  set_descriptor(S, descriptor(base(), 0xff, rw | DOWN, BYTES16));
  ended(access(read1, 0x1fff), "expand-down of 16 bits: inside");
  faulted(access(read1, 0x10000), GP, 0, "expand-down of 16 bits: FFFFh is the end");
  faulted(access(read4, 0xfffd), GP, 0, "expand-down of 16 bits: a doubleword over the end");
  set_descriptor(S, descriptor(base(), 0, rw | DOWN, PAGES32));
  faulted(access(read1, 0xfff), GP, 0, "expand-down in pages: outside");
  ended(access(read1, 0x1000), "expand-down in pages: inside");
  // Stacks: #SS.
  set_descriptor(S, descriptor(base(), 0xff, rw, BYTES32));
  State s = user(push4);
  s.ss = S | 3, s.sp = 0x100;
  Outcome o = run(s);
  check(o.vector == END && o.s.sp == 0xfc, "a push that just fits");
  s.sp = 0x102;
  faulted(run(s), SS, 0, "a push over the limit");
  s.sp = 2;
  o = run(s);
  faulted(o, SS, 0, "a push that wraps");
  check_equal(o.s.sp, 2, "leaves ESP alone");
  s = user(read_ss);
  s.ss = S | 3, s.sp = 0x80, s.si = 0xfe;
  faulted(run(s), SS, 0, "a read through SS over the limit");
  // 16-bit stacks use SP.
  set_descriptor(S, descriptor(base(), 0xfff, rw, BYTES16));
  s = user(push_high); // IRET would load no more than SP
  s.ss = S | 3, s.ax = 0xabcdef;
  o = run(s);
  check_equal(o.s.sp, 0x12340100, "a stack of 16 bits changes SP alone");
  check_equal(at<u32>(base() + 0x100), 0xabcdef, "and is addressed by it");
  // Code.
  set_descriptor(S, descriptor(0, static_cast<u32>(address(nothing)) + 1, PRESENT | DPL3 | CODE, BYTES32));
  s = user(nothing);
  s.cs = S | 3;
  faulted(run(s), GP, 0, "code runs over its limit");
  s.ip = address(nothing) + 2;
  o = run(s);
  faulted(o, GP, 0, "IRET beyond the limit of code");
}

void types() {
  State s;
  set_descriptor(S, descriptor(base(), 0xfff, PRESENT | DPL3 | 0x11, BYTES32));
  ended(access(read1, 0), "read-only data: a read");
  faulted(access(write1, 0), GP, 0, "read-only data: a write");
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | DPL3 | 0x19, PAGES32)); // execute only
  faulted(access(read1, 0), GP, S, "execute-only code into DS");
  s = user(read_cs);
  s.cs = S | 3, s.si = base();
  faulted(run(s), GP, 0, "a read of execute-only code");
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | DPL3 | CODE, PAGES32));
  ended(run(s), "a read of readable code");
  s.ip = address(write_cs);
  faulted(run(s), GP, 0, "a write to code");
  check_equal(access(read1, base()).vector, END, "readable code in DS");
  faulted(access(write1, base()), GP, 0, "a write to code through DS");
  const auto load = [](Program p, word selector, bool as_user = false) {
    State t = as_user ? user(p) : kernel(p);
    t.ax = selector;
    return run(t);
  };
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | 0x11, PAGES32));
  faulted(load(load_ss, S), GP, S, "read-only data into SS");
  set_descriptor(S, descriptor(0, 0xfffff, PRESENT | CODE, PAGES32));
  faulted(load(load_ss, S), GP, S, "code into SS");
  faulted(load(load_ss, 0), GP, 0, "null into SS");
  faulted(load(load_ss, 3, true), GP, 0, "null into SS at CPL 3");
  set_descriptor(S, descriptor(0, 0xfffff, DATA, PAGES32));
  faulted(load(load_ss, S), SS, S, "absent data into SS");
  faulted(load(load_ds, S), NP, S, "absent data into DS");
  faulted(load(load_ds, TSS_SELECTOR), GP, TSS_SELECTOR, "a system segment into DS");
  faulted(load(load_ds, 0x200), GP, 0x200, "a selector beyond the GDT");
  faulted(load(load_ds, 0x1007), GP, 0x1004, "a selector beyond the LDT");
  check_equal(load(load_ds, 0).vector, END, "null into DS");
  check_equal(load(load_fs, 3).s.bx & 0xffff, 3, "null with RPL 3 into FS");
  State n = kernel(read1);
  n.ds = 0, n.si = base();
  faulted(run(n), GP, 0, "an access through a null selector");
  n.ip = address(nothing);
  ended(run(n), "no access through a null selector");
}

void rings() {
  const auto load = [](Program p, u32 dpl, word rpl, u32 type, bool as_user) {
    set_descriptor(S, descriptor(0, 0xfffff, PRESENT | dpl << 5 | type, PAGES32));
    State s = as_user ? user(p) : kernel(p);
    s.ax = S | rpl;
    return run(s);
  };
  u32 wrong = 0;
  for (u32 as_user = 0; as_user < 2; ++as_user)
    for (u32 dpl = 0; dpl < 4; ++dpl)
      for (u32 rpl = 0; rpl < 4; ++rpl) {
        const u32 cpl = as_user ? 3 : 0;
        const bool fine = dpl >= cpl && dpl >= rpl, stack = dpl == cpl && rpl == cpl;
        const Outcome d = load(load_ds, dpl, rpl, DATA, as_user);
        wrong += fine ? d.vector != END : !(d.vector == GP && d.error == S);
        const Outcome s = load(load_ss, dpl, rpl, DATA, as_user);
        wrong += stack ? s.vector != END : !(s.vector == GP && s.error == S);
        const Outcome c = load(load_ds, dpl, rpl, CODE, as_user);
        wrong += fine ? c.vector != END : !(c.vector == GP && c.error == S);
        wrong += load(load_ds, dpl, rpl, CODE | CONFORMING, as_user).vector != END;
      }
  check_equal(wrong, 0, "CPL, RPL and DPL of data segments and stacks, every combination");
  // Far jumps and calls.
  const auto jump = [](Program p, u32 dpl, u16 rpl, u32 type, bool as_user) {
    static struct [[gnu::packed]] {
      u32 offset;
      u16 selector;
    } target;
    set_descriptor(S, descriptor(0, 0xfffff, PRESENT | dpl << 5 | type, PAGES32));
    target = {static_cast<u32>(address(nothing)), static_cast<u16>(S | rpl)};
    State s = as_user ? user(p) : kernel(p);
    s.di = reinterpret_cast<word>(&target);
    return run(s);
  };
  wrong = 0;
  const u8* const both[] = {far_jump, far_call};
  for (u32 as_user = 0; as_user < 2; ++as_user)
    for (u32 dpl = 0; dpl < 4; ++dpl)
      for (u16 rpl = 0; rpl < 4; ++rpl) {
        const u32 cpl = as_user ? 3 : 0;
        for (const u8* p : both) {
          const Outcome o = jump(p, dpl, rpl, CODE, as_user);
          const bool fine = dpl == cpl && rpl <= cpl;
          wrong += fine ? o.vector != END || (o.s.cx & 3) != cpl : !(o.vector == GP && o.error == S);
          const Outcome c = jump(p, dpl, rpl, CODE | CONFORMING, as_user);
          wrong += dpl <= cpl ? c.vector != END || (c.s.cx & 3) != cpl : !(c.vector == GP && c.error == S);
        }
      }
  check_equal(wrong, 0, "CPL, RPL and DPL of far jumps and calls, every combination");
  faulted(jump(far_jump, 0, 0, DATA, false), GP, S, "a far jump to data");
}
void task_register() {
  State s = kernel(load_ltr);
  s.ax = KDATA;
  faulted(run(s), GP, KDATA, "LTR of data");
  s.ax = 0;
  faulted(run(s), GP, 0, "LTR of null");
  s.ax = TSS_SELECTOR;
  faulted(run(s), GP, TSS_SELECTOR, "LTR of a busy TSS");
  s = user(load_ltr);
  faulted(run(s), GP, 0, "LTR at CPL 3");
  s = user(load_lldt);
  faulted(run(s), GP, 0, "LLDT at CPL 3");
}

void local_table() {
  State s = kernel(load_lldt);
  s.ax = KDATA;
  faulted(run(s), GP, KDATA, "LLDT of data");
  set_descriptor(LDT_SELECTOR, descriptor(reinterpret_cast<u32>(ldt), 23, 2, 0));
  s.ax = LDT_SELECTOR;
  faulted(run(s), NP, LDT_SELECTOR, "LLDT of an absent LDT");
  set_descriptor(LDT_SELECTOR, descriptor(reinterpret_cast<u32>(ldt), 23, PRESENT | 2, 0));
  ended(run(s), "LLDT");
  ldt[1] = descriptor(base(), 0xfff, PRESENT | DPL3 | DATA, BYTES32);
  ldt[2] = descriptor(0, 0xfffff, PRESENT | DPL3 | CODE, PAGES32);
  ldt[0] = ldt[3] = ldt[1];
  put32(base() + 0x10, 0x55aa);
  check_equal(access(read4, 0x10, 8 | 7).s.ax, 0x55aa, "a segment of the LDT");
  faulted(access(read4, 0x10, 24 | 7), GP, 24 | 4, "a selector beyond the LDT's limit");
  s = user(nothing);
  s.cs = 16 | 7;
  check_equal(run(s).s.cx & 0xffff, 16 | 7, "code in the LDT");
  ended(access(read4, 0x10, 4 | 3), "the first entry of the LDT is no null selector");
  s = kernel(load_lldt);
  s.ax = 0;
  ended(run(s), "LLDT of null");
  faulted(access(read4, 0x10, 8 | 7), GP, 8 | 4, "no LDT, no segments of it");
}

CODE(queries,
     "lar %ax, %ebx\nsetz %cl\nlsl %ax, %edx\nsetz %ch\nmov %ax, %si\nverr %si\nsetz %al\nverw %si\nsetz %ah\n"
     "movzx %ax, %edi");
void accessed_and_queries() {
  const auto type_of = [](u16 selector) { return static_cast<u32>(gdt[selector >> 3] >> 40 & 255); };
  const u32 clean = (PRESENT | DPL3 | DATA) & ~1u;
  set_descriptor(S, descriptor(base(), 0xfff, clean, BYTES32));
  access(read1, 0);
  check_equal(type_of(S), clean | 1, "loading a segment sets its accessed bit");
  set_descriptor(S, descriptor(base(), 0xfff, clean & ~PRESENT, BYTES32));
  access(read1, 0);
  check_equal(type_of(S), clean & ~PRESENT, "a load that faults does not");
  set_descriptor(S, descriptor(0, 0xfffff, (PRESENT | DPL3 | CODE) & ~1u, PAGES32));
  State s = user(nothing);
  s.cs = S | 3;
  run(s);
  check_equal(type_of(S), PRESENT | DPL3 | CODE, "so does loading CS");
  set_descriptor(S, descriptor(base(), 0x12, clean, PAGES32));
  s = user(queries);
  s.ax = S | 3;
  Outcome o = run(s);
  check_equal(o.s.bx, (descriptor(base(), 0x12, clean, PAGES32) >> 32) & 0xf0ff00, "LAR");
  check_equal(o.s.dx, 0x12fff, "LSL in bytes");
  check(o.s.cx == 0x101 && o.s.di == 0x101, "LAR, LSL, VERR and VERW set ZF");
  check_equal(type_of(S), clean, "and leave the accessed bit alone");
  set_descriptor(S, descriptor(base(), 0x12, PRESENT | DATA, PAGES32));
  o = run(s);
  check((o.s.cx & 0xffff) == 0 && o.s.di == 0, "a descriptor of DPL 0 at CPL 3: ZF clear");
  set_descriptor(S, descriptor(base(), 0x12, PRESENT | DPL3 | CODE, PAGES32));
  o = run(s);
  check(o.s.cx == 0x101 && o.s.di == 0x001, "readable code: VERR, not VERW");
  set_descriptor(S, gate(KCODE, 0, PRESENT | DPL3 | 12));
  o = run(s);
  check((o.s.cx & 0xffff) == 0x001 && o.s.di == 0, "a call gate: LAR alone");
}

constexpr Part PARTS[] = {{"limits", limits},     {"types", types},     {"rings", rings},
                          {"ltr", task_register}, {"ldt", local_table}, {"accessed", accessed_and_queries}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
