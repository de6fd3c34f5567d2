#include "vdev/manifest_file.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "elf_file.hpp"

namespace vdev {

namespace {

using std::uint32_t;
using std::uint64_t;

tl::unexpected<std::string> refuse(std::string why) { return tl::unexpected<std::string>(std::move(why)); }
std::string text(uint64_t number) { return std::to_string(number); }

// Thrown nowhere: the first failure is kept, and what follows it does nothing.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  const std::string& failure() const { return failure_; }
  bool failed() const { return !failure_.empty(); }
  void fail(std::string why) {
    if (!failed()) failure_ = std::move(why);
  }
  std::size_t left() const { return rest_.size(); }

  // As many of `size` bytes as the record has; the missing ones are zero.
  template <class Record>
  Record take(std::size_t size) {
    Record record{};
    std::memcpy(static_cast<void*>(&record), rest_.data(), std::min({size, sizeof record, rest_.size()}));
    rest_.remove_prefix(std::min(size, rest_.size()));
    return record;
  }
  template <class Record>
  Record look() const {
    Record record{};
    std::memcpy(static_cast<void*>(&record), rest_.data(), std::min(sizeof record, rest_.size()));
    return record;
  }

  // Printable text that ends within its array.
  template <std::size_t N>
  std::string string(const char (&array)[N], const char* what) {
    const char* end = static_cast<const char*>(std::memchr(array, 0, N));
    if (!end) {
      fail(std::string(what) + " is not terminated within its " + text(N) + " bytes");
      return "";
    }
    const std::string value(array, end);
    const bool printable = std::all_of(value.begin(), value.end(), [](char c) { return (c & 0xe0) != 0 && c != 0x7f; });
    if (!printable) fail(std::string(what) + " holds control characters");
    return value;
  }
  // A name: not empty, of letters, digits, '.', '-' and '_'.
  template <std::size_t N>
  std::string name(const char (&array)[N], const char* what) {
    const std::string value = string(array, what);
    const bool good = std::all_of(value.begin(), value.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
             c == '_';
    });
    if (value.empty() || !good)
      fail(std::string(what) + " '" + value + "': letters, digits, '.', '-' and '_' are accepted");
    return value;
  }
  void limit(uint64_t value, uint64_t most, const char* what) {
    if (value > most) fail(std::string(what) + " is " + text(value) + "; at most " + text(most) + " is accepted");
  }

 private:
  std::string_view rest_;
  std::string failure_;
};

struct RecordHead {
  uint32_t size, kind;
};

void read_device(Reader& in, const vdev_manifest_device& record, Manifest& manifest) {
  ManifestDevice device;
  device.id = in.name(record.id, "a device id");
  device.name = in.string(record.name, "a device's name");
  device.vendor = in.string(record.vendor, "a device's vendor");
  device.version = in.string(record.version, "a device's version");
  device.state_version = record.state_version;
  device.irq_count = record.irq_count;
  device.drive_count = record.drive_count;
  device.stream_count = record.stream_count;
  device.state_bytes = record.state_bytes;
  device.pci_functions = record.pci_functions;
  device.bulk_bytes = record.bulk_bytes;
  in.limit(record.irq_count, limits::IRQS, "irq_count");
  in.limit(record.drive_count, limits::DRIVES, "drive_count");
  in.limit(record.stream_count, limits::STREAMS, "stream_count");
  in.limit(record.state_bytes, 512, "state_bytes");
  in.limit(record.pci_functions, limits::PCI_FUNCTIONS, "pci_functions");
  in.limit(record.bulk_bytes, limits::BULK_BYTES, "bulk_bytes");
  if (manifest.find(device.id)) in.fail("two devices are called '" + device.id + "'");
  manifest.devices.push_back(std::move(device));
}

void read_region(Reader& in, const vdev_manifest_region& record, ManifestDevice& device) {
  ManifestRegion region{
      in.name(record.name, "a region"), record.space, record.flags, record.default_base, record.length, record.widths};
  const std::string what = "region '" + region.name + "' of " + device.id;
  if (region.space != VDEV_SPACE_PIO && region.space != VDEV_SPACE_MMIO) {
    in.fail(what + " lies in space " + text(region.space) + "; 1 (ports) and 2 (memory) are accepted");
  }
  if (region.widths == 0 || region.widths > 15) {
    in.fail(what + " has the width mask " + text(region.widths) + "; 1 to 15 is accepted");
  }
  const uint64_t space_end = region.space == VDEV_SPACE_PIO ? 0x10000 : uint64_t{1} << 52;
  if (region.length == 0 || region.length > space_end || region.default_base > space_end - region.length) {
    in.fail(what + " of " + text(region.length) + " bytes at " + text(region.default_base) +
            " does not lie in its space");
  }
  for (const ManifestRegion& other : device.regions) {
    if (other.name == region.name) in.fail(what + " is there twice");
  }
  device.regions.push_back(std::move(region));
}

