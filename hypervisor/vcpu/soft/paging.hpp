// The page walker and the translations it leaves behind.
#pragma once

#include <optional>

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

struct Walk {
  u64 gpa = 0;           // of the byte
  bool writable = false; // without another walk: permitted, and D is set
  bool executable = false;
  bool global = false;
  u8 page_bits = 12; // size of the page that maps it
};

// The architectural walk (SDM 3A chapter 4): sets A/D, raises #PF.
Walk walk(Cpu& cpu, u64 linear, Access access, bool user);

// Where `linear` leads now, for a debugger: whatever the privileges say, and without a trace in the tables. Nothing: it
// is not mapped.
std::optional<u64> look_up(Cpu& cpu, u64 linear);

// The host's view of a guest-physical page, remembered.
const PhysPage& phys_page(Cpu& cpu, u64 gpa);

// The cached translation that allows `access`; walks and fills if need be. Raises #PF, #GP(0)/#SS(0) if not canonical.
TlbInfo& resolve(Cpu& cpu, u64 linear, Access access, bool user);

void reset_tlb(Cpu& cpu);                    // every tag of every table
void revoke_writes(Cpu& cpu, u64 ram_page);  // the page holds code now: stores to it take the slow path
void revoke_shared_writes(Cpu& cpu);         // ditto, every page where another vCPU has some
void restore_writes(Cpu& cpu, u64 ram_page); // it does not any more
void flush_phys(Cpu& cpu);                   // platform->page() answers changed

} // namespace transom::soft
