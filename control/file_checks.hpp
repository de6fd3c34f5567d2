// Whether the files that a configuration names can be what they are named for. Looks, and touches nothing: "" or what
// is wrong, beginning with the path.
#pragma once

#include <string>

namespace transom::control {

std::string wrong_input(const std::string& path);                 // read as a whole: a kernel, firmware
std::string wrong_image(const std::string& path, bool read_only); // of a disk, raw
std::string wrong_output(const std::string& path);                // a log that is made or overwritten
std::string wrong_socket(const std::string& path);                // a socket that is made; a stale one is replaced

bool same_file(const std::string& a, const std::string& b); // by whatever names

} // namespace transom::control
