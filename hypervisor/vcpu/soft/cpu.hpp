// The state of one software CPU.
#pragma once

#include <atomic>
#include <setjmp.h>

#include "core/code_pages.hpp"
#include "core/types.hpp"
#include "hypervisor/vcpu/soft/insn.hpp"
#include "hypervisor/vcpu/soft/jit/state.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::soft {

// RFLAGS
inline constexpr u64 FLAG_CF = 1, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7;
inline constexpr u64 FLAG_TF = 1 << 8, FLAG_IF = 1 << 9, FLAG_DF = 1 << 10, FLAG_OF = 1 << 11;
inline constexpr u64 FLAG_IOPL = 3 << 12, FLAG_NT = 1 << 14, FLAG_RF = 1 << 16, FLAG_VM = 1 << 17, FLAG_AC = 1 << 18;
inline constexpr u64 FLAG_VIF = 1 << 19, FLAG_VIP = 1 << 20, FLAG_ID = 1 << 21;
inline constexpr u64 FLAGS_ARITHMETIC = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF;
inline constexpr u64 FLAGS_DEFINED = 0x3f'7fd5; // every bit that can be set, without the fixed bit 1

// CR0, CR4, EFER
inline constexpr u64 CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_ET = 16, CR0_NE = 32, CR0_WP = 1 << 16;
inline constexpr u64 CR0_AM = 1 << 18, CR0_NW = 1 << 29, CR0_CD = 1 << 30, CR0_PG = u64{1} << 31;
inline constexpr u64 CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16, CR4_PAE = 32, CR4_MCE = 64;
inline constexpr u64 CR4_PGE = 128, CR4_PCE = 256, CR4_OSFXSR = 512, CR4_OSXMMEXCPT = 1024;
inline constexpr u64 EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11;

// Descriptor attributes as kept in Segment::attr: access byte | (G D/B L AVL) << 12.
inline constexpr u16 ATTR_TYPE = 0x0f, ATTR_S = 0x10, ATTR_DPL = 0x60, ATTR_P = 0x80;
inline constexpr u16 ATTR_AVL = 0x1000, ATTR_L = 0x2000, ATTR_DB = 0x4000, ATTR_G = 0x8000;

// A segment register with its descriptor cache. Whoever changes limit, attr or base calls refresh().
struct Segment {
  u64 base = 0;
  u32 limit = 0xffff; // in bytes
  u16 selector = 0;
  u16 attr = 0;
  // Derived: offsets in [first, last] may be accessed; readable/writable by type; unusable segments allow nothing.
  u32 first = 0, last = 0xffff;
  bool readable = true, writable = true;
  bool flat = false; // base 0, all 4 GiB allowed: no check needed beyond the type

  u8 dpl() const { return (attr >> 5) & 3; }
  bool present() const { return (attr & ATTR_P) != 0; }
  void refresh();
};

// The FXSAVE image (64-bit layout, Intel SDM volume 2 FXSAVE table).
struct alignas(16) Fx {
  u16 fcw = 0x0040, fsw = 0;    // power-on values (SDM 3A table 9-1)
  u8 ftw = 0xff, reserved0 = 0; // abridged: bit set = register not empty
  u16 fop = 0;
  u64 fip = 0;
  u64 fdp = 0;
  u32 mxcsr = 0x1f80, mxcsr_mask = 0xffff;
  u8 st[8][16] = {}; // ST(0)…ST(7), 80 bits each
  alignas(16) u8 xmm[16][16] = {};
  u8 reserved1[96] = {};
};
static_assert(sizeof(Fx) == 512);

// What the core is about to deliver.
enum class EventKind : u8 {
  none,
  fault,          // exception, RIP of the instruction is pushed
  trap,           // exception after the instruction (#DB single step, data breakpoint)
  soft_int,       // INT n: DPL checked, benign for the double-fault matrix
  soft_exception, // INT3, INTO: DPL checked, benign
  icebp,          // F1: #DB without DPL check
  external,
  nmi,
};
struct Event {
  EventKind kind = EventKind::none;
  u8 vector = 0;
  bool has_error = false;
  u32 error = 0;
};

// Translations, direct-mapped by bits 12 and up of the linear address. A tag is the linear page address, or a page with
// another index (never equal). `tag <= linear <= tag + 4096 - size` in one unsigned compare means: do it on the host.
inline constexpr u64 TLB_ENTRIES = 2048;
struct TlbEntry {
  u64 read, write;
  u64 host;   // host address of the page
  u64 addend; // the same − linear address
};
// Cold half of the entry: the walk's answer, also for pages that are never direct (devices, code pages).
struct TlbInfo {
  u64 page;     // linear page address
  u64 gpa;      // guest-physical page address
  u64 ram_page; // CodePages index, ~0 if not RAM
  bool valid, writable /* D set and allowed */, executable, global;
  u8* host_read;
  u8* host_write;
};
struct Tlb {
  TlbEntry entry[TLB_ENTRIES];
  TlbInfo info[TLB_ENTRIES];
  u16 local[TLB_ENTRIES]; // entries filled with non-global translations since the last flush
  u32 locals;
};

