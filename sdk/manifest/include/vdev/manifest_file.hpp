// What a device library promises, read from its file before it is opened. Opening runs the library's constructors, and
// a truncated file makes the loader die of SIGBUS; so a host reads the manifest first and opens only what fits.
//
// The file is hostile input: it is read with pread into bounded buffers, every count is limited, and a file that
// changes meanwhile gives an error or a manifest, never a crash. What is accepted has been checked: an ELF64 shared
// library for this machine, whose segments lie inside the file, and the records below, whole and within the limits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "vdev/manifest.h"
#include "vdev/vdev.h"

namespace vdev {

namespace limits {
inline constexpr std::uint64_t MANIFEST_BYTES = 1 << 20;
inline constexpr std::uint32_t RECORDS = 4096;
inline constexpr std::uint32_t SECTIONS = 16384;
inline constexpr std::uint32_t SEGMENTS = 256;
inline constexpr std::uint64_t SECTION_NAMES_BYTES = 1 << 20;
inline constexpr std::uint32_t IRQS = 64; // of a device, as all below
inline constexpr std::uint32_t DRIVES = 32;
inline constexpr std::uint32_t STREAMS = 32;
inline constexpr std::uint32_t PCI_FUNCTIONS = 8;
inline constexpr std::uint64_t BULK_BYTES = 1u << 30;
} // namespace limits

struct ManifestRegion {
  std::string name;
  std::uint32_t space = 0; // VDEV_SPACE_*
  std::uint32_t flags = 0; // VDEV_REGION_*
  std::uint64_t default_base = 0, length = 0;
  std::uint32_t widths = 0; // VDEV_WIDTH_*
};

struct ManifestConfig {
  std::string key;
  std::uint32_t type = 0; // VDEV_CONFIG_*
  bool required = false;
  std::string default_value; // empty: none
  std::string help;
  std::uint64_t minimum = 0, maximum = 0; // integers
};

struct ManifestDevice {
  std::string id, name, vendor, version;
  std::uint32_t state_version = 0, irq_count = 0, drive_count = 0, stream_count = 0, state_bytes = 0, pci_functions = 0;
  std::uint64_t bulk_bytes = 0;
  std::vector<ManifestRegion> regions;
  std::vector<ManifestConfig> config;

  const ManifestConfig* find_key(std::string_view key) const;
};

struct Manifest {
  std::uint16_t abi_major = 0, abi_minor = 0;
  std::vector<ManifestDevice> devices; // at least one

  const ManifestDevice* find(std::string_view id) const;
};

// The error is one line: the path, what was found, and what is accepted. [any]
tl::expected<Manifest, std::string> read_manifest(const std::string& path);
// The same from an open file, whose name serves the error text only. Does not close it, nor use its offset.
tl::expected<Manifest, std::string> read_manifest(int fd, const std::string& name);
// The records alone: the contents of the section.
tl::expected<Manifest, std::string> parse_manifest(std::string_view section);

// Whether `value` is one that the key accepts: "" or why not, with what is accepted.
std::string check_config_value(const ManifestConfig& key, std::string_view value);

} // namespace vdev
