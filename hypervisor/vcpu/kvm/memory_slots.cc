#include "hypervisor/vcpu/kvm/memory_slots.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fmt/format.h>
#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"

namespace transom {

namespace {
constexpr u64 FOUR_GIB = u64{1} << 32;
constexpr u64 ISA_SPACE = 0x100'0000; // 24 address lines: who switches A20 off lives here
} // namespace

std::vector<MemorySlot> memory_layout(const MemoryMap& map, u64 a20_mask) {
  std::vector<MemorySlot> layout;
  // [from, from + size), all of it alike.
  const auto add = [&](u64 from, u64 size, u64 mask) {
    const PhysPage page = map.page(from & mask);
    if (page.read == nullptr || size == 0) return;
    const MemorySlot next{from, size, page.read, page.write != page.read};
    if (!layout.empty()) {
      MemorySlot& last = layout.back();
      if (last.gpa + last.size == from && last.host + last.size == page.read && last.read_only == next.read_only) {
        last.size += size;
        return;
      }
    }
    layout.push_back(next);
  };
  const u64 low = map.ram().low_size();
  const u64 fine = std::min(std::max(a20_mask == ~u64{0} ? MemoryMap::SHADOW_END : ISA_SPACE, MemoryMap::SHADOW_END),
                            std::max(low, MemoryMap::SHADOW_END));
  for (u64 gpa = 0; gpa < fine; gpa += MemoryMap::SEGMENT) add(gpa, std::min(MemoryMap::SEGMENT, fine - gpa), a20_mask);
  if (low > fine) add(fine, low - fine, ~u64{0});
  add(FOUR_GIB - map.firmware_size(), map.firmware_size(), ~u64{0});
  add(GuestMemory::HIGH_BASE, map.ram().high_size(), ~u64{0});
  return layout;
}

Result<void> MemorySlots::set(u32 id, const MemorySlot& slot, u64 size) {
  kvm_userspace_memory_region region{};
  region.slot = id;
  region.flags = (slot.read_only ? KVM_MEM_READONLY : 0u) |
                 (logging_ && !slot.read_only && size != 0 ? KVM_MEM_LOG_DIRTY_PAGES : 0u);
  region.guest_phys_addr = slot.gpa;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<u64>(slot.host);
  if (kvm_call(vm_, KVM_SET_USER_MEMORY_REGION, &region) == 0) return {};
  return error(fmt::format("{} ({:#x} bytes at {:#x})", kvm_failure("KVM_SET_USER_MEMORY_REGION"), size, slot.gpa));
}

u32 MemorySlots::free_id() const {
  u32 id = 0;
  while (slots_.count(id) != 0) ++id;
  return id;
}

Result<void> MemorySlots::update(const std::vector<MemorySlot>& layout) {
  const std::lock_guard<std::mutex> held(mutex_);
  for (auto at = slots_.begin(); at != slots_.end();) {
    if (std::find(layout.begin(), layout.end(), at->second) != layout.end()) {
      ++at;
      continue;
    }
    if (auto gone = set(at->first, at->second, 0); !gone) return gone;
    at = slots_.erase(at);
  }
  for (const MemorySlot& slot : layout) {
    const bool there = std::any_of(slots_.begin(), slots_.end(), [&](const auto& s) { return s.second == slot; });
    if (there) continue;
    const u32 id = free_id();
    if (auto made = set(id, slot, slot.size); !made) return made;
    slots_.emplace(id, slot);
  }
  return {};
}

Result<void> MemorySlots::log_dirty_pages(bool on) {
  const std::lock_guard<std::mutex> held(mutex_);
  logging_ = on;
  for (const auto& [id, slot] : slots_)
    if (!slot.read_only)
      if (auto changed = set(id, slot, slot.size); !changed) return changed;
  return {};
}

Result<void> MemorySlots::harvest_dirty_pages(const std::function<void(u64 gpa)>& dirty) {
  const std::lock_guard<std::mutex> held(mutex_);
  std::vector<u64> bits;
  for (const auto& [id, slot] : slots_) {
    if (slot.read_only) continue;
    bits.assign((slot.size / PAGE_SIZE + 63) / 64, 0);
    kvm_dirty_log log{};
    log.slot = id;
    log.dirty_bitmap = bits.data();
    if (kvm_call(vm_, KVM_GET_DIRTY_LOG, &log) != 0) return error(kvm_failure("KVM_GET_DIRTY_LOG"));
    for (size_t word = 0; word < bits.size(); ++word)
      for (u64 left = bits[word]; left != 0; left &= left - 1)
        dirty(slot.gpa + (word * 64 + static_cast<u64>(std::countr_zero(left))) * PAGE_SIZE);
  }
  return {};
}

} // namespace transom
