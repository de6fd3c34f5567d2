#include "control/config.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

#include "control/toml_reader.hpp"

namespace transom::control {

namespace fs = std::filesystem;

std::optional<u64> parse_size(const std::string& text) {
  u64 value = 0;
  size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    if (value > (~u64{0} - 9) / 10) return {};
    value = value * 10 + static_cast<u64>(text[i] - '0');
  }
  if (i == 0) return {};
  const std::string unit = text.substr(i);
  u32 shift = 0;
  if (unit == "K" || unit == "KiB")
    shift = 10;
  else if (unit == "M" || unit == "MiB")
    shift = 20;
  else if (unit == "G" || unit == "GiB")
    shift = 30;
  else if (!unit.empty())
    return {};
  return shift != 0 && value > (~u64{0} >> shift) ? std::nullopt : std::optional(value << shift);
}

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

class ConfigReader {
 public:
  ConfigReader(const std::string& file, Report& report) : report_(report), base_(fs::path(file).parent_path()) {}

  Config read(const toml::table& root);

 private:
  void read_boot(TableReader t);
  void read_disk(TableReader t, size_t index);
  void read_serial(TableReader t);
  void read_device(TableReader t, size_t index);
  void read_debug(TableReader t);
  void read_crash(TableReader& t);
  std::string path(const TableReader& t, const std::string& key, const std::string& value) const;
  std::optional<StreamPlan> stream(TableReader& t, const std::string& key);
  void name_list(const toml::table* table, const std::string& key, Report& report);

  Report& report_;
  fs::path base_;
  Config config_;
};

std::string ConfigReader::path(const TableReader& t, const std::string& key, const std::string& value) const {
  const fs::path given(value);
  if (given.is_absolute()) return value;
  const bool typed = report_.is_from_option(t.full(key)) || base_.empty(); // relative to where the user is
  return fs::absolute(typed ? given : base_ / given).lexically_normal().string();
}

std::optional<StreamPlan> ConfigReader::stream(TableReader& t, const std::string& key) {
  const auto value = t.text(key);
  if (!value) return {};
  if (*value == "stdio") return StreamPlan{StreamKind::stdio, ""};
  if (*value == "none") return StreamPlan{StreamKind::none, ""};
  if (value->starts_with("file:") && value->size() > 5)
    return StreamPlan{StreamKind::file, path(t, key, value->substr(5))};
  if (value->starts_with("unix:") && value->size() > 5)
    return StreamPlan{StreamKind::unix_socket, path(t, key, value->substr(5))};
  t.fail(key, fmt::format("found \"{}\"; accepted: stdio, file:PATH, unix:PATH, none", *value));
  return {};
}

