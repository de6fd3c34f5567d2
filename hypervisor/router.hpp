// Who owns a port or a guest-physical address: the exit → device table. Claims are made when devices are known, and
// moved by BARs and chipset registers. Of two claims on one port the older wins (the config is checked for overlaps
// beforehand; a guest can still move a BAR onto something).
//
// Changed under the board lock. Port look-ups take no lock: one atomic index a port, and claims are never moved in
// memory.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "core/types.hpp"

namespace transom {

struct Claim {
  enum class Owner : u8 { none, device, fw_cfg };
  Owner owner = Owner::none;
  bool mmio = false;
  std::atomic<bool> enabled{false};
  u32 server = 0; // or SERVER_HYPERVISOR
  u16 device = 0, region = 0;
  std::atomic<u64> base{0};
  u64 length = 0;
  u32 widths = 0;

  bool covers(u64 at, u64 bytes) const {
    const u64 first = base.load(std::memory_order_relaxed);
    return at >= first && bytes <= length && at - first <= length - bytes;
  }
};

class Router {
 public:
  static constexpr u32 PORTS = 65536, MAX_CLAIMS = 512;

  Router();

  // The index of the new claim, or ~0 when there are too many. Disabled until move().
  u32 add(Claim::Owner owner, bool mmio, u32 server, u16 device, u16 region, u64 length, u32 widths);
  void move(u32 claim, u64 base, bool enabled);
  u32 find(u32 server, u16 device, u16 region) const; // ~0: no such claim

  // The claim that covers all of [port, port + width), or null.
  const Claim* port(u32 port, u32 width) const {
    const u16 index = ports_[port].load(std::memory_order_acquire);
    if (index == 0) return nullptr;
    const Claim& claim = claims_[index];
    return port + width <= PORTS && claim.covers(port, width) ? &claim : nullptr;
  }
  const Claim* mmio(u64 gpa, u32 width) const; // board lock held

 private:
  void refresh_ports(u64 first, u64 length);

  std::unique_ptr<Claim[]> claims_; // [0] is "nobody"
  u32 count_ = 1;
  std::unique_ptr<std::atomic<u16>[]> ports_;
};

} // namespace transom
