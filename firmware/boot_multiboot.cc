// Multiboot Specification 0.6.96 ("Multiboot 1"): header in the first 8 KiB, image as ELF or by the header's addresses.
#include <algorithm>

#include "firmware/boot_placer.hpp"
#include "firmware/elf_image.hpp"

namespace transom::firmware {
namespace {

constexpr u64 SEARCH = 8192, HEADER_SIZE = 12, ADDRESSES_SIZE = 32;
constexpr u32 HEADER_MAGIC = 0x1bad'b002, BOOT_MAGIC = 0x2bad'b002;
enum HeaderFlag : u32 { PAGE_ALIGN = 1 << 0, MEMORY_INFO = 1 << 1, VIDEO_MODE = 1 << 2, ADDRESSES = 1 << 16 };
constexpr u32 MUST_UNDERSTAND = 0xffff;
enum InfoFlag : u32 {
  HAS_MEMORY = 1 << 0,
  HAS_CMDLINE = 1 << 2,
  HAS_MODULES = 1 << 3,
  HAS_MMAP = 1 << 6,
  HAS_NAME = 1 << 9
};
constexpr u64 INFO_SIZE = 116, KIB = 1024, MIB = 1 << 20;

// The header's own load addresses; the text begins where header_addr says the header lies.
Result<u64> place_by_addresses(BootPlacer& placer, u64 header) {
  const ByteView image = placer.boot().kernel;
  if (image.size() - header < ADDRESSES_SIZE) return placer.fail("a Multiboot header cut off by the end of the file");
  const u64 header_addr = le32_at(image, header + 12), load_addr = le32_at(image, header + 16);
  const u64 load_end = le32_at(image, header + 20), bss_end = le32_at(image, header + 24);
  const u64 entry = le32_at(image, header + 28);
  if (load_addr > header_addr || header_addr - load_addr > header)
    return placer.fail("Multiboot load address " + hex(load_addr) + " does not fit a header at " + hex(header_addr) +
                       " (" + hex(header) + " in the file)");
  const u64 offset = header - (header_addr - load_addr);
  const u64 in_file = image.size() - offset;
  if (load_end != 0 && (load_end < load_addr || load_end - load_addr > in_file))
    return placer.fail("Multiboot load end " + hex(load_end) + " is not inside the file");
  const u64 loaded = load_end != 0 ? load_end - load_addr : in_file;
  const u64 size = std::max(loaded, bss_end > load_addr ? bss_end - load_addr : 0);
  if (size == 0) return placer.fail("a Multiboot image of no bytes");
  if (entry < load_addr || entry - load_addr >= size)
    return placer.fail("the Multiboot entry point " + hex(entry) + " lies outside the image");
  if (const auto claimed = placer.claim(load_addr, size, "the Multiboot image"); !claimed)
    return tl::unexpected(claimed.error());
  placer.fill(load_addr, image.subspan(offset, loaded));
  placer.clear(load_addr + loaded, size - loaded);
  return entry;
}

Result<u64> place_elf(BootPlacer& placer) {
  const ByteView image = placer.boot().kernel;
  if (!is_elf(image))
    return placer.fail("a Multiboot header without load addresses (flag 16) in a file that is not ELF: cannot load it");
  const auto elf = parse_elf(image);
  if (!elf) return placer.fail(elf.error().text);
  const auto entry = physical_entry(*elf);
  if (!entry || *entry >= GuestMemory::HIGH_BASE)
    return placer.fail("the entry point " + hex(elf->entry) + " lies in no loaded segment");
  if (const auto placed = place_segments(placer, *elf); !placed) return tl::unexpected(placed.error());
  return *entry;
}

// Structure of section 3.3; its lists follow at BOOT_LISTS.
void place_info(BootPlacer& placer, u64 module) {
  Bytes lists;
  append_le(lists, 4, module);
  append_le(lists, 4, module + placer.boot().initrd.size());
  append_le(lists, 4, 0); // no string
  append_le(lists, 4, 0);
  const u64 mmap = BOOT_LISTS + lists.size();
  u64 upper = 0;
  for (const E820Entry& entry : placer.tables().e820) {
    append_le(lists, 4, 20); // size of what follows
    append_le(lists, 8, entry.base);
    append_le(lists, 8, entry.length);
    append_le(lists, 4, static_cast<u32>(entry.type));
    if (entry.base == MIB) upper = entry.length;
  }
  const u64 mmap_length = BOOT_LISTS + lists.size() - mmap;
  const u64 name = BOOT_LISTS + lists.size();
  append(lists, "Transom");
  lists.push_back(0);
  placer.fill(BOOT_LISTS, lists);

  Bytes info(INFO_SIZE, 0);
  const bool has_module = module != 0;
  set_le(info, 0, 4, HAS_MEMORY | HAS_CMDLINE | (has_module ? HAS_MODULES : 0u) | HAS_MMAP | HAS_NAME);
  set_le(info, 4, 4, 639); // KiB below the EBDA
  set_le(info, 8, 4, upper / KIB);
  set_le(info, 16, 4, BOOT_CMDLINE);
  set_le(info, 20, 4, has_module ? 1 : 0);
  set_le(info, 24, 4, has_module ? BOOT_LISTS : 0);
  set_le(info, 44, 4, mmap_length);
  set_le(info, 48, 4, mmap);
  set_le(info, 64, 4, name);
  placer.fill(BOOT_INFO, info);
}

} // namespace

std::optional<u64> find_multiboot_header(ByteView image) {
  const u64 end = std::min<u64>(image.size(), SEARCH);
  for (u64 at = 0; at + HEADER_SIZE <= end; at += 4) {
    if (le32_at(image, at) != HEADER_MAGIC) continue;
    if (HEADER_MAGIC + le32_at(image, at + 4) + le32_at(image, at + 8) == 0) return at;
  }
  return std::nullopt;
}

Result<BootState> load_multiboot(BootPlacer& placer) {
  const u64 header = find_multiboot_header(placer.boot().kernel).value_or(0);
  const u32 flags = le32_at(placer.boot().kernel, header + 4);
  if (const u32 unknown = flags & MUST_UNDERSTAND & ~(PAGE_ALIGN | MEMORY_INFO); unknown != 0)
    return placer.fail("its Multiboot header requires features " + hex(unknown) +
                       (unknown & VIDEO_MODE ? " (bit 2: a video mode)" : "") + "; bits 0 and 1 are understood");
  const auto entry = flags & ADDRESSES ? place_by_addresses(placer, header) : place_elf(placer);
  if (!entry) return tl::unexpected(entry.error());
  if (const auto placed = placer.place_cmdline(BOOT_CMDLINE_MAX - 1); !placed) return tl::unexpected(placed.error());
  const auto module = placer.place_initrd(GuestMemory::HIGH_BASE);
  if (!module) return tl::unexpected(module.error());
  place_info(placer, *module);

  BootState state = placer.protected_mode(*entry);
  state.gpr[RAX] = BOOT_MAGIC;
  state.gpr[RBX] = BOOT_INFO;
  return state;
}

} // namespace transom::firmware
