// The C++20 face of the device ABI: everything a device model needs.
#pragma once

#include "cpp/field.hpp"
#include "cpp/fifo.hpp"
#include "cpp/host.hpp"
#include "cpp/plugin.hpp"
#include "cpp/state.hpp"
#include "cpp/time.hpp"
#include "cpp/types.hpp"
