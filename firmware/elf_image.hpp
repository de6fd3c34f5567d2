// A bounds-checked reader for the ELF files that can be booted: x86 executables with program headers.
#pragma once

#include <optional>
#include <string>

#include "core/result.hpp"
#include "firmware/bytes.hpp"

namespace transom::firmware {

struct ElfSegment {
  u64 offset = 0, file_size = 0; // inside the file
  u64 physical = 0, linear = 0, memory_size = 0;
};

struct ElfImage {
  bool is_64 = false;
  u64 entry = 0;                    // as in the header: physical or linear
  std::vector<ElfSegment> segments; // PT_LOAD with a size, in the file's order
  std::optional<u64> pvh_entry;     // XEN_ELFNOTE_PHYS32_ENTRY
};

bool is_elf(ByteView image);
Result<ElfImage> parse_elf(ByteView image); // messages without the file's name

// The physical address of the entry point, if a segment holds it.
std::optional<u64> physical_entry(const ElfImage& elf);

} // namespace transom::firmware
