// What a virtual CPU is to the rest of the hypervisor, whichever backend runs it (software or KVM).
//
// A vCPU runs guest code until something needs the machine around it. That something is a call on VcpuPlatform, in
// the vocabulary of VM exits: pio, mmio, hypercall, msr, interrupt acknowledge, shutdown. All calls come on the vCPU's
// own thread, at an instruction boundary or inside the access of the current instruction.
//
// A Vcpu's functions belong to its thread too, except where noted; while all vCPUs stand (hypervisor/standstill.hpp)
// whoever made them stand may call them.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "core/code_pages.hpp"
#include "core/types.hpp"

namespace transom {

// How a page of guest-physical space is reached without an exit.
struct PhysPage {
  u8* read = nullptr;     // host address of the page's first byte; null: reads go to mmio_read
  u8* write = nullptr;    // null: writes go to mmio_write (ROM, write-protected shadow RAM, devices)
  u64 ram_page = ~u64{0}; // index into CodePages for RAM; ~0 for ROM and devices
};

struct CpuidResult {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// A run of REP INS/OUTS within one guest page. `gpa` is where the data goes to or comes from.
struct PioRun {
  u16 port;
  u8 width;      // 1, 2 or 4 bytes an element
  bool in;       // true: INS
  bool backward; // DF was set: element n lies at gpa - n * width
  u32 count;     // elements, at least 1; all of them within one page
  u64 gpa;
};

class VcpuPlatform {
 public:
  virtual ~VcpuPlatform() = default;

  virtual u32 pio_read(u16 port, u32 width) = 0;
  virtual void pio_write(u16 port, u32 width, u32 value) = 0;
  virtual void pio_run(const PioRun& run) = 0;
  virtual u64 mmio_read(u64 gpa, u32 width) = 0; // width 1, 2, 4 or 8; never crosses a page
  virtual void mmio_write(u64 gpa, u32 width, u64 value) = 0;

  // The guest-physical page map. The vCPU caches answers; whoever changes the map calls Vcpu::memory_map_changed().
  virtual PhysPage page(u64 gpa) = 0;

  // Local APIC, seen from the core. interrupt_pending() may be called on every block head after a kick; acknowledge
  // answers the vector to inject (from LAPIC or, by INTA, from the PIC), or -1 when the request went away and nothing
  // is to be injected. It is called only when the core takes the interrupt now (IF = 1, no shadow).
  virtual bool interrupt_pending() = 0;
  virtual int interrupt_acknowledge() = 0;
  virtual bool nmi_take() = 0; // true once for each NMI
  virtual u8 cr8_read() = 0;   // task priority, bits 7:4 of TPR
  virtual void cr8_write(u8 value) = 0;
  virtual u64 apic_base_read() = 0;                  // MSR 1Bh
  virtual bool apic_base_write(u64 value) = 0;       // false: #GP(0)
  virtual bool x2apic_read(u32 msr, u64& value) = 0; // MSR 800h–8FFh and 6E0h; false: #GP(0)
  virtual bool x2apic_write(u32 msr, u64 value) = 0;

  // Only where the backend has local APICs of its own: EOI of a level-triggered interrupt.
  virtual void interrupt_ended(u8 /*vector*/) {}

  virtual u64 tsc() = 0; // derived from the domain clock
  virtual bool tsc_write(u64 value) = 0;
  // VMCALL/VMMCALL: arguments as in Xen's 64-bit (rdi rsi rdx r10 r8 r9) or 32-bit (ebx ecx edx esi edi ebp) calling
  // convention; the answer goes to rax.
  virtual u64 hypercall(u64 number, const u64 (&args)[6], bool long_mode) = 0;
  // What the local APIC adds to CPUID leaf 1: bits of ECX (21 x2APIC, 24 TSC deadline), the initial APIC ID.
  virtual u32 apic_features() { return 0; }
  virtual u8 apic_id() { return 0; }
  virtual u32 processors() { return 1; } // of the domain; CPUID shows them as the cores of one package
  // CPUID leaves 40000000h–4000FFFFh and MSRs 40000000h–400002FFh (write only), for a hypervisor interface of the
  // platform's own, such as Xen's. False: the CPU's own signature, #GP(0).
  virtual bool hypervisor_cpuid(u32 /*leaf*/, u32 /*subleaf*/, CpuidResult& /*result*/) { return false; }
  virtual bool hypervisor_msr_write(u32 /*msr*/, u64 /*value*/) { return false; }
  virtual u64 a20_mask() = 0; // ~0, or all ones but bit 20

