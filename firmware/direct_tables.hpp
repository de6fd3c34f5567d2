// The firmware's work for a kernel that is booted without firmware: tables placed in guest memory, a memory map, and
// the chipset programmed as SeaBIOS would leave it.
#pragma once

#include "core/guest_memory.hpp"
#include "core/result.hpp"
#include "firmware/e820.hpp"
#include "firmware/machine.hpp"

namespace transom::firmware {

struct DirectTables {
  u64 rsdp = 0;
  u64 smbios = 0;  // anchor
  u64 mptable = 0; // floating pointer
  E820Map e820;
};

// Places ACPI (by running the same table-loader script that SeaBIOS runs), SMBIOS and MP tables: pointers in the
// F-segment, the ACPI tables at the end of low RAM. The F-segment is shadow RAM: the guest sees it once
// direct_boot_ports() has opened it. Before any vCPU runs.
Result<DirectTables> place_tables(const GuestMemory& ram, const MachineDescription& machine);

// A port write that the hypervisor makes in the guest's name, through its router, before the first instruction.
struct PortWrite {
  u16 port = 0;
  u8 width = 1;
  u32 value = 0;
};

// In order: shadow RAM readable, PIRQ routes and ELCR, PM and SMBus blocks, the IDE channels' decode enable and the
// bus master's ports, interrupt lines, the 8042's command byte. PCI devices behind these (NIC, VGA) get their BARs from
// the kernel.
std::vector<PortWrite> direct_boot_ports();

} // namespace transom::firmware
