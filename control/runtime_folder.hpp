// Where running domains are found: one socket a domain in a folder of the user's own.
#pragma once

#include <string>
#include <vector>

#include "core/result.hpp"

namespace transom::control {

// $XDG_RUNTIME_DIR/transom, else /tmp/transom-UID; made with mode 0700. Refused when it is somebody else's.
Result<std::string> runtime_folder();
Result<std::string> socket_path(const std::string& domain);
std::vector<std::string> socket_names(); // domains that have a socket, alive or not

} // namespace transom::control
