#include "hypervisor/vcpu/soft/jit/arena.hpp"

#include <cerrno>
#include <sys/mman.h>
#include <system_error>

namespace transom::soft {

// Shared anonymous memory rather than a memfd: perf looks into a perf map for such addresses alone.
CodeArena::CodeArena(u64 bytes) : bytes_(bytes) {
  const auto fail = [](const char* what) { throw std::system_error(errno, std::generic_category(), what); };
  void* const write = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (write == MAP_FAILED) fail("memory for translated code");
  write_ = static_cast<u8*>(write);
  void* const exec = mremap(write, 0, bytes, MREMAP_MAYMOVE); // the same pages once more
  if (exec == MAP_FAILED || mprotect(exec, bytes, PROT_READ | PROT_EXEC) != 0) {
    const int error = errno;
    munmap(write, bytes);
    if (exec != MAP_FAILED) munmap(exec, bytes);
    errno = error;
    fail("memory for translated code, executable");
  }
  exec_ = static_cast<const u8*>(exec);
  hot = {0, bytes / 2, 0};
  cold = {bytes / 2, bytes, 0};
}

CodeArena::~CodeArena() {
  munmap(write_, bytes_);
  munmap(const_cast<u8*>(exec_), bytes_);
}

} // namespace transom::soft
