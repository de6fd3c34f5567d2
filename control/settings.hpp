// What the command line adds to a domain's file, key by key.
#pragma once

#include <toml++/toml.h>

#include "control/config.hpp"

namespace transom::control {

// Puts the value into `root`, making the tables around it. "" or why it cannot be.
std::string apply(toml::table& root, const Setting& setting);

} // namespace transom::control
