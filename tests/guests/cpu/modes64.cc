// Long mode and its neighbours: compatibility mode, SYSCALL and SYSRET, SWAPGS, and the way to real mode and back.
#include "tests/guests/lib/cpu.hpp"

namespace {

struct [[gnu::packed]] Far {
  u32 offset;
  u16 selector;
} target;

// --- compatibility mode
CODE32(narrow, "mov %esp, %ebx\npush %eax\nmov %esp, %ecx\ninc %edx\nmov %cs, %eax");
CODE32(narrow_read, "mov (%esi), %eax");
CODE32(narrow_jump, "ljmp *(%edi)");
CODE32(narrow_ud, ".byte 0x40, 0x0f, 0x0b"); // INC EAX, UD2: a REX prefix elsewhere
CODE32(narrow_swapgs, ".byte 0x0f, 0x01, 0xf8");
CODE64(wide, "mov %cs, %eax\nmov %rsp, %rbx");
CODE64(wide_jump, "ljmp *(%rdi)");
CODE64(wide_read, "mov (%rsi), %eax");
CODE64(wide_read_fs, "mov %fs:(%rsi), %eax");
State compatible(Program p) {
  State s = user(p);
  s.cs = UCODE32;
  return s;
}
void compatibility() {
  State s = compatible(narrow);
  s.dx = 0xffffffff;
  Outcome o = run(s);
  if (ended(o, "32-bit code at CPL 3")) {
    check_equal(o.s.bx, user_stack_top(), "ESP");
    check_equal(o.s.cx, user_stack_top() - 4, "PUSH of four bytes");
    check_equal(o.s.dx, 0, "40h-4Fh are INC and DEC");
    check(o.s.ax == UCODE32 && o.s.cs == UCODE32, "CS");
  }
  s = kernel(narrow);
  s.cs = KCODE32;
  o = run(s);
  check(o.vector == END && o.s.ax == KCODE32, "32-bit code in ring 0");
  s = compatible(narrow_read);
  set_descriptor(SPARE, descriptor(0x1000, 0xff, PRESENT | DPL3 | DATA, BYTES32));
  put32(0x1010, 0x12345678);
  s.ds = SPARE | 3, s.si = 0x10;
  check_equal(run(s).s.ax, 0x12345678, "bases count in compatibility mode");
  s.si = 0x100;
  faulted(run(s), GP, 0, "limits count in compatibility mode");
  s = user(wide_read);
  s.ds = SPARE | 3, s.si = 0x1010;
  check_equal(run(s).s.ax, 0x12345678, "neither does in 64-bit mode: DS");
  s = user(wide_read_fs);
  s.fs = SPARE | 3, s.si = 0x10;
  check_equal(run(s).s.ax, 0x12345678, "FS has its base in 64-bit mode");
  s.si = 0x100;
  ended(run(s), "but no limit");
  s = compatible(narrow_ud);
  s.ax = 5;
  o = run(s);
  check(o.vector == UD && o.s.ax == 6 && o.s.ip == address(narrow_ud) + 1, "no REX prefixes");
  s = compatible(narrow_jump);
  target = {static_cast<u32>(address(wide)), UCODE64};
  s.di = reinterpret_cast<word>(&target);
  o = run(s);
  check(o.vector == END && o.s.ax == UCODE64 && o.s.bx == user_stack_top(), "a far jump to 64-bit code");
  s = user(wide_jump);
  target = {static_cast<u32>(address(narrow)), UCODE32};
  s.di = reinterpret_cast<word>(&target);
  o = run(s);
  check(o.vector == END && o.s.ax == UCODE32, "a far jump to 32-bit code");
  set_descriptor(SPARE, descriptor(0, 0xfffff, PRESENT | DPL3 | CODE, PAGES64 | BYTES32));
  target.selector = SPARE;
  faulted(run(s), GP, SPARE, "a far jump to code with L and D");
}

CODE64(old_push_es, ".byte 0x06");
CODE64(old_daa, ".byte 0x27");
CODE64(old_pusha, ".byte 0x60");
CODE64(old_call, ".byte 0x9a, 0, 0, 0, 0, 0, 0");
CODE64(old_jmp, ".byte 0xea, 0, 0, 0, 0, 0, 0");
CODE64(old_into, ".byte 0xce");
CODE64(old_aam, ".byte 0xd4, 0x0a");
CODE64(old_82, ".byte 0x82, 0xc0, 0");
void missing_instructions() {
  static constexpr struct {
    const u8* program;
    const char* what;
  } OLD[] = {{old_push_es, "PUSH ES"},  {old_daa, "DAA"},   {old_pusha, "PUSHA"}, {old_call, "CALL ptr16:32"},
             {old_jmp, "JMP ptr16:32"}, {old_into, "INTO"}, {old_aam, "AAM"},     {old_82, "82h"}};
  for (const auto& i : OLD) {
    const Outcome o = run(user(i.program));
    check(o.vector == UD && o.s.ip == address(i.program), i.what);
  }
}

// --- SYSCALL
CODE(call, "syscall\n.globl behind_call\nbehind_call: nop");
extern "C" Program behind_call;
CODE(landed, "mov %rsp, %rax\nmov %ss, %ebx\nmov %cs, %edx\npushf\npop %rsi");
CODE(back64, "sysretq");
CODE(back32, "sysretl");
CODE32(call32, "syscall");
CODE32(enter32, "sysenter");
CODE32(arrived32, "mov %esp, %eax\nmov %ss, %ebx");
CODE(swap, "swapgs");
void system_calls() {
  write_msr(EFER, read_msr(EFER) & ~u64{EFER_SCE});
  Outcome o = run(user(call));
  check(o.vector == UD && o.s.ip == address(call), "SYSCALL with EFER.SCE = 0");
  check(run(kernel(back64)).vector == UD, "SYSRET with EFER.SCE = 0");
  write_msr(EFER, read_msr(EFER) | EFER_SCE);
  write_msr(STAR, u64{UCODE32} << 48 | u64{KCODE} << 32);
  write_msr(LSTAR, address(landed));
  write_msr(SFMASK, IF | DIRECTION | CF);
  State s = user(call);
  s.flags |= IF | CF | ZF | DIRECTION;
  o = run(s);
  if (ended(o, "SYSCALL")) {
    check_equal(o.s.cx, address(behind_call), "RCX is the next RIP");
    check_equal(o.s.r11 & ~RF, s.flags, "R11 is RFLAGS");
    check_equal(o.s.si & ~RF, FLAGS | ZF, "SFMASK clears flags");
    check(o.s.dx == KCODE && o.s.bx == KDATA, "CS and SS by STAR");
    check_equal(o.s.ax, user_stack_top(), "RSP stays");
  }
  s = kernel(back64);
  s.cx = address(landed), s.r11 = FLAGS | IF | ZF | RF | VM | NT;
  o = run(s);
  if (ended(o, "SYSRET")) {
    check(o.s.cs == UCODE64 && o.s.bx == UDATA, "CS and SS of ring 3");
    check_equal(o.s.si, FLAGS | IF | ZF | NT, "RFLAGS is R11, without RF and VM");
  }
  s.ip = address(back32), s.cx = address(arrived32) | word{0x5} << 32;
  o = run(s);
  check(o.vector == END && o.s.cs == UCODE32, "SYSRET of 32 bits goes to compatibility mode");
  s = kernel(back64);
  s.cx = word{1} << 47, s.r11 = FLAGS;
  o = run(s);
  faulted(o, GP, 0, "SYSRET to a non-canonical address");
  faulted(run(user(back64)), GP, 0, "SYSRET at CPL 3");
  write_msr(CSTAR, address(landed));
  o = run(compatible(call32));
  if (is_intel())
    check_equal(o.vector, UD, "SYSCALL in compatibility mode: Intel's is #UD");
  else
    check(o.vector == END && o.s.cs == KCODE && o.s.cx == address(call32) + 2, "SYSCALL in compatibility mode: CSTAR");
  if (!is_intel()) faulted(run(compatible(enter32)), UD, 0, "SYSENTER in long mode: AMD's is #UD");
}

void swap_gs() {
  write_msr(GS_BASE, 0x1111), write_msr(KERNEL_GS_BASE, 0xffff800000002222);
  asm volatile("swapgs");
  check(read_msr(GS_BASE) == 0xffff800000002222 && read_msr(KERNEL_GS_BASE) == 0x1111, "SWAPGS");
  asm volatile("swapgs");
  faulted(run(user(swap)), GP, 0, "SWAPGS at CPL 3");
  faulted(run(compatible(narrow_swapgs)), UD, 0, "SWAPGS in compatibility mode");
  write_msr(FS_BASE, 0x123456789000);
  check_equal(read_msr(FS_BASE), 0x123456789000, "FS base of 48 bits");
  write_msr(FS_BASE, 0);
}

// --- to real mode and back. What is seen on the way is noted in `seen`.
extern "C" {
u32 seen[8];
u64 kept_rsp;
extern const u8 low_code[], low_code_end[];
void round_trip();
}
asm(R"(
.pushsection .text
.code64
.globl round_trip
round_trip:
  push %rbx
  push %rbp
  mov %rsp, kept_rsp
  pushq $0x50
  pushq $1f
  lretq
.code32
1: mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov %eax, %fs
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0
  mov $0xc0000080, %ecx
  rdmsr
  mov %eax, seen          # EFER with paging off
  and $~0x100, %eax
  wrmsr
  movl $0x32, seen + 4    # flat 32-bit mode
  lidt real_idt
  ljmp $0x58, $0x8000
2: mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov kept_rsp, %esp
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  mov $0xc0000080, %ecx
  rdmsr
  mov %eax, seen + 8      # EFER with paging on
  lidt long_idt
  ljmp $8, $3f
.code64
3: mov kept_rsp, %rsp
  pop %rbp
  pop %rbx
  ret
real_idt: .word 0x3ff
  .long 0
long_idt: .word 0xfff
  .long idt

# Copied to 8000h: 16-bit protected mode, then real mode.
.code16
.globl low_code, low_code_end
low_code:
  mov $0x60, %ax
  mov %ax, %ds
  mov %ax, %ss
  mov %cr0, %eax
  and $~1, %al
  mov %eax, %cr0
  ljmp $0x800, $(4f - low_code)
4: mov $0x7000, %sp
  xor %ax, %ax
  mov %ax, %ss
  mov %ax, %ds
  mov %ax, %es
  movl $1, 0x500
  int $0x70
  mov $0x110000, %esi
  movl %fs:(%esi), %eax   # FS still has 4 GiB
  mov %eax, 0x508
  mov $0x10000, %esi
  movl (%esi), %eax       # DS has 64 KiB: vector 13
  mov $0xffff, %si
  mov %cs, %ax
  mov %ax, 0x510
  smsw %ax
  mov %ax, 0x514
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $0x50, $2b
on_int70:
  movl $0x70, 0x504
  iret
on_gp:
  movl $13, 0x50c
  push %bp
  mov %sp, %bp
  addw $4, 2(%bp)                # behind the instruction
  pop %bp
  iret
low_code_end:
.code64
.globl on_int70_at, on_gp_at
.set on_int70_at, on_int70 - low_code
.set on_gp_at, on_gp - low_code
.popsection
)");
extern "C" u8 on_int70_at[], on_gp_at[];
void real_mode() {
  for (const u8* p = low_code; p != low_code_end; ++p) put8(0x8000 + static_cast<u64>(p - low_code), *p);
  for (u32 a = 0x500; a < 0x520; a += 4) put32(a, 0);
  put32(0x70 * 4, 0x08000000 | static_cast<u32>(reinterpret_cast<u64>(on_int70_at)));
  put32(13 * 4, 0x08000000 | static_cast<u32>(reinterpret_cast<u64>(on_gp_at)));
  asm volatile("" : : : "memory");
  round_trip();
  check_equal(seen[0] & (EFER_LME | EFER_LMA), EFER_LME, "paging off: LMA is clear, LME stays");
  check_equal(seen[1], 0x32, "flat 32-bit mode");
  check_equal(at<u32>(0x500), 1, "real mode");
  check_equal(at<u32>(0x504), 0x70, "INT through the real-mode table");
  check_equal(at<u32>(0x508), at<u32>(0x110000), "FS keeps its limit of 4 GiB in real mode");
  check_equal(at<u32>(0x50c), 13, "DS has one of 64 KiB: #GP");
  check_equal(at<u32>(0x510), 0x800, "CS");
  check_equal(at<u32>(0x514) & 1, 0, "PE is clear");
  check_equal(seen[2] & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "back in long mode");
  ended(run(user(wide)), "programs run as before");
}

constexpr Part PARTS[] = {{"compatibility", compatibility},
                          {"missing", missing_instructions},
                          {"syscall", system_calls},
                          {"swapgs", swap_gs},
                          {"real", real_mode}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
