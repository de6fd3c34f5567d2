// `transom run`: holds a domain's memory, starts and watches its processes, answers its control socket, and ends it in
// order.
#pragma once

#include "core/domain_plan.hpp"

namespace transom::control {

struct RunOptions {
  bool single_process = false; // threads instead of processes: same code, same plugins, same ioreq path
  u64 timeout_s = 0;           // 0: none
  std::string info_at_end;     // file: what `transom info --json` would have said last; empty: none
};

// Runs the domain to its end; the exit status of `transom run`. Says on stderr why, if it is not plain power-off.
int supervise(const DomainPlan& plan, const RunOptions& options);

} // namespace transom::control
