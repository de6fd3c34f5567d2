// From a checked configuration to the plan of a domain: which devices the board has, what each is wired to, where its
// plugin lies. Reads the plugins' manifests, never opens a plugin.
#pragma once

#include <string>
#include <vector>

#include "control/config.hpp"
#include "core/domain_plan.hpp"

namespace transom::control {

struct Planned {
  DomainPlan plan;
  std::vector<Diagnostic> errors;
};
Planned make_plan(const Config& config);

} // namespace transom::control
