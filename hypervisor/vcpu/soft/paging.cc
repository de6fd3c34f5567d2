#include "hypervisor/vcpu/soft/paging.hpp"

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"

namespace transom::soft {

namespace {

// Page-table entry bits (SDM 3A tables 4-5 to 4-20).
constexpr u64 PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 32, PTE_D = 64, PTE_PS = 128, PTE_G = 256, PTE_NX = u64{1} << 63;
constexpr u64 ADDRESS = 0x000f'ffff'ffff'f000;
constexpr u64 RESERVED_ADDRESS = ADDRESS & ~((u64{1} << PHYSICAL_BITS) - 1);
// #PF error code
constexpr u32 PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16;

struct Request {
  Cpu& cpu;
  u64 linear;
  Access access;
  bool user;

  u32 code() const {
    const bool fetch_shown = access == Access::exec && (cpu.efer & EFER_NXE) && (cpu.cr4 & CR4_PAE);
    return (access == Access::write ? PF_W : 0) | (user ? PF_U : 0) | (fetch_shown ? PF_I : 0);
  }
  [[noreturn]] void not_present() const { raise_page_fault(cpu, linear, code()); }
  [[noreturn]] void reserved() const { raise_page_fault(cpu, linear, code() | PF_P | PF_RSVD); }
  [[noreturn]] void refused() const { raise_page_fault(cpu, linear, code() | PF_P); }
};

// One entry on the way: where it lies, what it holds.
struct Entry {
  u8* host;
  u64 ram_page;
  unsigned offset;
  u64 value;
};

// Tables outside RAM and ROM read as not present.
Entry read_entry(Cpu& cpu, u64 gpa, unsigned width) {
  gpa &= cpu.a20_mask;
  const PhysPage& page = phys_page(cpu, gpa);
  const unsigned offset = gpa % PAGE_SIZE;
  Entry e{page.write == page.read ? page.write : nullptr, page.ram_page, offset, 0};
  if (page.read != nullptr) std::memcpy(&e.value, page.read + offset, width);
  return e;
}

void set_bits(Cpu& cpu, Entry& e, u64 bits, unsigned width) {
  if ((e.value & bits) == bits) return;
  e.value |= bits;
  if (e.host == nullptr) return;
  // The guest's other writers of this entry are on this CPU; only the byte that holds A and D is touched.
  e.host[e.offset] = static_cast<u8>(e.value);
  if (e.ram_page != ~u64{0}) cpu.blocks->wrote(cpu, e.ram_page, e.offset, width);
}

// Permission of the whole path, then A on every level and D on the leaf.
Walk finish(const Request& r, Entry* path, unsigned levels, unsigned width, u64 allowed, bool nx, unsigned bits,
            u64 base) {
  Cpu& cpu = r.cpu;
  const bool supervisor_writes = !r.user && !(cpu.cr0 & CR0_WP);
  const bool writable = (allowed & PTE_W) || supervisor_writes;
  if (r.user && !(allowed & PTE_U)) r.refused();
  if (r.access == Access::write && !writable) r.refused();
  if (r.access == Access::exec && nx) r.refused();

  for (unsigned n = 0; n + 1 < levels; ++n) set_bits(cpu, path[n], PTE_A, width);
  Entry& leaf = path[levels - 1];
  set_bits(cpu, leaf, r.access == Access::write ? PTE_A | PTE_D : PTE_A, width);

  const u64 offset = r.linear & ((u64{1} << bits) - 1);
  return {(base | offset) & cpu.a20_mask, writable && (leaf.value & PTE_D), !nx,
          (leaf.value & PTE_G) && (cpu.cr4 & CR4_PGE), static_cast<u8>(bits)};
}

Walk walk_32(const Request& r) {
  Cpu& cpu = r.cpu;
  Entry path[2];
  path[0] = read_entry(cpu, (cpu.cr3 & 0xffff'f000) + (r.linear >> 22) * 4, 4);
  const u64 pde = path[0].value;
  if (!(pde & PTE_P)) r.not_present();
  if ((pde & PTE_PS) && (cpu.cr4 & CR4_PSE)) {
    if (pde & (1 << 21)) r.reserved();
    const u64 high = (pde >> 13 & 0xff) << 32; // PSE-36
    return finish(r, path, 1, 4, pde, false, 22, high | (pde & 0xffc0'0000));
  }
  path[1] = read_entry(cpu, (pde & 0xffff'f000) + (r.linear >> 12 & 0x3ff) * 4, 4);
  const u64 pte = path[1].value;
  if (!(pte & PTE_P)) r.not_present();
  return finish(r, path, 2, 4, pde & pte, false, 12, pte & 0xffff'f000);
}

// PAE and 4-level paging from the page directory pointer or PML4 table down: 512 entries of 8 bytes a table.
Walk walk_64(const Request& r) {
  Cpu& cpu = r.cpu;
  const bool four_levels = (cpu.efer & EFER_LMA) != 0;
  const u64 always_reserved =
      RESERVED_ADDRESS | ((cpu.efer & EFER_NXE) ? 0 : PTE_NX) | (four_levels ? 0 : u64{0x7ff0'0000'0000'0000});
  Entry path[4];
  unsigned used = 0;
  u64 table, allowed = PTE_W | PTE_U;
  bool nx = false;
  int level;
  if (four_levels) {
    table = cpu.cr3 & ADDRESS;
    level = 3;
  } else {
    const u64 pdpte = cpu.pdptr[r.linear >> 30 & 3]; // loaded and checked by MOV CR3
    if (!(pdpte & PTE_P)) r.not_present();
    table = pdpte & ADDRESS;
    level = 1;
  }
  for (;; --level) {
    const unsigned shift = 12 + 9 * static_cast<unsigned>(level);
    Entry& e = path[used++];
    e = read_entry(cpu, table + (r.linear >> shift & 0x1ff) * 8, 8);
    if (!(e.value & PTE_P)) r.not_present();
    if (e.value & always_reserved) r.reserved();
    allowed &= e.value;
    nx |= (e.value & PTE_NX) != 0;
    const bool leaf = level == 0 || (e.value & PTE_PS);
    if (leaf && level > 1) r.reserved(); // no pages of 1 GiB: CPUID does not show them
    if (leaf) {
      const u64 low = (u64{1} << shift) - 1;
      if (level != 0 && (e.value & low & ADDRESS & ~u64{0x1000})) r.reserved(); // bit 12 is PAT
      return finish(r, path, used, 8, allowed, nx, shift, e.value & ADDRESS & ~low);
    }
    table = e.value & ADDRESS;
  }
}

u64 invalid_tag(u64 index) { return index == 0 ? PAGE_SIZE : 0; } // a page with another index

void drop(Tlb& tlb, u64 index) {
  const u64 none = invalid_tag(index);
  tlb.entry[index] = {none, none, 0, 0};
  tlb.info[index].valid = false;
}

void fill(Cpu& cpu, Tlb& tlb, u64 index, u64 page, const Walk& w) {
  const PhysPage& host = phys_page(cpu, w.gpa);
  TlbInfo& info = tlb.info[index];
  info = {page, w.gpa & PAGE_MASK, host.ram_page, true, w.writable, w.executable, w.global, host.read, host.write};
  const u64 none = invalid_tag(index);
  const bool direct_write =
      host.write != nullptr && host.write == host.read && w.writable && !cpu.blocks->has_code(host.ram_page);
  TlbEntry& e = tlb.entry[index];
  e.read = host.read != nullptr ? page : none;
  e.write = direct_write ? page : none;
  e.host = reinterpret_cast<u64>(host.read);
  e.addend = reinterpret_cast<u64>(host.read) - page;
  if (!w.global) {
    if (tlb.locals < TLB_ENTRIES) tlb.local[tlb.locals] = static_cast<u16>(index);
    ++tlb.locals;
  }
  if (w.page_bits > 12) {
    const u64 region = page >> 21;
    cpu.large_pages[region / 64 % 64] |= u64{1} << (region % 64);
  }
  cpu.counters.tlb_misses.store(cpu.counters.tlb_misses.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

} // namespace

Walk walk(Cpu& cpu, u64 linear, Access access, bool user) {
  const Request r{cpu, linear, access, user};
  if (!(cpu.cr0 & CR0_PG)) return {linear & cpu.a20_mask, true, true, false, 12};
  return cpu.cr4 & CR4_PAE ? walk_64(r) : walk_32(r);
}

std::optional<u64> look_up(Cpu& cpu, u64 linear) {
  const bool four_levels = (cpu.efer & EFER_LMA) != 0, wide = (cpu.cr4 & CR4_PAE) != 0;
  if (!four_levels) linear = static_cast<u32>(linear);
  if (!canonical(linear)) return {};
  if (!(cpu.cr0 & CR0_PG)) return linear & cpu.a20_mask;
  const unsigned width = wide ? 8 : 4, bits = wide ? 9 : 10; // of an entry, and of an index
  u64 table = wide ? cpu.cr3 & ADDRESS : cpu.cr3 & 0xffff'f000;
  int level = four_levels ? 3 : 1;
  if (wide && !four_levels) {
    const u64 pdpte = cpu.pdptr[linear >> 30 & 3];
    if (!(pdpte & PTE_P)) return {};
    table = pdpte & ADDRESS;
  }
  for (;; --level) {
    const unsigned shift = 12 + bits * static_cast<unsigned>(level);
    const u64 e = read_entry(cpu, table + (linear >> shift & ((1u << bits) - 1)) * width, width).value;
    if (!(e & PTE_P)) return {};
    const bool large = (e & PTE_PS) && (level == 1 || level == 2) && (wide || (cpu.cr4 & CR4_PSE));
    if (level == 0 || large) {
      const u64 low = (u64{1} << shift) - 1;
      const u64 high = large && !wide ? (e >> 13 & 0xff) << 32 : 0; // PSE-36
      return (high | (e & (wide ? ADDRESS : 0xffff'f000) & ~low) | (linear & low)) & cpu.a20_mask;
    }
    table = e & (wide ? ADDRESS : 0xffff'f000);
  }
}

const PhysPage& phys_page(Cpu& cpu, u64 gpa) {
  gpa &= PAGE_MASK;
  PhysEntry& e = cpu.phys[(gpa >> PAGE_SHIFT) % PHYS_ENTRIES];
  if (e.gpa != gpa) e = {gpa, cpu.platform->page(gpa)};
  return e.page;
}

void flush_phys(Cpu& cpu) {
  for (PhysEntry& e : cpu.phys) e.gpa = ~u64{0};
}

TlbInfo& resolve(Cpu& cpu, u64 linear, Access access, bool user) {
  if (!(cpu.efer & EFER_LMA))
    linear = static_cast<u32>(linear);
  else if (!canonical(linear))
    raise(cpu, cpu.current != nullptr && cpu.current->segment == SS ? SS_FAULT : GP, 0);
  const u64 page = linear & PAGE_MASK, index = (linear >> PAGE_SHIFT) % TLB_ENTRIES;
  Tlb& tlb = cpu.tlbs[user];
  TlbInfo& info = tlb.info[index];
  if (info.valid && info.page == page) {
    if (access == Access::read || (access == Access::write ? info.writable : info.executable)) return info;
  }
  const Walk w = walk(cpu, linear, access, user);
  fill(cpu, tlb, index, page, w);
  return info;
}

u64 translate(Cpu& cpu, u64 linear, Access access, bool user) {
  return resolve(cpu, linear, access, user).gpa | linear % PAGE_SIZE;
}

void probe(Cpu& cpu, u64 linear, unsigned length, Access access, bool user) {
  resolve(cpu, linear, access, user);
  const u64 last = linear + length - 1;
  if ((linear ^ last) >> PAGE_SHIFT) resolve(cpu, last & PAGE_MASK, access, user); // CR2: the first byte that faults
}

void reset_tlb(Cpu& cpu) {
  ++cpu.tlb_generation;
  for (u64 n = 0; n < TLB_ENTRIES; ++n) {
    drop(cpu.tlbs[0], n);
    drop(cpu.tlbs[1], n);
    const u64 none = invalid_tag(n);
    cpu.slow_tlb[n] = {none, none, 0, 0};
  }
  cpu.tlbs[0].locals = cpu.tlbs[1].locals = 0;
  for (u64& word : cpu.large_pages) word = 0;
}

void flush_tlb(Cpu& cpu) {
  reset_tlb(cpu);
  forget_code_tags(cpu);
  cpu.blocks->forget_all();
}

void flush_tlb_local(Cpu& cpu) {
  ++cpu.tlb_generation;
  for (Tlb& tlb : cpu.tlbs) {
    if (tlb.locals > TLB_ENTRIES) {
      for (u64 n = 0; n < TLB_ENTRIES; ++n)
        if (tlb.info[n].valid && !tlb.info[n].global) drop(tlb, n);
    } else {
      // An entry of the list may have been replaced by a global one since: dropping that too is harmless.
      for (u32 n = 0; n < tlb.locals; ++n) drop(tlb, tlb.local[n]);
    }
    tlb.locals = 0;
  }
  forget_local_code_tags(cpu);
  cpu.blocks->forget_local();
}

void flush_tlb_page(Cpu& cpu, u64 linear) {
  ++cpu.tlb_generation;
  const u64 region = linear >> 21;
  if (cpu.large_pages[region / 64 % 64] >> (region % 64) & 1) {
    // A large page may have left many entries: 4 MiB covers both sizes.
    for (Tlb& tlb : cpu.tlbs)
      for (u64 n = 0; n < TLB_ENTRIES; ++n)
        if (tlb.info[n].valid && (tlb.info[n].page ^ linear) >> 22 == 0) drop(tlb, n);
    forget_code_tags(cpu);
    cpu.blocks->forget_region(linear, 22);
    return;
  }
  const u64 index = (linear >> PAGE_SHIFT) % TLB_ENTRIES;
  drop(cpu.tlbs[0], index);
  drop(cpu.tlbs[1], index);
  forget_code_tag(cpu, linear);
  cpu.blocks->forget_page(linear);
}

void revoke_writes(Cpu& cpu, u64 ram_page) {
  ++cpu.tlb_generation;
  for (Tlb& tlb : cpu.tlbs)
    for (u64 n = 0; n < TLB_ENTRIES; ++n)
      if (tlb.info[n].valid && tlb.info[n].ram_page == ram_page) tlb.entry[n].write = invalid_tag(n);
}

// Another vCPU has decoded code where this one stored without a word.
void revoke_shared_writes(Cpu& cpu) {
  ++cpu.tlb_generation;
  for (Tlb& tlb : cpu.tlbs)
    for (u64 n = 0; n < TLB_ENTRIES; ++n)
      if (tlb.info[n].valid && cpu.blocks->has_code(tlb.info[n].ram_page)) tlb.entry[n].write = invalid_tag(n);
}

void restore_writes(Cpu& cpu, u64 ram_page) {
  if (cpu.blocks->has_code(ram_page)) return; // of another vCPU
  for (Tlb& tlb : cpu.tlbs)
    for (u64 n = 0; n < TLB_ENTRIES; ++n) {
      const TlbInfo& info = tlb.info[n];
      if (info.valid && info.ram_page == ram_page && info.writable && info.host_write != nullptr &&
          info.host_write == info.host_read)
        tlb.entry[n].write = info.page;
    }
}

} // namespace transom::soft
