// Direct boot: a kernel file put into guest memory, and the registers with which it starts.
//
// Accepted, told apart by content: Linux bzImage (boot protocol 2.02 and later), ELF with a PVH entry note, Multiboot 1
// (ELF or with load addresses in its header), ELF64 entered as Linux's 64-bit boot protocol says. Images are untrusted:
// every field is checked against the file and against guest RAM before it is used, and every refusal says what was
// found and what is accepted.
#pragma once

#include <string>

#include "core/guest_memory.hpp"
#include "core/result.hpp"
#include "firmware/boot_state.hpp"
#include "firmware/direct_tables.hpp"

namespace transom::firmware {

struct DirectBoot {
  std::string name = "kernel"; // for messages: the file's name
  Bytes kernel;
  Bytes initrd;        // empty: none; a Multiboot kernel gets it as its only module
  std::string cmdline; // handed over as it is
};

// Reads the files; `initrd` may be empty.
Result<DirectBoot> read_direct_boot(const std::string& kernel, const std::string& initrd, const std::string& cmdline);

// Before any vCPU runs: writes guest RAM without the code-page protocol. Besides the image it uses 1000h–1AFFFh
// (boot_placer.hpp) and, for the initrd, the end of RAM below 4 GiB. `tables` is what place_tables() returned; the
// caller also makes the writes of direct_boot_ports().
Result<BootState> load_kernel(const GuestMemory& ram, const DirectBoot& boot, const DirectTables& tables);

} // namespace transom::firmware
