#include "hypervisor/router.hpp"

#include <algorithm>

namespace transom {

Router::Router() : claims_(new Claim[MAX_CLAIMS]), ports_(new std::atomic<u16>[PORTS]) {
  for (u32 p = 0; p < PORTS; ++p) ports_[p].store(0, std::memory_order_relaxed);
}

u32 Router::add(Claim::Owner owner, bool mmio, u32 server, u16 device, u16 region, u64 length, u32 widths) {
  if (count_ == MAX_CLAIMS) return ~0u;
  Claim& claim = claims_[count_];
  claim.owner = owner;
  claim.mmio = mmio;
  claim.server = server;
  claim.device = device;
  claim.region = region;
  claim.length = length;
  claim.widths = widths;
  return count_++;
}

void Router::move(u32 index, u64 base, bool enabled) {
  if (index == 0 || index >= count_) return;
  Claim& claim = claims_[index];
  const u64 old = claim.base;
  if (old == base && claim.enabled.load() == enabled) return; // no gap for those who look without the lock
  const bool was = claim.enabled.exchange(false);
  if (!claim.mmio && was) refresh_ports(old, claim.length);
  claim.base = base;
  claim.enabled.store(enabled);
  if (!claim.mmio && enabled) refresh_ports(base, claim.length);
}

u32 Router::find(u32 server, u16 device, u16 region) const {
  for (u32 i = 1; i < count_; ++i) {
    const Claim& c = claims_[i];
    if (c.owner == Claim::Owner::device && c.server == server && c.device == device && c.region == region) return i;
  }
  return ~0u;
}

void Router::refresh_ports(u64 first, u64 length) {
  for (u64 p = first; p < std::min<u64>(first + length, PORTS); ++p) {
    u16 owner = 0;
    for (u16 i = 1; i < count_ && owner == 0; ++i)
      if (!claims_[i].mmio && claims_[i].enabled.load() && claims_[i].covers(p, 1)) owner = i;
    ports_[p].store(owner, std::memory_order_release);
  }
}

const Claim* Router::mmio(u64 gpa, u32 width) const {
  for (u32 i = 1; i < count_; ++i)
    if (claims_[i].mmio && claims_[i].enabled.load() && claims_[i].covers(gpa, width)) return &claims_[i];
  return nullptr;
}

} // namespace transom
