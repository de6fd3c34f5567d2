#include "firmware/boot_kernel.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "firmware/boot_placer.hpp"

namespace transom::firmware {
namespace {

Result<Bytes> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return error(path + ": " + std::strerror(errno));
  Bytes bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return error(path + ": cannot be read");
  return bytes;
}

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

bool is_compressed(ByteView image) {
  if (image.size() < 6) return false;
  const bool gzip = image[0] == 0x1f && image[1] == 0x8b, xz = le32_at(image, 0) == 0x587a'37fd;
  const bool zstd = le32_at(image, 0) == 0xfd2f'b528;
  return gzip || xz || zstd;
}

} // namespace

Result<DirectBoot> read_direct_boot(const std::string& kernel, const std::string& initrd, const std::string& cmdline) {
  DirectBoot boot;
  boot.name = file_name(kernel);
  boot.cmdline = cmdline;
  auto image = read_file(kernel);
  if (!image) return tl::unexpected(image.error());
  boot.kernel = std::move(*image);
  if (initrd.empty()) return boot;
  auto disk = read_file(initrd);
  if (!disk) return tl::unexpected(disk.error());
  boot.initrd = std::move(*disk);
  return boot;
}

Result<BootState> load_kernel(const GuestMemory& ram, const DirectBoot& boot, const DirectTables& tables) {
  BootPlacer placer(ram, boot, tables);
  const ByteView image = boot.kernel;
  if (is_linux_image(image)) return load_linux(placer);
  const bool multiboot = find_multiboot_header(image).has_value();
  if (is_elf(image) && (!multiboot || has_pvh_entry(image))) return load_elf(placer);
  if (multiboot) return load_multiboot(placer);
  if (is_compressed(image)) return placer.fail("a compressed file: unpack it first");
  return placer.fail("not a kernel that can be booted directly: no \"HdrS\" at 202h (bzImage), no ELF header, no " +
                     std::string("Multiboot header in the first 8 KiB; the file has ") + hex(image.size()) + " bytes");
}

} // namespace transom::firmware
