// Talking to a running domain.
#pragma once

#include <functional>
#include <string>

#include "core/result.hpp"
#include "schema/control.capnp.h"

namespace transom::control {

// Connects to the domain and hands its info over, or says that there is no such domain.
Result<void> with_info(const std::string& domain, const std::function<void(schema::Info::Reader)>& use);
// Returns when the domain has ended.
Result<void> kill_domain(const std::string& domain);
// Somebody listens on its socket, whether he answers or not.
bool is_running(const std::string& domain);

} // namespace transom::control
