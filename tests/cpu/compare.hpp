// What has to be equal between the host and the software CPU.
#pragma once

#include <string>

#include "tests/cpu/slots.hpp"

namespace transom::cpu_test {

// RFLAGS bits that the manual leaves undefined after this instruction.
u64 undefined_flags(ZydisMnemonic mnemonic);

// Empty if both outcomes agree. `undefined`: flags not to be compared. `mnemonic` (of a single instruction, else
// ZYDIS_MNEMONIC_INVALID) selects the accepted differences, which are listed in compare.cc.
std::string difference(const Case& c, const Outcome& native, const Outcome& soft, u64 undefined,
                       ZydisMnemonic mnemonic);

} // namespace transom::cpu_test