Config ConfigReader::read(const toml::table& root) {
  TableReader t(root, "", report_);
  if (const auto name = t.text("name")) {
    config_.name = *name;
    const auto plain = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
    };
    if (name->empty() || name->size() > 63 || !std::all_of(name->begin(), name->end(), plain) || name->front() == '.')
      t.fail("name", fmt::format("found \"{}\"; 1 to 63 letters, digits, '-', '_', '.' are accepted", *name));
  }
  if (const auto memory = t.size("memory")) {
    config_.memory = *memory;
    if (*memory < (2 << 20) || *memory > (u64{64} << 30) || *memory % (64 << 10) != 0)
      t.fail("memory", fmt::format("found {} bytes; 2M to 64G in steps of 64K are accepted", *memory));
  }
  if (const auto cpus = t.integer("cpus", 1, 8); cpus && (config_.cpus = static_cast<u32>(*cpus)) > 1)
    t.fail("cpus", fmt::format("found {}; more than one vCPU is not in this version of Transom yet", *cpus));
  if (const auto cpu = t.word("cpu", {"auto", "soft", "soft:interp"}, {"kvm", "soft:jit", "soft:check"}))
    config_.cpu = *cpu;
  if (const auto model = t.word("cpu_model", {"base", "v2", "host"})) config_.cpu_model = *model;
  t.word("xen", {"auto", "off"}, {"on"});
  t.later("xen_upcall");
  t.later("code_cache");
  t.word("timer_mode", {"catch-up"}, {"drop"});
  if (const auto rtc = t.word("rtc", {"utc", "localtime"})) config_.localtime = *rtc == "localtime";
  t.word("rtc_policy", {"follow"}, {"continue"});
  if (const auto reboot = t.word("on_reboot", {"reset", "exit"})) config_.reboot_exits = *reboot == "exit";

  if (const auto* boot = t.table("boot")) read_boot(TableReader(*boot, "boot", report_));
  size_t index = 0;
  for (const auto* disk : t.tables("disk")) {
    read_disk(TableReader(*disk, fmt::format("disk.{}", index), report_), index);
    ++index;
  }
  for (const char* missing : {"cdrom", "floppy", "nic", "display"}) t.later(missing);
  const bool serial_given = root.contains("serial");
  index = 0;
  for (const auto* serial : t.tables("serial"))
    read_serial(TableReader(*serial, fmt::format("serial.{}", index++), report_));
  if (config_.serials.size() > 2) t.fail("serial", "more than two serial ports; this board has COM1 and COM2");
  if (!serial_given) config_.serials.push_back({});
  index = 0;
  for (const auto* device : t.tables("device")) {
    read_device(TableReader(*device, fmt::format("device.{}", index), report_), index);
    ++index;
  }
  if (const auto* placement = t.table("placement")) {
    TableReader p(*placement, "placement", report_);
    for (const auto& [key, value] : *placement) {
      const std::string instance(key.str());
      if (const auto place = p.word(instance, {"hypervisor", "dom0"}, {"own"})) {
        config_.placement.emplace_back(instance, *place);
        config_.placement_where.push_back(p.where(instance));
      }
    }
  }
  if (const auto* wake = t.table("wake")) {
    TableReader w(*wake, "wake", report_);
    for (const auto& [key, value] : *wake) {
      const std::string server(key.str());
      if (const auto policy = w.word(server, {"spin", "adaptive", "sleep"})) {
        config_.wake.emplace_back(server, *policy == "spin"    ? WakePolicy::spin
                                          : *policy == "sleep" ? WakePolicy::sleep
                                                               : WakePolicy::adaptive);
        config_.wake_where.push_back(w.where(server));
      }
    }
  }
  if (const auto* debug = t.table("debug")) read_debug(TableReader(*debug, "debug", report_));
  t.finish();
  return std::move(config_);
}

void ConfigReader::read_boot(TableReader t) {
  if (const auto order = t.words("order", {"disk", "cdrom", "floppy", "network"})) config_.boot.order = *order;
  if (const auto kernel = t.text("kernel")) config_.boot.kernel = path(t, "kernel", *kernel);
  if (const auto initrd = t.text("initrd")) config_.boot.initrd = path(t, "initrd", *initrd);
  if (const auto cmdline = t.text("cmdline")) config_.boot.cmdline = *cmdline;
  if (const auto firmware = t.text("firmware")) config_.boot.firmware = path(t, "firmware", *firmware);
  if (config_.boot.kernel.empty() && (t.raw().contains("initrd") || t.raw().contains("cmdline")))
    t.fail(t.raw().contains("initrd") ? "initrd" : "cmdline",
           "is for a kernel that is booted directly; add boot.kernel");
  if (!config_.boot.kernel.empty() && !config_.boot.firmware.empty())
    t.fail("firmware", "cannot be combined with boot.kernel: a kernel that is booted directly runs without firmware");
  for (const auto& [key, file] : {std::pair{"kernel", &config_.boot.kernel},
                                  {"initrd", &config_.boot.initrd},
                                  {"firmware", &config_.boot.firmware}}) {
    std::error_code failure;
    if (file->empty()) continue;
    if (!fs::exists(*file, failure))
      t.fail(key, fmt::format("{}: no such file", *file));
    else if (fs::is_directory(*file, failure))
      t.fail(key, fmt::format("{}: is a directory; a file is needed", *file));
  }
  t.finish();
}

