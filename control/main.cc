// transom: the control panel.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iostream>
#include <kj/exception.h>
#include <unistd.h>

#include "control/board_plan.hpp"
#include "control/client.hpp"
#include "control/config.hpp"
#include "control/info_text.hpp"
#include "control/runtime_folder.hpp"
#include "control/supervisor.hpp"
#include "hypervisor/vcpu/kvm/calibrate.hpp"
#include "hypervisor/vcpu/kvm/split_irqchip.hpp"

namespace {

using namespace transom;
using namespace transom::control;

constexpr int FAILED = 1, BAD_USAGE = 2;

int report(const std::vector<Diagnostic>& errors) {
  for (const Diagnostic& e : errors) std::fprintf(stderr, "%s\n", e.text().c_str());
  return BAD_USAGE;
}

int report(const Error& failure) {
  std::fprintf(stderr, "transom: %s\n", failure.text.c_str());
  return FAILED;
}

struct RunArguments {
  std::string file, cpu, console, memory, kernel, initrd, cmdline, gdb;
  std::vector<std::string> sets, disks;
  bool wait = false, perf_map = false;
  RunOptions options;
};

// Options are settings with names of their own; what is said on the command line wins over the file.
Result<std::vector<Setting>> settings_of(const RunArguments& a) {
  std::vector<Setting> settings;
  for (size_t i = 0; i < a.disks.size(); ++i)
    settings.push_back({fmt::format("disk.{}.path", i), a.disks[i], "--disk"});
  const std::pair<const char*, const std::string*> simple[] = {
      {"memory", &a.memory}, {"cpu", &a.cpu}, {"boot.kernel", &a.kernel}, {"boot.initrd", &a.initrd}};
  for (const auto& [key, value] : simple)
    if (!value->empty())
      settings.push_back({key, *value, fmt::format("--{}", std::string(key).substr(std::string(key).find('.') + 1))});
  if (!a.cmdline.empty()) settings.push_back({"boot.cmdline", a.cmdline, "--cmdline"});
  if (!a.console.empty()) settings.push_back({"serial.0.to", a.console, "--console"});
  if (!a.gdb.empty()) settings.push_back({"debug.gdb", a.gdb, "--gdb"});
  if (a.wait) settings.push_back({"debug.wait", "true", "--wait", false});
  if (a.perf_map) settings.push_back({"debug.perf_map", "true", "--perf-map", false});
  for (const std::string& set : a.sets) {
    const size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) return error(fmt::format("--set {}: KEY=VALUE is needed", set));
    settings.push_back({set.substr(0, equals), set.substr(equals + 1), "--set " + set.substr(0, equals), false});
  }
  return settings;
}

// "auto" is measured now, and the kernel's local APICs are tried, before any thread or process of the domain exists.
Result<void> decide_cpu(Config& config) {
  if (config.cpu.rfind("kvm", 0) == 0) {
    const std::string obstacle = kvm_obstacle();
    if (!obstacle.empty()) return error(fmt::format("cpu = \"{}\": {}", config.cpu, obstacle));
  }
  if (config.cpu == "kvm:split") {
    // The kernel's local APICs would interrupt a debugger's single steps.
    const std::string obstacle = config.debug.gdb ? "it has no debugger" : split_irqchip_obstacle();
    if (!obstacle.empty()) return error("cpu = \"kvm:split\": " + obstacle + "; use \"kvm\"");
  }
  if (config.cpu != "auto") return {};
  const CpuChoice choice = choose_cpu(measure_kvm());
  config.cpu = choice.kvm ? "kvm" : "soft";
  std::fprintf(stderr, "transom: cpu = \"auto\" chose %s: %s\n", choice.kvm ? "KVM" : "the software CPU",
               choice.why.c_str());
  return {};
}

int run(const RunArguments& arguments) {
  auto settings = settings_of(arguments);
  if (!settings) {
    report(settings.error());
    return BAD_USAGE;
  }
  if (arguments.file.empty() && settings->empty()) {
    std::fprintf(stderr, "transom run: a domain's file is needed, or at least one of --disk, --kernel\n");
    return BAD_USAGE;
  }
  Parsed parsed = read_config(arguments.file, *settings);
  if (!parsed.errors.empty()) return report(parsed.errors);
  if (const auto decided = decide_cpu(parsed.config); !decided) return report(decided.error());
  Planned planned = make_plan(parsed.config);
  if (!planned.errors.empty()) return report(planned.errors);
  return supervise(planned.plan, arguments.options);
}

int check(const std::string& file) {
  Parsed parsed = read_config(file, {});
  if (parsed.errors.empty()) {
    Planned planned = make_plan(parsed.config);
    parsed.errors = std::move(planned.errors);
  }
  if (!parsed.errors.empty()) return report(parsed.errors);
  std::printf("%s: good\n", file.c_str());
  return 0;
}

