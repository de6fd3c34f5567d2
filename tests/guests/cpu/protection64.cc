// What CPL and control bits forbid: alignment checks, time stamps, privileged instructions, descriptors of 16 bytes.
#include "tests/guests/lib/cpu.hpp"

namespace {

alignas(64) u8 data[128];
CODE(read2, "movw (%rdi), %ax");
CODE(read4, "movl (%rdi), %eax");
CODE(read8, "movq (%rdi), %rax");
CODE(write4, "movl %eax, (%rdi)");
CODE(push8, "push %rax");
CODE(set_ac, "pushf\norl $0x40000, (%rsp)\npopf\nmovl (%rdi), %eax");
void alignment() {
  const auto go = [](Program p, word offset, bool as_user = true, word flags = ACF) {
    State s = as_user ? user(p) : kernel(p);
    s.di = reinterpret_cast<word>(data) + offset, s.flags |= flags;
    return run(s);
  };
  ended(go(read4, 1), "AC without CR0.AM");
  set_control<0>(control<0>() | CR0_AM);
  faulted(go(read2, 1), AC, 0, "a word at an odd address");
  faulted(go(read4, 2), AC, 0, "a doubleword that is not aligned");
  faulted(go(read8, 4), AC, 0, "a quadword that is not aligned");
  faulted(go(write4, 1), AC, 0, "a write");
  faulted(go(set_ac, 1, true, 0), AC, 0, "AC set by POPF");
  ended(go(read8, 8), "an aligned quadword");
  ended(go(read4, 1, true, 0), "AM without AC");
  ended(go(read4, 1, false), "ring 0 is not checked");
  State s = user(push8);
  s.sp -= 4, s.flags |= ACF;
  faulted(run(s), AC, 0, "a stack that is not aligned");
  const Outcome o = go(read4, 1);
  check((o.s.flags & ACF) != 0 && o.s.ip == address(read4), "#AC is a fault and pushes AC");
  set_control<0>(control<0>() & ~CR0_AM);
}

CODE(read_tsc, "rdtsc");
CODE(read_msr_, "rdmsr");
CODE(read_counter, "rdpmc");
CODE(halt, "hlt");
CODE(clear_if, "cli");
CODE(port, "in $0x80, %al");
CODE(load_gdt_, "lgdt (%rdi)");
CODE(load_idt_, "lidt (%rdi)");
CODE(load_ldt, "lldt %ax");
CODE(load_tr, "ltr %ax");
CODE(write_back, "wbinvd");
CODE(invalidate, "invd");
CODE(to_dr, "mov %rax, %dr0");
CODE(to_cr2, "mov %rax, %cr2");
CODE(store_tables, "sgdt (%rdi)\nsidt 16(%rdi)\nsldt %ax\nstr %bx");
void privileges() {
  static constexpr struct {
    const u8* program;
    const char* what;
  } FORBIDDEN[] = {{read_msr_, "RDMSR"},   {halt, "HLT"},        {clear_if, "CLI"},    {port, "IN"},
                   {load_gdt_, "LGDT"},    {load_idt_, "LIDT"},  {load_ldt, "LLDT"},   {load_tr, "LTR"},
                   {write_back, "WBINVD"}, {invalidate, "INVD"}, {to_dr, "MOV to DR"}, {to_cr2, "MOV to CR2"},
                   {read_counter, "RDPMC"}};
  for (const auto& i : FORBIDDEN) {
    State s = user(i.program);
    s.di = reinterpret_cast<word>(data), s.cx = EFER;
    faulted(run(s), GP, 0, i.what);
  }
  ended(run(user(read_tsc)), "RDTSC at CPL 3");
  set_control<4>(control<4>() | CR4_TSD);
  faulted(run(user(read_tsc)), GP, 0, "RDTSC at CPL 3 with CR4.TSD");
  ended(run(kernel(read_tsc)), "RDTSC in ring 0 with CR4.TSD");
  set_control<4>(control<4>() & ~CR4_TSD);
  State s = user(store_tables);
  s.di = reinterpret_cast<word>(data);
  const Outcome o = run(s);
  if (ended(o, "SGDT, SIDT, SLDT, STR at CPL 3")) {
    check_equal(at<u16>(s.di), sizeof gdt - 1, "the GDT's limit");
    check_equal(at<u64>(s.di + 2), reinterpret_cast<word>(gdt), "its base");
    check_equal(at<u64>(s.di + 18), reinterpret_cast<word>(idt), "the IDT's base");
    check_equal(o.s.bx & 0xffff, TSS_SELECTOR, "STR");
  }
}

CODE(load_fs, "mov %eax, %fs\nmov %fs:(%rdi), %eax");
void wide_descriptors() {
  alignas(16) static u64 ldt[4];
  const auto load = [](Program p, word selector) {
    State s = kernel(p);
    s.ax = selector;
    return run(s);
  };
  const u64 base = reinterpret_cast<u64>(ldt);
  gdt[LDT_SELECTOR >> 3] = descriptor(static_cast<u32>(base), sizeof ldt - 1, PRESENT | 2, 0);
  gdt[(LDT_SELECTOR >> 3) + 1] = 0x8000;
  faulted(load(load_ldt, LDT_SELECTOR), GP, LDT_SELECTOR, "LLDT of a non-canonical base");
  gdt[(LDT_SELECTOR >> 3) + 1] = u64{1} << 40;
  faulted(load(load_ldt, LDT_SELECTOR), GP, LDT_SELECTOR, "LLDT with a type in the upper half");
  gdt[(LDT_SELECTOR >> 3) + 1] = 0;
  ended(load(load_ldt, LDT_SELECTOR), "LLDT");
  ldt[1] = descriptor(0x1000, 0xff, PRESENT | DPL3 | DATA, BYTES32);
  put32(0x1010, 0x1234abcd);
  State s = user(load_fs);
  s.ax = 8 | 7, s.di = 0x10;
  check_equal(run(s).s.ax, 0x1234abcd, "a segment of the LDT");
  s.ax = 32 | 7;
  faulted(run(s), GP, 32 | 4, "beyond the LDT's limit");
  gdt[62] = descriptor(0, TSS_LIMIT, PRESENT | 9, 0);
  gdt[63] = 0x8000;
  faulted(load(load_tr, 62 * 8), GP, 62 * 8, "LTR of a non-canonical base");
  gdt[63] = descriptor(0, TSS_LIMIT, PRESENT | 9, 0);
  faulted(load(load_tr, 63 * 8), GP, 63 * 8, "LTR of a descriptor whose upper half lies beyond the GDT");
  faulted(load(load_tr, TSS_SELECTOR), GP, TSS_SELECTOR, "LTR of a busy TSS");
  gdt[62] = descriptor(0, TSS_LIMIT, 9, 0), gdt[63] = 0;
  faulted(load(load_tr, 62 * 8), NP, 62 * 8, "LTR of an absent TSS");
  ended(load(load_ldt, 0), "LLDT of null");
}

constexpr Part PARTS[] = {{"alignment", alignment}, {"privileges", privileges}, {"descriptors", wide_descriptors}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
