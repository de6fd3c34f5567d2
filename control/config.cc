#include "control/config.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

#include "control/file_checks.hpp"
#include "control/settings.hpp"
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

bool plain(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.'; }

// A domain without a name is called like its file.
std::string name_of(const std::string& file) {
  std::string name = fs::path(file).stem().string().substr(0, 63);
  for (char& c : name)
    if (!plain(c)) c = '-';
  if (!name.empty() && name.front() == '.') name.front() = '-';
  return name.empty() ? "domain" : name;
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
  void read_debugger(TableReader& t);
  void read_crash(TableReader& t);
  void read_placement(TableReader t, const toml::table& table);
  void read_wake(TableReader t, const toml::table& table);
  std::optional<std::string> name(TableReader& t, size_t longest);
  std::string path(const TableReader& t, const std::string& key, const std::string& value) const;
  std::string plugin(const TableReader& t, const std::string& value) const;
  std::optional<StreamPlan> stream(TableReader& t, const std::string& key);
  void check_outputs();

  struct Output {
    std::string key, path;
  };
  Report& report_;
  fs::path base_;
  Config config_;
  std::vector<Output> outputs_; // files and sockets that the domain makes
};

std::string ConfigReader::path(const TableReader& t, const std::string& key, const std::string& value) const {
  const fs::path given(value);
  if (given.is_absolute()) return value;
  const bool typed = report_.places.of(t.full(key)).starts_with("--") || base_.empty(); // relative to where the user is
  return fs::absolute(typed ? given : base_ / given).lexically_normal().string();
}

std::optional<std::string> ConfigReader::name(TableReader& t, size_t longest) {
  const auto name = t.text("name");
  if (!name) return {};
  if (!name->empty() && name->size() <= longest && std::all_of(name->begin(), name->end(), plain) &&
      name->front() != '.')
    return name;
  t.fail("name", fmt::format("found \"{}\"; 1 to {} letters, digits, '-', '_', '.' are accepted", *name, longest));
  return {};
}

// A path; a bare name is looked for beside the file first, then in the plugin folders.
std::string ConfigReader::plugin(const TableReader& t, const std::string& value) const {
  const std::string beside = path(t, "plugin", value);
  std::error_code failure;
  return value.find('/') != std::string::npos || fs::is_regular_file(beside, failure) ? beside : value;
}

std::optional<StreamPlan> ConfigReader::stream(TableReader& t, const std::string& key) {
  const auto value = t.text(key);
  if (!value) return {};
  if (*value == "stdio") return StreamPlan{StreamKind::stdio, ""};
  if (*value == "none") return StreamPlan{StreamKind::none, ""};
  StreamPlan plan;
  if (value->starts_with("file:") && value->size() > 5) plan.kind = StreamKind::file;
  if (value->starts_with("unix:") && value->size() > 5) plan.kind = StreamKind::unix_socket;
  if (plan.kind == StreamKind::none) {
    t.fail(key, fmt::format("found \"{}\"; accepted: stdio, file:PATH, unix:PATH, none", *value));
    return {};
  }
  plan.path = path(t, key, value->substr(5));
  const std::string wrong = plan.kind == StreamKind::file ? wrong_output(plan.path) : wrong_socket(plan.path);
  if (!wrong.empty()) t.fail(key, wrong);
  outputs_.push_back({t.full(key), plan.path});
  return plan;
}

// A log is emptied when the domain starts: it must not be what the domain needs.
void ConfigReader::check_outputs() {
  std::vector<std::pair<std::string, std::string>> taken = {{"boot.kernel", config_.boot.kernel},
                                                            {"boot.initrd", config_.boot.initrd},
                                                            {"boot.firmware", config_.boot.firmware}};
  for (const DiskConfig& disk : config_.disks) taken.emplace_back(disk.name, disk.path);
  for (const DeviceConfig& device : config_.devices) taken.emplace_back(device.name, device.plugin);
  for (const Output& output : outputs_) {
    if (output.path == "/dev/null") continue;
    for (const auto& [owner, path] : taken)
      if (same_file(output.path, path))
        report_.add(output.key,
                    fmt::format("{} is the file of {} already; another path is needed", output.path, owner));
    taken.emplace_back(output.key, output.path);
  }
}

Config ConfigReader::read(const toml::table& root) {
  TableReader t(root, "", report_);
  config_.name = name(t, 63).value_or("");
  if (const auto memory = t.size("memory")) {
    config_.memory = *memory;
    if (*memory < (2 << 20) || *memory > (u64{64} << 30) || *memory % (64 << 10) != 0)
      t.fail("memory", fmt::format("found {} bytes; 2M to 64G in steps of 64K are accepted", *memory));
  }
  if (const auto cpus = t.integer("cpus", 1, 8)) config_.cpus = static_cast<u32>(*cpus);
  if (const auto cpu = t.word("cpu", {"auto", "kvm", "kvm:split", "soft", "soft:interp", "soft:jit", "soft:check"}))
    config_.cpu = *cpu;
  if (const auto model = t.word("cpu_model", {"base", "v2", "host"})) config_.cpu_model = *model;
  t.word("xen", {"auto", "off"}, {"on"});
  t.later("xen_upcall");
  if (const auto cache = t.size("code_cache")) {
    config_.code_cache = *cache;
    if (*cache < MIN_CODE_CACHE || *cache > MAX_CODE_CACHE || *cache % (64 << 10) != 0)
      t.fail("code_cache", fmt::format("found {} bytes; 4M to 512M in steps of 64K are accepted", *cache));
  }
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
  if (const auto* placement = t.table("placement"))
    read_placement(TableReader(*placement, "placement", report_), *placement);
  if (const auto* wake = t.table("wake")) read_wake(TableReader(*wake, "wake", report_), *wake);
  if (const auto* debug = t.table("debug")) read_debug(TableReader(*debug, "debug", report_));
  t.finish();
  check_outputs();
  return std::move(config_);
}

void ConfigReader::read_placement(TableReader t, const toml::table& table) {
  for (const auto& [key, value] : table) {
    const std::string instance(key.str());
    if (const auto place = t.word(instance, {"hypervisor", "dom0"}, {"own"}))
      config_.placement.emplace_back(instance, *place);
  }
}

void ConfigReader::read_wake(TableReader t, const toml::table& table) {
  for (const auto& [key, value] : table) {
    const std::string server(key.str());
    if (const auto policy = t.word(server, {"spin", "adaptive", "sleep"}))
      config_.wake.emplace_back(server, *policy == "spin"    ? WakePolicy::spin
                                        : *policy == "sleep" ? WakePolicy::sleep
                                                             : WakePolicy::adaptive);
  }
}

void ConfigReader::read_boot(TableReader t) {
  if (const auto order = t.words("order", {"disk", "cdrom", "floppy", "network"})) config_.boot.order = *order;
  if (const auto kernel = t.text("kernel")) config_.boot.kernel = path(t, "kernel", *kernel);
  if (const auto initrd = t.text("initrd")) config_.boot.initrd = path(t, "initrd", *initrd);
  if (const auto cmdline = t.text("cmdline")) config_.boot.cmdline = *cmdline;
  if (const auto firmware = t.text("firmware")) config_.boot.firmware = path(t, "firmware", *firmware);
  if (config_.boot.kernel.empty() && (t.has("initrd") || t.has("cmdline")))
    t.fail(t.has("initrd") ? "initrd" : "cmdline", "is for a kernel that is booted directly; add boot.kernel");
  if (!config_.boot.kernel.empty() && !config_.boot.firmware.empty())
    t.fail("firmware", "cannot be combined with boot.kernel: a kernel that is booted directly runs without firmware");
  for (const auto& [key, file] : {std::pair{"kernel", &config_.boot.kernel},
                                  {"initrd", &config_.boot.initrd},
                                  {"firmware", &config_.boot.firmware}}) {
    if (file->empty()) continue;
    if (const std::string wrong = wrong_input(*file); !wrong.empty()) t.fail(key, wrong);
  }
  t.finish();
}

void ConfigReader::read_disk(TableReader t, size_t index) {
  DiskConfig disk;
  disk.name = name(t, 31).value_or(fmt::format("disk{}", index));
  for (const DiskConfig& other : config_.disks)
    if (other.name == disk.name) t.fail("name", fmt::format("\"{}\" is the name of another disk already", disk.name));
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
    if (given->starts_with("nbd://") || given->starts_with("nbd+unix://")) {
      t.fail("path", "network disks are not in this version of Transom yet; a raw image file is accepted");
    } else {
      disk.path = path(t, "path", *given);
      if (const std::string wrong = wrong_image(disk.path, disk.read_only); !wrong.empty()) t.fail("path", wrong);
    }
  } else if (!t.has("path")) {
    t.fail("path", "is missing; a disk needs the path of its image");
  }
  for (const DiskConfig& other : config_.disks)
    if (same_file(other.path, disk.path) && !(other.read_only && disk.read_only))
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
  device.key = fmt::format("device.{}", index);
  device.name = name(t, 31).value_or(fmt::format("device{}", index));
  for (const DeviceConfig& other : config_.devices)
    if (other.name == device.name) t.fail("name", fmt::format("\"{}\" is the name of another device", device.name));
  if (const auto given = t.text("plugin"))
    device.plugin = plugin(t, *given);
  else if (!t.has("plugin"))
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
        report_.add(fmt::format("{}.config.{}", device.key, name),
                    fmt::format("found {}; a string, an integer or a boolean is needed", shown(value)));
    }
  t.finish();
  config_.devices.push_back(device);
}

