// How long a thread of the hypervisor may sleep.
#pragma once

#include <algorithm>
#include <ctime>

#include "core/domain_clock.hpp"

namespace transom {

// ppoll()'s timeout until `deadline` of the domain clock, at most a second.
inline timespec poll_timeout(const DomainClock& clock, u64 deadline) {
  constexpr u64 LONGEST = 1'000'000'000;
  const u64 now = clock.now();
  const u64 ns = deadline <= now ? 0 : std::min(deadline - now, LONGEST);
  return {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
}

} // namespace transom
