// A bounds-checked look into an ELF64 shared library.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>

namespace vdev::detail {

// The contents of the one section of that name, after the file has been found to be a shared library for this machine
// all of whose segments lie inside it.
tl::expected<std::string, std::string> read_section(int fd, const std::string& section, std::uint64_t most_bytes);

} // namespace vdev::detail
