#include "hypervisor/vcpu/soft/memory.hpp"

namespace transom::soft {

void segment_violation(Cpu& cpu, unsigned segment) { raise(cpu, segment == SS ? SS_FAULT : GP, 0); }

} // namespace transom::soft
