// Where device libraries are found.
#pragma once

#include <string>
#include <vector>

namespace transom::control {

// Where a plugin of this name is: a path, else $TRANSOM_PLUGIN_PATH, else the installation. Empty: nowhere.
std::string find_plugin(const std::string& name);
std::vector<std::string> plugin_folders();

} // namespace transom::control