inline constexpr unsigned PHYSICAL_BITS = 40; // width of guest-physical addresses; what CPUID 8000_0008h shows
inline constexpr u64 PHYS_ENTRIES = 256;
struct PhysEntry {
  u64 gpa = ~u64{0};
  PhysPage page;
};

// Mode bits: part of every block's key. update_mode() recomputes them from the architectural state.
enum ModeBits : u16 {
  MODE_64 = 1,        // 64-bit code segment in long mode
  MODE_LONG = 2,      // EFER.LMA
  MODE_CODE32 = 4,    // CS.D
  MODE_STACK32 = 8,   // SS.B
  MODE_USER = 16,     // CPL 3
  MODE_PE = 32,       // protected mode
  MODE_VM = 64,       // virtual 8086
  MODE_FLAT_CS = 128, // CS allows all 4 GiB (or 64-bit mode): no limit checks on branches
  MODE_STEP = 256,    // one instruction a block: TF, instruction breakpoints, interrupt shadows, run_instructions()
  MODE_FLAT = 512,    // 32-bit protected mode, where CS, SS, DS and ES have no base and allow all 4 GiB
  MODE_ALIGN = 1024,  // alignment is checked
};

// Where stores went that took the slow path, for who wants to know.
struct StoreLog {
  struct Entry {
    const u8* at; // in the host
    u32 width;
  };
  Entry entry[128];
  u32 count = 0;
  void add(const u8* at, u32 width) {
    if (count < 128) entry[count++] = {at, width};
  }
};

class BlockCache;
class Translator;
struct Model; // what CPUID shows; cpuid.cc
struct Cpu;

// The way out of the CPU. Code behind it computes under the host's own floating-point control words: whoever goes there
// puts them back first.
class Platform {
 public:
  explicit Platform(Cpu& cpu) : cpu_(cpu) {}
  Platform(const Platform&) = delete;
  void operator=(VcpuPlatform* platform) { platform_ = platform; }
  VcpuPlatform* operator->() const;
  u64 tsc() const; // of the platform; nothing else changes by it

 private:
  Cpu& cpu_;
  VcpuPlatform* platform_ = nullptr;
};

// Which of the guest's floating-point control words the host's registers hold.
enum FpLoaded : u8 {
  LOADED_MXCSR = 1, // its flags are collected there; Fx::mxcsr lacks those since
  LOADED_FCW = 2,   // the host's x87 stack is empty, and its flags are some of the guest's
};

enum Leave : u8 {
  LEAVE_ASKED = 1,    // by an instruction
  LEAVE_CONFINED = 2, // by translated code that has a handler run a part of a block
};

struct Cpu {
  // --- hot: general registers, then REG_ZERO and REG_RIP
  u64 gpr[18] = {};
  const Insn* current = nullptr; // the instruction being executed, for faults; null between instructions
  TlbEntry* tlb = nullptr;       // translations for the current privilege
  std::atomic<u32>* exit_flag = nullptr;
  u16 flags = 0; // arithmetic flags as LAHF;SETO AL leave them in AX: SF ZF 0 AF 0 PF 1 CF in 15:8, OF in 0
  u16 mode = 0;  // ModeBits
  u8 cpl = 0;
  bool interrupt_shadow = false; // STI, MOV SS, POP SS: no interrupt before the next instruction is done
  bool debug_shadow = false;     // with it, of MOV SS and POP SS: no debug trap either
  u8 leave = 0;                  // Leave: the dispatcher is to return to the run loop at the next lookup
  bool quiet = false; // the last look found nothing that waits for IF, and nothing was asked of the platform since:
                      // what comes later raises the exit flag
  bool nmi_blocked = false; // from NMI delivery to the next IRET
  bool halted = false;
  bool at_breakpoint = false; // a block stopped where a debugger may have a breakpoint: the run loop looks
  bool shutdown = false;      // triple fault
  u8 fp_loaded = 0;           // FpLoaded
  bool sse_allowed = false;   // derived: by CR0.EM, CR0.TS and CR4.OSFXSR
  u32 tlb_generation = 0;     // changes when a translation is taken back, or the right to store through one
  u64 rflags = 2;             // everything but the arithmetic flags (bits of FLAGS_ARITHMETIC are stale here)
  u64 rip = 0xfff0;           // valid between instructions, and inside handlers that end a block (see exception.hpp)
  u64 instructions = 0;       // executed by handlers; Cpu::translated has the others
  TranslatedState translated;