// Who talks to the stub may read and write everything in the domain: no other machine may.
void ConfigReader::read_debugger(TableReader& t) {
  const bool wait = t.boolean("wait").value_or(false);
  const auto architecture = t.word("gdb_architecture", {"i386:x86-64", "i386", "i8086"});
  const auto value = t.text("gdb");
  if (!value) {
    if (architecture)
      t.fail("gdb_architecture", "is what gdb is told, so gdb is needed too: unix:PATH or 127.0.0.1:PORT");
    if (wait) t.fail("wait", "waits for a debugger, so gdb is needed too: unix:PATH or 127.0.0.1:PORT");
    return;
  }
  DebuggerPlan plan;
  plan.wait = wait;
  if (architecture) plan.architecture = *architecture;
  if (value->starts_with("unix:") && value->size() > 5) {
    plan.socket = path(t, "gdb", value->substr(5));
    if (const std::string wrong = wrong_socket(plan.socket); !wrong.empty()) t.fail("gdb", wrong);
    outputs_.push_back({t.full("gdb"), plan.socket});
  } else {
    const size_t colon = value->rfind(':');
    const std::string host = value->substr(0, colon), port = colon == std::string::npos ? "" : value->substr(colon + 1);
    const bool number = !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    const unsigned long n = number ? std::stoul(port) : 0;
    if (n == 0 || n > 65535 || host.empty())
      t.fail("gdb", fmt::format("found \"{}\"; accepted: unix:PATH, 127.0.0.1:PORT", *value));
    else if (host != "127.0.0.1")
      t.fail("gdb",
             fmt::format("found host \"{}\"; only 127.0.0.1 is accepted, because a debugger may do anything to the "
                         "domain; from another machine, use ssh -L {}:127.0.0.1:{}",
                         host, port, port));
    plan.port = static_cast<u16>(n);
  }
  config_.debug.gdb = std::move(plan);
}

