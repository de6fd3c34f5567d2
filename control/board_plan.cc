#include "control/board_plan.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <map>
#include <time.h>

#include "core/domain_page.hpp"
#include "firmware/cmos.hpp"
#include "vdev/ext/block.h"
#include "vdev/manifest_file.hpp"

namespace transom::control {

namespace fs = std::filesystem;

namespace {

constexpr const char* DEFAULT_FIRMWARE = "/usr/share/seabios/bios-256k.bin";
constexpr u32 DOM0 = 0; // index of the only server of this version

struct Instance {
  const char* name;
  const char* library; // in the plugin folder
  const char* id;
  bool in_hypervisor;                             // by default
  std::vector<std::pair<std::string, u32>> lines; // interrupt output → line
  std::vector<std::pair<std::string, u64>> bases = {};
};

// The board, in the order in which ports are claimed: the PC's own chips first.
const std::vector<Instance>& board() {
  static const std::vector<Instance> INSTANCES = {
      {"pic_pit", "pic_pit.so", "org.transom.pic-pit", true, {{"intr", LINE_INTR}, {"irq0", 0}}},
      {"rtc", "rtc.so", "org.transom.rtc", false, {{"irq8", 8}}},
      {"piix", "piix.so", "org.transom.piix", false, {{"sci", 9}}},
      {"ide", "ide.so", "org.transom.piix-ide", false, {{"irq14", 14}, {"irq15", 15}}},
      {"ps2", "ps2.so", "org.transom.ps2", false, {{"irq1", 1}, {"irq12", 12}}},
      {"uart0", "uart.so", "org.transom.uart16550", false, {{"intr", 4}}},
      {"uart1", "uart.so", "org.transom.uart16550", false, {{"intr", 3}}, {{"regs", 0x2f8}}},
      {"debug", "debug.so", "org.transom.debug", false, {}},
      {"pvpanic", "pvpanic.so", "org.transom.pvpanic", false, {}},
  };
  return INSTANCES;
}

class Planner {
 public:
  explicit Planner(const Config& config) : config_(config) {}
  Planned make();

 private:
  bool wanted(const std::string& instance) const;
  void add_board_device(const Instance& instance);
  void add_user_device(const DeviceConfig& device);
  void place_devices();
  void check_memory();
  void check_overlaps();
  const vdev::ManifestDevice* examine(DevicePlan& device, const std::string& where);
  void complete_config(DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& where);
  std::vector<DrivePlan> drives() const;
  std::vector<StreamPlan> streams_of(const std::string& instance) const;
  std::string cmos() const;
  firmware::MachineDescription describe() const;
  void fail(const std::string& where, const std::string& key, std::string what) {
    result_.errors.push_back({where, key, std::move(what)});
  }
  std::string source() const { return config_.file.empty() ? "command line" : config_.file; }

  const Config& config_;
  Planned result_;
  std::map<std::string, vdev::Manifest> manifests_;          // by path
  std::map<std::string, const vdev::ManifestDevice*> found_; // by instance
};

bool Planner::wanted(const std::string& instance) const {
  if (instance == "uart0") return !config_.serials.empty();
  if (instance == "uart1") return config_.serials.size() > 1;
  if (instance == "debug") return config_.debug.exit || config_.debug.e9 || config_.debug.firmware_log;
  return true;
}

Planned Planner::make() {
  DomainPlan& plan = result_.plan;
  plan.name = config_.name;
  plan.memory = config_.memory;
  plan.cpus = config_.cpus;
  plan.cpu = "soft:interp"; // the only engine of this version
  plan.cpu_model = config_.cpu_model;
  plan.reboot_exits = config_.reboot_exits;
  plan.boot = config_.boot;
  plan.crash = config_.debug.crash;
  plan.servers.push_back({"dom0", WakePolicy::adaptive});
  if (config_.localtime) {
    const time_t now = ::time(nullptr);
    struct tm local {};
    ::localtime_r(&now, &local);
    plan.calendar_offset_ns = i64{local.tm_gmtoff} * 1'000'000'000;
  }
  if (plan.boot.order.empty()) plan.boot.order = {"disk", "cdrom", "floppy"};
  if (plan.boot.kernel.empty() && plan.boot.firmware.empty()) {
    plan.boot.firmware = DEFAULT_FIRMWARE;
    if (!fs::exists(DEFAULT_FIRMWARE))
      fail(source(), "boot.firmware",
           fmt::format("{}: no such file; install Debian's package seabios, or name a firmware image",
                       DEFAULT_FIRMWARE));
  }
  if (!config_.serials.empty() && config_.serials[0].to.kind != StreamKind::none) plan.boot.serial_console = 0x3f8;

  check_memory();
  for (const Instance& instance : board())
    if (wanted(instance.name)) add_board_device(instance);
  for (const DeviceConfig& device : config_.devices) add_user_device(device);
  place_devices();
  check_overlaps();
  return std::move(result_);
}

void Planner::check_memory() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    u64 kib = 0;
    meminfo >> kib;
    std::getline(meminfo, unit);
    if (key != "MemAvailable:") continue;
    if (config_.memory > kib * 1024)
      fail(source(), "memory",
           fmt::format("{} MiB are asked for; this host has {} MiB available", config_.memory >> 20, kib >> 10));
    return;
  }
}

