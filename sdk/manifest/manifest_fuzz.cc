// libFuzzer: whatever the file and the section hold, reading the manifest ends with a manifest or a text.
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#include "vdev/manifest_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int fd = memfd_create("manifest_fuzz", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != ssize_t(size)) std::abort();
  const auto file = vdev::read_manifest(fd, "fuzz");
  const auto section = vdev::parse_manifest({reinterpret_cast<const char*>(data), size});
  if ((!file && file.error().empty()) || (!section && section.error().empty())) std::abort();
  if ((file && file->devices.empty()) || (section && section->devices.empty())) std::abort();
  return 0;
}