void ConfigReader::read_disk(TableReader t, size_t index) {
  DiskConfig disk;
  disk.name = t.text("name").value_or(fmt::format("disk{}", index));
  for (const DiskConfig& other : config_.disks)
    if (other.name == disk.name) t.fail("name", fmt::format("\"{}\" is the name of another disk already", disk.name));
  disk.where = t.where("path");
  t.word("format", {"raw"}, {"qcow2"});
  t.word("as", {"ide"}, {"vbd", "auto"});
  disk.read_only = t.boolean("readonly").value_or(false);
  if (const auto cache = t.word("cache", {"writeback", "writethrough", "unsafe"}, {"direct"}))
    disk.cache = *cache == "writethrough" ? DiskCache::writethrough
                 : *cache == "unsafe"     ? DiskCache::unsafe
                                          : DiskCache::writeback;
  t.word("dma", {"async"}, {"sync"});
  for (const char* missing : {"iops", "bandwidth", "reconnect_ms"}) t.later(missing);
  if (const auto given = t.text("path")) {
    std::error_code failure;
    if (given->starts_with("nbd://") || given->starts_with("nbd+unix://")) {
      t.fail("path", "network disks are not in this version of Transom yet; a raw image file is accepted");
    } else {
      disk.path = path(t, "path", *given);
      if (!fs::exists(disk.path, failure))
        t.fail("path", fmt::format("{}: no such file; make one with: truncate -s 1G {}", disk.path, *given));
      else if (fs::is_directory(disk.path, failure))
        t.fail("path", fmt::format("{}: is a directory; a raw image file is needed", disk.path));
      else if (fs::is_regular_file(disk.path, failure) && fs::file_size(disk.path, failure) == 0)
        t.fail("path", fmt::format("{}: is empty; a raw image file is needed", disk.path));
      else if (fs::is_regular_file(disk.path, failure) && fs::file_size(disk.path, failure) % 512 != 0)
        t.fail("path", fmt::format("{}: has {} bytes, not a multiple of 512: no raw image", disk.path,
                                   fs::file_size(disk.path, failure)));
    }
  } else if (!t.raw().contains("path")) {
    t.fail("path", "is missing; a disk needs the path of its image");
  }
  for (const DiskConfig& other : config_.disks)
    if (!disk.path.empty() && other.path == disk.path && !(other.read_only && disk.read_only))
      t.fail("path", fmt::format("{} is the image of {} already", disk.path, other.name));
  if (config_.disks.size() == 4) t.fail("path", "a fifth IDE disk; two channels of two drives take four");
  t.finish();
  config_.disks.push_back(disk);
}

void ConfigReader::read_serial(TableReader t) {
  SerialConfig serial;
  if (const auto to = stream(t, "to")) serial.to = *to;
  for (const SerialConfig& other : config_.serials)
    if (serial.to.kind == StreamKind::stdio && other.to.kind == StreamKind::stdio)
      t.fail("to", "stdio is another serial port's already");
  t.finish();
  config_.serials.push_back(serial);
}

void ConfigReader::read_device(TableReader t, size_t index) {
  DeviceConfig device;
  device.name = t.text("name").value_or(fmt::format("device{}", index));
  device.where = t.where("plugin");
  for (const DeviceConfig& other : config_.devices)
    if (other.name == device.name) t.fail("name", fmt::format("\"{}\" is the name of another device", device.name));
  if (device.name.size() > 31) t.fail("name", "at most 31 characters are accepted");
  if (const auto plugin = t.text("plugin"))
    device.plugin =
        plugin->find('/') == std::string::npos && !plugin->ends_with(".so") ? *plugin : path(t, "plugin", *plugin);
  else if (!t.raw().contains("plugin"))
    t.fail("plugin", "is missing; the path of a device library, or its name in the plugin folder");
  if (const auto id = t.text("id")) device.id = *id;
  if (const auto* values = t.table("config"))
    for (const auto& [key, value] : *values) {
      const std::string name(key.str());
      if (const auto* s = value.as_string())
        device.config.emplace_back(name, s->get());
      else if (const auto* n = value.as_integer())
        device.config.emplace_back(name, std::to_string(n->get()));
      else if (const auto* b = value.as_boolean())
        device.config.emplace_back(name, b->get() ? "true" : "false");
      else
        t.fail("config", fmt::format("{} = {}: a string, an integer or a boolean is needed", name, shown(value)));
    }
  t.finish();
  config_.devices.push_back(device);
}