// ---------------------------------------------------------------------------------------------------- devices

const vdev::ManifestDevice* Planner::examine(DevicePlan& device, const std::string& where) {
  auto known = manifests_.find(device.plugin);
  if (known == manifests_.end()) {
    auto manifest = vdev::read_manifest(device.plugin);
    if (!manifest) {
      fail(where, device.name, manifest.error());
      return nullptr;
    }
    known = manifests_.emplace(device.plugin, std::move(*manifest)).first;
  }
  const vdev::Manifest& manifest = known->second;
  if (device.id.empty() && manifest.devices.size() == 1) device.id = manifest.devices[0].id;
  const vdev::ManifestDevice* found = manifest.find(device.id);
  if (found == nullptr) {
    std::vector<std::string> ids;
    for (const auto& d : manifest.devices) ids.push_back(d.id);
    fail(where, device.name,
         fmt::format("{} has no device \"{}\"; it has: {}", device.plugin, device.id, fmt::join(ids, ", ")));
    return nullptr;
  }
  found_[device.name] = found;
  return found;
}

void Planner::complete_config(DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& where) {
  std::vector<std::string> keys;
  for (const auto& key : manifest.config) keys.push_back(key.key);
  for (const auto& [name, value] : device.config) {
    const vdev::ManifestConfig* key = manifest.find_key(name);
    if (key == nullptr)
      fail(where, device.name + ".config",
           fmt::format("unknown key {}; {} accepts: {}{}irq.OUTPUT, base.REGION", name, manifest.id,
                       fmt::join(keys, ", "), keys.empty() ? "" : ", "));
    else if (const std::string wrong = vdev::check_config_value(*key, value); !wrong.empty())
      fail(where, device.name + ".config", wrong);
  }
  for (const auto& key : manifest.config) {
    const bool given = std::any_of(device.config.begin(), device.config.end(),
                                   [&](const auto& pair) { return pair.first == key.key; });
    if (given) continue;
    if (key.required)
      fail(where, device.name + ".config", fmt::format("key {} is missing: {}", key.key, key.help));
    else if (!key.default_value.empty())
      device.config.emplace_back(key.key, key.default_value);
  }
}

void Planner::add_board_device(const Instance& instance) {
  DevicePlan device;
  device.name = instance.name;
  device.id = instance.id;
  device.server = instance.in_hypervisor ? SERVER_HYPERVISOR : DOM0;
  device.irq_lines = instance.lines;
  device.region_bases = instance.bases;
  device.plugin = find_plugin(instance.library);
  if (device.name == "rtc") device.config.emplace_back("cmos", cmos());
  if (device.name == "debug") device.config.emplace_back("exit", config_.debug.exit ? "true" : "false");
  if (device.name == "ide") device.drives = drives();
  device.streams = streams_of(device.name);
  if (device.plugin.empty())
    return fail(source(), device.name,
                fmt::format("its plugin {} is not in {}; set TRANSOM_PLUGIN_PATH", instance.library,
                            fmt::join(plugin_folders(), ", ")));
  if (const auto* manifest = examine(device, source())) complete_config(device, *manifest, source());
  result_.plan.devices.push_back(std::move(device));
}

