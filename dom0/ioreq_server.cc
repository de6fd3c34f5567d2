#include "dom0/ioreq_server.hpp"

#include <fmt/format.h>
#include <thread>

#include "core/device_instance.hpp"

namespace transom {

namespace {
HostEnvironment environment_for(const DomainPlan& plan, const DomainMemory& memory, u32 index,
                                std::function<void()> kick_services,
                                std::function<void(u32, const std::string&, const char*)> log) {
  HostEnvironment e;
  e.page = &memory.server(index);
  e.domain = &memory.page();
  e.ram = memory.ram();
  e.code = memory.code();
  e.clock = memory.clock();
  e.crash = plan.crash;
  e.log = std::move(log);
  e.kick_services = std::move(kick_services);
  return e;
}
void bump(std::atomic<u64>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); // one writer
}
} // namespace

IoreqServer::IoreqServer(const DomainPlan& plan, const DomainMemory& memory, u32 index,
                         std::function<void()> kick_services,
                         std::function<void(u32, const std::string&, const char*)> log)
    : plan_(plan),
      memory_(memory),
      index_(index),
      page_(memory.server(index)),
      clock_(memory.clock()),
      host_(environment_for(plan, memory, index, std::move(kick_services), std::move(log))) {}

Result<void> IoreqServer::start() {
  Result<void> outcome = {};
  for (const DevicePlan& device : plan_.devices) {
    if (device.server != index_) continue;
    if (auto created = host_.create(device); !created) {
      outcome = tl::unexpected(created.error());
      fmt::format_to_n(page_.failure, sizeof page_.failure - 1, "{}", created.error().text);
      break;
    }
  }
  page_.state.store(outcome ? ServerState::ready : ServerState::failed, std::memory_order_seq_cst);
  memory_.device_thread_event().notify();
  return outcome;
}

// ---------------------------------------------------------------------------------------------------- polling

bool IoreqServer::work_waiting() const {
  if (page_.posted_head.load(std::memory_order_relaxed) != page_.posted_tail.load(std::memory_order_seq_cst))
    return true;
  for (const Ioreq& ioreq : page_.ioreq)
    if (ioreq.state(std::memory_order_seq_cst) == IoreqState::ready) return true;
  if (resetting_ && !host_.requests_in_flight()) return true;
  return host_.completions_waiting() || host_.bytes_waiting() || host_.next_deadline() <= clock_.now();
}

bool IoreqServer::poll() {
  bool worked = serve_ioreqs();
  bool events = serve_posted(); // nobody waits for these, so nobody comes to look at their effects
  if (host_.next_deadline() <= clock_.now()) {
    host_.expire(clock_.now());
    events = true;
  }
  if (host_.completions_waiting()) {
    host_.deliver_completions();
    events = true;
  }
  if (host_.bytes_waiting()) {
    host_.deliver_bytes();
    events = true;
  }
  if (resetting_ && !host_.requests_in_flight()) {
    host_.deliver_completions(); // all stale: the generation moved on
    wait_for_effects();          // then there is room for those of all devices
    host_.reset_all();
    resetting_ = false;
    respond(reset_slot_, 0, 0);
    worked = true;
  }
  if (events && host_.effects_pending()) tell_hypervisor();
  return worked || events;
}

void IoreqServer::tell_hypervisor() { memory_.device_thread_event().notify(); }

void IoreqServer::wait_for_effects() {
  wait_while([this] { return host_.effects_pending(); });
}
void IoreqServer::wait_for_room() {
  wait_while([this] { return !host_.room_for_dispatch(); });
}

template <class Condition>
void IoreqServer::wait_while(Condition&& condition) {
  while (condition()) {
    if (memory_.page().state.load(std::memory_order_relaxed) == DomainState::stopped) return;
    tell_hypervisor();
    std::this_thread::yield();
  }
}

bool IoreqServer::serve_posted() {
  u32 head = page_.posted_head.load(std::memory_order_relaxed);
  const u32 tail = page_.posted_tail.load(std::memory_order_acquire);
  if (head == tail) return false;
  if (tail - head > POSTED_SLOTS) { // damaged indices: what they may have meant is lost
    page_.posted_head.store(tail, std::memory_order_release);
    return false;
  }
  const u32 first = head;
  for (; head != tail; ++head) {
    const PostedRecord record = copy_once(page_.posted[head % POSTED_SLOTS]);
    if (host_.draining(record.device)) return head != first; // in order: the rest waits as well
    wait_for_room();
    host_.begin_posted(head + 1);
    if (record.kind == PostedRecord::irq_in) {
      host_.irq_in(record.device, record.offset, record.value != 0 ? 1 : 0);
    } else if (record.kind == PostedRecord::write && record.device < MAX_DEVICES) {
      bump(page_.devices[record.device].counters.posted);
      host_.write(record.device, record.region, record.offset, record.width, record.value);
    }
    host_.end_posted();
    page_.posted_head.store(head + 1, std::memory_order_release);
  }
  return true;
}

