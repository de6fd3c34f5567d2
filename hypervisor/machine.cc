#include "hypervisor/machine.hpp"

#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "firmware/boot_kernel.hpp"
#include "firmware/direct_tables.hpp"
#include "firmware/fw_cfg_pc.hpp"
#include "hypervisor/poll_timeout.hpp"
#include "hypervisor/vcpu/kvm/kvm_backend.hpp"
#include "hypervisor/vcpu/soft/soft_backend.hpp"
#include "vdev/ext/block.h"

namespace transom {

namespace {

VcpuRegisters translate(const firmware::BootState& from) {
  VcpuRegisters to;
  const auto segment = [](const firmware::BootSegment& s) {
    return SegmentRegister{s.selector, s.attr, s.limit, s.base};
  };
  std::memcpy(to.gpr, from.gpr, sizeof to.gpr);
  to.rip = from.rip;
  to.rflags = from.rflags;
  to.cr0 = from.cr0;
  to.cr3 = from.cr3;
  to.cr4 = from.cr4;
  to.efer = from.efer;
  to.es = segment(from.es);
  to.cs = segment(from.cs);
  to.ss = segment(from.ss);
  to.ds = segment(from.ds);
  to.fs = segment(from.fs);
  to.gs = segment(from.gs);
  to.ldtr = segment(from.ldtr);
  to.tr = segment(from.tr);
  to.gdtr = {from.gdtr.base, from.gdtr.limit};
  to.idtr = {from.idtr.base, from.idtr.limit};
  return to;
}

void log_device(u32 level, const std::string& device, const char* text) {
  const auto severity = level <= 1   ? spdlog::level::err
                        : level == 2 ? spdlog::level::warn
                        : level == 3 ? spdlog::level::info
                                     : spdlog::level::debug;
  spdlog::log(severity, "{}: {}", device, text);
}

std::unique_ptr<VcpuBackend> make_backend(const DomainPlan& plan, const DomainMemory& memory, KvmBackend::Memory map) {
  if (plan.cpu == "kvm" || plan.cpu == "kvm:split")
    return std::make_unique<KvmBackend>(std::move(map), plan.cpu_model, plan.cpu == "kvm:split");
  SoftOptions options;
  options.model = plan.cpu_model;
  options.engine = plan.cpu == "soft:interp"  ? SoftEngine::interpret
                   : plan.cpu == "soft:check" ? SoftEngine::check
                                              : SoftEngine::translate;
  options.code_bytes = plan.code_cache;
  if (plan.perf_map) options.perf_map = fmt::format("/tmp/perf-{}.map", ::getpid());
  return std::make_unique<SoftBackend>(memory.code(), std::move(options));
}

} // namespace

Machine::Machine(const DomainPlan& plan, const DomainMemory& memory)
    : plan_(plan),
      memory_(memory),
      backend_(make_backend(
          plan, memory,
          {[this]() -> const MemoryMap& { return board_.memory_map(); }, [this] { return board_.a20_mask(); }})),
      turns_(backend_->takes_turns() && plan.cpus > 1
                 ? std::make_unique<Turns>([this](u32 v) { board_.kick(v, EXIT_LEAVE); })
                 : nullptr),
      board_(memory, plan, turns_.get()),
      code_(memory.code()),
      fw_cfg_(memory.ram(), &code_, [this](u8 vcpus) { memory_.page().look(vcpus); }),
      standstill_(plan.cpus, [this] {
        for (u32 v = 0; v < plan_.cpus; ++v) board_.kick(v, EXIT_LEAVE);
      }) {
  board_.on_kick([this](u32 v) {
    if (Vcpu* const vcpu = processors_[v].running.load(std::memory_order_acquire)) vcpu->kick();
  });
}

Machine::~Machine() = default;

Result<void> Machine::prepare() {
  if (plan_.debugger) {
    auto listening = gdb::listen_for_client(*plan_.debugger);
    if (!listening) return tl::unexpected(listening.error());
    debugger_ = std::make_unique<gdb::Debugger>(
        gdb::DebuggedMachine{plan_.cpus, memory_, board_, standstill_,
                             [this](u32 v) -> gdb::DebuggedVcpu {
                               return {processors_[v].vcpu.get(), processors_[v].started};
                             },
                             !backend_->takes_turns()}, // the software CPU's TSC is the domain's clock
        std::move(*listening), gdb::architecture_of(*plan_.debugger));
  }
  if (!plan_.boot.firmware.empty())
    if (auto loaded = board_.memory_map().load_firmware(plan_.boot.firmware); !loaded) return loaded;
  if (auto opened = backend_->open(); !opened) return opened;
  board_.use_apics(backend_->interrupt_sink());
  return {};
}

Result<void> Machine::wait_for_servers(int control) {
  const EventChannel event = memory_.device_thread_event();
  for (u32 s = 0; s < memory_.server_count(); ++s) {
    const auto state = [&] { return memory_.server(s).state.load(std::memory_order_acquire); };
    while (state() == ServerState::starting) {
      event.announce_sleep();
      if (state() != ServerState::starting) break;
      pollfd fds[2] = {{event.fd(), POLLIN, 0}, {control, POLLIN, 0}};
      ::poll(fds, control < 0 ? 1 : 2, 1000);
      event.awake();
      if (control >= 0 && (fds[1].revents & (POLLIN | POLLHUP)) != 0)
        return error("stopped while devices were created");
    }
    const ServerPage& page = memory_.server(s);
    if (state() != ServerState::ready)
      return error(std::string(page.failure, strnlen(page.failure, sizeof page.failure)));
  }
  return {};
}

firmware::MachineDescription Machine::describe() const {
  firmware::MachineDescription machine(memory_.ram());
  machine.cpus = plan_.cpus;
  machine.name = "transom";
  machine.serial = {false, false};
  machine.ps2 = false;
  for (const DevicePlan& device : plan_.devices) {
    if (device.name == "uart0") machine.serial[0] = true;
    if (device.name == "uart1") machine.serial[1] = true;
    if (device.name == "ps2") machine.ps2 = true;
    if (device.name == "pvpanic") machine.pvpanic = true;
  }
  machine.serial_console = plan_.boot.serial_console;
  machine.boot_order.clear();
  for (const std::string& kind : plan_.boot.order)
    machine.boot_order.push_back(kind == "floppy"    ? firmware::BootDevice::floppy
                                 : kind == "cdrom"   ? firmware::BootDevice::cdrom
                                 : kind == "network" ? firmware::BootDevice::network
                                                     : firmware::BootDevice::disk);
  return machine;
}

// A kernel without firmware: what firmware would have left behind is made here, by the same port writes.
Result<void> Machine::direct_boot(Platform& platform, Vcpu& vcpu) {
  auto boot = firmware::read_direct_boot(plan_.boot.kernel, plan_.boot.initrd, plan_.boot.cmdline);
  if (!boot) return tl::unexpected(boot.error());
  auto tables = firmware::place_tables(memory_.ram(), describe());
  if (!tables) return tl::unexpected(tables.error());
  auto state = firmware::load_kernel(memory_.ram(), *boot, *tables);
  if (!state) return tl::unexpected(state.error());
  {
    const auto held = board_.lock();
    board_.memory_map().open_shadow();
  }
  for (const auto& write : firmware::direct_boot_ports()) platform.pio_write(write.port, write.width, write.value);
  vcpu.set_registers(translate(*state));
  vcpu.memory_map_changed();
  return {};
}

void Machine::fail(const std::string& why) {
  DomainPage& page = memory_.page();
  // The page has room for a line; a report (soft:check) goes to the log.
  const std::string_view line = std::string_view(why).substr(0, why.find('\n'));
  if (line.size() < why.size()) spdlog::error("{}", why);
  fmt::format_to_n(page.failure, sizeof page.failure - 1, "{}", line);
  const auto held = board_.lock();
  board_.stop(StopReason::failed);
}

Result<void> Machine::run(int control) {
  // Servers first: transom-dom0 has opened the images then, also those of devices that are placed here.
  if (auto ready = wait_for_servers(control); !ready) return ready;
  if (auto created = board_.create_local_devices(log_device); !created) return created;
  {
    const auto held = board_.lock();
    if (auto taken = board_.take_in_sheets(); !taken) return taken;
  }
  if (auto filled = firmware::fill_fw_cfg(fw_cfg_, describe()); !filled) return filled;
  memory_.clock().start();
  for (u32 v = 0; v < plan_.cpus; ++v)
    processors_[v].platform = std::make_unique<Platform>(v, memory_, board_, fw_cfg_, turns_.get());
  if (debugger_) debugger_->start(plan_.debugger->wait);
  for (u32 v = 0; v < plan_.cpus; ++v) processors_[v].thread = std::thread([this, v] { vcpu_thread(v); });
  device_thread(control);
  if (debugger_) debugger_->end(); // lets vCPUs go that it keeps
  for (u32 v = 0; v < plan_.cpus; ++v) processors_[v].thread.join();
  return {};
}

// ---------------------------------------------------------------------------------------------------- device thread

void Machine::device_thread(int control) {
  ::prctl(PR_SET_TIMERSLACK, 1UL); // timers of guests are not to be rounded to 50 µs
  const EventChannel event = memory_.device_thread_event();
  const auto work = [&] {
    if (stopped() || board_.next_deadline() <= memory_.clock().now() || board_.pic_inputs_waiting()) return true;
    for (u32 s = 0; s < board_.server_count(); ++s)
      if (board_.link(s).effects_waiting()) return true;
    const auto held = board_.lock(); // the question about bytes goes to the devices
    return board_.local().completions_waiting() || board_.local().bytes_waiting();
  };
  while (!stopped()) {
    if (work()) {
      const auto held = board_.lock();
      board_.local().deliver_completions();
      board_.local().deliver_bytes();
      board_.expire(); // settles
      continue;
    }
    event.announce_sleep();
    pollfd fds[2] = {{event.fd(), POLLIN, 0}, {control, POLLIN, 0}};
    if (!work()) {
      const timespec timeout = poll_timeout(memory_.clock(), board_.next_deadline());
      ::ppoll(fds, control < 0 ? 1 : 2, &timeout, nullptr);
    }
    event.awake();
    if (control >= 0 && (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      const auto held = board_.lock();
      board_.stop(StopReason::killed);
    }
  }
}

} // namespace transom
