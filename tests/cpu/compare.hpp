// What has to be equal between the host and the software CPU.
#pragma once

#include <string>

#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

// RFLAGS bits that the manual leaves undefined after this instruction in this state.
u64 undefined_flags(const ZydisDecodedInstruction& insn, const Case& c);

// Empty if both outcomes agree. `undefined`: flags not to be compared.
std::string difference(const Case& c, const Outcome& native, const Outcome& soft, u64 undefined);

} // namespace transom::cpu_test
