#include "hypervisor/machine.hpp"

#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include "firmware/boot_kernel.hpp"
#include "firmware/direct_tables.hpp"
#include "firmware/fw_cfg_pc.hpp"
#include "hypervisor/vcpu/soft/soft_vcpu.hpp"
#include "vdev/ext/block.h"

namespace transom {

namespace {

// A halted vCPU looks this long for an interrupt before it sleeps: a completion from Dom0 is often that near.
constexpr u64 HALT_SPIN_NS = 20'000;

// poll() timeout until `deadline` of the domain clock.
timespec until(const DomainClock& clock, u64 deadline) {
  constexpr u64 LONGEST = 1'000'000'000;
  const u64 now = clock.now();
  const u64 ns = deadline <= now ? 0 : std::min(deadline - now, LONGEST);
  return {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)};
}

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

} // namespace

Machine::Machine(const DomainPlan& plan, const DomainMemory& memory)
    : plan_(plan), memory_(memory), board_(memory, plan), code_(memory.code()), fw_cfg_(memory.ram(), &code_, [this] {
        for (u32 v = 0; v < plan_.cpus; ++v)
          memory_.page().vcpus[v].exit_flag.fetch_or(EXIT_LOOK, std::memory_order_seq_cst);
      }) {}

Machine::~Machine() = default;

Result<void> Machine::prepare() {
  if (plan_.boot.firmware.empty()) return {};
  return board_.memory_map().load_firmware(plan_.boot.firmware);
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

Result<void> Machine::power_on() {
  fw_cfg_.reset();
  vcpu_->reset();
  if (!plan_.boot.kernel.empty()) return direct_boot(*platform_, *vcpu_);
  return {};
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
  fmt::format_to_n(page.failure, sizeof page.failure - 1, "{}", why);
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
  platform_ = std::make_unique<Platform>(0, memory_, board_, fw_cfg_);
  vcpu_ = std::make_unique<SoftVcpu>(*platform_, code_, plan_.cpu_model, &memory_.page().vcpus[0].exit_flag);
  memory_.clock().start();

  // The first power-on makes port writes, so it already belongs to the vCPU's thread.
  std::thread vcpu([this] { vcpu_thread(); });
  device_thread(control);
  vcpu.join();
  publish_counters();
  return {};
}

// ---------------------------------------------------------------------------------------------------- vCPU thread

void Machine::vcpu_thread() {
  if (auto on = power_on(); !on) return fail(on.error().text);
  memory_.page().state.store(DomainState::running, std::memory_order_release);
  while (!stopped()) {
    switch (vcpu_->run()) {
      case RunResult::exited:
      case RunResult::debug: break;
      case RunResult::halted: wait_halted(); break;
      case RunResult::shutdown: {
        const auto held = board_.lock();
        if (plan_.reboot_exits)
          board_.stop(StopReason::triple_fault);
        else
          board_.request(REQUEST_RESET); // a triple fault pulls RESET# on a PC
        break;
      }
    }
    serve_requests();
  }
  publish_counters();
}

void Machine::serve_requests() {
  const u32 requests = board_.take_requests();
  if ((requests & REQUEST_RESET) != 0 && !stopped()) return system_reset();
  if ((requests & REQUEST_MAP_CHANGED) != 0) vcpu_->memory_map_changed();
}

// HLT: until an interrupt, a request or the end. The thread also serves this process's timers, which spares a wake-up
// of the device thread and one back.
void Machine::wait_halted() {
  platform_->count(ExitCause::halt);
  const EventChannel event = memory_.vcpu_event(0);
  const auto& flag = memory_.page().vcpus[0].exit_flag;
  const auto woken = [&] {
    return flag.load(std::memory_order_seq_cst) != 0 || board_.interrupt_pending(0) || stopped();
  };
  publish_counters();
  while (!EventChannel::spin(woken, HALT_SPIN_NS)) {
    if (board_.next_deadline() <= memory_.clock().now()) {
      const auto held = board_.lock();
      board_.expire();
      continue;
    }
    event.announce_sleep();
    if (!woken()) {
      pollfd fd{event.fd(), POLLIN, 0};
      const timespec timeout = until(memory_.clock(), board_.next_deadline());
      ::ppoll(&fd, 1, &timeout, nullptr);
    }
    event.awake();
  }
}

// One order: the vCPU stands (this is its thread) → hosts cancel and drain, then reset their devices → this process's
// devices → board → start.
void Machine::system_reset() {
  if (plan_.reboot_exits) {
    const auto held = board_.lock();
    return board_.stop(StopReason::reset);
  }
  for (u32 s = 0; s < board_.server_count(); ++s) {
    board_.link(s).flush_posted();
    ServerLink::Request reset;
    reset.type = IoreqType::control;
    reset.addr = static_cast<u64>(Control::reset);
    board_.link(s).call(0, reset, memory_.vcpu_event(0));
  }
  {
    const auto held = board_.lock();
    board_.local().cancel_all();
  }
  while (board_.local().requests_in_flight() && !stopped()) std::this_thread::yield();
  {
    const auto held = board_.lock();
    board_.local().deliver_completions(); // all stale: the generation moved on
    board_.settle();
    board_.local().reset_all();
    board_.reset();
    board_.take_requests();
  }
  vcpu_->memory_map_changed();
  if (auto on = power_on(); !on) fail(on.error().text);
}

void Machine::publish_counters() {
  const auto& from = static_cast<SoftVcpu&>(*vcpu_).counters();
  VcpuShared& to = memory_.page().vcpus[0];
  const auto copy = [](const std::atomic<u64>& source, std::atomic<u64>& target) {
    target.store(source.load(std::memory_order_relaxed), std::memory_order_relaxed);
  };
  copy(from.instructions, to.instructions);
  copy(from.exceptions, to.exceptions);
  copy(from.interrupts, to.interrupts);
  copy(from.tlb_misses, to.tlb_misses);
  copy(from.blocks_decoded, to.blocks_decoded);
  copy(from.blocks_invalidated, to.blocks_invalidated);
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
      const timespec timeout = until(memory_.clock(), board_.next_deadline());
      ::ppoll(fds, control < 0 ? 1 : 2, &timeout, nullptr);
    }
    event.awake();
    if (vcpu_) publish_counters();
    if (control >= 0 && (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      const auto held = board_.lock();
      board_.stop(StopReason::killed);
    }
  }
}

} // namespace transom
