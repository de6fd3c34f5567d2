// How functions that can fail for a reason that a person will read report it: a value, or one clear sentence.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace transom {

struct Error {
  std::string text; // what was found, what is accepted, what to do; no trailing newline
};

template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> error(std::string text) { return tl::unexpected<Error>(Error{std::move(text)}); }

} // namespace transom
