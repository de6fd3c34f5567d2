#include "control/address_claims.hpp"

#include <fmt/format.h>

#include "core/guest_memory.hpp"

namespace transom::control {

AddressClaims::AddressClaims(u64 memory)
    : taken_{{0xcf8, 0xcf8, false, "PCI configuration"}, // CF9h is the reset port of the ISA bridge
             {0xcfa, 0xcff, false, "PCI configuration"},       {0x510, 0x51b, false, "fw_cfg"},
             {0xfec0'0000, 0xfec0'0fff, true, "the I/O APIC"}, {0xfee0'0000, 0xfee0'0fff, true, "the local APIC"},
             {0xff00'0000, 0xffff'ffff, true, "the firmware"}} {
  const GuestMemory ram(nullptr, memory);
  taken_.push_back({0, ram.low_size() - 1, true, "guest RAM"});
  if (ram.high_size() != 0)
    taken_.push_back({GuestMemory::HIGH_BASE, GuestMemory::HIGH_BASE + ram.high_size() - 1, true, "guest RAM"});
}

std::string AddressClaims::claim(const std::string& device, const std::string& region, bool mmio, u64 base,
                                 u64 length) {
  const Range range{base, base + length - 1, mmio, fmt::format("{} (region {})", device, region)};
  const u64 highest = mmio ? (u64{1} << 52) - 1 : 0xffff;
  if (range.last < range.first || range.last > highest)
    return fmt::format("region {} of {:x}h bytes does not fit at {:x}h; {} to {:x}h are accepted", region, length, base,
                       mmio ? "addresses" : "ports", highest);
  std::string wrong;
  for (const Range& other : taken_)
    if (wrong.empty() && other.mmio == mmio && range.first <= other.last && other.first <= range.last)
      wrong = fmt::format(
          "{} {:x}h–{:x}h of {} overlap with {} at {:x}h–{:x}h; move one with config = {{ \"base.{}\" = … }}",
          mmio ? "addresses" : "ports", range.first, range.last, range.owner, other.owner, other.first, other.last,
          region);
  taken_.push_back(range);
  return wrong;
}

} // namespace transom::control
