// Stand-ins until the FPU handlers are there: every opcode of theirs is #UD.
#include "hypervisor/vcpu/soft/handlers_simd.hpp"

namespace transom::soft {

Choice x87_handler(u8, u8) { return {}; }
Choice simd_handler(const SimdOpcode&) { return {}; }

} // namespace transom::soft
