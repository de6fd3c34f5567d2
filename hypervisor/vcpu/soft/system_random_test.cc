// Hostile guests: random descriptors, gates, task states and stacks, and instructions that go through them. Nothing may
// crash, hang or leave the CPU in a state that the architecture does not have.
#include <random>

#include "hypervisor/vcpu/soft/system_bench.hpp"

namespace transom::soft {
namespace {

using Bench = SystemBench;
constexpr u32 TARGET = 0x1'4000;

const std::vector<std::vector<u8>> INSTRUCTIONS = {
    {0xcd, 0x80},
    {0xcc},
    {0xcf},
    {0x48, 0xcf},
    {0xcb},
    {0xca, 4, 0},
    {0x0f, 0x05},
    {0x0f, 0x07},
    {0x48, 0x0f, 0x07},
    {0x0f, 0x34},
    {0x0f, 0x35},
    {0x0f, 0x01, 0xf8},
    {0x8e, 0xd8},
    {0x8e, 0xd0},
    {0x8e, 0xe0},
    {0x0f, 0x00, 0xd0},
    {0x0f, 0x00, 0xd8},
    {0x0f, 0x02, 0xd8},
    {0x0f, 0x03, 0xd8},
    {0x17},
    {0x1f},
    {0x0f, 0xa1},
    {0x0f, 0x22, 0xc0},
    {0x0f, 0x22, 0xe0},
    {0x0f, 0x22, 0xd8},
    {0x0f, 0x30},
    {0x0f, 0x32},
    {0x0f, 0x23, 0xf8},
    {0x0f, 0x01, 0xf0},
    {0xf1},
    {0xce},
    {0x0f, 0x0b},
    {0x9d},
    {0xfb},
    {0xec},
    {0x50},
    {0x58},
    {0x63, 0xd8},
    {0xf4},
    {0xff, 0x1c, 0x25, 0, 0x50, 0, 0}, // call far [0x5000], 64-bit encoding
    {0xff, 0x2c, 0x25, 0, 0x50, 0, 0}, // jmp far
    {0xff, 0x1d, 0, 0x50, 0, 0},       // ditto, 32-bit encoding
    {0xff, 0x2d, 0, 0x50, 0, 0},
    {0xc5, 0x1d, 0, 0x50, 0, 0},       // lds
    {0x0f, 0xb2, 0x1d, 0, 0x50, 0, 0}, // lss
    {0x0f, 0x01, 0x15, 0, 0x50, 0, 0}, // lgdt
    {0x0f, 0x01, 0x1d, 0, 0x50, 0, 0}, // lidt
};

struct Case {
  Bench b;
  std::mt19937_64 random;

  explicit Case(u64 seed) : random(seed) {}

