// What the loaders of direct boot share: who has which piece of guest memory, and the CPU modes that kernels start in.
#pragma once

#include <optional>
#include <string>

#include "firmware/boot_kernel.hpp"

namespace transom::firmware {

struct ElfImage;

// The loader's own structures, below the first image.
inline constexpr u64 BOOT_GDT = 0x1000;
inline constexpr u64 BOOT_INFO = 0x2000;        // boot_params, hvm_start_info or multiboot_info
inline constexpr u64 BOOT_PAGE_TABLES = 0x3000; // PML4, PDPT, four page directories
inline constexpr u64 BOOT_LISTS = 0x9000;       // modules and memory map
inline constexpr u64 BOOT_CMDLINE = 0xa000;
inline constexpr u64 BOOT_CMDLINE_MAX = 0x1'0000; // with its final zero
inline constexpr u64 BOOT_LOW_END = BOOT_CMDLINE + BOOT_CMDLINE_MAX;
inline constexpr u64 BOOT_STACK = 0x9'f000; // kernels bring their own; this one spares bare test programs the bother

class BootPlacer {
 public:
  BootPlacer(const GuestMemory& ram, const DirectBoot& boot, const DirectTables& tables);

  const DirectBoot& boot() const { return boot_; }
  const DirectTables& tables() const { return tables_; }

  // Reserves base … base + length for `what`: it has to be usable RAM below 4 GiB that nobody has yet.
  Result<void> claim(u64 base, u64 length, const std::string& what);
  // The highest free page-aligned address with base + length ≤ below, claimed.
  Result<u64> claim_top(u64 length, u64 below, const std::string& what);
  // Copies into claimed memory; what is not filled stays as it is (RAM starts out zeroed).
  void fill(u64 base, ByteView bytes);
  void clear(u64 base, u64 length);

  // The command line at BOOT_CMDLINE, at most `limit` characters.
  Result<void> place_cmdline(u64 limit);
  // The initrd below `below`; an address of 0 if there is none.
  Result<u64> place_initrd(u64 below);

  // Flat segments from a GDT at BOOT_GDT, interrupts off; paging off, or 4 GiB mapped one to one in long mode.
  BootState protected_mode(u64 entry);
  BootState long_mode(u64 entry);

  // "NAME: text"
  tl::unexpected<Error> fail(const std::string& text) const { return error(boot_.name + ": " + text); }

 private:
  struct Claim {
    u64 base, length;
    std::string what;
  };
  const Claim* overlapping(u64 base, u64 length) const;
  bool is_usable(u64 base, u64 length) const;
  BootState flat_state(u64 entry, u64 code_flags);

  const GuestMemory& ram_;
  const DirectBoot& boot_;
  const DirectTables& tables_;
  std::vector<Claim> claims_;
};

std::string hex(u64 value); // "1F00h"

// The loaders. Each is called only if its recogniser said so.
bool is_linux_image(ByteView image);
Result<BootState> load_linux(BootPlacer& placer);

bool is_elf(ByteView image);
bool has_pvh_entry(ByteView image);
Result<BootState> load_elf(BootPlacer& placer); // PVH, or the 64-bit Linux protocol
// Claims and fills what an ELF file loads, at its physical addresses.
Result<void> place_segments(BootPlacer& placer, const ElfImage& elf);

// Offset of the Multiboot header in the first 8 KiB.
std::optional<u64> find_multiboot_header(ByteView image);
Result<BootState> load_multiboot(BootPlacer& placer);

// Linux's boot_params: what both the bzImage and the ELF loader hand over (Documentation/arch/x86/zero-page.rst).
struct LinuxHandover {
  Bytes setup_header; // bytes from 1F1h of the image; empty for an ELF kernel
  u64 load_address = 0;
  u64 initrd = 0;
};
void place_boot_params(BootPlacer& placer, const LinuxHandover& handover);

} // namespace transom::firmware
