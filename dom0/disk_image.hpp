// A raw disk image: the one place where image files are opened.
#pragma once

#include <string>

#include "core/domain_plan.hpp"
#include "core/file_descriptor.hpp"
#include "core/result.hpp"
#include "core/types.hpp"

namespace transom {

class DiskImage {
 public:
  // Opens and locks (OFD lock: exclusive for a writable image, shared for a read-only one). Errors name the file, what
  // was found and what to do.
  static Result<DiskImage> open(const DrivePlan& plan);

  int fd() const { return fd_.get(); }
  u64 bytes() const { return bytes_; }
  const DrivePlan& plan() const { return plan_; }
  bool durable() const { return plan_.cache != DiskCache::unsafe; } // flushes and FUA reach the disk

 private:
  FileDescriptor fd_;
  u64 bytes_ = 0;
  DrivePlan plan_;
};

} // namespace transom
