// How what a domain says about itself is shown.
#pragma once

#include <string>

#include "schema/control.capnp.h"

namespace transom::control {

std::string info_json(schema::Info::Reader info);      // one object, every field of schema/control.capnp
std::string list_json(schema::Info::Reader info);      // one object
std::string list_text(schema::Info::Reader info);      // one row
std::string info_text(schema::Info::Reader info);      // for people
std::string placement_json(schema::Info::Reader info); // an array, one object a device
std::string placement_text(schema::Info::Reader info);

} // namespace transom::control