  u64 below(u64 n) { return random() % n; }
  bool one_in(u64 n) { return below(n) == 0; }
  u16 selector() {
    if (one_in(8)) return static_cast<u16>(random());
    return static_cast<u16>(below(24) * 8 | below(4) | (one_in(10) ? 4 : 0));
  }
  u32 target() { return one_in(4) ? static_cast<u32>(random()) : TARGET; }
  u64 any_gate() { return gate(selector(), target(), static_cast<u8>(0x80 | below(128)), static_cast<u8>(below(32))); }
  u64 any_descriptor() {
    if (one_in(3)) return any_gate();
    const u8 access = static_cast<u8>(one_in(8) ? random() : random() | 0x80);
    const u32 base = one_in(4) ? static_cast<u32>(random()) : 0;
    const u32 limit = one_in(4) ? static_cast<u32>(below(0x1'0000)) : 0xf'ffff;
    return descriptor(base, limit, access, one_in(2) ? 0xc : random() & 15);
  }

  void mode() {
    switch (below(5)) {
      case 0: return b.real_mode();
      case 1: return b.protected_mode_32(one_in(2) ? 3 : 0);
      case 2: return b.vm86_mode(static_cast<unsigned>(below(4)));
      default: return b.long_mode_64(one_in(2) ? 3 : 0);
    }
  }
  void tables() {
    for (u64 n = below(12); n > 0; --n) b.put64(Bench::GDT + below(24) * 8, any_descriptor());
    for (u64 n = below(12); n > 0; --n) b.put64(Bench::IDT + below(64) * 8, any_gate());
    for (u64 n = below(6); n > 0; --n)
      b.put16(Bench::TSS + below(0x34) * 2, one_in(2) ? selector() : static_cast<u16>(random()));
    for (const u32 stack : {Bench::STACK, Bench::USER_STACK})
      for (u32 n = 0; n < 12; ++n) b.put32(stack + 4 * n, one_in(2) ? selector() : TARGET);
    b.put64(0x5000, one_in(2) ? random() : TARGET | u64{selector()} << 32);
  }
  void registers() {
    Cpu& c = b.cpu;
    for (unsigned n = 0; n < 16; ++n)
      if (n != RSP) c.gpr[n] = one_in(2) ? selector() : random();
    if (one_in(3)) c.gpr[RCX] = 0xc000'0080 + below(0x90); // an MSR
    if (one_in(3)) set_flags(c, (random() & 0x25'7fd5) | (c.rflags & FLAG_VM) | 2);
    if (one_in(4)) c.cr0 |= CR0_AM;
    if (one_in(6)) c.gpr[RSP] += below(16);
    if (one_in(6)) c.dr[7] |= random() & 0xffff;
    c.star = random();
    c.lstar = c.cstar = TARGET;
    c.sysenter_cs = selector();
    flush_tlb(c);
    update_mode(c);
    if (one_in(6)) c.event = {one_in(2) ? EventKind::external : EventKind::nmi, static_cast<u8>(random()), false, 0};
  }
  void instructions(u32 at, unsigned count) {
    for (; count > 0; --count)
      for (const u8 byte : INSTRUCTIONS[below(INSTRUCTIONS.size())]) b.put8(at++, byte);
  }

  void run() {
    mode();
    tables();
    registers();
    instructions(Bench::CODE, 6);
    instructions(TARGET, 4);
    b.vcpu.run_instructions(40);
  }
};

void expect_sane(const Cpu& c, u64 seed) {
  const Segment& cs = c.segment[CS];
  EXPECT_TRUE(c.shutdown || c.delivering.kind == EventKind::none) << seed;
  EXPECT_EQ((c.efer & EFER_LMA) != 0, (c.cr0 & CR0_PG) && (c.efer & EFER_LME)) << seed;
  EXPECT_TRUE(!(c.cr0 & CR0_PG) || (c.cr0 & CR0_PE)) << seed;
  EXPECT_EQ(c.cr4 & ~cr4_mask(c), 0u) << seed;
  EXPECT_TRUE(!vm86(c) || c.cpl == 3) << seed;
  if (!protected_mode(c) || !cs.present() || (cs.attr & 0x18) != 0x18) return; // CS of an unfinished task switch
  EXPECT_EQ(cs.selector & 3, c.cpl) << seed;
  const bool conforming = cs.attr & 4;
  EXPECT_TRUE(conforming ? cs.dpl() <= c.cpl : cs.dpl() == c.cpl) << seed;
}

TEST(RandomTables, LeaveNoStateThatTheArchitectureDoesNotHave) {
  unsigned ends[3] = {};
  for (u64 seed = 0; seed < 3000; ++seed) {
    Case c(seed);
    c.run();
    expect_sane(c.b.cpu, seed);
    ++ends[c.b.cpu.shutdown ? 0 : c.b.cpu.halted ? 1 : 2];
  }
  for (const unsigned n : ends) EXPECT_GT(n, 100u) << "the cases are not what they were meant to be";
}

} // namespace
} // namespace transom::soft
