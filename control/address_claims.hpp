// Which ports and addresses are whose: two owners of one are an error of the configuration.
#pragma once

#include <string>
#include <vector>

#include "core/types.hpp"

namespace transom::control {

class AddressClaims {
 public:
  // Begins with what belongs to the hypervisor itself.
  explicit AddressClaims(u64 memory);

  // "" or why not; it is taken in either case.
  std::string claim(const std::string& device, const std::string& region, bool mmio, u64 base, u64 length);

 private:
  struct Range {
    u64 first, last;
    bool mmio;
    std::string owner;
  };
  std::vector<Range> taken_;
};

} // namespace transom::control
