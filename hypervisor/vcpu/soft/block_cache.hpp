// Decoded code: blocks found by guest-physical address and mode, and a cache from linear addresses in front of it.
//
// A block is a run of instructions with one entry; taken branches leave it, a conditional branch that is not taken goes
// on inside. Blocks are never freed one by one: an invalidated block has every handler replaced by stale(), which looks
// the code up again, so whoever still links to it is safe. When the pool is full everything goes at once.
#pragma once

#include <bitset>
#include <memory>
#include <span>

#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::soft {

inline constexpr unsigned BLOCK_INSNS = 64;

void revoke_shared_writes(Cpu& cpu); // paging.hpp

struct PageLink {
  Block* block;
  PageLink* next;
};

struct Translation;

struct Block {
  u64 gpa;      // first byte
  u64 second;   // page-crossing block: gpa of the second page, else ~0
  Block* chain; // hash bucket
  PageLink pages[2];
  u64 ram[2]; // CodePages index of each page, ~0 if not RAM
  u16 mode;
  u16 bytes;
  u16 count; // instructions; record [count] may be the fall-through
  bool stale;
  u32 runs = 0;            // until it is translated
  Handler first = nullptr; // handler of the first instruction, when the record has another; null: never translated
  Translation* translation = nullptr; // the newest
  Insn* insns() { return reinterpret_cast<Insn*>(this + 1); }
};
static_assert(sizeof(Block) % alignof(Insn) == 0);

// The running block of a record: ordinals count records.
inline Block* block_of(const Insn* i) { return reinterpret_cast<Block*>(const_cast<Insn*>(i - (i->ordinal - 1))) - 1; }

struct Decoded;
// The record of an instruction in its block, which starts at physical address `start`.
void place_record(const Cpu& cpu, const Decoded& d, Insn& i, u64 start, unsigned offset, unsigned ordinal);

class BlockCache {
 public:
  explicit BlockCache(const VcpuCodePages& code_pages);

  // The block at cpu.rip under the current modes; decodes it if need be. Raises fetch faults.
  Block* find(Cpu& cpu);
  // As find(), for the linear-address cache: remembers the answer unless it depends on two pages.
  Block* find_and_remember(Cpu& cpu);

  // The fast half: null if not remembered. What is remembered is no null.
  [[gnu::always_inline]] Block* remembered(const Cpu& cpu, u64 linear) const {
    const Entry& e = entries_[slot(linear)];
    return e.key == key(linear, cpu.mode) ? e.block : nullptr;
  }

  // A store of this vCPU to RAM that may hold code. `offset` within the page; at most a page long.
  void wrote(Cpu& cpu, u64 ram_page, unsigned offset, unsigned length) {
    if (ram_page < pages_ && (code_[ram_page].granules & granules(offset, length)) != 0)
      invalidate(cpu, ram_page, offset, length);
    if (code_pages_.marked_by_others(ram_page)) cpu.platform->code_written(code_pages_.wrote(ram_page));
  }
  // Of any vCPU: a store has to come here.
  bool has_code(u64 ram_page) const {
    return ram_page < pages_ && (code_[ram_page].blocks != nullptr || code_pages_.marked_by_others(ram_page));
  }

  // The machine may have let another vCPU run meanwhile: before the next store.
  void after_exit(Cpu& cpu) {
    if (code_pages_.take_news()) revoke_shared_writes(cpu);
  }
  void harvest(Cpu& cpu);       // what others wrote, and where others have code now (CodePages)
  void flush(Cpu& cpu);         // every block; only between instructions
  void request_flush(Cpu& cpu); // at the next lookup; the running block ends after the current instruction
  void leave_block(Cpu& cpu);   // ditto, without flushing anything

  // A debugger's, linear addresses; only between instructions. A block begins and ends at every offset within a page
  // that has one, whatever maps the page there, and there is nothing in it but the way to the run loop.
  void set_breakpoints(Cpu& cpu, std::span<const u64> linear);

  void forget_all();            // linear addresses: translations changed
  void forget_local();          // ditto, global pages stay
  void forget_page(u64 linear); // one page
  void forget_region(u64 linear, unsigned bits);

