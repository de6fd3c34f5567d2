// Guest RAM: one sealed memfd, mapped once, seen by guest-physical address. RAM lies at 0 … below_4g and, for domains
// with more, at 4 GiB … ; between the two is the hole for devices. Nothing here knows ROM, shadowing or MMIO: that is
// the hypervisor's memory map. Contents are hostile: copy once, then check.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "core/types.hpp"

namespace transom {

class GuestMemory {
 public:
  // RAM below 4 GiB ends here at the latest; PCI windows and firmware live above.
  static constexpr u64 LOW_LIMIT = 0xc000'0000;
  static constexpr u64 HIGH_BASE = 0x1'0000'0000;

  GuestMemory() = default;
  // `host` maps `size` bytes (a multiple of the page size) and outlives this object, which is a view.
  GuestMemory(u8* host, u64 size) : host_(host), size_(size), low_(std::min(size, LOW_LIMIT)) {}

  u64 size() const { return size_; }
  u64 low_size() const { return low_; }          // bytes of RAM from address 0
  u64 high_size() const { return size_ - low_; } // bytes of RAM from HIGH_BASE
  // Pages that a page-indexed table needs to cover all RAM by guest-physical page number.
  u64 page_span() const { return (high_size() ? HIGH_BASE + high_size() : low_) >> PAGE_SHIFT; }

  // Host address of [gpa, gpa + length) if all of it is RAM in one piece, else null.
  u8* at(u64 gpa, u64 length) const {
    if (gpa < low_) return length <= low_ - gpa ? host_ + gpa : nullptr;
    if (gpa >= HIGH_BASE && gpa - HIGH_BASE < high_size())
      return length <= high_size() - (gpa - HIGH_BASE) ? host_ + low_ + (gpa - HIGH_BASE) : nullptr;
    return nullptr;
  }
  bool read(u64 gpa, void* to, u64 length) const {
    const u8* from = at(gpa, length);
    if (from == nullptr) return false;
    std::memcpy(to, from, length);
    return true;
  }
  // Plain copy: callers that may overwrite code use the code-page map as well (code_pages.hpp).
  bool write(u64 gpa, const void* from, u64 length) const {
    u8* to = at(gpa, length);
    if (to == nullptr) return false;
    std::memcpy(to, from, length);
    return true;
  }

 private:
  u8* host_ = nullptr;
  u64 size_ = 0;
  u64 low_ = 0;
};

} // namespace transom