void Planner::add_user_device(const DeviceConfig& from) {
  DevicePlan device;
  device.name = from.name;
  device.id = from.id;
  device.server = DOM0;
  device.plugin = find_plugin(from.plugin);
  if (from.plugin.empty()) return; // reported already
  if (device.plugin.empty())
    return fail(
        from.where, "plugin",
        fmt::format("{}: no such file, and no such plugin in {}", from.plugin, fmt::join(plugin_folders(), ", ")));
  for (const Instance& instance : board())
    if (device.name == instance.name)
      return fail(from.where, "name", fmt::format("\"{}\" is a device of the board", device.name));
  for (const auto& [key, value] : from.config) {
    const bool irq = key.starts_with("irq."), base = key.starts_with("base.");
    if (!irq && !base) {
      device.config.emplace_back(key, value);
      continue;
    }
    char* end = nullptr;
    const u64 number = std::strtoull(value.c_str(), &end, 0);
    if (*end != 0 || value.empty() || (irq && number > 23))
      fail(from.where, device.name + ".config",
           fmt::format("{} = {}: {} is needed", key, value, irq ? "a line from 0 to 23" : "an address"));
    else if (irq)
      device.irq_lines.emplace_back(key.substr(4), static_cast<u32>(number));
    else
      device.region_bases.emplace_back(key.substr(5), number);
  }
  if (const auto* manifest = examine(device, from.where)) complete_config(device, *manifest, from.where);
  result_.plan.devices.push_back(std::move(device));
}

std::vector<DrivePlan> Planner::drives() const {
  std::vector<DrivePlan> drives(4);
  for (size_t i = 0; i < config_.disks.size() && i < drives.size(); ++i) {
    const DiskConfig& disk = config_.disks[i];
    drives[i].kind = VDEV_DRIVE_DISK;
    drives[i].name = disk.name;
    drives[i].path = disk.path;
    drives[i].read_only = disk.read_only;
    drives[i].cache = disk.cache;
    drives[i].serial = fmt::format("TR{:05}", i);
    drives[i].delay_us = config_.debug.block_delay_ms * 1000;
  }
  return drives;
}

std::vector<StreamPlan> Planner::streams_of(const std::string& instance) const {
  if (instance == "uart0") return {config_.serials[0].to};
  if (instance == "uart1") return {config_.serials[1].to};
  if (instance == "debug")
    return {config_.debug.e9.value_or(StreamPlan{}), config_.debug.firmware_log.value_or(StreamPlan{})};
  return {};
}

firmware::MachineDescription Planner::describe() const {
  firmware::MachineDescription machine(GuestMemory(nullptr, config_.memory));
  machine.cpus = config_.cpus;
  machine.boot_order.clear();
  for (const std::string& kind : result_.plan.boot.order)
    machine.boot_order.push_back(kind == "floppy"    ? firmware::BootDevice::floppy
                                 : kind == "cdrom"   ? firmware::BootDevice::cdrom
                                 : kind == "network" ? firmware::BootDevice::network
                                                     : firmware::BootDevice::disk);
  return machine;
}

std::string Planner::cmos() const {
  std::string text;
  for (const auto& [index, value] : firmware::cmos_defaults(describe()))
    text += fmt::format("{}{:02x}={:02x}", text.empty() ? "" : ",", index, value);
  return text;
}

// ---------------------------------------------------------------------------------------------------- the whole