int list(bool json) {
  std::vector<std::string> rows;
  for (const std::string& name : socket_names()) {
    if (!is_running(name)) continue; // what a domain that was killed left behind; the next of that name replaces it
    const auto shown =
        with_info(name, [&](schema::Info::Reader info) { rows.push_back(json ? list_json(info) : list_text(info)); });
    if (shown || !is_running(name)) continue;
    rows.push_back(json ? fmt::format(R"({{"name": "{}", "state": "silent"}})", name)
                        : fmt::format("{:24} silent", name));
  }
  if (json)
    fmt::print("[{}]\n", fmt::join(rows, ",\n "));
  else
    fmt::print("{:24} {:10} {:14} {}\n{}{}", "NAME", "STATE", "CPU", "UPTIME", fmt::join(rows, "\n"),
               rows.empty() ? "" : "\n");
  return 0;
}

int show(const std::string& name, const std::function<std::string(schema::Info::Reader)>& format) {
  const auto shown = with_info(name, [&](schema::Info::Reader info) { std::cout << format(info) << std::flush; });
  return shown ? 0 : report(shown.error());
}

// A descriptor of the domain that came to lie at 0, 1 or 2 would be taken for the console.
void open_standard_streams() {
  int fd = 0;
  do fd = ::open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  ::close(fd);
}

int command_line(int argc, char** argv) {
  CLI::App app{"Transom: unmodified PC operating systems on Xen's HVM I/O architecture"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "transom " TRANSOM_VERSION);
  int status = 0;
  bool json = false;
  std::string name, file;

  RunArguments arguments;
  auto* run_command = app.add_subcommand("run", "run a domain until its guest powers off");
  run_command->add_option("file", arguments.file, "the domain's vm.toml");
  run_command->add_option("--set", arguments.sets, "KEY=VALUE: as if it stood in the file")->allow_extra_args(false);
  run_command->add_option("--disk", arguments.disks, "image of the next disk")->allow_extra_args(false);
  const auto once = [&](const char* option, auto& value, const char* help) {
    run_command->add_option(option, value, help)->take_last();
  };
  once("--memory", arguments.memory, "such as 512M");
  once("--cpu", arguments.cpu, "auto, kvm, kvm:split, soft, soft:interp, soft:jit, soft:check");
  once("--kernel", arguments.kernel, "boot this kernel directly");
  once("--initrd", arguments.initrd, "with this initial RAM disk");
  once("--cmdline", arguments.cmdline, "and this command line");
  once("--console", arguments.console, "stdio or none: the first serial port");
  once("--gdb", arguments.gdb, "unix:PATH or 127.0.0.1:PORT: where gdb finds the guest");
  run_command->add_flag("--wait", arguments.wait, "with --gdb: hold the guest until gdb lets it go");
  run_command->add_flag("--perf-map", arguments.perf_map, "write /tmp/perf-PID.map, so that perf sees translated code");
  once("--timeout", arguments.options.timeout_s, "seconds after which the run ends with status 124");
  once("--info-at-end", arguments.options.info_at_end, "file for the last info, as JSON");
  run_command->add_flag("--single-process", arguments.options.single_process,
                        "everything in one process, for debugging");
  run_command->callback([&] { status = run(arguments); });

  auto* list_command = app.add_subcommand("list", "domains that run on this host");
  list_command->add_flag("--json", json);
  list_command->callback([&] { status = list(json); });

  auto* info_command = app.add_subcommand("info", "one domain: processes, vCPUs, exits, ioreqs by device");
  info_command->add_option("name", name)->required();
  info_command->add_flag("--json", json);
  info_command->callback([&] { status = show(name, json ? info_json : info_text); });

  auto* placement_command = app.add_subcommand("placement", "where each device runs");
  placement_command->add_option("name", name)->required();
  placement_command->add_flag("--json", json);
  placement_command->callback([&] { status = show(name, json ? placement_json : placement_text); });

  auto* kill_command = app.add_subcommand("kill", "end a domain now; what its disks accepted is kept");
  kill_command->add_option("name", name)->required();
  kill_command->callback([&] {
    const auto killed = kill_domain(name);
    status = killed ? 0 : report(killed.error());
  });

  auto* config_command = app.add_subcommand("config", "a domain's file");
  auto* check_command = config_command->add_subcommand("check", "every error at once, with line and column");
  check_command->add_option("file", file)->required();
  check_command->callback([&] { status = check(file); });
  config_command->require_subcommand(1);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : BAD_USAGE;
  }
  return status;
}

} // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  try {
    return command_line(argc, argv);
  } catch (const std::exception& e) {
    return report(Error{e.what()});
  } catch (const kj::Exception& e) {
    return report(Error{e.getDescription().cStr()});
  }
}
