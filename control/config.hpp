// vm.toml: read, checked, and turned into plain values. Every error names file, line, column, key, what was found and
// what is accepted; all errors of meaning come at once.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/diagnostic.hpp"
#include "core/domain_plan.hpp"
#include "core/types.hpp"

namespace transom::control {

struct DiskConfig {
  std::string name, path, as = "ide";
  bool read_only = false;
  DiskCache cache = DiskCache::writeback;
};

struct SerialConfig {
  StreamPlan to{StreamKind::stdio, ""};
};

struct DeviceConfig { // [[device]]
  std::string key;    // "device.0"
  std::string name, plugin, id;
  std::vector<std::pair<std::string, std::string>> config; // value as text
};

struct DebugConfig {
  bool exit = false;
  std::optional<StreamPlan> e9;
  std::optional<StreamPlan> firmware_log;
  u32 block_delay_ms = 0; // every disk request is held this long
  CrashPlan crash;
  std::optional<DebuggerPlan> gdb;
  bool perf_map = false;
};

struct Config {
  std::string file; // as given; empty: from the command line alone
  std::string name;
  u64 memory = 512 << 20;
  u32 cpus = 1;
  std::string cpu = "auto", cpu_model = "v2";
  u64 code_cache = 32 << 20;
  bool localtime = false;
  bool reboot_exits = false;
  BootPlan boot;
  std::vector<DiskConfig> disks;
  std::vector<SerialConfig> serials;
  std::vector<DeviceConfig> devices;
  std::vector<std::pair<std::string, std::string>> placement; // instance → place
  std::vector<std::pair<std::string, WakePolicy>> wake;       // server → policy
  DebugConfig debug;
  Places places;
};

struct Setting { // --set KEY=VALUE, --memory …
  std::string key, value, option;
  bool literal = true; // the value is this text; else TOML, or a bare word when it is none
};

struct Parsed {
  Config config;
  std::vector<Diagnostic> errors;
};

// `file` empty: only the settings. Paths in the file are relative to it, in settings to the working directory.
Parsed read_config(const std::string& file, const std::vector<Setting>& settings);

// "512M" → bytes; none when it is no size.
std::optional<u64> parse_size(const std::string& text);

} // namespace transom::control