void Planner::place_devices() {
  for (size_t i = 0; i < config_.placement.size(); ++i) {
    const auto& [instance, place] = config_.placement[i];
    const std::string& name = instance;
    auto device = std::find_if(result_.plan.devices.begin(), result_.plan.devices.end(),
                               [&](const DevicePlan& d) { return d.name == name; });
    if (device == result_.plan.devices.end()) {
      std::vector<std::string> names;
      for (const DevicePlan& d : result_.plan.devices) names.push_back(d.name);
      fail(config_.placement_where[i], "placement." + instance,
           fmt::format("this domain has no device of that name; it has: {}", fmt::join(names, ", ")));
      continue;
    }
    device->server = place == "hypervisor" ? SERVER_HYPERVISOR : DOM0;
  }
  for (size_t i = 0; i < config_.wake.size(); ++i) {
    const auto& [server, policy] = config_.wake[i];
    if (server == "dom0")
      result_.plan.servers[DOM0].wake = policy;
    else
      fail(config_.wake_where[i], "wake." + server, "no server of that name; accepted: dom0");
  }
  if (config_.debug.crash.point == CrashPoint::none) return;
  const bool known = std::any_of(result_.plan.devices.begin(), result_.plan.devices.end(),
                                 [&](const DevicePlan& d) { return d.name == config_.debug.crash.device; });
  if (!known) fail(source(), "debug.crash", fmt::format("this domain has no device {}", config_.debug.crash.device));
}

struct Range {
  u64 first, last;
  bool mmio;
  std::string owner;
};

void Planner::check_overlaps() {
  // What belongs to the hypervisor itself.
  std::vector<Range> taken = {{0xcf8, 0xcf8, false, "PCI configuration"},
                              {0xcfa, 0xcff, false, "PCI configuration"},
                              {0x510, 0x51b, false, "fw_cfg"},
                              {0xfec00000, 0xfec00fff, true, "the I/O APIC"},
                              {0xfee00000, 0xfee00fff, true, "the local APIC"},
                              {0, std::min<u64>(config_.memory, GuestMemory::LOW_LIMIT) - 1, true, "guest RAM"}};
  for (const DevicePlan& device : result_.plan.devices) {
    const auto found = found_.find(device.name);
    if (found == found_.end()) continue;
    for (const auto& region : found->second->regions) {
      if ((region.flags & (VDEV_REGION_BAR | VDEV_REGION_DISABLED)) != 0 || region.length == 0) continue;
      u64 base = region.default_base;
      for (const auto& [name, at] : device.region_bases)
        if (name == region.name) base = at;
      const Range range{base, base + region.length - 1, region.space == VDEV_SPACE_MMIO,
                        fmt::format("{} (region {})", device.name, region.name)};
      const char* what = range.mmio ? "addresses" : "ports";
      if (range.last < range.first || (!range.mmio && range.last > 0xffff))
        fail(source(), device.name, fmt::format("region {} does not fit at {:x}h", region.name, base));
      for (const Range& other : taken)
        if (other.mmio == range.mmio && range.first <= other.last && other.first <= range.last)
          fail(source(), device.name,
               fmt::format(
                   "{} {:x}h–{:x}h of {} overlap with {} at {:x}h–{:x}h; move one with config = {{ \"base.{}\" = … }}",
                   what, range.first, range.last, range.owner, other.owner, other.first, other.last, region.name));
      taken.push_back(range);
    }
  }
}

} // namespace

std::vector<std::string> plugin_folders() {
  std::vector<std::string> folders;
  if (const char* path = std::getenv("TRANSOM_PLUGIN_PATH")) {
    std::string current;
    for (const char* c = path;; ++c) {
      if (*c != ':' && *c != 0) {
        current += *c;
        continue;
      }
      if (!current.empty()) folders.push_back(current);
      current.clear();
      if (*c == 0) break;
    }
  }
  std::error_code failure;
  const fs::path program = fs::read_symlink("/proc/self/exe", failure);
  folders.push_back((program.parent_path().parent_path() / "lib/transom/plugins").string());
#ifdef TRANSOM_MULTIARCH
  folders.push_back((program.parent_path().parent_path() / "lib" / TRANSOM_MULTIARCH / "transom/plugins").string());
#endif
  return folders;
}

std::string find_plugin(const std::string& name) {
  std::error_code failure;
  if (name.empty()) return "";
  if (name.find('/') != std::string::npos) return fs::exists(name, failure) ? fs::absolute(name).string() : "";
  for (const std::string& folder : plugin_folders())
    for (const char* suffix : {"", ".so"})
      if (const fs::path file = fs::path(folder) / (name + suffix); fs::is_regular_file(file, failure))
        return file.string();
  return "";
}

Planned make_plan(const Config& config) { return Planner(config).make(); }

} // namespace transom::control
