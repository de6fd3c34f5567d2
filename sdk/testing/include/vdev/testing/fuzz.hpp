// A device's fuzz target, in one line:   VDEV_FUZZ("uart.so", "org.transom.uart16550")
// The input is actions (actions.hpp), 16 bytes each. Built without libFuzzer it is a program that runs the files it is
// given, or random inputs when it is given none; see transom_plugin_fuzz() in cmake/transom.cmake.
#pragma once

#include "vdev/testing/actions.hpp"

namespace vdev::testing {

// Runs the actions on one device; aborts where a rule of vdev.h is broken. `prepare` may bring the device where it gets
// interesting. Always 0.
int fuzz_one(const std::string& path, const std::string& device, std::span<const u8> input, const Options& options = {},
             void (*prepare)(Bench&) = nullptr);

} // namespace vdev::testing

#define VDEV_FUZZ(plugin, device, ...)                                                \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    return ::vdev::testing::fuzz_one(::vdev::testing::plugin_path(plugin), device,    \
                                     {data, size} __VA_OPT__(, ) __VA_ARGS__);        \
  }
