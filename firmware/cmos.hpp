// What firmware looks up in the RTC's battery-backed RAM. The clock's own registers (00h–0Dh, 32h) are the RTC's.
#pragma once

#include "firmware/machine.hpp"

namespace transom::firmware {

struct CmosValue {
  u8 index = 0; // 0Eh … 7Fh
  u8 value = 0;
  friend bool operator==(const CmosValue&, const CmosValue&) = default;
};

std::vector<CmosValue> cmos_defaults(const MachineDescription& machine);

} // namespace transom::firmware
