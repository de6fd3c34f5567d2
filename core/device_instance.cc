#include "core/device_instance.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

namespace transom {

void crash_point(const CrashPlan& plan, const std::string& device, CrashPoint point, u32 effect) {
  if (plan.point == CrashPoint::none) [[likely]]
    return;
  static u32 dispatches = 0; // of the planned device, in this process
  if (device != plan.device) return;
  if (point == CrashPoint::before_entry) ++dispatches;
  if (point != plan.point || dispatches != plan.dispatch) return;
  if (point == CrashPoint::after_effect && effect != plan.effect) return;
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

// ---------------------------------------------------------------------------------------------------- DeviceInstance

DeviceInstance::DeviceInstance(DeviceHost& owner, u32 place, const DevicePlan& device_plan,
                               std::shared_ptr<PluginLibrary> plugin, const vdev_descriptor& d)
    : host(owner), index(place), plan(device_plan), library(std::move(plugin)), descriptor(d) {
  // A host that takes over the memory of a dead one goes on where that one was.
  const DeviceSlot& memory = slot();
  for (u32 drive = 0; drive < BLOCK_DRIVES; ++drive) generation[drive] = memory.block.generation[drive].load();
  for (u32 s = 0; s < STREAMS; ++s) out_tail[s] = memory.streams[s].out.tail.load();
  abi.host_data = this;
  abi.get_extension = [](const vdev_host*, const char* id) { return host_extension(id); };
}

DeviceInstance::~DeviceInstance() {
  if (device != nullptr) device->destroy(device);
}

namespace {
template <class T>
void find(const vdev_device* device, const char* id, const T*& table) {
  table = static_cast<const T*>(device->get_extension(device, id));
}
} // namespace

Result<void> DeviceInstance::create() {
  device = library->factory().create(&abi, descriptor.id);
  if (device == nullptr) return error(fmt::format("device {}: {} could not be created", plan.name, descriptor.id));
  if (const vdev_status status = device->init(device); status < 0)
    return error(
        fmt::format("device {}: {} refused to start (status {}); see the log above", plan.name, descriptor.id, status));
  find(device, VDEV_TIMER, timer);
  find(device, VDEV_IRQ_IN, irq_in);
  find(device, VDEV_INTACK, intack);
  find(device, VDEV_PCI, pci);
  find(device, VDEV_PIO_STRING, pio_string);
  find(device, VDEV_POSTED, posted);
  find(device, VDEV_STREAM, stream);
  find(device, VDEV_BLOCK_DONE, block_done);
  find(device, VDEV_LIFECYCLE, lifecycle);
  if (timer != nullptr) deadline = timer->next_event(device);
  return publish_sheet();
}

Result<void> DeviceInstance::publish_sheet() {
  DeviceSheet& sheet = slot().sheet;
  std::memset(&sheet, 0, sizeof sheet);
  const auto too_many = [&](const char* what, u32 n, u32 limit) {
    return error(fmt::format("device {}: {} {}, at most {} are supported", plan.name, n, what, limit));
  };
  if (descriptor.region_count > SHEET_REGIONS) return too_many("regions", descriptor.region_count, SHEET_REGIONS);
  if (descriptor.irq_count > SHEET_IRQS) return too_many("interrupt outputs", descriptor.irq_count, SHEET_IRQS);
  fmt::format_to_n(sheet.name, sizeof sheet.name - 1, "{}", plan.name);
  sheet.region_count = descriptor.region_count;
  for (u32 r = 0; r < descriptor.region_count; ++r) {
    const vdev_region& region = descriptor.regions[r];
    u64 base = region.default_base;
    for (const auto& [name, at] : plan.region_bases)
      if (name == region.name) base = at;
    sheet.regions[r] = {region.space, region.widths, region.flags, 0, base, region.length};
  }
  sheet.irq_count = descriptor.irq_count;
  for (u32 i = 0; i < descriptor.irq_count; ++i)
    fmt::format_to_n(sheet.irq_names[i], sizeof sheet.irq_names[i] - 1, "{}", descriptor.irq_names[i]);
  sheet.irq_inputs = irq_in != nullptr ? irq_in->count(device) : 0;
  sheet.has_intack = intack != nullptr;
  if (posted != nullptr) {
    if (posted->range_count > SHEET_POSTED) return too_many("posted ranges", posted->range_count, SHEET_POSTED);
    sheet.posted_count = posted->range_count;
    for (u32 i = 0; i < posted->range_count; ++i) {
      const vdev_posted_range& range = posted->ranges[i];
      sheet.posted[i] = {range.region, range.flags, range.offset, range.length};
    }
  }
  if (pci != nullptr) {
    if (pci->function_count > SHEET_FUNCTIONS) return too_many("PCI functions", pci->function_count, SHEET_FUNCTIONS);
    sheet.function_count = pci->function_count;
    for (u32 f = 0; f < pci->function_count; ++f) {
      const vdev_pci_function& from = pci->functions[f];
      SheetFunction& to = sheet.functions[f];
      if (from.bar_count > SHEET_BARS) return too_many("BARs", from.bar_count, SHEET_BARS);
      to = {from.slot == VDEV_PCI_ANY_SLOT ? plan.pci_slot : from.slot,
            from.function,
            from.class_code,
            from.irq,
            from.vendor_id,
            from.device_id,
            from.subsystem_vendor_id,
            from.subsystem_id,
            from.status,
            from.revision,
            from.header_type,
            from.interrupt_pin,
            static_cast<u8>(from.bar_count),
            {}};
      for (u32 b = 0; b < from.bar_count; ++b)
        to.bars[b] = {from.bars[b].index, from.bars[b].region, from.bars[b].type, 0};
    }
  }
  return {};
}

void DeviceInstance::quarantine(const char* why) {
  if (quarantined) return;
  quarantined = true;
  deadline = VDEV_NEVER;
  slot().quarantined.store(1, std::memory_order_release);
  log(VDEV_LOG_ERROR, fmt::format("quarantined: {}; it answers all ones from now on", why).c_str());
}

void DeviceInstance::log(u32 level, const char* text) const {
  if (host.environment_.log) host.environment_.log(level, plan.name, text);
}

void DeviceInstance::push(const Effect& effect) {
  DeviceHost& h = host;
  EffectRing& ring = h.page().effects;
  if (!inside || h.effect_tail_ - ring.tail() >= EFFECTS_PER_DISPATCH) {
    // Outside a dispatch there is nothing that an effect could commit with; too many in one break the step budget.
    quarantine(inside ? "more effects in one call than a device may have" : "called the host outside a dispatch");
    return;
  }
  Effect& slot_of_ring = ring.slot[h.effect_tail_ % EFFECT_SLOTS];
  slot_of_ring = effect;
  slot_of_ring.device = static_cast<u16>(index);
  ++h.effect_tail_;
  crash_point(h.environment_.crash, plan.name, CrashPoint::after_effect, h.effect_tail_ - ring.tail());
}

// ---------------------------------------------------------------------------------------------------- Dispatch

Dispatch::Dispatch(DeviceHost& host, DeviceInstance& device, u32 slot) : host_(host), device_(device) {
  crash_point(host.environment_.crash, device.plan.name, CrashPoint::before_entry, 0);
  ServerPage& page = host.page();
  if (host.environment_.keep_undo) {
    Journal& journal = page.journal;
    const DeviceSlot& memory = device.slot();
    journal.device = device.index;
    journal.slot = slot;
    journal.request_id = slot < IOREQ_SLOTS ? page.side[slot].request_id : 0;
    journal.undo_bytes = std::min(memory.state_bytes.load(std::memory_order_relaxed), STATE_BYTES);
    std::memcpy(journal.undo, memory.state, journal.undo_bytes);
    journal.begun.store(page.effects.sequence() + 1, std::memory_order_release);
  }
  device.inside = true;
}

Dispatch::~Dispatch() {
  for (u32 s = 0; s < STREAMS; ++s) {
    if (!device_.out_written[s]) continue;
    device_.out_written[s] = false;
    device_.push({EffectKind::stream_out, 0, s, device_.out_tail[s], 0, 0});
  }
  device_.inside = false;
  if (device_.timer != nullptr && !device_.quarantined) device_.deadline = device_.timer->next_event(device_.device);

  const HostEnvironment& environment = host_.environment_;
  ServerPage& page = host_.page();
  if (device_.quarantined) take_back(page);
  crash_point(environment.crash, device_.plan.name, CrashPoint::before_commit, 0);
  page.journal.answered_id = page.journal.request_id;
  page.journal.response = response_;
  const u64 sequence = page.effects.sequence() + u64{1};
  if (host_.serving_posted_) {
    page.journal.posted_sequence = static_cast<u32>(sequence);
    page.journal.posted_head = host_.posted_head_;
  }
  page.effects.commit.store(sequence << 32 | host_.effect_tail_, std::memory_order_release);
  crash_point(environment.crash, device_.plan.name, CrashPoint::after_commit, 0);
  publish_own_effects();
  host_.refresh_deadline();
}

// The call that broke the device has no effect, and its interrupt outputs fall: they may share a line with others.
void Dispatch::take_back(ServerPage& page) {
  host_.effect_tail_ = page.effects.tail();
  for (u32 irq = 0; irq < std::min(device_.descriptor.irq_count, SHEET_IRQS); ++irq)
    page.effects.slot[host_.effect_tail_++ % EFFECT_SLOTS] = {
        EffectKind::line, static_cast<u16>(device_.index), irq, 0, 0, 0};
}

// Queue submissions and stream bytes become visible to the services. Idempotent, so that whoever finds the memory after
// a crash can do it again.
void Dispatch::publish_own_effects() {
  EffectRing& ring = host_.page().effects;
  bool kick = false;
  u32 at = ring.own_head.load(std::memory_order_relaxed);
  if (host_.effect_tail_ - at > EFFECT_SLOTS) at = ring.tail() - EFFECTS_PER_DISPATCH; // damaged: at most this dispatch
  for (; at != host_.effect_tail_; ++at) kick |= apply_own_effect(host_.page(), ring.slot[at % EFFECT_SLOTS]);
  ring.own_head.store(host_.effect_tail_, std::memory_order_release);
  if (kick && host_.environment_.kick_services) host_.environment_.kick_services();
}

bool apply_own_effect(ServerPage& page, const Effect& effect) {
  DeviceSlot& device = page.devices[effect.device % MAX_DEVICES];
  switch (effect.kind) {
    case EffectKind::block_submit: {
      BlockSlot& slot = device.block.slots[effect.a % BLOCK_SLOTS];
      auto expected = BlockSlotState::written;
      slot.state.compare_exchange_strong(expected, BlockSlotState::queued, std::memory_order_acq_rel);
      device.block.queued.fetch_or(1u << (effect.a % BLOCK_SLOTS), std::memory_order_seq_cst);
      return true;
    }
    case EffectKind::block_cancel:
      device.block.generation[effect.a % BLOCK_DRIVES].store(static_cast<u32>(effect.b), std::memory_order_release);
      return false;
    case EffectKind::block_free:
      device.block.slots[effect.a % BLOCK_SLOTS].state.store(BlockSlotState::free, std::memory_order_release);
      return false;
    case EffectKind::stream_out:
      device.streams[effect.a % STREAMS].out.tail.store(static_cast<u32>(effect.b), std::memory_order_release);
      return true;
    case EffectKind::stream_in:
      device.streams[effect.a % STREAMS].in.head.store(static_cast<u32>(effect.b), std::memory_order_release);
      return true;
    default: return false; // the hypervisor's
  }
}

} // namespace transom
