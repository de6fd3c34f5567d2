// Memory that the processes of a domain share: memfds, sealed against resizing before anyone else sees them, so that
// no peer can make an access fault by shrinking the file. Handed over by descriptor.
#pragma once

#include <string>

#include "core/file_descriptor.hpp"
#include "core/result.hpp"
#include "core/types.hpp"

namespace transom {

class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  // Zeroed; `size` is rounded up to pages. The name shows in /proc/PID/maps.
  static Result<SharedMemory> create(const std::string& name, u64 size);
  // Maps a peer's memfd. Refused unless it is sealed and at least `minimum` bytes long.
  static Result<SharedMemory> attach(FileDescriptor fd, u64 minimum);

  u8* data() const { return data_; }
  u64 size() const { return size_; }
  int fd() const { return fd_.get(); }

 private:
  static Result<SharedMemory> map(FileDescriptor fd, u64 size);

  FileDescriptor fd_;
  u8* data_ = nullptr;
  u64 size_ = 0;
};

} // namespace transom