  // PAUSE: the guest waits for another processor, which may be waiting for this one's turn.
  virtual void pause() {}
  // This vCPU stored to pages where the vCPUs of `mask` have decoded code (CodePages): they are to look before they go
  // on.
  virtual void code_written(u32 /*mask*/) {}
};

enum class RunResult : u8 {
  exited,   // request_exit() was seen
  halted,   // HLT, and nothing is pending; call run() again once it is
  shutdown, // triple fault
  debug,    // a breakpoint of DebugControl is next, or its single step is done
  failed,   // the backend cannot go on; failure() says why
};

// What a debugger asks of a vCPU. Linear addresses; nothing of it is visible to the guest.
struct DebugControl {
  std::vector<u64> breakpoints; // run() stops before the instruction at each
  bool step = false;            // run() stops after one instruction (or after the delivery of its exception)
};

// Counters that `transom info` shows; written by the vCPU thread only, read by anyone.
struct VcpuCounters {
  std::atomic<u64> instructions{0};
  std::atomic<u64> translated{0}; // of those, the ones that ran as translated code
  std::atomic<u64> exceptions{0};
  std::atomic<u64> interrupts{0};
  std::atomic<u64> tlb_misses{0};
  std::atomic<u64> blocks_decoded{0};
  std::atomic<u64> blocks_invalidated{0};
  std::atomic<u64> halts{0};
};

// Architectural state for direct boot, the debugger and tests. Segment `limit` is in bytes, `attr` as in the
// descriptor's bytes 5–6 (access byte | (G D/B L AVL) << 12).
struct SegmentRegister {
  u16 selector = 0;
  u16 attr = 0;
  u32 limit = 0xffff;
  u64 base = 0;
};
struct DescriptorTable {
  u64 base = 0;
  u16 limit = 0;
};
struct VcpuRegisters {
  u64 gpr[16] = {}; // rax rcx rdx rbx rsp rbp rsi rdi r8…r15
  u64 rip = 0, rflags = 2;
  u64 cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
  SegmentRegister es, cs, ss, ds, fs, gs, ldtr, tr;
  DescriptorTable gdtr, idtr;
  u64 dr[8] = {};
  u64 kernel_gs_base = 0; // MSR C0000102h
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  virtual RunResult run() = 0;
  virtual void reset() = 0;            // power-on state: CS F000:FFF0 with base FFFF0000
  virtual void init() = 0;             // INIT#: as reset(), but caches, TSC, MSRs and the FPU stay [SDM 3A table 9-1]
  virtual void startup(u8 vector) = 0; // after init(): a start-up IPI lets it begin at vector:0000, real mode
  virtual VcpuRegisters registers() const = 0;
  virtual void set_registers(const VcpuRegisters& r) = 0;
  virtual void fpu_state(u8 (&image)[512]) const = 0; // FXSAVE image, 64-bit layout
  virtual void set_fpu_state(const u8 (&image)[512]) = 0;
  virtual void memory_map_changed() = 0; // PAM, A20, BAR or ROM mapping changed; drop cached translations
  virtual const VcpuCounters& counters() const = 0;

  virtual std::string failure() const { return {}; }

  // A debugger's: from now on; and where a linear address leads now, without a trace in the page tables.
  virtual void set_debug(const DebugControl& control) = 0;
  virtual std::optional<u64> physical(u64 linear) const = 0;
  // Breakpoints that set_debug() takes; of a longer list only the first count.
  virtual u32 breakpoint_limit() const { return ~u32{0}; }

  // Any thread, any process that maps the flag: set bits to be seen at the next block. run() clears what it saw.
  static constexpr u32 LOOK = 1;  // look at interrupts, NMIs and written code pages, then go on
  static constexpr u32 LEAVE = 2; // return from run() with RunResult::exited
  virtual std::atomic<u32>& exit_flag() = 0;
  // Any thread of this process, after a bit was set: makes run() see it soon. Not needed where run() looks by itself.
  virtual void kick() {}
};

} // namespace transom
