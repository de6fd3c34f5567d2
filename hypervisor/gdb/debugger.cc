#include "hypervisor/gdb/debugger.hpp"

#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

namespace transom::gdb {

Architecture architecture_of(const DebuggerPlan& plan) {
  return plan.architecture == "i386"    ? Architecture::i386
         : plan.architecture == "i8086" ? Architecture::i8086
                                        : Architecture::x86_64;
}

Debugger::Debugger(DebuggedMachine machine, Listener listener, Architecture architecture)
    : machine_(std::move(machine)),
      listener_(std::move(listener)),
      architecture_(architecture),
      wake_(make_eventfd()) {}

Debugger::~Debugger() {
  end();
  if (!listener_.path.empty()) ::unlink(listener_.path.c_str());
}

void Debugger::start(bool wait) {
  if (wait) machine_.standstill.keep(~0u);
  thread_ = std::thread([this, wait] { serve(wait); });
}

void Debugger::stopped(u32 v) {
  machine_.standstill.keep(1u << v);
  stops_.fetch_or(1u << v);
  ::eventfd_write(wake_.get(), 1);
}

void Debugger::end() {
  if (!thread_.joinable()) return;
  ending_.store(true);
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
}

// ---------------------------------------------------------------------------------------------------- the thread

void Debugger::serve(bool wait) {
  if (wait) stand();
  while (!ending_.load()) {
    const bool busy = !unsent_.empty(); // nothing more is heard until the client takes what it asked for
    pollfd fds[3] = {{wake_.get(), POLLIN, 0},
                     {listener_.socket.get(), POLLIN, 0},
                     {client_.get(), static_cast<short>(busy ? POLLOUT : POLLIN), 0}};
    if (::poll(fds, client_ ? 3 : 2, -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0) {
      eventfd_t count;
      ::eventfd_read(wake_.get(), &count);
      if (stub_)
        stub_->stopped();
      else if (stops_.exchange(0) != 0) { // by the breakpoint of a client that has left
        stand();
        resume(std::vector<Action>(vcpus(), Action::go_on), {});
      }
    }
    if (client_ && fds[2].revents != 0 && !busy) hear();
    if (client_) send();
    if (fds[1].revents != 0) admit();
  }
  if (stub_) {
    stub_->domain_ended();
    send();
  }
  machine_.standstill.keep_nobody();
  if (std::exchange(holding_, false)) machine_.standstill.release(false);
}

// One client at a time; another one is turned away at once.
void Debugger::admit() {
  FileDescriptor socket(::accept4(listener_.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket || client_) return;
  client_ = std::move(socket);
  unsent_.clear();
  Target& self = *this;
  stub_ = std::make_unique<Stub>(self, architecture_);
}

void Debugger::hear() {
  char bytes[4096];
  const ssize_t n = ::recv(client_.get(), bytes, sizeof bytes, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    stub_->detach();
    return hang_up();
  }
  stub_->receive({bytes, static_cast<size_t>(n)});
}

void Debugger::send() {
  unsent_ += stub_->take_output();
  while (!unsent_.empty()) {
    const ssize_t n = ::send(client_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      stub_->detach();
      return hang_up();
    }
    unsent_.erase(0, static_cast<size_t>(n));
  }
  if (stub_->ended()) hang_up();
}

void Debugger::hang_up() {
  stub_.reset();
  client_.reset();
  unsent_.clear();
}

// ---------------------------------------------------------------------------------------------------- target

void Debugger::stand() {
  if (std::exchange(holding_, true)) return;
  machine_.standstill.hold(false);
  if (!machine_.own_tsc) machine_.memory.clock().stop();
}

void Debugger::resume(std::span<const Action> actions, std::span<const u64> breakpoints) {
  u32 standing = 0;
  for (u32 v = 0; v < vcpus(); ++v) {
    if (actions[v] == Action::stand) standing |= 1u << v;
    if (Vcpu* const vcpu = machine_.vcpu(v).vcpu)
      vcpu->set_debug({{breakpoints.begin(), breakpoints.end()}, actions[v] == Action::step});
  }
  machine_.standstill.let_go(~0u);
  machine_.standstill.keep(standing);
  if (!machine_.own_tsc) machine_.memory.clock().start();
  // Who sleeps until a time of the domain's clock has to work out anew when that is.
  machine_.memory.device_thread_event().notify();
  for (u32 s = 0; s < machine_.memory.server_count(); ++s) machine_.memory.doorbell(s).notify();
  holding_ = false;
  machine_.standstill.release(false);
}

std::optional<u32> Debugger::take_stop() {
  const u32 stops = stops_.load();
  if (stops == 0) return {};
  const u32 first = static_cast<u32>(__builtin_ctz(stops));
  stops_.fetch_and(~(1u << first));
  return first;
}

void Debugger::kill() {
  const auto held = machine_.board.lock();
  machine_.board.stop(StopReason::killed);
}

VcpuRegisters Debugger::registers(u32 v) {
  Vcpu* const vcpu = machine_.vcpu(v).vcpu;
  return vcpu != nullptr ? vcpu->registers() : VcpuRegisters{};
}

void Debugger::set_registers(u32 v, const VcpuRegisters& registers) {
  if (Vcpu* const vcpu = machine_.vcpu(v).vcpu) vcpu->set_registers(registers);
}

void Debugger::fpu_state(u32 v, u8 (&image)[512]) {
  std::memset(image, 0, sizeof image);
  if (const Vcpu* const vcpu = machine_.vcpu(v).vcpu) vcpu->fpu_state(image);
}

void Debugger::set_fpu_state(u32 v, const u8 (&image)[512]) {
  if (Vcpu* const vcpu = machine_.vcpu(v).vcpu) vcpu->set_fpu_state(image);
}

std::optional<u64> Debugger::physical(u32 v, u64 linear) {
  const Vcpu* const vcpu = machine_.vcpu(v).vcpu;
  return vcpu != nullptr ? vcpu->physical(linear) : std::nullopt;
}

u32 Debugger::breakpoint_limit() const {
  const Vcpu* const vcpu = machine_.vcpu(0).vcpu;
  return vcpu != nullptr ? vcpu->breakpoint_limit() : ~u32{0};
}

bool Debugger::read_memory(u64 gpa, std::span<u8> to) {
  const PhysPage page = machine_.board.memory_map().page(gpa & ~(PAGE_SIZE - 1));
  if (page.read == nullptr) return false;
  std::memcpy(to.data(), page.read + gpa % PAGE_SIZE, to.size());
  return true;
}

// As a device would by DMA: decoded code is dropped.
bool Debugger::write_memory(u64 gpa, std::span<const u8> from) {
  const PhysPage page = machine_.board.memory_map().page(gpa & ~(PAGE_SIZE - 1));
  if (page.write == nullptr || page.write != page.read) return false;
  std::memcpy(page.write + gpa % PAGE_SIZE, from.data(), from.size());
  if (page.ram_page != ~u64{0}) {
    CodePages code = machine_.memory.code();
    machine_.memory.page().look(code.wrote(page.ram_page));
  }
  return true;
}

std::string Debugger::state(u32 v) {
  const DebuggedVcpu vcpu = machine_.vcpu(v);
  if (vcpu.vcpu == nullptr) return "not there";
  return vcpu.started ? "started" : "waits for a start-up IPI";
}

} // namespace transom::gdb