void ConfigReader::read_debug(TableReader t) {
  config_.debug.exit = t.boolean("exit").value_or(false);
  config_.debug.perf_map = t.boolean("perf_map").value_or(false);
  config_.debug.e9 = stream(t, "e9");
  config_.debug.firmware_log = stream(t, "firmware_log");
  config_.debug.block_delay_ms = static_cast<u32>(t.integer("block_delay_ms", 0, 60'000).value_or(0));
  read_debugger(t);
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

} // namespace

Parsed read_config(const std::string& file, const std::vector<Setting>& settings) {
  Parsed result;
  Report report(file);
  toml::table root;
  const auto refuse = [&](std::string where, std::string what) {
    result.errors.push_back({std::move(where), "", std::move(what)});
    return result;
  };
  try {
    std::error_code failure;
    if (!file.empty() && !fs::exists(file, failure)) return refuse(file, "no such file");
    if (fs::is_directory(file, failure)) return refuse(file, "is a directory; a domain's TOML file is needed");
    if (!file.empty()) root = toml::parse_file(file);
  } catch (const toml::parse_error& e) {
    const bool read = bool(e.source().begin);
    return refuse(read ? report.position(e.source()) : file, fmt::format("not TOML: {}", e.description()));
  }
  std::map<std::string, std::string> options;
  for (const Setting& setting : settings) {
    if (const std::string wrong = apply(root, setting); !wrong.empty())
      result.errors.push_back({setting.option, setting.key, wrong});
    options[setting.key] = setting.option;
  }
  report.note_places(root, options);
  result.config = ConfigReader(file, report).read(root);
  result.config.file = file;
  if (result.config.name.empty()) result.config.name = name_of(file);
  result.config.places = std::move(report.places);
  result.errors.insert(result.errors.end(), report.errors.begin(), report.errors.end());
  return result;
}

} // namespace transom::control
