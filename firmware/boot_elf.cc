// ELF kernels: PVH (Xen's public arch-x86/hvm/start_info.h) or, for 64-bit files without that entry, Linux's 64-bit
// boot protocol at the ELF entry point.
#include "firmware/boot_placer.hpp"
#include "firmware/elf_image.hpp"

namespace transom::firmware {
namespace {

constexpr u32 START_MAGIC = 0x336e'c578;

// hvm_start_info version 1, hvm_modlist_entry and hvm_memmap_table_entry.
void place_start_info(BootPlacer& placer, u64 initrd) {
  const u64 modules = initrd != 0 ? 1 : 0;
  Bytes lists;
  append_le(lists, 8, initrd);
  append_le(lists, 8, modules != 0 ? placer.boot().initrd.size() : 0);
  append_le(lists, 8, 0); // the module has no command line
  append_le(lists, 8, 0);
  const u64 memmap = BOOT_LISTS + lists.size();
  for (const E820Entry& entry : placer.tables().e820) {
    append_le(lists, 8, entry.base);
    append_le(lists, 8, entry.length);
    append_le(lists, 4, static_cast<u32>(entry.type));
    append_le(lists, 4, 0);
  }
  placer.fill(BOOT_LISTS, lists);

  Bytes info;
  append_le(info, 4, START_MAGIC);
  append_le(info, 4, 1); // version
  append_le(info, 4, 0); // flags
  append_le(info, 4, modules);
  append_le(info, 8, modules != 0 ? BOOT_LISTS : 0);
  append_le(info, 8, BOOT_CMDLINE);
  append_le(info, 8, placer.tables().rsdp);
  append_le(info, 8, memmap);
  append_le(info, 4, placer.tables().e820.size());
  append_le(info, 4, 0);
  placer.fill(BOOT_INFO, info);
}

// Unlike the header's entry point, this one is physical.
std::optional<u64> pvh_entry_in_segment(const ElfImage& elf) {
  for (const ElfSegment& s : elf.segments)
    if (*elf.pvh_entry >= s.physical && *elf.pvh_entry - s.physical < s.memory_size) return elf.pvh_entry;
  return std::nullopt;
}

} // namespace

Result<void> place_segments(BootPlacer& placer, const ElfImage& elf) {
  for (const ElfSegment& segment : elf.segments)
    if (const auto done = placer.claim(segment.physical, segment.memory_size, "an ELF segment"); !done) return done;
  for (const ElfSegment& segment : elf.segments) {
    placer.fill(segment.physical, ByteView(placer.boot().kernel).subspan(segment.offset, segment.file_size));
    placer.clear(segment.physical + segment.file_size, segment.memory_size - segment.file_size);
  }
  return {};
}

bool has_pvh_entry(ByteView image) {
  const auto elf = parse_elf(image);
  return elf && elf->pvh_entry;
}

Result<BootState> load_elf(BootPlacer& placer) {
  const auto elf = parse_elf(placer.boot().kernel);
  if (!elf) return placer.fail(elf.error().text);
  const std::optional<u64> entry = elf->pvh_entry ? pvh_entry_in_segment(*elf) : physical_entry(*elf);
  if (!elf->pvh_entry && !elf->is_64)
    return placer.fail(
        "a 32-bit ELF file with neither a PVH entry note nor a Multiboot header: one of them is needed to know how it "
        "wants to be started");
  if (!entry || *entry >= GuestMemory::HIGH_BASE)
    return placer.fail("the entry point " + hex(elf->pvh_entry.value_or(elf->entry)) + " lies in no loaded segment");
  if (const auto placed = place_segments(placer, *elf); !placed) return tl::unexpected(placed.error());
  if (const auto placed = placer.place_cmdline(BOOT_CMDLINE_MAX - 1); !placed) return tl::unexpected(placed.error());
  const auto initrd = placer.place_initrd(GuestMemory::HIGH_BASE);
  if (!initrd) return tl::unexpected(initrd.error());

  if (elf->pvh_entry) {
    place_start_info(placer, *initrd);
    BootState state = placer.protected_mode(*entry);
    state.gpr[RBX] = BOOT_INFO;
    return state;
  }
  place_boot_params(placer, {{}, elf->segments.front().physical, *initrd});
  BootState state = placer.long_mode(*entry);
  state.gpr[RSI] = BOOT_INFO;
  return state;
}

} // namespace transom::firmware
