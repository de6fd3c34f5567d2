// What the files of the system half share: descriptors, segment registers, stacks under construction, and their
// handlers. Nothing outside that half includes it.
//
// Every transfer works in two steps: check everything (which may raise), then commit. Only memory that the architecture
// lets an abandoned transfer change (accessed bits, stack below the stack pointer) is written in the first.
#pragma once

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

// --- error codes
// EXT (SDM 3A 6.13): the fault happened while an event that no instruction asked for was being delivered.
inline u32 ext(const Cpu& cpu) {
  const EventKind k = cpu.delivering.kind;
  return k != EventKind::none && k != EventKind::soft_int && k != EventKind::soft_exception;
}
inline u32 selector_error(const Cpu& cpu, u16 selector) { return (selector & 0xfffcu) | ext(cpu); }
[[noreturn]] inline void raise_selector(Cpu& cpu, u8 vector, u16 selector) {
  raise(cpu, vector, selector_error(cpu, selector));
}
inline bool null_selector(u16 selector) { return (selector & 0xfffc) == 0; }

// --- descriptors (descriptor.cc; SDM 3A 3.4.5 and 5.8.3, APM 2 chapter 4)
enum SystemType : u8 {
  TYPE_TSS16 = 1,
  TYPE_LDT = 2,
  TYPE_TSS16_BUSY = 3,
  TYPE_CALL16 = 4,
  TYPE_TASK_GATE = 5,
  TYPE_INTERRUPT16 = 6,
  TYPE_TRAP16 = 7,
  TYPE_TSS = 9, // 32 bits; 64 bits in long mode
  TYPE_TSS_BUSY = 11,
  TYPE_CALL = 12,
  TYPE_INTERRUPT = 14,
  TYPE_TRAP = 15,
};

struct Descriptor {
  u64 raw = 0;
  u64 high = 0; // second half of the 16-byte kinds of long mode
  u64 address = 0;

  u8 type() const { return raw >> 40 & 0xf; }
  bool system() const { return (raw >> 44 & 1) == 0; }
  u8 dpl() const { return raw >> 45 & 3; }
  bool present() const { return raw >> 47 & 1; }
  bool wide_code() const { return raw >> 53 & 1; } // L
  bool big() const { return raw >> 54 & 1; }       // D/B
  u16 attr() const { return raw >> 40 & 0xf0ff; }
  u32 limit() const {
    const u32 units = static_cast<u32>((raw & 0xffff) | (raw >> 32 & 0xf0000));
    return raw >> 55 & 1 ? units << 12 | 0xfff : units;
  }
  u64 base() const { return (raw >> 16 & 0xff'ffff) | (raw >> 32 & 0xff00'0000) | high << 32; }

  bool code() const { return !system() && (type() & 8); }
  bool conforming() const { return code() && (type() & 4); }
  bool writable_data() const { return !system() && (type() & 10) == 2; }
  bool readable() const { return !system() && (type() & 10) != 8; }

