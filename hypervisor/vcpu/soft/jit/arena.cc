#include "hypervisor/vcpu/soft/jit/arena.hpp"

#include <cerrno>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

namespace transom::soft {

CodeArena::CodeArena(u64 bytes) : bytes_(bytes) {
  const auto fail = [](const char* what) { throw std::system_error(errno, std::generic_category(), what); };
  const int fd = memfd_create("transom-code", MFD_CLOEXEC);
  if (fd < 0) fail("memory for translated code: memfd_create");
  void *write = MAP_FAILED, *exec = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0) {
    write = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    exec = mmap(nullptr, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  }
  const int error = errno;
  close(fd);
  if (write == MAP_FAILED || exec == MAP_FAILED) {
    if (write != MAP_FAILED) munmap(write, bytes);
    if (exec != MAP_FAILED) munmap(exec, bytes);
    errno = error;
    fail("memory for translated code");
  }
  write_ = static_cast<u8*>(write);
  exec_ = static_cast<const u8*>(exec);
  hot = {0, bytes / 2, 0};
  cold = {bytes / 2, bytes, 0};
}

CodeArena::~CodeArena() {
  munmap(write_, bytes_);
  munmap(const_cast<u8*>(exec_), bytes_);
}

} // namespace transom::soft
