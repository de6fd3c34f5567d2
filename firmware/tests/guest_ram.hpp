// Guest RAM for a test: zeroed, mapped on demand, so that a guest of many gigabytes costs only what is touched.
#pragma once

#include <stdexcept>
#include <sys/mman.h>

#include "core/guest_memory.hpp"
#include "firmware/bytes.hpp"

namespace transom::firmware {

class GuestRam {
 public:
  explicit GuestRam(u64 size) : size_(size) {
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap of guest RAM");
    host_ = static_cast<u8*>(at);
    ram = GuestMemory(host_, size);
  }
  ~GuestRam() { munmap(host_, size_); }
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  // Throws rather than returning less: a test that reads outside RAM has found a wrong pointer.
  Bytes bytes(u64 gpa, u64 length) const {
    const u8* at = ram.at(gpa, length);
    if (at == nullptr) throw std::out_of_range("not guest RAM");
    return Bytes(at, at + length);
  }
  std::string text(u64 gpa, u64 length) const {
    const Bytes b = bytes(gpa, length);
    return std::string(b.begin(), b.end());
  }
  u64 number(u64 gpa, u32 width) const { return le_at(bytes(gpa, width), 0, width); }

  GuestMemory ram;

 private:
  u8* host_;
  u64 size_;
};

inline u8 sum_of(ByteView bytes) { return static_cast<u8>(-checksum_of(bytes)); }

} // namespace transom::firmware
