// The library's manifest as one constant object without pointers, from what the chip classes declare.
#pragma once

#include <bit>

#include "../manifest.h"
#include "types.hpp"

// A configuration key of a chip: static constexpr vdev_config_key config[] = {{"rate", VDEV_CONFIG_INTEGER, "9600",
// "…"}}
struct vdev_config_key {
  const char* key;
  std::uint32_t type = VDEV_CONFIG_STRING;
  const char* default_value = ""; // as text; empty: none
  const char* help = "";          // one sentence
  std::uint64_t minimum = 0;
  std::uint64_t maximum = INT64_MAX;
  std::uint32_t required = 0;
};

namespace vdev {
namespace detail {

template <std::size_t N>
constexpr void copy_text(char (&to)[N], const char* from) {
  std::size_t i = 0;
  for (; from && from[i]; ++i) {
    if (i + 1 >= N) throw "this text is longer than its manifest record has room for";
    to[i] = from[i];
  }
}

template <class Chip>
constexpr std::size_t config_count() {
  if constexpr (requires { Chip::config[0].key; }) return std::size(Chip::config);
  return 0;
}

template <class Chip>
constexpr vdev_manifest_device device_record() {
  vdev_manifest_device record{};
  record.size = sizeof record;
  record.kind = VDEV_MANIFEST_DEVICE;
  copy_text(record.id, Chip::descriptor.id);
  copy_text(record.name, Chip::descriptor.name);
  copy_text(record.vendor, Chip::descriptor.vendor);
  copy_text(record.version, Chip::descriptor.version);
  record.state_version = Chip::descriptor.state_version;
  record.irq_count = Chip::descriptor.irq_count;
  record.state_bytes = sizeof(typename Chip::State);
  if constexpr (requires { Chip::drive_count; }) record.drive_count = Chip::drive_count;
  if constexpr (requires { Chip::stream_count; }) record.stream_count = Chip::stream_count;
  if constexpr (requires { Chip::pci_functions[0]; }) record.pci_functions = u32(std::size(Chip::pci_functions));
  if constexpr (requires { Chip::bulk[0]; }) {
    for (const u64 bytes : Chip::bulk) record.bulk_bytes += bytes;
  }
  return record;
}

constexpr vdev_manifest_region region_record(const vdev_region& region) {
  vdev_manifest_region record{};
  record.size = sizeof record;
  record.kind = VDEV_MANIFEST_REGION;
  copy_text(record.name, region.name);
  record.space = region.space;
  record.flags = region.flags;
  record.default_base = region.default_base;
  record.length = region.length;
  record.widths = region.widths;
  return record;
}

constexpr vdev_manifest_config config_record(const vdev_config_key& key) {
  vdev_manifest_config record{};
  record.size = sizeof record;
  record.kind = VDEV_MANIFEST_CONFIG;
  copy_text(record.key, key.key);
  record.type = key.type;
  record.required = key.required;
  copy_text(record.default_value, key.default_value);
  copy_text(record.help, key.help);
  record.minimum = key.minimum;
  record.maximum = key.maximum;
  return record;
}

template <class Chip>
constexpr std::size_t manifest_bytes() {
  return sizeof(vdev_manifest_device) + Chip::descriptor.region_count * sizeof(vdev_manifest_region) +
         config_count<Chip>() * sizeof(vdev_manifest_config);
}

template <std::size_t N, class Record>
constexpr void append(std::array<char, N>& bytes, std::size_t& at, const Record& record) {
  for (const char c : std::bit_cast<std::array<char, sizeof(Record)>>(record)) bytes[at++] = c;
}

template <class Chip, std::size_t N>
constexpr void append_chip(std::array<char, N>& bytes, std::size_t& at) {
  append(bytes, at, device_record<Chip>());
  for (u32 i = 0; i < Chip::descriptor.region_count; ++i) append(bytes, at, region_record(Chip::descriptor.regions[i]));
  if constexpr (config_count<Chip>() > 0) {
    for (const vdev_config_key& key : Chip::config) append(bytes, at, config_record(key));
  }
}

} // namespace detail

template <class... Chips>
constexpr auto make_manifest() {
  constexpr std::size_t size = sizeof(vdev_manifest_header) + (detail::manifest_bytes<Chips>() + ...);
  constexpr std::size_t records = ((1 + Chips::descriptor.region_count + detail::config_count<Chips>()) + ...);
  vdev_manifest_header header{};
  for (int i = 0; i < 8; ++i) header.magic[i] = VDEV_MANIFEST_MAGIC[i];
  header.size = u32(size);
  header.abi_major = VDEV_ABI_MAJOR;
  header.abi_minor = VDEV_ABI_MINOR;
  header.record_count = u32(records);
  std::array<char, size> bytes{};
  std::size_t at = 0;
  detail::append(bytes, at, header);
  (detail::append_chip<Chips>(bytes, at), ...);
  return bytes;
}

} // namespace vdev