void ConfigReader::read_debug(TableReader t) {
  config_.debug.exit = t.boolean("exit").value_or(false);
  config_.debug.e9 = stream(t, "e9");
  config_.debug.firmware_log = stream(t, "firmware_log");
  config_.debug.block_delay_ms = static_cast<u32>(t.integer("block_delay_ms", 0, 60'000).value_or(0));
  t.later("gdb");
  read_crash(t);
  t.finish();
}

// "DEVICE:POINT:N", the N-th call into the device; after-effect takes a further ":K", the K-th effect of that call.
void ConfigReader::read_crash(TableReader& t) {
  static const std::vector<std::pair<std::string, CrashPoint>> POINTS = {
      {"before-entry", CrashPoint::before_entry},
      {"after-effect", CrashPoint::after_effect},
      {"before-commit", CrashPoint::before_commit},
      {"after-commit", CrashPoint::after_commit},
      {"after-response", CrashPoint::after_response}};
  const auto value = t.text("crash");
  if (!value) return;
  const std::vector<std::string> parts = split(*value, ':');
  const auto number = [](const std::string& s) {
    return !s.empty() && s.size() < 9 && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; })
               ? static_cast<u32>(std::stoul(s))
               : 0;
  };
  const auto point = std::find_if(POINTS.begin(), POINTS.end(),
                                  [&](const auto& p) { return parts.size() > 1 && p.first == parts[1]; });
  if (parts.size() < 3 || parts.size() > 4 || point == POINTS.end() || number(parts[2]) == 0 ||
      (parts.size() == 4 && number(parts[3]) == 0))
    return t.fail("crash", fmt::format("found \"{}\"; accepted: DEVICE:POINT:N[:EFFECT] with POINT before-entry, "
                                       "after-effect, before-commit, after-commit or after-response",
                                       *value));
  config_.debug.crash = {point->second, parts[0], number(parts[2]), parts.size() == 4 ? number(parts[3]) : 1};
}

// ---------------------------------------------------------------------------------------------------- settings

// The value of --set: TOML if it parses as such, else a bare word.
void assign(toml::table& at, const std::string& key, const std::string& value) {
  try {
    const toml::table parsed = toml::parse("v = " + value);
    if (parsed.size() == 1) return void(at.insert_or_assign(key, *parsed.get("v")));
  } catch (const toml::parse_error&) {
  }
  at.insert_or_assign(key, value);
}

void apply(toml::table& root, const Setting& setting, Report& report) {
  const std::vector<std::string> parts = split(setting.key, '.');
  report.from_option(setting.key, setting.option);
  const auto refuse = [&](const std::string& what) { report.errors.push_back({setting.option, setting.key, what}); };
  toml::table* at = &root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const bool indexed =
        i + 2 < parts.size() && !parts[i + 1].empty() &&
        std::all_of(parts[i + 1].begin(), parts[i + 1].end(), [](char c) { return c >= '0' && c <= '9'; });
    if (indexed) { // disk.0.as
      if (!at->contains(parts[i])) at->insert(parts[i], toml::array());
      auto* array = at->get(parts[i])->as_array();
      const size_t n = parts[i + 1].size() < 4 ? std::stoul(parts[i + 1]) : 9999;
      if (array == nullptr || n > array->size() || n > 63)
        return refuse(fmt::format("there is no {}.{}", parts[i], parts[i + 1]));
      if (n == array->size()) array->push_back(toml::table());
      at = array->get(n)->as_table();
      ++i;
    } else {
      if (!at->contains(parts[i])) at->insert(parts[i], toml::table());
      at = at->get(parts[i])->as_table();
    }
    if (at == nullptr) return refuse(fmt::format("{} is not a table", parts[i]));
  }
  if (parts.back().empty()) return refuse("the key is empty");
  assign(*at, parts.back(), setting.value);
}

} // namespace

Parsed read_config(const std::string& file, const std::vector<Setting>& settings) {
  Parsed result;
  Report report(file);
  toml::table root;
  try {
    if (!file.empty()) {
      std::error_code failure;
      if (!fs::exists(file, failure))
        report.add_file("no such file");
      else if (fs::is_directory(file, failure))
        report.add_file("is a directory; a domain's TOML file is needed");
      else
        root = toml::parse_file(file);
    }
  } catch (const toml::parse_error& e) {
    result.errors.push_back({fmt::format("{}:{}:{}", file, e.source().begin.line, e.source().begin.column), "",
                             fmt::format("not TOML: {}", e.description())});
    return result;
  }
  if (report.errors.empty()) {
    for (const Setting& setting : settings) apply(root, setting, report);
    result.config = ConfigReader(file, report).read(root);
  }
  result.config.file = file;
  if (result.config.name.empty()) result.config.name = file.empty() ? "domain" : fs::path(file).stem().string();
  result.errors.insert(result.errors.end(), report.errors.begin(), report.errors.end());
  return result;
}

} // namespace transom::control