  Segment segment[SEGMENTS];
  Segment ldtr, tr;
  DescriptorTable gdtr{0, 0xffff}, idtr{0, 0xffff};
  u64 cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0;
  u64 pdptr[4] = {}; // PAE without long mode: loaded by MOV CR3
  u64 efer = 0;
  u64 dr[8] = {0, 0, 0, 0, 0, 0, 0xffff'0ff0, 0x400};
  u64 star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0, tsc_aux = 0;
  u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  u64 pat = 0x0007'0406'0007'0406;
  u64 mtrr_def_type = 0, mtrr_fixed[11] = {}, mtrr_variable[16] = {};

  // The only home of x87/MMX/SSE state: an image but for `st`, which is by physical register here, whatever TOP is.
  // fxsave_image() and set_fxsave_image() convert.
  Fx fx;

  // --- events
  Event event;           // raised, not yet delivered
  Event delivering;      // being delivered: a second exception meets the double-fault matrix (SDM 3A 6.15, table 6-5)
  u64 pending_debug = 0; // DR6 bits of traps to raise after this instruction
  jmp_buf fault_env;

  // --- surroundings
  Platform platform{*this};
  BlockCache* blocks = nullptr;
  Translator* translator = nullptr; // null: everything is interpreted
  const Model* model = nullptr;
  StoreLog* store_log = nullptr;
  u64 a20_mask = ~u64{0};
  u64 code_base = 0;       // linear − RIP; 0 in 64-bit mode
  u64 code_limit = 0xffff; // highest RIP that may be fetched; all ones in 64-bit mode
  VcpuCounters counters;

  alignas(16) u8 bounce[16] = {}; // accesses that cross a page or reach a device
  Tlb tlbs[2];                    // 0: supervisor (also implicit accesses of the core), 1: user
  PhysEntry phys[PHYS_ENTRIES];   // platform->page(), remembered
  u64 large_pages[64] = {};       // hashed 2 MiB regions that large-page translations were taken from, for INVLPG
  TlbEntry slow_tlb[TLB_ENTRIES]; // never hits: in force while alignment checks or data breakpoints watch every access
  CodeTags code_tags[2];          // by privilege, as tlbs
  JumpEntry jumps[JUMP_ENTRIES];
};

// Instructions executed, however.
inline u64 instructions_executed(const Cpu& cpu) { return cpu.instructions + cpu.translated.instructions; }

// Puts the host's control words back, and the flags that the guest's instructions have raised into Fx::mxcsr.
void unload_fp_now(Cpu& cpu);
inline void unload_fp(Cpu& cpu) {
  if (cpu.fp_loaded != 0) unload_fp_now(cpu);
}
inline VcpuPlatform* Platform::operator->() const {
  unload_fp(cpu_);
  cpu_.quiet = false;
  return platform_;
}
inline u64 Platform::tsc() const {
  unload_fp(cpu_);
  return platform_->tsc();
}

// --- flags
inline u64 get_flags(const Cpu& cpu) {
  return (cpu.rflags & ~FLAGS_ARITHMETIC) | ((cpu.flags >> 8) & 0xd5) | (u64{cpu.flags & 1u} << 11) | 2;
}
inline void set_arithmetic_flags(Cpu& cpu, u64 rflags) {
  cpu.flags = static_cast<u16>(((rflags & 0xd5) << 8) | 0x200 | ((rflags >> 11) & 1));
}
// All of RFLAGS as given (no privilege rules). Call update_mode() afterwards when TF, VM or AC may have changed.
inline void set_flags(Cpu& cpu, u64 rflags) {
  set_arithmetic_flags(cpu, rflags);
  cpu.rflags = (rflags & FLAGS_DEFINED) | 2;
}

// --- modes
inline bool long_mode(const Cpu& cpu) { return (cpu.mode & MODE_LONG) != 0; } // IA-32e, either sub-mode
inline bool code64(const Cpu& cpu) { return (cpu.mode & MODE_64) != 0; }
inline bool protected_mode(const Cpu& cpu) { return (cpu.mode & (MODE_PE | MODE_VM)) == MODE_PE; } // not VM86
inline bool real_mode(const Cpu& cpu) { return (cpu.mode & MODE_PE) == 0; }
inline bool vm86(const Cpu& cpu) { return (cpu.mode & MODE_VM) != 0; }
inline bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }

// After any change of CS, SS, CPL, CR0, CR4, EFER, DR7 or RFLAGS.{TF,VM,AC}: recomputes mode bits and the TLB in force.
void update_mode(Cpu& cpu);
void update_flat(Cpu& cpu); // its MODE_FLAT alone: after a change of DS or ES

// --- registers at an operand size. 32-bit writes clear the upper half. u8: `n` is a byte offset (see Insn::reg).
template <class T>
[[gnu::always_inline]] inline T reg(const Cpu& cpu, unsigned n) {
  if constexpr (sizeof(T) == 1) return reinterpret_cast<const u8*>(cpu.gpr)[n];
  return static_cast<T>(cpu.gpr[n]);
}
template <class T>
[[gnu::always_inline]] inline void set_reg(Cpu& cpu, unsigned n, T value) {
  if constexpr (sizeof(T) == 1)
    reinterpret_cast<u8*>(cpu.gpr)[n] = value;
  else if constexpr (sizeof(T) == 2)
    __builtin_memcpy(&cpu.gpr[n], &value, 2);
  else
    cpu.gpr[n] = value;
}
enum GprIndex : u8 { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

} // namespace transom::soft
