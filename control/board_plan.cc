#include "control/board_plan.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <map>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "control/address_claims.hpp"
#include "control/plugin_folders.hpp"
#include "core/domain_page.hpp"
#include "core/server_page.hpp"
#include "firmware/boot_kernel.hpp"
#include "firmware/cmos.hpp"
#include "firmware/direct_tables.hpp"
#include "vdev/ext/block.h"
#include "vdev/manifest_file.hpp"

namespace transom::control {

namespace fs = std::filesystem;

namespace {

constexpr const char* DEFAULT_FIRMWARE = "/usr/share/seabios/bios-256k.bin";
constexpr i64 SMALLEST_FIRMWARE = 64 << 10, LARGEST_FIRMWARE = 16 << 20;
constexpr u32 LAST_LINE = 23; // inputs of the I/O APIC
constexpr u32 DOM0 = 0;       // index of the only server of this version

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
  // `key`: of the device in the configuration, "device.0"; a chip of the board has its name.
  const vdev::ManifestDevice* examine(DevicePlan& device, const std::string& key);
  void complete_config(DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& key);
  void wire(DevicePlan& device, const std::string& key, const std::string& name, const std::string& value);
  void check_wiring(const DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& key);
  void check_kernel();
  void check_firmware();
  std::vector<DrivePlan> drives() const;
  std::vector<StreamPlan> streams_of(const std::string& instance) const;
  std::string cmos() const;
  firmware::MachineDescription describe() const;
  void fail(const std::string& key, std::string what) {
    result_.errors.push_back({config_.places.of(key), key, std::move(what)});
  }
  std::string key_of(const std::string& instance) const;

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
  plan.cpu = config_.cpu == "soft" || config_.cpu == "auto" ? "soft:jit" : config_.cpu;
  plan.cpu_model = config_.cpu_model;
  plan.code_cache = config_.code_cache;
  plan.perf_map = config_.debug.perf_map;
  plan.reboot_exits = config_.reboot_exits;
  plan.boot = config_.boot;
  plan.crash = config_.debug.crash;
  plan.debugger = config_.debug.gdb;
  plan.servers.push_back({"dom0", WakePolicy::adaptive});
  if (config_.localtime) {
    const time_t now = ::time(nullptr);
    struct tm local {};
    ::localtime_r(&now, &local);
    plan.calendar_offset_ns = i64{local.tm_gmtoff} * 1'000'000'000;
  }
  if (plan.boot.order.empty()) plan.boot.order = {"disk", "cdrom", "floppy"};
  if (plan.boot.kernel.empty() && plan.boot.firmware.empty()) plan.boot.firmware = DEFAULT_FIRMWARE;
  if (!config_.serials.empty() && config_.serials[0].to.kind != StreamKind::none) plan.boot.serial_console = 0x3f8;

  check_memory();
  check_firmware();
  for (const Instance& instance : board())
    if (wanted(instance.name)) add_board_device(instance);
  for (const DeviceConfig& device : config_.devices) add_user_device(device);
  place_devices();
  check_overlaps();
  if (result_.errors.empty()) check_kernel();
  return std::move(result_);
}

// The kernel is placed in memory that nobody uses, as the hypervisor will do: what does not fit or is no kernel is an
// error of the configuration, before anything runs.
void Planner::check_kernel() {
  const BootPlan& boot = result_.plan.boot;
  if (boot.kernel.empty()) return;
  const auto refuse = [&](const Error& failure) { fail("boot.kernel", failure.text); };
  const auto kernel = firmware::read_direct_boot(boot.kernel, boot.initrd, boot.cmdline);
  if (!kernel) return refuse(kernel.error());
  void* const pages =
      ::mmap(nullptr, config_.memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return refuse({fmt::format("no room to place it: {}", std::strerror(errno))});
  const GuestMemory ram(static_cast<u8*>(pages), config_.memory);
  firmware::MachineDescription machine(ram);
  machine.cpus = config_.cpus;
  const auto tables = firmware::place_tables(ram, machine);
  if (!tables)
    refuse(tables.error());
  else if (const auto loaded = firmware::load_kernel(ram, *kernel, *tables); !loaded)
    refuse(loaded.error());
  ::munmap(pages, config_.memory);
}

void Planner::check_firmware() {
  const std::string& path = result_.plan.boot.firmware;
  struct stat st {};
  if (path.empty()) return;
  if (::stat(path.c_str(), &st) != 0)
    return fail("boot.firmware", fmt::format("{}: {}; install Debian's package seabios, or name a firmware image", path,
                                             std::strerror(errno)));
  if (st.st_size < SMALLEST_FIRMWARE || st.st_size > LARGEST_FIRMWARE || st.st_size % PAGE_SIZE != 0)
    fail("boot.firmware",
         fmt::format("{}: has {} bytes; a PC's firmware image has 64 KiB to 16 MiB, in whole pages of 4 KiB", path,
                     st.st_size));
}

void Planner::check_memory() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key, unit; meminfo >> key;) {
    u64 kib = 0;
    meminfo >> kib;
    std::getline(meminfo, unit);
    if (key != "MemAvailable:") continue;
    if (config_.memory > kib * 1024)
      fail("memory",
           fmt::format("{} MiB are asked for; this host has {} MiB available", config_.memory >> 20, kib >> 10));
    return;
  }
}