  // Tests and counters.
  u64 used_bytes() const { return used_; }
  bool flush_pending() const { return flush_requested_; }
  u64 flushes() const { return flushes_; } // changes when every record dies

 private:
  struct Entry {
    u64 key;
    Block* block;
  };
  struct PageCode {
    PageLink* blocks;
    u64 granules; // one bit for 64 bytes that hold code
  };
  static constexpr u64 SLOTS = 16384, WINDOW = 256; // one page uses one window
  static constexpr u64 BUCKETS = 65536;
  static constexpr u64 POOL_BYTES = u64{32} << 20;
  static constexpr u64 NO_KEY = 0x7fff'0000'0000'0000; // no mode makes it

  // The window of a page comes from the bits of its number alone.
  static u64 slot(u64 linear) {
    const u64 folded = linear ^ linear >> 6;
    return (folded >> 4 & (SLOTS - WINDOW)) | folded % WINDOW;
  }
  // Linear addresses are canonical, so their top 16 bits are all alike and the mode can be told from them.
  static u64 key(u64 linear, u16 mode) {
    return linear ^ u64 { mode } << 48;
  }
  static u64 bucket(u64 gpa, u16 mode) { return (gpa ^ gpa >> 14 ^ u64{mode} * 0x9e5) % BUCKETS; }
  static u64 granules(unsigned offset, unsigned length) {
    const unsigned first = offset / 64, last = (offset + length - 1) / 64;
    return (~u64{0} << first) & (~u64{0} >> (63 - last));
  }

  Block* build(Cpu& cpu, u64 linear, u64 gpa, u64 ram_page, const u8* host);
  bool stops_at(const Cpu& cpu, unsigned offset) const { return !(cpu.mode & MODE_STEP) && breakpoints_[offset]; }
  void insert(Cpu& cpu, Block* block);
  void mark(u64 ram_page);
  void make_stale(Cpu& cpu, Block* block);
  void invalidate(Cpu& cpu, u64 ram_page, unsigned offset, unsigned length);

  struct Free {
    void operator()(void* p) const;
  };
  VcpuCodePages code_pages_;
  u64 pages_;
  std::unique_ptr<PageCode[], Free> code_;
  std::unique_ptr<u8[], Free> pool_;
  std::unique_ptr<Block*[], Free> buckets_;
  std::unique_ptr<Entry[], Free> entries_;
  std::unique_ptr<u16[], Free> local_; // entries_ that depend on non-global translations
  u64 locals_ = 0;
  u64 used_ = 0;
  u64 flushes_ = 0;
  bool flush_requested_ = false;
  std::bitset<PAGE_SIZE> breakpoints_; // offsets within a page
};

// Ends every taken branch: goes on at `rip`, which is already masked to the operand size.
const Insn* enter_slow(Cpu& cpu, u64 rip);
template <bool Long> // 64-bit code is known to have no base and no limit
[[gnu::always_inline]] inline const Insn* enter_at(Cpu& cpu, u64 rip) {
  if (cpu.exit_flag->load(std::memory_order_relaxed) == 0 && !cpu.leave) [[likely]] {
    u64 linear = rip;
    if (!Long && !(cpu.mode & MODE_64)) linear = static_cast<u32>(rip + cpu.code_base);
    Block* const b = cpu.blocks->remembered(cpu, linear);
    if (b != nullptr && (Long || rip + b->bytes - 1 <= cpu.code_limit)) [[likely]] {
      cpu.gpr[REG_RIP] = rip;
      return go(cpu, b->insns());
    }
  }
  return enter_slow(cpu, rip);
}

const Insn* breakpoint(Cpu& cpu, const Insn* i);   // the only record of a block at a breakpoint
const Insn* stale(Cpu& cpu, const Insn* i);        // handler of every record of an invalidated block
const Insn* fall_through(Cpu& cpu, const Insn* i); // record behind the last instruction of a block that just ends
const Insn* fall_linked(Cpu& cpu, const Insn* i);  // ditto, the following code is in the same page

} // namespace transom::soft
