// Debian's stock kernel, from TRANSOM_TEST_KERNEL: as it is, and the ELF file packed inside it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "firmware/boot_kernel.hpp"

namespace transom::firmware {

inline std::string debian_vmlinuz() {
  const char* path = std::getenv("TRANSOM_TEST_KERNEL");
  if (path == nullptr)
    throw std::runtime_error(
        "TRANSOM_TEST_KERNEL is not set; it names a Debian vmlinuz:\n"
        "  export TRANSOM_TEST_KERNEL=$(tests/tools/debian-kernel.sh build/debian-kernel | head -n 1)");
  return path;
}

// The payload of a bzImage is {xz stream, LE32 unpacked size}; boot protocol fields 248h and 24Ch say where it lies.
inline Bytes debian_vmlinux() {
  const Bytes image = read_direct_boot(debian_vmlinuz(), "", "").value().kernel;
  const u64 payload = (image.at(0x1f1) + 1u) * 512 + le32_at(image, 0x248);
  if (le32_at(image, payload) != 0x587a37fd) throw std::runtime_error("the kernel is not packed with xz");
  std::string folder = (std::filesystem::temp_directory_path() / "transom-vmlinux-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("mkdtemp");
  std::ofstream(folder + "/vmlinux.xz", std::ios::binary)
      .write(reinterpret_cast<const char*>(image.data() + payload), le32_at(image, 0x24c) - 4);
  const int status = std::system(("xz -d " + folder + "/vmlinux.xz").c_str());
  auto vmlinux = read_direct_boot(folder + "/vmlinux", "", "");
  std::filesystem::remove_all(folder);
  if (status != 0 || !vmlinux) throw std::runtime_error("xz could not unpack the kernel");
  return std::move(vmlinux->kernel);
}

} // namespace transom::firmware
