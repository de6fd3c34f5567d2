// Several processors: start-up by INIT and start-up IPIs, IPIs of every kind, atomics, TLB shootdown, code that another
// processor changes, and devices that all of them use.
#include "tests/guests/lib/guest.hpp"

// What an application processor runs first, copied to 8000h: from real mode straight into long mode [SDM 3A 9.8.5].
asm(R"(
  .section .rodata
  .globl ap_begin, ap_end
  .code16
ap_begin:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl 0x8f00
  mov %cr4, %eax
  or $0x20, %eax
  mov %eax, %cr4
  mov 0x8f20, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov $0x80010011, %eax
  mov %eax, %cr0
  ljmpl $8, $0x8000 + ap_long - ap_begin
  .code64
ap_long:
  mov $16, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  lidt 0x8f10
  mov $4096, %eax
  lock xadd %rax, 0x8f30
  mov %rax, %rsp
  xor %ebp, %ebp
  jmp *0x8f28
ap_end:
  .text
)");
extern "C" const u8 ap_begin[], ap_end[];

namespace {

constexpr u32 MOST = 8;
constexpr u64 LAPIC = 0xfee00000, START = 0x8000;
enum : u64 { ID = 0x20, EOI = 0xb0, LDR = 0xd0, SVR = 0xf0, ICR = 0x300, ICR_HIGH = 0x310 };
enum : u32 { FIXED = 0, NMI = 4 << 8, INIT = 5 << 8, STARTUP = 6 << 8, ASSERT = 1 << 14, LOGICAL = 1 << 11 };
enum : u32 { SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18 };

volatile u32& lapic(u64 offset) { return at<u32>(LAPIC + offset); }
u32 me() { return lapic(ID) >> 24; }
void send(u32 to, u32 what) {
  lapic(ICR_HIGH) = to << 24;
  lapic(ICR) = what | ASSERT;
}
void relax() { asm volatile("pause" : : : "memory"); }
u32 processors() {
  u32 eax = 1, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return ebx >> 16 & 0xff;
}
u32 initial_id() {
  u32 eax = 1, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return ebx >> 24;
}

// --- one job at a time for all application processors
volatile u32 starts[MOST], ids[MOST], round, finished[MOST], beats[MOST];
void (*volatile job)(u32 cpu);
u32 count;

[[noreturn]] void ap_main() {
  const u32 cpu = me();
  lapic(SVR) = 0x1ff;
  lapic(LDR) = 1u << (24 + cpu);
  ids[cpu] = initial_id();
  u32 seen = round;
  starts[cpu] = starts[cpu] + 1;
  for (;;) {
    while (round == seen) {
      beats[cpu] = beats[cpu] + 1;
      relax();
    }
    seen = round;
    job(cpu);
    finished[cpu] = seen;
  }
}
void begin(void (*work)(u32)) {
  job = work;
  asm volatile("" : : : "memory");
  round = round + 1;
}
bool all_finished() {
  for (u32 cpu = 1; cpu < count; ++cpu)
    if (finished[cpu] != round) return false;
  return true;
}
void on_all(void (*work)(u32)) { // on this one too
  begin(work);
  work(0);
  if (!wait_until(all_finished)) die("a processor did not finish its job");
}
bool started(u32 cpu, u32 times) {
  return wait_until([=] { return starts[cpu] == times; });
}

void start_all() {
  for (u64 i = 0; ap_begin + i < ap_end; ++i) at<u8>(START + i) = ap_begin[i];
  asm volatile("sgdt 0x8f00; sidt 0x8f10" : : : "memory");
  u64 cr3;
  asm volatile("mov %%cr3, %0" : "=r"(cr3));
  at<u64>(0x8f20) = cr3;
  at<u64>(0x8f28) = reinterpret_cast<u64>(ap_main);
  at<u64>(0x8f30) = 0x41000; // stacks of 4 KiB
  lapic(SVR) = 0x1ff;
  lapic(LDR) = 1u << 24;
  check_equal(me(), 0, "the bootstrap processor's APIC ID");
  send(1, STARTUP | START >> 12);
  if (!started(1, 1)) die("a processor that waits since power-on starts by a start-up IPI alone");
  for (u32 cpu = 2; cpu < count; ++cpu) {
    send(cpu, INIT);
    send(cpu, STARTUP | START >> 12);
    send(cpu, STARTUP | START >> 12); // ignored: it does not wait any more
    if (!started(cpu, 1)) die("a processor does not start");
  }
  for (u32 cpu = 1; cpu < count; ++cpu) check_equal(ids[cpu], cpu, "CPUID's APIC ID");
}

// --- atomics
volatile u64 locked, guarded, swapped;
volatile u32 lock_word;
u64 ticket;
constexpr u32 ROUNDS = 20'000;

void atomics() {
  on_all([](u32) {
    for (u32 i = 0; i < ROUNDS; ++i) {
      asm volatile("lock incq %0" : "+m"(locked) : : "memory");
      u64 one = 1;
      asm volatile("lock xadd %0, %1" : "+r"(one), "+m"(ticket) : : "memory");
    }
  });
  check_equal(locked, u64{ROUNDS} * count, "LOCK INC loses nothing");
  check_equal(ticket, u64{ROUNDS} * count, "nor does LOCK XADD");
  on_all([](u32) {
    for (u32 i = 0; i < ROUNDS / 10; ++i) {
      u32 taken = 1;
      for (;;) {
        asm volatile("xchg %0, %1" : "+r"(taken), "+m"(lock_word) : : "memory");
        if (taken == 0) break;
        relax();
      }
      guarded = guarded + 1;
      lock_word = 0;
    }
  });
  check_equal(guarded, u64{ROUNDS / 10} * count, "a lock made of XCHG excludes");
  on_all([](u32) {
    for (u32 i = 0; i < ROUNDS; ++i) {
      u64 old = swapped;
      for (u64 found = old;; old = found) {
        found = old;
        asm volatile("lock cmpxchg %2, %1" : "+a"(found), "+m"(swapped) : "r"(old + 1) : "memory");
        if (found == old) break;
      }
    }
  });
  check_equal(swapped, u64{ROUNDS} * count, "LOCK CMPXCHG says who won");
}

// --- interrupts
volatile u32 taken[MOST], nmis[MOST], at_bsp;
volatile bool go_on;
void on_ipi(Frame&) {
  const u32 cpu = me();
  taken[cpu] = taken[cpu] + 1;
  lapic(EOI) = 0;
}
bool everyone_took(u32 times, u32 first) {
  return wait_until([=] {
    for (u32 cpu = first; cpu < count; ++cpu)
      if (taken[cpu] != times) return false;
    return true;
  });
}
void interrupts() {
  handle(0x50, on_ipi);
  handle(2, [](Frame&) { nmis[me()] = nmis[me()] + 1; });
  go_on = true;
  begin([](u32) {
    while (go_on) asm volatile("sti; hlt; cli" : : : "memory");
  });
  for (u32 cpu = 1; cpu < count; ++cpu) {
    send(cpu, FIXED | 0x50);
    if (!wait_until([=] { return taken[cpu] == 1; })) die("a halted processor does not take an IPI");
  }
  send(0, OTHERS | 0x50);
  check(everyone_took(2, 1), "all but the sender");
  check_equal(taken[0], 0, "and not the sender");
  send(0, ALL | 0x50);
  enable(), disable();
  check(everyone_took(3, 1), "all");
  check_equal(taken[0], 1, "and the sender");
  send(0, SELF | 0x50);
  enable(), disable();
  check_equal(taken[0], 2, "to oneself");
  send((1u << count) - 2, LOGICAL | 0x50);
  check(everyone_took(4, 1), "by a logical destination");
  check_equal(taken[0], 2, "which leaves out who is not in it");
  send(0xff, NMI);
  check(wait_until([] {
          for (u32 cpu = 0; cpu < count; ++cpu)
            if (nmis[cpu] != 1) return false;
          return true;
        }),
        "an NMI comes everywhere, interrupts disabled or not");
  go_on = false;
  send(0, OTHERS | 0x50);
  check(wait_until(all_finished), "they go on");
  handle(0x51, [](Frame&) {
    at_bsp = at_bsp + 1;
    lapic(EOI) = 0;
  });
  begin([](u32) { send(0, FIXED | 0x51); });
  check(wait_until(all_finished), "each sends one");
  for (u32 i = 0; i < 100 && at_bsp == 0; ++i) enable(), disable();
  check(at_bsp >= 1 && at_bsp < count, "what comes before it is taken is one");
}

// --- TLB
constexpr u64 WINDOW = 0x40000000, PAGES = 0x600000;
volatile u64 answers[MOST];
volatile u32 flushed;
void shootdown() {
  open_window(WINDOW);
  for (u64 page = 0; page < 16; ++page) at<u64>(PAGES + page * 4096) = 100 + page;
  map_page(WINDOW, WINDOW, PAGES);
  handle(0x52, [](Frame&) {
    asm volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
    asm volatile("lock incl %0" : "+m"(flushed) : : "memory");
    lapic(EOI) = 0;
  });
  bool right = true;
  go_on = true;
  begin([](u32 cpu) {
    enable();
    while (go_on) answers[cpu] = at<u64>(WINDOW);
    disable();
  });
  for (u64 n = 1; n < 40; ++n) {
    map_page(WINDOW, WINDOW, PAGES + n % 16 * 4096);
    flushed = 0;
    send(0, OTHERS | 0x52);
    if (!wait_until([] { return flushed == count - 1; })) die("no answer to a shootdown");
    for (u32 cpu = 1; cpu < count; ++cpu) {
      for (u32 twice = 0; twice < 2; ++twice) { // the first may have been loaded before the flush and stored behind it
        answers[cpu] = 0;
        wait_until([=] { return answers[cpu] != 0; });
      }
      right &= answers[cpu] == 100 + n % 16;
    }
  }
  check(right, "after a shootdown nobody sees the old page");
  go_on = false;
  check(wait_until(all_finished), "all see the end");
}

// --- code
constexpr u64 CODE = 0x700000;
constexpr u32 VERSIONS = 100;
volatile u32 version, read_back[MOST], wrong;
u32 call(u64 address) { return reinterpret_cast<u32 (*)()>(address)(); }
void serialize() {
  u32 eax = 0, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
}
void write_code(u64 address, u32 value) { // mov eax, value; ret
  at<u32>(address + 1) = value;
}
void cross_modification() {
  for (u64 n = 0; n < MOST; ++n) {
    at<u8>(CODE + n * 64) = 0xb8;
    at<u8>(CODE + n * 64 + 5) = 0xc3;
  }
  version = 0;
  begin([](u32 cpu) {
    for (u32 seen = 0; seen < VERSIONS;) {
      while (version == seen) relax();
      seen = version;
      serialize();
      if (call(CODE) != seen) wrong = wrong + 1;
      read_back[cpu] = seen;
    }
  });
  for (u32 n = 1; n <= VERSIONS; ++n) {
    write_code(CODE, n);
    version = n;
    wait_until([=] {
      for (u32 cpu = 1; cpu < count; ++cpu)
        if (read_back[cpu] != n) return false;
      return true;
    });
  }
  check(wait_until(all_finished), "all executed every version");
  check_equal(wrong, 0, "and never an old one");
  // Each changes its own code, all in one page, while the others execute theirs.
  on_all([](u32 cpu) {
    const u64 mine = CODE + cpu * 64;
    for (u32 n = 0; n < 2000; ++n) {
      write_code(mine, n ^ cpu);
      if (call(mine) != (n ^ cpu)) wrong = wrong + 1;
    }
  });
  check_equal(wrong, 0, "neighbours in a page do not disturb each other");
}

// --- devices, and a processor that starts again
volatile u32 misread;
void devices() {
  out8(0x21, 0xa5);
  on_all([](u32) {
    for (u32 i = 0; i < 500; ++i)
      if (in8(0x21) != 0xa5) misread = misread + 1;
  });
  check_equal(misread, 0, "each processor gets the answer to its own question");
  out8(0x21, 0xff);
}

void restart() {
  const u32 last = count - 1;
  wait_until([=] { return beats[last] > 1000; });
  send(last, INIT);
  const u32 then = beats[last];
  for (u32 i = 0; i < 10'000; ++i) relax();
  check(beats[last] - then < 3, "INIT stops a processor");
  check_equal(starts[last], 1, "which waits");
  send(last, STARTUP | START >> 12);
  check(started(last, 2), "and starts again");
  on_all([](u32) {});
}

} // namespace

// The board is reset while all processors run; they must wait for start-up IPIs again.
constexpr u8 CMOS_CELL = 0x50; // kept over a reset
u8 cmos() { return out8(0x70, CMOS_CELL), in8(0x71); }
void board_reset() {
  if (cmos() == 0x5a) {
    out8(0x70, CMOS_CELL), out8(0x71, 0);
    for (u32 i = 0; i < 10'000; ++i) relax();
    for (u32 cpu = 1; cpu < count; ++cpu) check_equal(beats[cpu], 0, "a reset stops a processor");
    return;
  }
  start_all();
  begin([](u32) {
    for (;;) asm volatile("lock incq %0" : "+m"(locked) : : "memory");
  });
  out8(0x70, CMOS_CELL), out8(0x71, 0x5a);
  out8(0x64, 0xfe);
  for (;;) relax();
}

void guest_main() {
  count = processors();
  if (count < 2 || count > MOST) die("this guest wants 2 to 8 processors");
  board_reset();
  start_all();
  atomics();
  interrupts();
  shootdown();
  cross_modification();
  devices();
  restart();
}
