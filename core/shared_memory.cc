#include "core/shared_memory.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace transom {

namespace {
constexpr int SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, size_);
    fd_ = std::move(other.fd_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<SharedMemory> SharedMemory::create(const std::string& name, u64 size) {
  size = (size + PAGE_SIZE - 1) & PAGE_MASK;
  FileDescriptor fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return error(fmt::format("memfd_create({}): {}", name, std::strerror(errno)));
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return error(fmt::format("{}: cannot size shared memory to {} bytes: {}", name, size, std::strerror(errno)));
  if (::fcntl(fd.get(), F_ADD_SEALS, SEALS) != 0)
    return error(fmt::format("{}: cannot seal shared memory: {}", name, std::strerror(errno)));
  return map(std::move(fd), size);
}

Result<SharedMemory> SharedMemory::attach(FileDescriptor fd, u64 minimum) {
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & SEALS) != SEALS)
    return error("shared memory from the peer is not a sealed memfd (it could shrink under our hands)");
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return error(fmt::format("fstat of shared memory: {}", std::strerror(errno)));
  if (static_cast<u64>(st.st_size) < minimum)
    return error(fmt::format("shared memory from the peer has {} bytes, {} are needed", st.st_size, minimum));
  return map(std::move(fd), static_cast<u64>(st.st_size));
}

Result<SharedMemory> SharedMemory::map(FileDescriptor fd, u64 size) {
  void* const p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED)
    return error(fmt::format("cannot map {} bytes of shared memory: {}", size, std::strerror(errno)));
  SharedMemory memory;
  memory.fd_ = std::move(fd);
  memory.data_ = static_cast<u8*>(p);
  memory.size_ = size;
  return memory;
}

} // namespace transom
