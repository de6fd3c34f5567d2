#include "tests/cpu/soft_runner.hpp"

#include <cstring>
#include <stdexcept>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/exception.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"
#include "hypervisor/vcpu/soft/test_machine.hpp"
#include "tests/cpu/random.hpp"

namespace transom::cpu_test {

using namespace soft;

namespace {
// Guest-physical layout
constexpr u64 RAM = 0x1'0000, PML4 = 0x1000, PDPT = 0x2000, PD_DATA = 0x3000, PD_CODE = 0x4000, PT_DATA = 0x5000,
              PT_CODE = 0x6000, CODE_PAGES = 0xb000;
// Neighbours of the arena are no neighbours here.
constexpr u64 DATA_PAGE[] = {0x8000, 0xe000, 0xa000};
constexpr u64 SYSTEM = 0xffff'8000'0000'0000;
constexpr u64 P = 1, W = 2, U = 4, NX = u64{1} << 63;
constexpr u64 index_of(u64 linear, unsigned level) { return (linear >> (12 + 9 * level) & 511) * 8; }

VcpuRegisters start_registers(const Case& c) {
  VcpuRegisters r;
  std::memcpy(r.gpr, c.initial.gpr, sizeof r.gpr);
  r.rip = c.initial.rip;
  r.rflags = c.initial.rflags;
  // As Linux has it in user mode (arch/x86/include/asm/segment.h).
  if (c.mode == Mode::bits64)
    r.cs = {0x33, 0xa0fb, 0xffff'ffff, 0};
  else
    r.cs = {0x23, 0xc0fb, 0xffff'ffff, 0};
  r.ss = r.ds = r.es = {0x2b, 0xc0f3, 0xffff'ffff, 0};
  if (c.mode == Mode::bits16) {
    r.cs = {LDT_CODE, 0x00fb, CODE_SIZE - 1, CODE};
    r.ss = r.ds = r.es = {LDT_DATA, 0x40f3, DATA_SIZE - 1, DATA};
  }
  r.fs = r.gs = {0, 0, 0, 0};
  r.ldtr = {0, 0, 0, 0};
  r.tr = {0x40, 0x8b, 0x67, SYSTEM + DATA + DATA_WRITABLE}; // no I/O permission bitmap within the limit
  r.cr0 = CR0_PG | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
  r.cr3 = PML4;
  r.cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
  r.efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
  r.dr[6] = 0xffff'0ff0;
  r.dr[7] = 0x400;
  return r;
}

SoftOptions options(bool translate) {
  SoftOptions o;
  o.model = "v2";
  o.engine = translate ? translating_engine() : SoftEngine::interpret;
  o.threshold = 0;
  o.code_bytes = u64{8} << 20; // full now and then
  return o;
}

// The same code from another state: branches go other ways, operands hold other values.
Case other_state(const Case& c) {
  Case other = c;
  Random r(c.initial.gpr[soft::RAX] ^ c.code_size);
  for (unsigned n = 0; n < 16; ++n) {
    if (n != soft::RSP && r.percent(50)) other.initial.gpr[n] = c.initial.gpr[r.below(16)];
    std::swap(other.initial.fx.xmm[n], other.initial.fx.xmm[r.below(16)]);
  }
  other.initial.rflags ^= r.next() & FLAGS_ARITHMETIC;
  return other;
}
} // namespace

struct SoftRunner::Machine {
  explicit Machine(bool translate)
      : platform(RAM),
        map_memory(CodePages::bytes_for(RAM >> PAGE_SHIFT) / 8 + 1),
        code_pages(map_memory.data(), RAM >> PAGE_SHIFT),
        vcpu(platform, code_pages, options(translate)) {
    platform.record = false;
    const u64 table = P | W | U;
    put(PML4, PDPT | table);
    put(PML4 + index_of(SYSTEM, 3), PDPT | P | W); // the same pages for the supervisor
    put(PDPT + index_of(DATA, 2), PD_DATA | table);
    put(PDPT + index_of(CODE, 2), PD_CODE | table);
    put(PDPT + index_of(HIGH + DATA, 2), PD_DATA | table);
    put(PDPT + index_of(HIGH + CODE, 2), PD_CODE | table);
    put(PD_DATA + index_of(DATA, 1), PT_DATA | table);
    put(PD_CODE + index_of(CODE, 1), PT_CODE | table);
    for (u64 at = 0; at < DATA_SIZE; at += PAGE_SIZE)
      put(PT_DATA + index_of(DATA + at, 0), DATA_PAGE[at >> PAGE_SHIFT] | P | (at < DATA_WRITABLE ? W : 0) | U | NX);
    for (u64 at = 0; at < CODE_SIZE; at += PAGE_SIZE) put(PT_CODE + index_of(CODE + at, 0), (CODE_PAGES + at) | table);
    put_data(arena_pattern().data(), DATA_SIZE);
    std::memset(&platform.ram[CODE_PAGES], 0xcc, CODE_SIZE);
  }
  void put_data(const u8* data, u64 size) {
    for (u64 at = 0; at < size; at += PAGE_SIZE)
      std::memcpy(&platform.ram[DATA_PAGE[at >> PAGE_SHIFT]], data + at, PAGE_SIZE);
  }
  void put(u64 gpa, u64 value) { std::memcpy(&platform.ram[gpa], &value, 8); }

  // Blocks of the last case are dropped as after a store, unless they are this one's. One on each page stays: a page
  // that gains or loses its code costs a walk over the TLBs.
  void put_code(const Case& c) {
    BlockCache& blocks = *vcpu.cpu().blocks;
    static u8 wanted[CODE_SIZE];
    std::memset(wanted, 0xcc, CODE_SIZE);
    std::memcpy(wanted + ((c.start & ~HIGH) - CODE), c.code.data(), c.code_size);
    u8* const code = &platform.ram[CODE_PAGES];
    if (anchored_ == blocks.flushes() + 1 && std::memcmp(code, wanted, CODE_SIZE) == 0) return;
    std::memcpy(code, wanted, CODE_SIZE);
    for (u64 at = 0; at < CODE_SIZE; at += PAGE_SIZE) {
      const u64 page = (CODE_PAGES + at) >> PAGE_SHIFT;
      blocks.wrote(vcpu.cpu(), page, 0, ANCHOR);
      blocks.wrote(vcpu.cpu(), page, ANCHOR + 1, PAGE_SIZE - ANCHOR - 1);
    }
    if (anchored_ == blocks.flushes() + 1) return;
    anchored_ = blocks.flushes() + 1;
    for (u64 at = 0; at < CODE_SIZE; at += PAGE_SIZE) {
      VcpuRegisters r = start_registers(Case{});
      r.rip = CODE + at + ANCHOR;
      vcpu.set_registers(r);
      vcpu.run_to_exception();
    }
  }

  static constexpr unsigned ANCHOR = 0xf10; // no code is here
  u64 anchored_ = 0;                        // flushes + 1 when the pages last got theirs
  RecordingPlatform platform;
  std::vector<u64> map_memory;
  CodePages code_pages;
  SoftVcpu vcpu;
};

SoftRunner::SoftRunner()
    : interpreting_(std::make_unique<Machine>(false)), translating_(std::make_unique<Machine>(true)) {}
SoftRunner::~SoftRunner() = default;

void SoftRunner::run(const Case& c, Way way, Outcome& outcome) {
  if (way == Way::warm) run(other_state(c), Way::translated, outcome);
  Machine& m = way < Way::translated ? *interpreting_ : *translating_;
  m.put_code(c);
  static u8 arena[DATA_WRITABLE];
  fill_arena(c, arena);
  m.put_data(arena, DATA_WRITABLE);
  m.vcpu.set_registers(start_registers(c));
  u8 image[512];
  std::memcpy(image, &c.initial.fx, 512);
  m.vcpu.set_fpu_state(image);

  const u64 instructions = instructions_executed(m.vcpu.cpu()), translated = m.vcpu.cpu().translated.instructions;
  if (way == Way::stepped)
    m.vcpu.run_instructions(100'000, true);
  else
    m.vcpu.run_to_exception();
  // The engine that checks itself stands still after a difference.
  if (const std::string why = m.vcpu.failure(); !why.empty()) throw std::runtime_error(why);

  outcome.instructions = instructions_executed(m.vcpu.cpu()) - instructions;
  outcome.translated = m.vcpu.cpu().translated.instructions - translated;
  const VcpuRegisters r = m.vcpu.registers();
  std::memcpy(outcome.state.gpr, r.gpr, sizeof r.gpr);
  outcome.state.rip = r.rip;
  outcome.state.rflags = r.rflags;
  m.vcpu.fpu_state(image);
  std::memcpy(static_cast<void*>(&outcome.state.fx), image, 512);
  const SoftVcpu::LastEvent event = m.vcpu.last_event();
  outcome.vector = event.raised ? event.vector : HUNG;
  outcome.error = event.error;
  outcome.cr2 = r.cr2;
  // INT3 and INTO look for their gate at once; there is none, which is #GP(vector * 8 + IDT) on the instruction itself.
  if (outcome.vector == GP && (outcome.error & 2)) {
    outcome.vector = static_cast<int>(outcome.error >> 3);
    outcome.error = 0;
  }
  outcome.data.resize(DATA_WRITABLE);
  for (u64 at = 0; at < DATA_WRITABLE; at += PAGE_SIZE)
    std::memcpy(&outcome.data[at], &m.platform.ram[DATA_PAGE[at >> PAGE_SHIFT]], PAGE_SIZE);
}

} // namespace transom::cpu_test
