// The guest-physical map as KVM takes it: slots of host memory, some read-only. What no slot holds comes as an MMIO
// exit, as does a write to a read-only slot; both ask VcpuPlatform::page() what lies there.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "hypervisor/memory_map.hpp"

namespace transom {

struct MemorySlot {
  u64 gpa = 0, size = 0;
  u8* host = nullptr;
  bool read_only = false;
  bool operator==(const MemorySlot& other) const {
    return gpa == other.gpa && size == other.size && host == other.host && read_only == other.read_only;
  }
};

// In order of address. With A20 off, odd megabytes below 16 MiB show the even ones under them.
std::vector<MemorySlot> memory_layout(const MemoryMap& map, u64 a20_mask);

class MemorySlots {
 public:
  explicit MemorySlots(int vm) : vm_(vm) {}

  // Changes what differs. A slot cannot be resized or moved to other memory, so it goes and comes: no vCPU may be in
  // KVM_RUN that could use it meanwhile.
  Result<void> update(const std::vector<MemorySlot>& layout);

  // --- which pages the guest writes
  Result<void> log_dirty_pages(bool on);
  // Calls dirty(gpa) once for each page written since the last harvest, or since logging was switched on.
  Result<void> harvest_dirty_pages(const std::function<void(u64 gpa)>& dirty);

 private:
  Result<void> set(u32 id, const MemorySlot& slot, u64 size);
  u32 free_id() const;

  int vm_;
  std::mutex mutex_;
  std::map<u32, MemorySlot> slots_; // by KVM's number
  bool logging_ = false;
};

} // namespace transom
