#include "firmware/machine.hpp"

namespace transom::firmware {

MachineDescription::MachineDescription() : boot_order{BootDevice::disk, BootDevice::cdrom, BootDevice::floppy} {}

MachineDescription::MachineDescription(const GuestMemory& ram) : MachineDescription() {
  low_ram = ram.low_size();
  high_ram = ram.high_size();
}

} // namespace transom::firmware
