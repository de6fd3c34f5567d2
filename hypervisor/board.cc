#include "hypervisor/board.hpp"

#include <fmt/format.h>
#include <utility>

#include "vdev/ext/irq_route.h"
#include "vdev/ext/wire.h"

namespace transom {

namespace {
constexpr u32 LINK_SOURCE = 60; // sources 60–63 of a line: PCI links A–D routed to it
constexpr u32 MAX_SOURCES = LINK_SOURCE;
// Interrupts of device effects settle in a few rounds; a chip that answers itself for ever is broken.
constexpr u32 MAX_ROUNDS = 1000;
// Beyond it only the last level of each input is kept, as of a chip that was not looking.
constexpr size_t PIC_QUEUE = 4096;
} // namespace

Board::Board(const DomainMemory& memory, const DomainPlan& plan, Turns* turns)
    : memory_(memory),
      plan_(plan),
      page_(memory.page()),
      map_(memory.ram()),
      pci_(
          [this](const PciFunction& f, u32 region, u64 base, bool enabled) {
            router_.move(router_.find(f.server, f.device, static_cast<u16>(region)), base, enabled);
          },
          [this](const PciFunction& f, bool enabled) {
            auto& bits = page_of(f.server).devices[f.device].bus_master;
            enabled ? bits.fetch_or(1u << f.index) : bits.fetch_and(~(1u << f.index));
          }),
      ioapic_([this](const InterruptMessage& m) { return send_interrupt(m); }, [this] { tell_level_messages(); }) {
  routes_.fill(VDEV_ROUTE_NONE);
  irqs_.resize(1 + memory.server_count());
  local_effects_ = std::make_unique<EffectReader>(page_of(SERVER_HYPERVISOR));
  for (u32 s = 0; s < memory.server_count(); ++s)
    links_.push_back(std::make_unique<ServerLink>(memory, s, plan.servers[s].wake, turns));
  for (u32 v = 0; v < plan.cpus; ++v)
    lapics_.push_back(std::make_unique<Lapic>(
        static_cast<u8>(v), v == 0,
        Lapic::Wiring{[this] { return memory_.clock().now(); },
                      [this, v](const InterruptMessage& m, u32 shorthand) { send_ipi(v, m, shorthand); },
                      [this](u8 vector) { ioapic_.end_of_interrupt(vector); }, [this] { interrupts_changed_ = true; },
                      [this, v] { vcpus_[v].nmi.store(interrupts_changed_ = true); }, [this, v] { deliver_init(v); },
                      [this, v](u8 vector) { deliver_start_up(v, vector); }}));
  for (u32 v = 1; v < plan.cpus; ++v) vcpus_[v].waits_for_startup = true;
}

// ---------------------------------------------------------------------------------------------------- devices

Result<void> Board::create_local_devices(std::function<void(u32, const std::string&, const char*)> log) {
  HostEnvironment environment;
  environment.page = &page_of(SERVER_HYPERVISOR);
  environment.domain = &page_;
  environment.ram = memory_.ram();
  environment.code = memory_.code();
  environment.clock = memory_.clock();
  environment.keep_undo = false;
  environment.crash = plan_.crash;
  environment.log = std::move(log);
  if (memory_.server_count() != 0) environment.kick_services = [this] { memory_.doorbell(0).notify(); };
  local_ = std::make_unique<DeviceHost>(std::move(environment));
  for (const DevicePlan& device : plan_.devices) {
    if (device.server != SERVER_HYPERVISOR) continue;
    if (auto created = local_->create(device); !created) return tl::unexpected(created.error());
  }
  return {};
}

Result<void> Board::take_in_sheets() {
  if (u32 index = router_.add(Claim::Owner::fw_cfg, false, 0, 0, 0, 12, 7); index != ~0u)
    router_.move(index, 0x510, true);
  for (u32 host = 0; host < 1 + memory_.server_count(); ++host) {
    const u32 server = host == 0 ? SERVER_HYPERVISOR : host - 1;
    const ServerPage& page = page_of(server);
    const u32 count = std::min(page.device_count.load(std::memory_order_acquire), MAX_DEVICES);
    for (u16 device = 0; device < count; ++device) {
      const DeviceSheet sheet = copy_once(page.devices[device].sheet);
      if (auto taken = take_in_device(server, device, sheet); !taken) return taken;
    }
  }
  settle();
  return {};
}

const DevicePlan* Board::plan_of(const char* name) const {
  for (const DevicePlan& device : plan_.devices)
    if (device.name == name) return &device;
  return nullptr;
}

Result<void> Board::take_in_device(u32 server, u16 device, const DeviceSheet& sheet) {
  const std::string name(sheet.name, strnlen(sheet.name, sizeof sheet.name));
  const DevicePlan* plan = plan_of(name.c_str());
  if (plan == nullptr || plan->server != server || sheet.region_count > SHEET_REGIONS ||
      sheet.posted_count > SHEET_POSTED || sheet.function_count > SHEET_FUNCTIONS || sheet.irq_count > SHEET_IRQS)
    return error(fmt::format("device {}: its server describes it wrongly", name));
  for (u16 r = 0; r < sheet.region_count; ++r) {
    const SheetRegion& region = sheet.regions[r];
    const u32 claim = router_.add(Claim::Owner::device, region.space == VDEV_SPACE_MMIO, server, device, r,
                                  region.length, region.widths);
    if (claim == ~0u) return error("the domain has more device regions than the router can hold");
    const bool fixed = (region.flags & (VDEV_REGION_BAR | VDEV_REGION_DISABLED)) == 0;
    router_.move(claim, region.base, fixed);
  }
  for (u16 f = 0; f < sheet.function_count; ++f)
    if (!pci_.add(server, device, f, sheet.functions[f], sheet))
      return error(fmt::format("device {}: PCI slot {} function {} is taken, or its BARs are no powers of two", name,
                               sheet.functions[f].slot, sheet.functions[f].function));
  if (sheet.has_intack) {
    if (has_pic_) return error(fmt::format("device {}: the board already has an interrupt controller", name));
    has_pic_ = true;
    pic_ = {server, device};
    pic_inputs_ = sheet.irq_inputs;
  }
  return bind_irqs(server, device, sheet, *plan);
}

// An output leads to the line that the plan names; one that drives a PCI pin goes to the pin's link otherwise.
Result<void> Board::bind_irqs(u32 server, u16 device, const DeviceSheet& sheet, const DevicePlan& plan) {
  auto& bindings = irqs_[host_index(server)][device];
  for (u32 i = 0; i < sheet.irq_count; ++i) {
    IrqBinding& b = bindings[i];
    const std::string name(sheet.irq_names[i], strnlen(sheet.irq_names[i], sizeof sheet.irq_names[i]));
    for (const auto& [output, line] : plan.irq_lines)
      if (output == name && line < LINES) b = {IrqBinding::Kind::line, static_cast<u8>(line), 0};
    for (u32 f = 0; f < sheet.function_count && b.kind == IrqBinding::Kind::none; ++f) {
      const SheetFunction& function = sheet.functions[f];
      if (function.irq != i || function.interrupt_pin == 0) continue;
      const u32 link = (function.slot + function.interrupt_pin - 2u) & 3; // slot 1, INTA# → PIRQA
      b = {IrqBinding::Kind::link, static_cast<u8>(link), 0};
    }
    if (b.kind == IrqBinding::Kind::none) continue; // leads nowhere on this board
    if (next_source_ == MAX_SOURCES) return error("the domain has more interrupt sources than the line table can hold");
    b.source = static_cast<u8>(next_source_++);
  }
  return {};
}

// ---------------------------------------------------------------------------------------------------- effects

void Board::settle() {
  const auto drain_all = [&] {
    bool any = false;
    for (u32 host = 0; host < 1 + memory_.server_count(); ++host) any |= drain(host);
    return feed_pic() || any;
  };
  for (u32 round = 0; round < MAX_ROUNDS && drain_all(); ++round) {
  }
  if (std::exchange(interrupts_changed_, false)) refresh_interrupts();
  refresh_deadline();
  for (auto& link : links_) link->effects().settled();
}

bool Board::drain(u32 host) {
  const u32 server = host == 0 ? SERVER_HYPERVISOR : host - 1;
  EffectReader& reader = host == 0 ? *local_effects_ : links_[server]->effects();
  return reader.drain([&](const Effect& effect) { apply({server, effect.device}, effect); });
}

// Tells the PIC what its inputs did. Not from apply(): each input is a dispatch with effects of its own, and a PIC in a
// server may have no room now. True if anything was told.
bool Board::feed_pic() {
  bool any = false;
  while (!pic_queue_.empty()) {
    const PicInput next = pic_queue_.front();
    if (pic_.server == SERVER_HYPERVISOR) {
      if (!local_->room_for_dispatch()) break; // drained in the next round
      local_->irq_in(pic_.device, next.input, next.level ? 1 : 0);
    } else if (!links_[pic_.server]->try_post(
                   {PostedRecord::irq_in, 0, static_cast<u8>(pic_.device), 0, next.input, next.level ? u64{1} : 0})) {
      break;
    }
    if (pic_.server != SERVER_HYPERVISOR && !next.level) posted_deasserts_.fetch_add(1, std::memory_order_release);
    pic_queue_.pop_front();
    any = true;
  }
  pic_waiting_.store(!pic_queue_.empty(), std::memory_order_release);
  if (!pic_queue_.empty()) memory_.device_thread_event().notify();
  return any;
}

void Board::write_ioapic(u64 offset, u32 value) {
  ioapic_.write(offset, value);
  interrupts_changed_ = true; // a pin may have become the PIC's way in
}

void Board::finish_deasserts() {
  const u64 posted = posted_deasserts_.load(std::memory_order_acquire);
  if (finished_deasserts_.load(std::memory_order_acquire) >= posted) return;
  links_[pic_.server]->flush_posted();
  const auto held = lock();
  settle();
  if (finished_deasserts_.load(std::memory_order_relaxed) < posted)
    finished_deasserts_.store(posted, std::memory_order_release);
}

void Board::apply(Origin origin, const Effect& effect) {
  switch (effect.kind) {
    case EffectKind::line: {
      if (effect.a >= SHEET_IRQS) return;
      const IrqBinding& b = irqs_[host_index(origin.server)][origin.device][effect.a];
      if (b.kind == IrqBinding::Kind::line) set_line_source(b.number, b.source, effect.b != 0);
      if (b.kind == IrqBinding::Kind::link) {
        u64& levels = link_levels_[b.number];
        levels = effect.b != 0 ? levels | u64{1} << b.source : levels & ~(u64{1} << b.source);
        if (routes_[b.number] < LINES) set_line_source(routes_[b.number], LINK_SOURCE + b.number, levels != 0);
      }
      return;
    }
    case EffectKind::wire: return apply_wire(origin, effect.a, effect.b);
    case EffectKind::shadow:
      map_.set_shadow(effect.b, effect.c, (effect.a & 1) != 0, (effect.a & 2) != 0);
      return request(REQUEST_MAP_CHANGED);
    case EffectKind::map_region:
      if (effect.a < SHEET_REGIONS)
        router_.move(router_.find(origin.server, origin.device, static_cast<u16>(effect.a)), effect.b, effect.c != 0);
      return;
    case EffectKind::route:
      if (effect.a < routes_.size()) set_route(effect.a, static_cast<u32>(effect.b));
      return;
    default: return; // the device host's own kinds
  }
}

void Board::apply_wire(Origin origin, u32 wire, u64 value) {
  switch (wire) {
    case VDEV_WIRE_A20: {
      a20_sources_[host_index(origin.server) * MAX_DEVICES + origin.device] = value != 0 ? 2 : 1;
      u8 most = 0;
      for (const u8 source : a20_sources_) most = std::max(most, source);
      if (a20_.exchange(most != 1) != (most != 1)) request(REQUEST_MAP_CHANGED);
      return;
    }
    // INIT# alone would leave a guest without firmware nowhere to go, so both kinds reset the board.
    case VDEV_WIRE_RESET: return request(REQUEST_RESET);
    case VDEV_WIRE_POWER:
      if (value == 0) stop(StopReason::power_off);
      return;
    case VDEV_WIRE_PANIC: return stop(StopReason::panic, static_cast<u32>(value));
    case VDEV_WIRE_EXIT: return stop(StopReason::debug_exit, static_cast<u32>(value));
    case VDEV_WIRE_NMI:
      if (value != 0) vcpus_[0].nmi.store(interrupts_changed_ = true);
      return;
    default: return; // SMI: this board has no SMM
  }
}

void Board::request(u32 bits) {
  requests_.fetch_or(bits & REQUEST_RESET);
  for (u32 v = 0; v < plan_.cpus; ++v) {
    vcpus_[v].requests.fetch_or(bits & REQUEST_MAP_CHANGED);
    kick(v, EXIT_LEAVE);
  }
}

void Board::kick(u32 vcpu, u32 bits) {
  page_.vcpus[vcpu].exit_flag.fetch_or(bits, std::memory_order_seq_cst);
  memory_.vcpu_event(vcpu).notify();
  if (kick_) kick_(vcpu);
}

void Board::stop(StopReason reason, u32 value) {
  auto none = StopReason::none;
  page_.stop_value.store(value);
  page_.stop_reason.compare_exchange_strong(none, reason); // the first reason counts
  page_.state.store(DomainState::stopped, std::memory_order_seq_cst);
  request(0);
  for (u32 v = 0; v < plan_.cpus; ++v) memory_.vcpu_event(v).wake();
  memory_.device_thread_event().wake();
}

// ---------------------------------------------------------------------------------------------------- interrupts

void Board::set_line_source(u32 line, u32 source, bool level) {
  const u64 bit = u64{1} << source;
  const u64 before = lines_[line];
  const u64 after = level ? before | bit : before & ~bit;
  lines_[line] = after;
  page_.lines[line].store(after, std::memory_order_release);
  if ((before != 0) != (after != 0)) line_changed(line, after != 0);
}

void Board::line_changed(u32 line, bool level) {
  interrupts_changed_ = true;
  if (line == LINE_INTR) {
    lapics_[0]->set_lint0(level);
    ioapic_.set_pin(0, level); // the 8259s' output is wired to both, as on a PC [MP specification 1.4, 3.6.2.2]
    return;
  }
  if (line < Ioapic::PINS)
    ioapic_.set_pin(line == 0 ? 2 : line, level); // ISA IRQ 0 is wired to pin 2, as the MADT says
  if (line < 16 && has_pic_ && line < pic_inputs_) {
    if (pic_queue_.size() == PIC_QUEUE) {
      pic_queue_.clear();
      for (u32 input = 0; input < pic_inputs_ && input < 16; ++input) pic_queue_.push_back({input, lines_[input] != 0});
    }
    pic_queue_.push_back({line, level});
  }
}

void Board::set_route(u32 link, u32 line) {
  const u32 before = routes_[link];
  if (before == line) return;
  if (before < LINES) set_line_source(before, LINK_SOURCE + link, false);
  routes_[link] = line < 16 ? line : VDEV_ROUTE_NONE;
  if (routes_[link] < LINES && link_levels_[link] != 0) set_line_source(line, LINK_SOURCE + link, true);
}

bool Board::send_interrupt(const InterruptMessage& message) {
  if (sink_ != nullptr) return sink_->send(message);
  if (message.mode == DeliveryMode::lowest) { // one of those addressed; the first will do [SDM 3A 10.6.2.4]
    for (auto& lapic : lapics_)
      if (lapic->addressed(message)) {
        lapic->deliver(message);
        return true;
      }
    return false;
  }
  bool taken = false;
  for (auto& lapic : lapics_) {
    if (!lapic->addressed(message)) continue;
    lapic->deliver(message);
    taken = true;
  }
  return taken;
}

void Board::send_ipi(u32 from, const InterruptMessage& message, u32 shorthand) {
  for (u32 v = 0; v < lapics_.size(); ++v) {
    const bool self = v == from;
    const bool wanted = shorthand == 0   ? lapics_[v]->addressed(message)
                        : shorthand == 1 ? self
                        : shorthand == 2 ? true
                                         : !self;
    if (wanted) lapics_[v]->deliver(message);
  }
}

// --- INIT and start-up [SDM 3A 8.4]

void Board::deliver_init(u32 vcpu) {
  vcpus_[vcpu].events = {true, -1};
  vcpus_[vcpu].waits_for_startup = vcpu != 0; // the bootstrap processor begins at the reset vector
  vcpus_[vcpu].start.store(true, std::memory_order_release);
  kick(vcpu, EXIT_LEAVE);
}

void Board::deliver_start_up(u32 vcpu, u8 vector) {
  if (!vcpus_[vcpu].waits_for_startup) return;
  vcpus_[vcpu].waits_for_startup = false;
  vcpus_[vcpu].events.vector = vector;
  vcpus_[vcpu].start.store(true, std::memory_order_release);
  kick(vcpu, EXIT_LEAVE);
}

StartEvents Board::take_start(u32 vcpu) {
  vcpus_[vcpu].start.store(false, std::memory_order_release);
  const StartEvents events = std::exchange(vcpus_[vcpu].events, {});
  if (events.init) {
    lapics_[vcpu]->init();
    settle();
  }
  return events;
}

void Board::tell_level_messages() {
  if (sink_ != nullptr) sink_->set_level_messages(ioapic_.level_messages());
}

// Local APICs that are not the board's decide for themselves when they take it.
bool Board::pic_accepted() { return sink_ != nullptr || lapics_[0]->accepts_pic(); }

void Board::refresh_interrupts() {
  const bool intr = lines_[LINE_INTR] != 0;
  ioapic_.retry();
  lapics_[0]->set_ext_int(intr && ioapic_.ext_int_active());
  for (u32 v = 0; v < lapics_.size(); ++v) {
    const bool pending = lapics_[v]->pending_vector() >= 0 || (v == 0 && intr && pic_accepted());
    const bool before = vcpus_[v].interrupt.exchange(pending, std::memory_order_acq_rel);
    if ((pending && !before) || vcpus_[v].nmi.load(std::memory_order_relaxed)) kick(v, EXIT_LOOK);
  }
}

int Board::acknowledge(u32 vcpu, Lock& held) {
  int vector = lapics_[vcpu]->acknowledge();
  if (vector < 0 && vcpu == 0 && has_pic_ && lines_[LINE_INTR] != 0 && pic_accepted()) {
    if (pic_.server == SERVER_HYPERVISOR) {
      vector = local_->acknowledge(pic_.device);
    } else {
      held.unlock();
      ServerLink::Request inta;
      inta.type = IoreqType::intack;
      inta.device = pic_.device;
      inta.size = 1;
      inta.flags = Ioreq::READ;
      page_.vcpus[vcpu].exits[static_cast<u32>(ExitCause::intack)].fetch_add(1, std::memory_order_relaxed);
      const u64 answer = links_[pic_.server]->call(vcpu, inta, memory_.vcpu_event(vcpu));
      held.lock();
      vector = static_cast<u8>(answer);
    }
  }
  settle();
  return vector;
}

// ---------------------------------------------------------------------------------------------------- time, reset

void Board::refresh_deadline() {
  u64 earliest = local_ ? local_->next_deadline() : ~u64{0};
  for (u32 v = 0; v < lapics_.size(); ++v) {
    vcpus_[v].deadline.store(lapics_[v]->deadline(), std::memory_order_release);
    earliest = std::min(earliest, lapics_[v]->deadline());
  }
  if (next_deadline_.exchange(earliest, std::memory_order_acq_rel) > earliest) memory_.device_thread_event().notify();
}

void Board::expire() {
  const u64 now = memory_.clock().now();
  for (auto& lapic : lapics_)
    if (lapic->deadline() <= now) lapic->expire(now);
  if (local_->next_deadline() <= now) local_->expire(now);
  settle();
}

void Board::reset() {
  for (u32 link = 0; link < routes_.size(); ++link) set_route(link, VDEV_ROUTE_NONE);
  for (auto& lapic : lapics_) lapic->reset();
  ioapic_.reset();
  tell_level_messages();
  map_.reset();
  pci_.reset();
  a20_sources_.fill(0);
  a20_.store(true);
  for (u32 v = 0; v < vcpus_.size(); ++v) {
    vcpus_[v].nmi.store(false);
    vcpus_[v].requests.store(0);
    vcpus_[v].events = {};
    vcpus_[v].start.store(false);
    vcpus_[v].waits_for_startup = v != 0;
  }
  requests_.store(0);
  interrupts_changed_ = true;
  settle();
}

} // namespace transom