void read_config(Reader& in, const vdev_manifest_config& record, ManifestDevice& device) {
  ManifestConfig config{in.name(record.key, "a configuration key"),
                        record.type,
                        record.required != 0,
                        in.string(record.default_value, "a default value"),
                        in.string(record.help, "a help text"),
                        record.minimum,
                        record.maximum};
  const std::string what = "configuration key '" + config.key + "' of " + device.id;
  if (config.type < VDEV_CONFIG_STRING || config.type > VDEV_CONFIG_BOOLEAN) {
    in.fail(what + " has type " + text(config.type) + "; 1 (string), 2 (integer) and 3 (boolean) are accepted");
  }
  if (config.minimum > config.maximum) in.fail(what + " has a minimum above its maximum");
  if (device.find_key(config.key)) in.fail(what + " is there twice");
  if (const std::string wrong = check_config_value(config, config.default_value);
      !config.default_value.empty() && !wrong.empty()) {
    in.fail(what + ": its default: " + wrong);
  }
  device.config.push_back(std::move(config));
}

void read_record(Reader& in, Manifest& manifest) {
  const auto head = in.look<RecordHead>();
  if (head.size < sizeof head || head.size > in.left()) {
    return in.fail("a record of " + text(head.size) + " bytes, where " + text(in.left()) + " are left");
  }
  if (head.kind == VDEV_MANIFEST_DEVICE) return read_device(in, in.take<vdev_manifest_device>(head.size), manifest);
  const bool known = head.kind == VDEV_MANIFEST_REGION || head.kind == VDEV_MANIFEST_CONFIG;
  if (known && manifest.devices.empty()) return in.fail("a region or configuration key before the first device");
  if (head.kind == VDEV_MANIFEST_REGION) {
    read_region(in, in.take<vdev_manifest_region>(head.size), manifest.devices.back());
  } else if (head.kind == VDEV_MANIFEST_CONFIG) {
    read_config(in, in.take<vdev_manifest_config>(head.size), manifest.devices.back());
  } else {
    in.take<RecordHead>(head.size); // of a newer SDK
  }
}

} // namespace

const ManifestConfig* ManifestDevice::find_key(std::string_view key) const {
  const auto found = std::find_if(config.begin(), config.end(), [&](const ManifestConfig& c) { return c.key == key; });
  return found == config.end() ? nullptr : &*found;
}

const ManifestDevice* Manifest::find(std::string_view id) const {
  const auto found = std::find_if(devices.begin(), devices.end(), [&](const ManifestDevice& d) { return d.id == id; });
  return found == devices.end() ? nullptr : &*found;
}

std::string check_config_value(const ManifestConfig& key, std::string_view value) {
  if (key.type == VDEV_CONFIG_STRING) return "";
  const std::string quoted = "'" + std::string(value.substr(0, 64)) + "'";
  if (key.type == VDEV_CONFIG_BOOLEAN) {
    const bool good = value == "true" || value == "false" || value == "1" || value == "0";
    return good ? "" : quoted + "; true and false (or 1 and 0) are accepted";
  }
  const int base = value.starts_with("0x") ? 16 : 10;
  const std::string_view digits = base == 16 ? value.substr(2) : value;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
  const bool parsed = error == std::errc{} && end == digits.data() + digits.size() && !digits.empty();
  if (parsed && number >= key.minimum && number <= key.maximum) return "";
  return quoted + "; " + text(key.minimum) + " to " + text(key.maximum) + " is accepted";
}

tl::expected<Manifest, std::string> parse_manifest(std::string_view section) {
  vdev_manifest_header header{};
  if (section.size() < sizeof header)
    return refuse("its manifest has " + text(section.size()) + " bytes; its header needs 24");
  std::memcpy(&header, section.data(), sizeof header);
  if (std::memcmp(header.magic, VDEV_MANIFEST_MAGIC, sizeof header.magic) != 0)
    return refuse("its manifest does not start with " VDEV_MANIFEST_MAGIC);
  if (header.abi_major != VDEV_ABI_MAJOR) {
    return refuse("ABI major " + text(header.abi_major) + ", this host speaks " + text(VDEV_ABI_MAJOR));
  }
  if (header.size < sizeof header || header.size > section.size()) {
    return refuse("its manifest says it has " + text(header.size) + " bytes; its section has " + text(section.size()));
  }
  if (header.record_count > limits::RECORDS) {
    return refuse("its manifest has " + text(header.record_count) + " records; at most " + text(limits::RECORDS) +
                  " are accepted");
  }
  if (section.find_first_not_of('\0', header.size) != section.npos)
    return refuse("more than one manifest in its section");
  Manifest manifest;
  manifest.abi_major = header.abi_major;
  manifest.abi_minor = header.abi_minor;
  Reader in(section.substr(sizeof header, header.size - sizeof header));
  for (uint32_t i = 0; i < header.record_count && !in.failed(); ++i) {
    read_record(in, manifest);
    if (in.failed()) return refuse("its manifest, record " + text(i + 1) + ": " + in.failure());
  }
  if (in.left() > 0) return refuse("its manifest has " + text(in.left()) + " bytes after its last record");
  if (manifest.devices.empty()) return refuse("its manifest names no device");
  return manifest;
}

tl::expected<Manifest, std::string> read_manifest(int fd, const std::string& name) {
  const auto section = detail::read_section(fd, VDEV_MANIFEST_SECTION, limits::MANIFEST_BYTES);
  if (!section) return refuse(name + ": " + section.error());
  auto manifest = parse_manifest(*section);
  if (!manifest) return refuse(name + ": " + manifest.error());
  return manifest;
}

tl::expected<Manifest, std::string> read_manifest(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); // a FIFO must not hold us up
  if (fd < 0) return refuse(path + ": cannot be opened: " + std::strerror(errno));
  auto manifest = read_manifest(fd, path);
  close(fd);
  return manifest;
}

} // namespace vdev
