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

// Where a plugin of this name is: a path, else $TRANSOM_PLUGIN_PATH, else the installation. Empty: nowhere.
std::string find_plugin(const std::string& name);
std::vector<std::string> plugin_folders();

} // namespace transom::control