bool IoreqServer::serve_ioreqs() {
  bool any = false;
  for (u32 slot = 0; slot < IOREQ_SLOTS; ++slot) {
    if (page_.ioreq[slot].state() != IoreqState::ready || host_.draining(page_.side[slot].device)) continue;
    serve(slot);
    any = true;
  }
  return any;
}

// ---------------------------------------------------------------------------------------------------- one ioreq

void IoreqServer::serve(u32 slot) {
  Ioreq& ioreq = page_.ioreq[slot];
  serve_posted(); // what was written before this access, in order
  if (page_.posted_head.load(std::memory_order_relaxed) != page_.posted_tail.load(std::memory_order_acquire)) return;
  const IoreqSide side = copy_once(page_.side[slot]); // from here on only the copies are looked at
  const u8 flags = ioreq.bits.load(std::memory_order_relaxed) & 0xf0;
  const u64 addr = copy_once(ioreq.addr), data = copy_once(ioreq.data);
  const u32 count = copy_once(ioreq.count), size = copy_once(ioreq.size);
  const u8 type = copy_once(ioreq.type);
  ioreq.set_state(IoreqState::in_process, flags);

  wait_for_room();
  if (static_cast<IoreqType>(type) == IoreqType::control) return control(slot, static_cast<Control>(addr));
  const u64 answer = dispatch(slot, side, type, flags, addr, data, count, size);
  respond(slot, answer, flags);
  if (side.device < host_.device_count() && plan_.crash.point == CrashPoint::after_response)
    crash_point(plan_.crash, host_.name(side.device), CrashPoint::after_response, 0);
}

u64 IoreqServer::dispatch(u32 slot, const IoreqSide& side, u8 type, u8 flags, u64, u64 data, u32 count, u32 size) {
  const bool read = (flags & Ioreq::READ) != 0;
  if (side.device >= MAX_DEVICES || size == 0 || size > 8 || side.offset > 0xffff'ffff) return ~u64{0};
  DeviceCounters& counters = page_.devices[side.device].counters;
  bump(counters.ioreqs);
  switch (static_cast<IoreqType>(type)) {
    case IoreqType::pio:
    case IoreqType::mmio:
      if ((flags & Ioreq::DATA_IS_PTR) != 0) {
        bump(counters.runs);
        const DeviceHost::Run run{size, count, data, (flags & Ioreq::BACKWARD) != 0};
        read ? host_.read_run(side.device, side.region, side.offset, run, slot)
             : host_.write_run(side.device, side.region, side.offset, run, slot);
        return 0;
      }
      if (read) return host_.read(side.device, side.region, side.offset, size, slot);
      host_.write(side.device, side.region, side.offset, size, data, slot);
      return 0;
    case IoreqType::pci_config: {
      const u32 offset = static_cast<u32>(side.offset);
      if (read) return host_.config_read(side.device, side.region, offset, size, slot);
      host_.config_write(side.device, side.region, offset, size, static_cast<u32>(data), slot);
      return 0;
    }
    case IoreqType::intack: return host_.acknowledge(side.device, slot);
    default: return ~u64{0};
  }
}

void IoreqServer::control(u32 slot, Control what) {
  switch (what) {
    case Control::reset: // answered by poll() once nothing is in flight any more: memory belongs to the new life then
      host_.cancel_all();
      resetting_ = true;
      reset_slot_ = slot;
      return;
    case Control::pause: host_.pause_all(true); break;
    case Control::resume: host_.pause_all(false); break;
    case Control::drain: break;
  }
  respond(slot, 0, 0);
}

void IoreqServer::respond(u32 slot, u64 value, u8 flags) {
  Ioreq& ioreq = page_.ioreq[slot];
  ioreq.data = value;
  ioreq.set_state(IoreqState::response_ready, flags);
  if (slot < memory_.vcpu_count())
    memory_.vcpu_event(slot).notify();
  else
    memory_.device_thread_event().notify();
}

} // namespace transom
