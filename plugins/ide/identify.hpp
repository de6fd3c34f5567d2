// The 512 bytes of IDENTIFY DEVICE [ATA 8.15].
#pragma once

#include "ata_drive.hpp"

namespace ide {

std::array<u8, SECTOR> identify(const Drive& drive, u32 drive_index);

} // namespace ide
