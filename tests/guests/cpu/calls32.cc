// SYSENTER and SYSEXIT, SYSCALL and SYSRET outside long mode.
#include "tests/guests/lib/cpu.hpp"

namespace {

constexpr u32 CS_MSR = 0x174, ESP_MSR = 0x175, EIP_MSR = 0x176;
CODE(enter, "sysenter");
CODE(leave, "sysexit");
CODE(where_am_i, "mov %esp, %eax\nmov %ss, %ebx\nmov %cs, %ecx\npushf\npop %edx");
CODE(call, "syscall");
CODE(back, "sysret");
CODE(read_msr_, "rdmsr");

void sysenter() {
  const word stack = reinterpret_cast<word>(user_stack) + 2048;
  write_msr(CS_MSR, 0);
  faulted(run(user(enter)), GP, 0, "SYSENTER with a null CS");
  faulted(run(kernel(leave)), GP, 0, "SYSEXIT with a null CS");
  write_msr(CS_MSR, KCODE), write_msr(ESP_MSR, stack), write_msr(EIP_MSR, address(where_am_i));
  State s = user(enter);
  s.flags |= IF | CF | IOPL3;
  Outcome o = run(s);
  if (ended(o, "SYSENTER")) {
    check(o.s.cx == KCODE && o.s.bx == KCODE + 8, "CS and SS");
    check_equal(o.s.ax, stack, "ESP");
    check_equal(o.s.dx, FLAGS | CF | IOPL3, "IF is clear, the rest stays");
  }
  o = run(kernel(enter));
  check(o.vector == END && o.s.cx == KCODE, "SYSENTER in ring 0");
  write_msr(CS_MSR, KCODE | 3);
  check_equal(run(user(enter)).s.cx, KCODE, "RPL does not count");
  s = kernel(leave);
  s.dx = address(where_am_i), s.cx = user_stack_top();
  o = run(s);
  if (ended(o, "SYSEXIT")) {
    check(o.s.cs == UCODE32 && o.s.bx == UDATA && o.s.ax == user_stack_top(), "CS, SS and ESP of ring 3");
    check((o.s.cs & 3) == 3, "CPL 3");
  }
  faulted(run(user(leave)), GP, 0, "SYSEXIT at CPL 3");
  s = user(read_msr_);
  s.cx = CS_MSR;
  faulted(run(s), GP, 0, "RDMSR at CPL 3");
}

void syscall() { // outside long mode AMD's alone
  if (is_intel()) return;
  faulted(run(user(call)), UD, 0, "SYSCALL with EFER.SCE = 0");
  write_msr(EFER, read_msr(EFER) | EFER_SCE);
  write_msr(STAR, u64{UCODE32} << 48 | u64{KCODE} << 32 | address(where_am_i));
  State s = user(call);
  s.flags |= IF;
  Outcome o = run(s);
  if (ended(o, "SYSCALL")) {
    check(o.s.cs == KCODE && o.s.bx == KDATA, "CS and SS of SYSCALL");
    check_equal(o.s.dx & IF, 0, "SYSCALL clears IF");
  }
  s = kernel(back);
  s.cx = address(where_am_i);
  o = run(s);
  if (ended(o, "SYSRET")) {
    check(o.s.cs == UCODE32 && o.s.bx == UDATA, "CS and SS of SYSRET");
    check_equal(o.s.dx & IF, IF, "SYSRET sets IF");
  }
  faulted(run(user(back)), GP, 0, "SYSRET at CPL 3");
}

constexpr Part PARTS[] = {{"sysenter", sysenter}, {"syscall", syscall}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
