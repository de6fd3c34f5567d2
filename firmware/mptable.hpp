// Intel MultiProcessor Specification 1.4 tables, for systems that use the IOAPIC without ACPI. SeaBIOS builds its own;
// these are for directly booted kernels.
#pragma once

#include "firmware/machine.hpp"

namespace transom::firmware {

// The floating pointer (16 bytes) and, right behind it, the configuration table. `address` is 16-byte aligned.
Bytes build_mptable(const MachineDescription& machine, u32 address);

} // namespace transom::firmware
