#include "hypervisor/vcpu/soft/block_cache.hpp"

#include <new>
#include <sys/mman.h>

#include "hypervisor/vcpu/soft/decode.hpp"
#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

namespace {

constexpr u64 NONE = ~u64{0};

// Zeroed, and touched only where it is used. The length lies in front, for unmapping.
void* reserve(u64 bytes) {
  void* const p =
      mmap(nullptr, bytes + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  *static_cast<u64*>(p) = bytes + PAGE_SIZE;
  return static_cast<u8*>(p) + PAGE_SIZE;
}

void bump(std::atomic<u64>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

} // namespace

void BlockCache::Free::operator()(void* p) const {
  u8* const start = static_cast<u8*>(p) - PAGE_SIZE;
  munmap(start, *reinterpret_cast<u64*>(start));
}

BlockCache::BlockCache(const VcpuCodePages& code_pages)
    : code_pages_(code_pages),
      pages_(code_pages.pages()),
      code_(static_cast<PageCode*>(reserve((pages_ + 1) * sizeof(PageCode)))),
      pool_(static_cast<u8*>(reserve(POOL_BYTES))),
      buckets_(static_cast<Block**>(reserve(BUCKETS * sizeof(Block*)))),
      entries_(static_cast<Entry*>(reserve(SLOTS * sizeof(Entry)))),
      local_(static_cast<u16*>(reserve(SLOTS * sizeof(u16)))) {
  forget_all();
}

// --- linear addresses

void BlockCache::forget_all() {
  for (u64 n = 0; n < SLOTS; ++n) entries_[n].key = NO_KEY;
  locals_ = 0;
}

void BlockCache::forget_local() {
  if (locals_ > SLOTS) return forget_all();
  for (u64 n = 0; n < locals_; ++n) entries_[local_[n]].key = NO_KEY;
  locals_ = 0;
}

void BlockCache::forget_page(u64 linear) {
  const u64 first = slot(linear) / WINDOW * WINDOW;
  for (u64 n = first; n < first + WINDOW; ++n) entries_[n].key = NO_KEY;
}

void BlockCache::forget_region(u64, unsigned) { forget_all(); }

Block* BlockCache::find_and_remember(Cpu& cpu) {
  Block* const b = find(cpu);
  if (b->second != NONE) return b;
  u64 linear = cpu.rip + cpu.code_base;
  if (!code64(cpu)) linear = static_cast<u32>(linear);
  const u64 n = slot(linear);
  entries_[n] = {key(linear, cpu.mode), b};
  const TlbInfo& info = cpu.tlbs[user_mode(cpu)].info[(linear >> PAGE_SHIFT) % TLB_ENTRIES];
  if (!(info.valid && info.page == (linear & PAGE_MASK) && info.global)) {
    if (locals_ < SLOTS) local_[locals_] = static_cast<u16>(n);
    ++locals_;
  }
  return b;
}

void BlockCache::set_breakpoints(Cpu& cpu, std::span<const u64> linear) {
  breakpoints_.reset();
  for (const u64 at : linear) breakpoints_.set(at % PAGE_SIZE);
  request_flush(cpu);
}

// --- finding and building

Block* BlockCache::find(Cpu& cpu) {
  if (flush_requested_) flush(cpu);
  if (cpu.rip > cpu.code_limit) raise(cpu, GP, 0);
  u64 linear = cpu.rip + cpu.code_base;
  if (!code64(cpu)) linear = static_cast<u32>(linear);
  const bool user = user_mode(cpu);
  const TlbInfo info = resolve(cpu, linear, Access::exec, user);
  const u64 gpa = info.gpa | linear % PAGE_SIZE;

  Block* found = nullptr;
  for (Block* b = buckets_[bucket(gpa, cpu.mode)]; b != nullptr && found == nullptr; b = b->chain) {
    if (b->gpa != gpa || b->mode != cpu.mode) continue;
    if (b->second == NONE || b->second == resolve(cpu, (linear & PAGE_MASK) + PAGE_SIZE, Access::exec, user).gpa)
      found = b;
  }
  if (found == nullptr) found = build(cpu, linear, gpa, info.ram_page, info.host_read);
  if (cpu.rip + found->bytes - 1 <= cpu.code_limit) return found;
  // The segment ends inside the block: go on one by one up to the instruction that crosses the limit.
  if (cpu.mode & MODE_STEP) raise(cpu, GP, 0);
  const u16 mode = cpu.mode;
  cpu.mode |= MODE_STEP;
  for (Block* b = buckets_[bucket(gpa, cpu.mode)]; b != nullptr; b = b->chain)
    if (b->gpa == gpa && b->mode == cpu.mode && b->second == found->second) {
      cpu.mode = mode;
      if (cpu.rip + b->bytes - 1 > cpu.code_limit) raise(cpu, GP, 0);
      return b;
    }
  Block* const single = build(cpu, linear, gpa, info.ram_page, info.host_read);
  cpu.mode = mode;
  if (cpu.rip + single->bytes - 1 > cpu.code_limit) raise(cpu, GP, 0);
  return single;
}

void BlockCache::mark(u64 ram_page) {
  if (ram_page >= pages_ || code_[ram_page].blocks != nullptr) return;
  code_pages_.mark(ram_page);
}

namespace {

// Up to 16 bytes of code at `offset` of a page; devices hold no code: FF FF is #UD.
unsigned fetch(const u8* host, unsigned offset, u8* to) {
  const unsigned available =
      static_cast<unsigned>(PAGE_SIZE) - offset < 16 ? static_cast<unsigned>(PAGE_SIZE) - offset : 16;
  if (host != nullptr)
    std::memcpy(to, host + offset, available);
  else
    std::memset(to, 0xff, available);
  return available;
}

bool can_link(const Cpu& cpu, const Decoded& d) {
  if (!d.direct_branch() || !(cpu.mode & MODE_FLAT_CS) || (cpu.mode & MODE_STEP)) return false;
  return d.code64() ? d.osz == 8 : d.osz == 4;
}

} // namespace

void place_record(const Cpu& cpu, const Decoded& d, Insn& i, u64 start, unsigned offset, unsigned ordinal) {
  i = make_insn(d);
  i.offset = static_cast<u16>(offset);
  i.ordinal = static_cast<u8>(ordinal);
  if (d.rip_relative) i.disp = static_cast<i32>(static_cast<u32>(i.disp) + offset + d.length);
  if (!d.direct_branch()) return;
  i.disp = static_cast<i32>(d.imm);
  const i64 target = static_cast<i64>(d.imm) + offset + d.length;
  const i64 in_page = static_cast<i64>(start % PAGE_SIZE) + target;
  if (can_link(cpu, d) && in_page >= 0 && in_page < static_cast<i64>(PAGE_SIZE)) {
    i.handler = d.selection.linked;
    i.link = nullptr;
    i.disp = static_cast<i32>(target);
  }
}

namespace {

Insn breakpoint_record() {
  Insn i{};
  i.handler = breakpoint;
  i.ordinal = 1;
  return i;
}

// Backwards over the block: an instruction whose flags nobody sees does not compute them.
void drop_dead_flags(Insn* insns, const Selection* selections, unsigned count) {
  u8 live = SET_ALL;
  for (unsigned n = count; n-- > 0;) {
    const Selection& s = selections[n];
    if (s.no_flags != nullptr && (s.writes & live) == 0) insns[n].handler = s.no_flags;
    live = static_cast<u8>((live & ~s.writes) | s.reads);
  }
}

} // namespace

Block* BlockCache::build(Cpu& cpu, u64 linear, u64 gpa, u64 ram_page, const u8* host) {
  if (used_ + sizeof(Block) + (BLOCK_INSNS + 1) * sizeof(Insn) > POOL_BYTES) flush(cpu);
  mark(ram_page); // before a byte is read
  Block* const b = new (pool_.get() + used_) Block{gpa, NONE, nullptr, {}, {ram_page, NONE}, cpu.mode, 0, 0, false};
  Insn* const insns = b->insns();
  Selection selections[BLOCK_INSNS];
  bool one_byte[BLOCK_INSNS];
  const unsigned most = cpu.mode & MODE_STEP ? 1 : BLOCK_INSNS;
  const unsigned start = gpa % PAGE_SIZE;
  unsigned offset = 0, count = 0;
  bool ends = false;

  if (stops_at(cpu, start)) {
    insns[0] = breakpoint_record();
    selections[0] = {};
    one_byte[0] = false;
    count = offset = 1;
    ends = true;
  }
  while (count < most && !ends && start + offset < PAGE_SIZE && !stops_at(cpu, start + offset)) {
    u8 bytes[32];
    unsigned available = fetch(host, start + offset, bytes);
    Decoded d = decode(bytes, available, cpu.mode);
    if (d.status == DecodeStatus::truncated) {
      if (count > 0) break; // it gets a block of its own
      const TlbInfo info = resolve(cpu, (linear & PAGE_MASK) + PAGE_SIZE, Access::exec, user_mode(cpu));
      b->second = info.gpa;
      b->ram[1] = info.ram_page;
      mark(info.ram_page);
      available += fetch(info.host_read, 0, bytes + available);
      d = decode(bytes, available, cpu.mode);
      ends = true;
    }
    if (d.status != DecodeStatus::ok) {
      d.selection = {};
      d.selection.handler = d.status == DecodeStatus::invalid ? undefined_opcode : too_long;
      d.selection.ends = true;
      if (d.length == 0 || d.length > 15) d.length = 1;
    }
    place_record(cpu, d, insns[count], gpa, offset, count + 1);
    selections[count] = d.selection;
    one_byte[count] = d.map == MAP_ONE;
    ends |= d.selection.ends;
    ++count;
    offset += d.length;
  }

  drop_dead_flags(insns, selections, count);
  for (unsigned n = 0; n + 1 < count; ++n) {
    if (!one_byte[n] || selections[n + 1].linked == nullptr || selections[n + 1].ends) continue;
    const Insn& branch = insns[n + 1];
    if (one_byte[n + 1] ? (branch.opcode & 0xf0) != 0x70 : (branch.opcode & 0xf0) != 0x80) continue;
    if (Handler h = select_fused(insns[n], branch, branch.handler == selections[n + 1].linked)) insns[n].handler = h;
  }

  // What follows if the last instruction does not transfer control.
  Insn& tail = insns[count];
  tail = Insn{};
  tail.offset = static_cast<u16>(offset);
  tail.ordinal = static_cast<u8>(count + 1);
  tail.disp = static_cast<i32>(offset);
  const bool linked =
      (cpu.mode & MODE_FLAT_CS) && !(cpu.mode & MODE_STEP) && b->second == NONE && start + offset < PAGE_SIZE;
  tail.handler = linked ? fall_linked : fall_through;

  b->bytes = static_cast<u16>(offset);
  b->count = static_cast<u16>(count);
  used_ += sizeof(Block) + (count + 1) * sizeof(Insn);
  insert(cpu, b);
  if (cpu.translator != nullptr && ram_page < pages_ && (b->second == NONE || b->ram[1] < pages_) &&
      !stops_at(cpu, start) && Translator::translatable(cpu.mode))
    cpu.translator->adopt(*b);
  return b;
}

void BlockCache::insert(Cpu& cpu, Block* b) {
  Block*& head = buckets_[bucket(b->gpa, b->mode)];
  b->chain = head;
  head = b;
  const unsigned start = b->gpa % PAGE_SIZE;
  const unsigned in_first = b->second == NONE ? b->bytes : static_cast<unsigned>(PAGE_SIZE) - start;
  for (unsigned n = 0; n < 2; ++n) {
    if (b->ram[n] >= pages_) continue;
    PageCode& page = code_[b->ram[n]];
    const bool new_code = page.blocks == nullptr;
    b->pages[n] = {b, page.blocks};
    page.blocks = &b->pages[n];
    if (new_code) revoke_writes(cpu, b->ram[n]); // from now on stores take the slow path
    page.granules |= n == 0 ? granules(start, in_first) : granules(0, b->bytes > in_first ? b->bytes - in_first : 1u);
  }
  bump(cpu.counters.blocks_decoded);
}

// --- dropping

void BlockCache::make_stale(Cpu& cpu, Block* b) {
  b->stale = true;
  if (b->translation != nullptr) cpu.translator->drop(*b);
  for (unsigned n = 0; n <= b->count; ++n) b->insns()[n].handler = stale;
  for (Block** at = &buckets_[bucket(b->gpa, b->mode)]; *at != nullptr; at = &(*at)->chain)
    if (*at == b) {
      *at = b->chain;
      return;
    }
}

// Blocks of the page that overlap the range; stale ones (through their other page) leave the list on the way.
void BlockCache::invalidate(Cpu& cpu, u64 ram_page, unsigned offset, unsigned length) {
  PageCode& page = code_[ram_page];
  u64 left = 0;
  for (PageLink** at = &page.blocks; *at != nullptr;) {
    Block* const b = (*at)->block;
    const bool second = *at == &b->pages[1];
    const unsigned start = b->gpa % PAGE_SIZE, in_first = static_cast<unsigned>(PAGE_SIZE) - start;
    const unsigned first = second ? 0 : start;
    const unsigned bytes =
        second ? (b->bytes > in_first ? b->bytes - in_first : 1u) : (b->bytes < in_first ? b->bytes : in_first);
    if (!b->stale && first < offset + length && offset < first + bytes) {
      make_stale(cpu, b);
      bump(cpu.counters.blocks_invalidated);
    }
    if (b->stale) {
      *at = (*at)->next;
    } else {
      left |= granules(first, bytes);
      at = &(*at)->next;
    }
  }
  page.granules = left;
  if (page.blocks == nullptr) {
    code_pages_.unmark(ram_page);
    restore_writes(cpu, ram_page);
  }
}

void BlockCache::harvest(Cpu& cpu) {
  after_exit(cpu);
  if (!code_pages_.pending()) return;
  code_pages_.harvest([&](u64 page) {
    if (page < pages_ && code_[page].blocks != nullptr) invalidate(cpu, page, 0, PAGE_SIZE);
  });
}

void BlockCache::flush(Cpu& cpu) {
  flush_requested_ = false;
  // Every block lies in the pool: walk it to unmark the pages.
  for (u64 at = 0; at < used_;) {
    Block* const b = reinterpret_cast<Block*>(pool_.get() + at);
    for (const u64 ram : b->ram)
      if (ram < pages_ && code_[ram].blocks != nullptr) {
        code_[ram] = {};
        code_pages_.unmark(ram);
        restore_writes(cpu, ram);
      }
    at += sizeof(Block) + (b->count + 1u) * sizeof(Insn);
  }
  if (cpu.translator != nullptr) cpu.translator->reset();
  for (u64 n = 0; n < BUCKETS; ++n) buckets_[n] = nullptr;
  forget_all();
  used_ = 0;
  ++flushes_;
}

void BlockCache::request_flush(Cpu& cpu) {
  flush_requested_ = true;
  forget_all();
  leave_block(cpu);
}

void BlockCache::leave_block(Cpu& cpu) {
  if (cpu.current == nullptr) return;
  Block* const b = block_of(cpu.current);
  if (!b->stale) make_stale(cpu, b);
}

} // namespace transom::soft