  // Gates
  u16 gate_selector() const { return raw >> 16 & 0xffff; }
  u64 gate_offset() const { return (raw & 0xffff) | (raw >> 32 & 0xffff'0000) | high << 32; }
  u8 gate_parameters() const { return raw >> 32 & 0x1f; }
  u8 gate_ist() const { return raw >> 32 & 7; }
  bool gate16() const { return !(type() & 8); }
};

// Linear addresses of descriptor tables and of the TSS.
inline u64 table_address(const Cpu& cpu, u64 linear) { return long_mode(cpu) ? linear : static_cast<u32>(linear); }

bool find_descriptor(Cpu& cpu, u16 selector, Descriptor& d);                  // false: beyond the table
Descriptor fetch_descriptor(Cpu& cpu, u16 selector, u8 vector = GP);          // raises vector(selector)
void fetch_upper_half(Cpu& cpu, u16 selector, Descriptor& d, u8 vector = GP); // ditto, if in long mode
void mark_accessed(Cpu& cpu, Descriptor& d);

// --- segment registers. These check and answer what the register would hold; set_segment() commits.
Segment make_segment(const Descriptor& d, u16 selector);
Segment flat_segment(u16 selector, u16 attr);
Segment null_segment(u16 selector);
Segment real_segment(const Cpu& cpu, unsigned index, u16 selector); // real mode and VM86
Segment vm86_segment(u16 selector);
Segment checked_segment(Cpu& cpu, unsigned index, u16 selector);         // MOV/POP to anything but CS, in any mode
Segment stack_segment(Cpu& cpu, u16 selector, unsigned cpl, u8 invalid); // SS for that CPL; `invalid`: #GP or #TS
inline void set_segment(Cpu& cpu, unsigned index, const Segment& s) {
  cpu.segment[index] = s;
  if (index == DS || index == ES) update_flat(cpu); // the others come with update_mode()
}
void drop_inner_segments(Cpu& cpu); // after a return to an outer level: data segments it may not use become null

// Raises #GP(0) if `rip` cannot be executed in code segment `d`.
void check_code_offset(Cpu& cpu, const Descriptor& d, u64 rip);
// CS:RIP and CPL, modes too.
void commit_code(Cpu& cpu, const Descriptor& d, u16 selector, unsigned cpl, u64 rip);

// --- stacks under construction
struct Stack {
  Segment ss;
  u64 rsp = 0;
  u64 mask = ~u64{0}; // of the stack pointer
  unsigned cpl = 0;
  bool wide = false; // 64-bit: no base, no limit
  u32 error = 0;     // of #SS when it does not fit

  void push(Cpu& cpu, u64 value, unsigned size);
};
Stack current_stack(const Cpu& cpu);
Stack flat_stack(const Cpu& cpu, u64 rsp, unsigned cpl); // 64-bit
// From the TSS, for an inner privilege level: raises #TS/#SS. Long mode: SS is null, see flat_stack().
Stack inner_stack(Cpu& cpu, unsigned cpl);
u64 tss64_stack(Cpu& cpu, unsigned offset);      // RSPn or ISTn at that offset
void commit_stack(Cpu& cpu, const Stack& stack); // after commit_code()

u64 peek_sized(Cpu& cpu, u64 displacement, unsigned size);

// --- flags
inline unsigned iopl(const Cpu& cpu) { return cpu.rflags >> 12 & 3; }
// All of RFLAGS, then the modes; the run loop looks at interrupts and single steps if they may be due.
void load_flags(Cpu& cpu, u64 rflags);

// --- transfers
// Goes through IDT or IVT. Raises whatever delivery raises. cpu.rip is the return address.
void interrupt(Cpu& cpu, const Event& event);

enum class TaskSource : u8 { jump, call, event, iret };
// To the task of an available TSS (iret: a busy one) descriptor; cpu.rip is the address the old task continues at.
void switch_task(Cpu& cpu, u16 selector, Descriptor tss, TaskSource source);
// Through a task gate: raises #GP, #NP.
void enter_task_gate(Cpu& cpu, const Descriptor& gate, TaskSource source);
void return_to_task(Cpu& cpu); // IRET with NT

void load_pdptrs(Cpu& cpu, u64 cr3); // PAE without long mode; raises #GP(0)
void set_cr0(Cpu& cpu, u64 value);   // with all checks

inline void require_cpl0(Cpu& cpu) {
  if (cpu.cpl != 0) raise(cpu, GP, 0);
}
inline void require_protected(Cpu& cpu) {
  if (!protected_mode(cpu)) raise(cpu, UD);
}

// m16:16, m16:32, m16:64
struct FarPointer {
  u64 offset;
  u16 selector;
};
FarPointer load_far_pointer(Cpu& cpu, const Insn& i);

// --- MSRs and CPUID
bool read_msr(Cpu& cpu, u32 msr, u64& value); // false: #GP(0)
bool write_msr(Cpu& cpu, u32 msr, u64 value);
CpuidResult cpuid(const Cpu& cpu, u32 leaf, u32 subleaf);
u64 cr4_mask(const Cpu& cpu); // bits that may be set
u64 efer_mask(const Cpu& cpu);

// --- handlers, by file
namespace op {
// segment.cc
void mov_from_sreg(Cpu&, const Insn&), mov_to_sreg(Cpu&, const Insn&);
void push_sreg(Cpu&, const Insn&), pop_sreg(Cpu&, const Insn&);
void load_far(Cpu&, const Insn&); // LES LDS LSS LFS LGS
void lar(Cpu&, const Insn&), lsl(Cpu&, const Insn&), verr(Cpu&, const Insn&), verw(Cpu&, const Insn&);
void arpl(Cpu&, const Insn&);
void sldt(Cpu&, const Insn&), str(Cpu&, const Insn&), lldt(Cpu&, const Insn&), ltr(Cpu&, const Insn&);
// far_transfer.cc, far_return.cc
void jmp_far(Cpu&, const Insn&), call_far(Cpu&, const Insn&);                   // ptr16:16/32
void jmp_far_indirect(Cpu&, const Insn&), call_far_indirect(Cpu&, const Insn&); // FF/5, FF/3
void ret_far(Cpu&, const Insn&), iret(Cpu&, const Insn&);
// deliver.cc
void int3(Cpu&, const Insn&), int_n(Cpu&, const Insn&), into(Cpu&, const Insn&), int1(Cpu&, const Insn&);
void bound(Cpu&, const Insn&);
// control.cc
void mov_from_cr(Cpu&, const Insn&), mov_to_cr(Cpu&, const Insn&);
void mov_from_dr(Cpu&, const Insn&), mov_to_dr(Cpu&, const Insn&);
void smsw(Cpu&, const Insn&), lmsw(Cpu&, const Insn&), clts(Cpu&, const Insn&);
void sgdt(Cpu&, const Insn&), sidt(Cpu&, const Insn&), lgdt(Cpu&, const Insn&), lidt(Cpu&, const Insn&);
void invlpg(Cpu&, const Insn&), invd(Cpu&, const Insn&);
// msr.cc, cpuid.cc
void rdmsr(Cpu&, const Insn&), wrmsr(Cpu&, const Insn&);
void rdtsc(Cpu&, const Insn&), rdtscp(Cpu&, const Insn&), rdpmc(Cpu&, const Insn&);
void cpuid(Cpu&, const Insn&);
// syscall.cc
void syscall(Cpu&, const Insn&), sysret(Cpu&, const Insn&), sysenter(Cpu&, const Insn&), sysexit(Cpu&, const Insn&);
void swapgs(Cpu&, const Insn&), hypercall(Cpu&, const Insn&);
} // namespace op

} // namespace transom::soft
