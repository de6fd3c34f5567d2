#include "firmware/boot_placer.hpp"

#include <algorithm>
#include <cstdio>

namespace transom::firmware {
namespace {

constexpr u64 CODE = 0x10, DATA = 0x18, TSS = 0x20; // Linux's __BOOT_CS and __BOOT_DS; a task for VMX's sake
constexpr u16 CODE_ACCESS = 0x9b, DATA_ACCESS = 0x93, TSS_ACCESS = 0x8b;
constexpr u16 FLAG_LONG = 0x2000, FLAG_32 = 0x4000, FLAG_PAGES = 0x8000;

constexpr u64 CR0_PE = 1, CR0_ET = 1 << 4, CR0_PG = u64{1} << 31;
constexpr u64 CR4_PAE = 1 << 5;
constexpr u64 EFER_LME = 1 << 8, EFER_LMA = 1 << 10;

BootSegment flat(u16 selector, u16 attr) { return {selector, attr, 0xffff'ffff, 0}; }

// SDM 3A, 3.4.5, for base 0 and a limit of FFFFFh pages.
u64 descriptor(u16 attr) { return u64{0xffff} | u64{attr} << 40 | u64{0xf} << 48; }

} // namespace

std::string hex(u64 value) {
  char text[24];
  std::snprintf(text, sizeof text, "%llXh", static_cast<unsigned long long>(value));
  return text;
}

BootPlacer::BootPlacer(const GuestMemory& ram, const DirectBoot& boot, const DirectTables& tables)
    : ram_(ram), boot_(boot), tables_(tables) {
  claims_.push_back({0, BOOT_LOW_END, "the loader's own structures"});
}

const BootPlacer::Claim* BootPlacer::overlapping(u64 base, u64 length) const {
  for (const Claim& claim : claims_)
    if (base < claim.base + claim.length && claim.base < base + length) return &claim;
  return nullptr;
}

bool BootPlacer::is_usable(u64 base, u64 length) const {
  if (ram_.at(base, length) == nullptr || base >= GuestMemory::HIGH_BASE) return false;
  return std::any_of(tables_.e820.begin(), tables_.e820.end(), [&](const E820Entry& entry) {
    return entry.type == E820Type::ram && base >= entry.base && base + length <= entry.base + entry.length;
  });
}

Result<void> BootPlacer::claim(u64 base, u64 length, const std::string& what) {
  const std::string range = what + " (" + hex(length) + " bytes at " + hex(base) + ")";
  if (!is_usable(base, length))
    return fail(range + " does not lie in the guest's RAM below " + hex(ram_.low_size()) +
                ": give the guest more memory, or check the image");
  if (const Claim* other = overlapping(base, length)) return fail(range + " overlaps " + other->what);
  claims_.push_back({base, length, what});
  return {};
}

// Candidates are the ends of RAM and the beginnings of claims; there are few of both.
Result<u64> BootPlacer::claim_top(u64 length, u64 below, const std::string& what) {
  std::vector<u64> ends{below};
  for (const E820Entry& entry : tables_.e820) ends.push_back(entry.base + entry.length);
  for (const Claim& claim : claims_) ends.push_back(claim.base);
  std::sort(ends.rbegin(), ends.rend());
  for (const u64 end : ends) {
    if (end > below || end < length) continue;
    const u64 base = align_down(end - length, PAGE_SIZE);
    if (!is_usable(base, length) || overlapping(base, length) != nullptr) continue;
    claims_.push_back({base, length, what});
    return base;
  }
  return fail("no room for " + what + ": " + hex(length) + " bytes below " + hex(std::min(below, ram_.low_size())) +
              ": give the guest more memory");
}

void BootPlacer::fill(u64 base, ByteView bytes) {
  if (!bytes.empty()) ram_.write(base, bytes.data(), bytes.size());
}

void BootPlacer::clear(u64 base, u64 length) {
  if (u8* at = ram_.at(base, length); at != nullptr && length != 0) std::memset(at, 0, length);
}

Result<void> BootPlacer::place_cmdline(u64 limit) {
  const u64 accepted = std::min(limit, BOOT_CMDLINE_MAX - 1);
  if (boot_.cmdline.size() > accepted)
    return fail("the command line has " + std::to_string(boot_.cmdline.size()) + " characters; this kernel takes " +
                std::to_string(accepted));
  if (boot_.cmdline.find('\0') != std::string::npos) return fail("the command line contains a NUL character");
  Bytes text;
  append(text, boot_.cmdline);
  text.push_back(0);
  fill(BOOT_CMDLINE, text);
  return {};
}

Result<u64> BootPlacer::place_initrd(u64 below) {
  if (boot_.initrd.empty()) return u64{0};
  const auto base = claim_top(boot_.initrd.size(), below, "the initrd");
  if (base) fill(*base, boot_.initrd);
  return base;
}

BootState BootPlacer::flat_state(u64 entry, u64 code_flags) {
  const u16 code = static_cast<u16>(CODE_ACCESS | FLAG_PAGES | code_flags);
  const u16 data = DATA_ACCESS | FLAG_PAGES | FLAG_32;
  Bytes gdt(CODE, 0);
  append_le(gdt, 8, descriptor(code));
  append_le(gdt, 8, descriptor(data));
  append_le(gdt, 8, u64{0x67} | u64{TSS_ACCESS} << 40); // 16 bytes in long mode: base 0 either way
  append_le(gdt, 8, 0);
  fill(BOOT_GDT, gdt);

  BootState state;
  state.rip = entry;
  state.gpr[RSP] = BOOT_STACK;
  state.cr0 = CR0_PE | CR0_ET;
  state.cs = flat(CODE, code);
  state.es = state.ss = state.ds = state.fs = state.gs = flat(DATA, data);
  state.tr = {TSS, TSS_ACCESS, 0x67, 0};
  state.ldtr = {0, 0x82, 0, 0};
  state.gdtr = {BOOT_GDT, static_cast<u16>(gdt.size() - 1)};
  return state;
}

BootState BootPlacer::protected_mode(u64 entry) { return flat_state(entry, FLAG_32); }

// SDM 3A, 4.5: 2 MiB pages.
BootState BootPlacer::long_mode(u64 entry) {
  constexpr u64 PRESENT_WRITABLE = 3, LARGE = 1 << 7, GIB = 1 << 30, LARGE_SIZE = 2 << 20;
  constexpr u64 PDPT = BOOT_PAGE_TABLES + PAGE_SIZE, DIRECTORIES = PDPT + PAGE_SIZE;
  clear(BOOT_PAGE_TABLES, 6 * PAGE_SIZE);
  fill(BOOT_PAGE_TABLES, le_bytes(8, PDPT | PRESENT_WRITABLE));
  for (u64 gib = 0; gib < 4; ++gib) {
    const u64 directory = DIRECTORIES + gib * PAGE_SIZE;
    fill(PDPT + 8 * gib, le_bytes(8, directory | PRESENT_WRITABLE));
    for (u64 i = 0; i < GIB / LARGE_SIZE; ++i)
      fill(directory + 8 * i, le_bytes(8, (gib * GIB + i * LARGE_SIZE) | LARGE | PRESENT_WRITABLE));
  }
  BootState state = flat_state(entry, FLAG_LONG);
  state.cr0 |= CR0_PG;
  state.cr3 = BOOT_PAGE_TABLES;
  state.cr4 = CR4_PAE;
  state.efer = EFER_LME | EFER_LMA;
  return state;
}

} // namespace transom::firmware