// ---------------------------------------------------------------------------------------------------- devices

const vdev::ManifestDevice* Planner::examine(DevicePlan& device, const std::string& key) {
  auto known = manifests_.find(device.plugin);
  if (known == manifests_.end()) {
    auto manifest = vdev::read_manifest(device.plugin);
    if (!manifest) {
      fail(key + ".plugin", manifest.error());
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
    fail(key + ".id", device.id.empty() ? fmt::format("is missing; {} has: {}", device.plugin, fmt::join(ids, ", "))
                                        : fmt::format("{} has no device \"{}\"; accepted: {}", device.plugin, device.id,
                                                      fmt::join(ids, ", ")));
    return nullptr;
  }
  found_[device.name] = found;
  return found;
}

void Planner::complete_config(DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& key) {
  std::vector<std::string> accepted;
  for (const auto& known : manifest.config) accepted.push_back(known.key);
  accepted.insert(accepted.end(), {"irq.OUTPUT", "base.REGION"});
  for (const auto& [name, value] : device.config) {
    const vdev::ManifestConfig* known = manifest.find_key(name);
    const std::string where = key + ".config." + name;
    if (known == nullptr)
      fail(where, fmt::format("unknown key; {} accepts: {}", manifest.id, fmt::join(accepted, ", ")));
    else if (const std::string wrong = vdev::check_config_value(*known, value); !wrong.empty())
      fail(where, wrong);
  }
  for (const auto& known : manifest.config) {
    const bool given = std::any_of(device.config.begin(), device.config.end(),
                                   [&](const auto& pair) { return pair.first == known.key; });
    if (given) continue;
    if (known.required)
      fail(key + ".config." + known.key, fmt::format("is missing: {}", known.help));
    else if (!known.default_value.empty())
      device.config.emplace_back(known.key, known.default_value);
  }
}

void Planner::check_wiring(const DevicePlan& device, const vdev::ManifestDevice& manifest, const std::string& key) {
  if (device.irq_lines.size() > manifest.irq_count)
    fail(key + ".config.irq." + device.irq_lines.back().first,
         fmt::format("{} interrupt outputs are connected; {} has {}", device.irq_lines.size(), manifest.id,
                     manifest.irq_count));
  for (const auto& [name, base] : device.region_bases) {
    std::vector<std::string> regions;
    for (const auto& region : manifest.regions) regions.push_back(region.name);
    if (std::find(regions.begin(), regions.end(), name) == regions.end())
      fail(key + ".config.base." + name,
           fmt::format("{} has no region of that name; accepted: {}", manifest.id, fmt::join(regions, ", ")));
  }
}

std::string Planner::key_of(const std::string& instance) const {
  for (const DeviceConfig& device : config_.devices)
    if (device.name == instance) return device.key;
  return instance;
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
    return fail(device.name, fmt::format("its plugin {} is not in {}; set TRANSOM_PLUGIN_PATH", instance.library,
                                         fmt::join(plugin_folders(), ", ")));
  if (const auto* manifest = examine(device, device.name)) complete_config(device, *manifest, device.name);
  result_.plan.devices.push_back(std::move(device));
}

void Planner::add_user_device(const DeviceConfig& from) {
  if (from.plugin.empty()) return; // reported already
  DevicePlan device;
  device.name = from.name;
  device.id = from.id;
  device.server = DOM0;
  device.plugin = find_plugin(from.plugin);
  if (device.plugin.empty())
    return fail(from.key + ".plugin", fmt::format("{}: no such file, and no such plugin in {}", from.plugin,
                                                  fmt::join(plugin_folders(), ", ")));
  for (const Instance& instance : board())
    if (device.name == instance.name)
      return fail(from.key + ".name", fmt::format("\"{}\" is a device of the board", device.name));
  for (const auto& [key, value] : from.config) {
    if (key.starts_with("irq.") || key.starts_with("base."))
      wire(device, from.key, key, value);
    else
      device.config.emplace_back(key, value);
  }
  if (const auto* manifest = examine(device, from.key)) {
    complete_config(device, *manifest, from.key);
    check_wiring(device, *manifest, from.key);
  }
  result_.plan.devices.push_back(std::move(device));
}

// irq.OUTPUT = line, base.REGION = address
void Planner::wire(DevicePlan& device, const std::string& key, const std::string& name, const std::string& value) {
  const bool irq = name.starts_with("irq.");
  char* end = nullptr;
  const bool digit = !value.empty() && std::isdigit(static_cast<unsigned char>(value.front())); // no sign
  const u64 number = std::strtoull(value.c_str(), &end, 0);
  if (!digit || *end != 0 || (irq && number > LAST_LINE))
    fail(key + ".config." + name,
         fmt::format("found {}; {} is needed", value, irq ? "a line from 0 to 23" : "an address"));
  else if (irq)
    device.irq_lines.emplace_back(name.substr(4), static_cast<u32>(number));
  else
    device.region_bases.emplace_back(name.substr(5), number);
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
  for (const auto& [instance, place] : config_.placement) {
    const std::string& name = instance;
    auto device = std::find_if(result_.plan.devices.begin(), result_.plan.devices.end(),
                               [&](const DevicePlan& d) { return d.name == name; });
    if (device == result_.plan.devices.end()) {
      std::vector<std::string> names;
      for (const DevicePlan& d : result_.plan.devices) names.push_back(d.name);
      fail("placement." + instance,
           fmt::format("this domain has no device of that name; it has: {}", fmt::join(names, ", ")));
      continue;
    }
    device->server = place == "hypervisor" ? SERVER_HYPERVISOR : DOM0;
  }
  for (const auto& [server, policy] : config_.wake) {
    if (server == "dom0")
      result_.plan.servers[DOM0].wake = policy;
    else
      fail("wake." + server, "no server of that name; accepted: dom0");
  }
  for (const u32 server : {SERVER_HYPERVISOR, DOM0}) {
    const auto count = std::count_if(result_.plan.devices.begin(), result_.plan.devices.end(),
                                     [&](const DevicePlan& d) { return d.server == server; });
    if (count > MAX_DEVICES)
      fail("device", fmt::format("{} devices are placed in {}; at most {} fit", count,
                                 server == DOM0 ? "dom0" : "the hypervisor", MAX_DEVICES));
  }
  if (config_.debug.crash.point == CrashPoint::none) return;
  const bool known = std::any_of(result_.plan.devices.begin(), result_.plan.devices.end(),
                                 [&](const DevicePlan& d) { return d.name == config_.debug.crash.device; });
  if (!known) fail("debug.crash", fmt::format("this domain has no device {}", config_.debug.crash.device));
}

void Planner::check_overlaps() {
  AddressClaims claims(config_.memory);
  for (const DevicePlan& device : result_.plan.devices) {
    const auto found = found_.find(device.name);
    if (found == found_.end()) continue;
    for (const auto& region : found->second->regions) {
      if ((region.flags & (VDEV_REGION_BAR | VDEV_REGION_DISABLED)) != 0 || region.length == 0) continue;
      u64 base = region.default_base;
      for (const auto& [name, at] : device.region_bases)
        if (name == region.name) base = at;
      const std::string wrong =
          claims.claim(device.name, region.name, region.space == VDEV_SPACE_MMIO, base, region.length);
      if (!wrong.empty()) fail(key_of(device.name) + ".config.base." + region.name, wrong);
    }
  }
}

} // namespace

Planned make_plan(const Config& config) { return Planner(config).make(); }

} // namespace transom::control
