#include "core/device_host.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>

#include "core/device_instance.hpp"
#include "vdev/ext/log.h"

namespace transom {

namespace {

constexpr u64 ones(u32 width) { return width >= 8 ? ~u64{0} : (u64{1} << (width * 8)) - 1; }

// The largest width that the region accepts, is naturally aligned at `offset` and not beyond `remaining`; 0: none.
u32 legal_width(const vdev_region& region, u64 offset, u32 remaining) {
  for (u32 w = 8; w != 0; w /= 2)
    if ((region.widths & w) != 0 && w <= remaining && offset % w == 0) return w;
  return 0;
}

bool within(const vdev_region& region, u64 offset, u32 width) {
  return width != 0 && width <= 8 && offset < region.length && width <= region.length - offset;
}

} // namespace

DeviceHost::DeviceHost(HostEnvironment environment)
    : environment_(std::move(environment)), effect_tail_(environment_.page->effects.tail()) {}

DeviceHost::~DeviceHost() = default;

Result<u32> DeviceHost::create(const DevicePlan& plan) {
  if (devices_.size() >= MAX_DEVICES) return error(fmt::format("more than {} devices in one server", MAX_DEVICES));
  auto& library = libraries_[plan.plugin];
  if (library == nullptr) {
    auto loaded = PluginLibrary::load(plan.plugin);
    if (!loaded) return tl::unexpected(loaded.error());
    library = std::move(*loaded);
  }
  const vdev_descriptor* descriptor = library->find(plan.id);
  if (descriptor == nullptr) return error(fmt::format("plugin {} has no device {}", plan.plugin, plan.id));

  const u32 index = device_count();
  auto instance = std::make_unique<DeviceInstance>(*this, index, plan, library, *descriptor);
  DeviceInstance& device = *instance;
  devices_.push_back(std::move(instance));
  Result<void> created = {};
  {
    Dispatch dispatch(*this, device, ~0u); // a constructor sets outputs: they commit with its fresh state
    created = device.create();
  }
  if (!created) {
    devices_.pop_back();
    return tl::unexpected(created.error());
  }
  environment_.page->device_count.store(device_count(), std::memory_order_release);
  refresh_deadline();
  return index;
}

DeviceInstance* DeviceHost::usable(u32 device) {
  if (device >= devices_.size() || devices_[device]->quarantined) return nullptr;
  return devices_[device].get();
}

void DeviceHost::refresh_deadline() {
  u64 earliest = ~u64{0};
  for (const auto& device : devices_) earliest = std::min(earliest, device->deadline);
  next_deadline_ = earliest;
}

bool DeviceHost::effects_pending() const {
  return environment_.page->effects.head.load(std::memory_order_acquire) != effect_tail_;
}

bool DeviceHost::room_for_dispatch() const {
  return effect_tail_ - environment_.page->effects.head.load(std::memory_order_acquire) <=
         EFFECT_SLOTS - EFFECTS_PER_DISPATCH;
}

// ---------------------------------------------------------------------------------------------------- accesses

u64 DeviceHost::read(u32 index, u32 region, u64 offset, u32 width, u32 slot) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || region >= d->descriptor.region_count) return ones(width);
  const vdev_region& r = d->descriptor.regions[region];
  if (!within(r, offset, width)) return ones(width);

  Dispatch dispatch(*this, *d, slot);
  const u64 result = read_element(*d, region, offset, width);
  dispatch.respond(result);
  return result;
}

void DeviceHost::write(u32 index, u32 region, u64 offset, u32 width, u64 value, u32 slot) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || region >= d->descriptor.region_count) return;
  const vdev_region& r = d->descriptor.regions[region];
  if (!within(r, offset, width)) return;

  Dispatch dispatch(*this, *d, slot);
  write_element(*d, region, offset, width, value);
}

namespace {
constexpr u32 RUN_BYTES = 4096; // a run lies within one page

// The guest bytes of a run in the order of its elements, which with DF set is descending in memory.
u64 run_base(const DeviceHost::Run& run) { return run.backward ? run.gpa - u64{run.count - 1} * run.width : run.gpa; }
void reverse_elements(u8* data, u32 count, u32 width) {
  for (u32 i = 0; i < count / 2; ++i)
    std::swap_ranges(data + i * width, data + (i + 1) * width, data + (count - 1 - i) * width);
}
bool sane(const DeviceHost::Run& run) {
  return (run.width == 1 || run.width == 2 || run.width == 4) && run.count != 0 && run.count <= RUN_BYTES / run.width;
}
} // namespace

void DeviceHost::read_run(u32 index, u32 region, u64 offset, const Run& run, u32 slot) {
  alignas(16) u8 data[RUN_BYTES];
  if (!sane(run)) return;
  const u32 bytes = run.count * run.width;
  DeviceInstance* d = usable(index);
  if (d == nullptr || region >= d->descriptor.region_count ||
      !within(d->descriptor.regions[region], offset, run.width)) {
    std::memset(data, 0xff, bytes);
    if (environment_.ram.write(run_base(run), data, bytes))
      environment_.domain->memory_written(environment_.code, run_base(run), bytes);
    return;
  }
  Dispatch dispatch(*this, *d, slot);
  const vdev_region& r = d->descriptor.regions[region];
  if (d->pio_string != nullptr && (r.widths & run.width) != 0) {
    if (d->pio_string->read_run(d->device, region, offset, run.width, run.count, data) < 0) {
      d->quarantine("read_run returned a negative status");
      std::memset(data, 0xff, bytes);
    }
  } else {
    for (u32 i = 0; i < run.count; ++i) {
      const u64 value = read_element(*d, region, offset, run.width);
      std::memcpy(data + i * run.width, &value, run.width);
    }
  }
  if (run.backward) reverse_elements(data, run.count, run.width);
  if (environment_.ram.write(run_base(run), data, bytes))
    environment_.domain->memory_written(environment_.code, run_base(run), bytes);
}

void DeviceHost::write_run(u32 index, u32 region, u64 offset, const Run& run, u32 slot) {
  alignas(16) u8 data[RUN_BYTES];
  DeviceInstance* d = usable(index);
  if (!sane(run) || d == nullptr || region >= d->descriptor.region_count ||
      !within(d->descriptor.regions[region], offset, run.width))
    return;
  const u32 bytes = run.count * run.width;
  if (!environment_.ram.read(run_base(run), data, bytes)) return;
  if (run.backward) reverse_elements(data, run.count, run.width);
  Dispatch dispatch(*this, *d, slot);
  const vdev_region& r = d->descriptor.regions[region];
  if (d->pio_string != nullptr && (r.widths & run.width) != 0) {
    if (d->pio_string->write_run(d->device, region, offset, run.width, run.count, data) < 0)
      d->quarantine("write_run returned a negative status");
    return;
  }
  for (u32 i = 0; i < run.count && !d->quarantined; ++i) {
    u64 value = 0;
    std::memcpy(&value, data + i * run.width, run.width);
    write_element(*d, region, offset, run.width, value);
  }
}

// One access, legalised: a wider one is split into the largest accepted widths, ascending; a narrower read takes its
// bytes from the accepted read around them; a narrower write is dropped and counted. Inside a dispatch.
u64 DeviceHost::read_element(DeviceInstance& d, u32 region, u64 offset, u32 width) {
  const vdev_region& r = d.descriptor.regions[region];
  u64 result = 0;
  for (u32 done = 0; done < width;) {
    u64 at = offset + done;
    u32 w = legal_width(r, at, width - done), skip = 0, taken = w;
    if (w == 0) {
      w = r.widths & (0u - r.widths); // the narrowest
      if (w == 0 || w > 8) return ones(width);
      skip = static_cast<u32>(at % w);
      at -= skip;
      taken = std::min(w - skip, width - done);
    }
    u64 value = ones(w);
    if (at + w <= r.length && d.device->read(d.device, region, at, w, &value) < 0)
      d.quarantine("a read returned a negative status");
    if (d.quarantined) return ones(width);
    result |= (value >> (skip * 8) & ones(taken)) << (done * 8);
    done += taken;
  }
  return result;
}

void DeviceHost::write_element(DeviceInstance& d, u32 region, u64 offset, u32 width, u64 value) {
  for (u32 done = 0; done < width && !d.quarantined;) {
    const u32 w = legal_width(d.descriptor.regions[region], offset + done, width - done);
    if (w == 0) {
      d.slot().counters.guest_errors.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    if (d.device->write(d.device, region, offset + done, w, value >> (done * 8) & ones(w)) < 0)
      d.quarantine("a write returned a negative status");
    done += w;
  }
}

namespace {
// The device's part of a function's configuration space, 40h–FFh, within one dword as on the bus.
bool config_access(u32 offset, u32 width) {
  return (width == 1 || width == 2 || width == 4) && offset >= 0x40 && offset < 0x100 && offset % 4 + width <= 4;
}
} // namespace

u32 DeviceHost::config_read(u32 index, u32 function, u32 offset, u32 width, u32 slot) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || d->pci == nullptr || function >= d->pci->function_count || !config_access(offset, width))
    return static_cast<u32>(ones(width));
  Dispatch dispatch(*this, *d, slot);
  const u32 step = offset % width == 0 ? width : 1; // devices see natural alignment only
  u32 value = 0;
  for (u32 done = 0; done < width; done += step)
    value |= (d->pci->read_config(d->device, function, offset + done, step) & static_cast<u32>(ones(step)))
             << (8 * done);
  dispatch.respond(value);
  return value;
}

void DeviceHost::config_write(u32 index, u32 function, u32 offset, u32 width, u32 value, u32 slot) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || d->pci == nullptr || function >= d->pci->function_count || !config_access(offset, width)) return;
  Dispatch dispatch(*this, *d, slot);
  const u32 step = offset % width == 0 ? width : 1;
  for (u32 done = 0; done < width; done += step)
    d->pci->write_config(d->device, function, offset + done, step, value >> (8 * done) & static_cast<u32>(ones(step)));
}

u8 DeviceHost::acknowledge(u32 index, u32 slot) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || d->intack == nullptr) return 0xff;
  Dispatch dispatch(*this, *d, slot);
  const u8 vector = d->intack->acknowledge(d->device);
  dispatch.respond(vector);
  return vector;
}

void DeviceHost::irq_in(u32 index, u32 input, u32 level) {
  DeviceInstance* d = usable(index);
  if (d == nullptr || d->irq_in == nullptr || input >= d->slot().sheet.irq_inputs) return;
  d->slot().counters.events.fetch_add(1, std::memory_order_relaxed);
  Dispatch dispatch(*this, *d, ~0u);
  d->irq_in->set_level(d->device, input, level);
}

// ---------------------------------------------------------------------------------------------------- events

void DeviceHost::expire(u64 now) {
  for (const auto& device : devices_) {
    DeviceInstance& d = *device;
    if (d.deadline > now || d.timer == nullptr || d.quarantined || !room_for_dispatch() || draining(d.index)) continue;
    d.slot().counters.events.fetch_add(1, std::memory_order_relaxed);
    Dispatch dispatch(*this, d, ~0u);
    d.timer->expire(d.device, now);
  }
}

bool DeviceHost::completions_waiting() const {
  for (const auto& device : devices_)
    if (device->slot().block.done.load(std::memory_order_relaxed) != 0) return true;
  return false;
}

void DeviceHost::deliver_completions() {
  for (const auto& device : devices_) {
    DeviceInstance& d = *device;
    BlockRing& ring = d.slot().block;
    if (ring.done.load(std::memory_order_relaxed) == 0) continue;
    for (u32 bits = ring.done.exchange(0, std::memory_order_acq_rel); bits != 0; bits &= bits - 1) {
      const u32 n = static_cast<u32>(std::countr_zero(bits));
      BlockSlot& slot = ring.slots[n];
      if (slot.state.load(std::memory_order_acquire) != BlockSlotState::done) continue;
      if (!room_for_dispatch()) {
        ring.done.fetch_or(1u << n, std::memory_order_release);
        continue;
      }
      const BlockRequest& q = slot.request;
      const u32 drive = q.drive % BLOCK_DRIVES;
      if (q.generation != d.generation[drive] || d.block_done == nullptr || d.quarantined) {
        slot.state.store(BlockSlotState::free, std::memory_order_release); // cancelled: nobody wants to know
        continue;
      }
      const u64 tag = q.tag, moved = slot.transferred;
      const vdev_status status = slot.status;
      d.slot().counters.events.fetch_add(1, std::memory_order_relaxed);
      Dispatch dispatch(*this, d, ~0u);
      d.push({EffectKind::block_free, 0, n, 0, 0, 0});
      d.block_done->done(d.device, drive, tag, status, moved);
    }
  }
}

bool DeviceHost::bytes_waiting() const {
  for (const auto& device : devices_) {
    const DeviceInstance& d = *device;
    if (d.stream == nullptr || d.quarantined) continue;
    for (u32 s = 0; s < STREAMS; ++s) {
      const StreamPair& pair = d.slot().streams[s];
      if (d.out_starved[s] && pair.out.used() < ByteRing::BYTES / 2) return true;
      if (pair.in.used() != 0 && d.stream->room(d.device, s) != 0) return true;
    }
  }
  return false;
}

void DeviceHost::deliver_bytes() {
  for (const auto& device : devices_) {
    DeviceInstance& d = *device;
    if (d.stream == nullptr || d.quarantined) continue;
    for (u32 s = 0; s < STREAMS; ++s) {
      StreamPair& pair = d.slot().streams[s];
      if (d.out_starved[s] && pair.out.used() < ByteRing::BYTES / 2 && room_for_dispatch()) {
        Dispatch dispatch(*this, d, ~0u);
        d.out_starved[s] = false;
        if (d.stream->writable != nullptr) d.stream->writable(d.device, s);
      }
      if (pair.in.used() == 0 || !room_for_dispatch()) continue;
      u8 bytes[256];
      const u32 room = std::min<u32>(d.stream->room(d.device, s), sizeof bytes);
      const u32 n = pair.in.peek(bytes, room);
      if (n == 0) continue;
      d.slot().counters.events.fetch_add(1, std::memory_order_relaxed);
      Dispatch dispatch(*this, d, ~0u);
      d.push({EffectKind::stream_in, 0, s, pair.in.head.load(std::memory_order_relaxed) + n, 0, 0});
      d.stream->receive(d.device, s, bytes, n);
    }
  }
}

const std::string& DeviceHost::name(u32 device) const { return devices_[device]->plan.name; }

void DeviceHost::cancel_all() {
  for (const auto& device : devices_) {
    Dispatch dispatch(*this, *device, ~0u);
    for (u32 drive = 0; drive < BLOCK_DRIVES; ++drive)
      device->push({EffectKind::block_cancel, 0, drive, ++device->generation[drive], 0, 0});
  }
}

void DeviceHost::reset_all() {
  for (const auto& device : devices_) {
    if (device->quarantined) continue;
    Dispatch dispatch(*this, *device, ~0u);
    device->device->reset(device->device);
  }
}

void DeviceHost::pause_all(bool paused) {
  for (const auto& device : devices_) {
    DeviceInstance& d = *device;
    if (d.quarantined || d.lifecycle == nullptr) continue;
    Dispatch dispatch(*this, d, ~0u);
    (paused ? d.lifecycle->pause : d.lifecycle->resume)(d.device);
  }
}

bool DeviceHost::draining(u32 index) const {
  if (index >= devices_.size() || !devices_[index]->cancelled) return false;
  DeviceInstance& d = *devices_[index];
  for (const BlockSlot& slot : d.slot().block.slots) {
    const BlockSlotState state = slot.state.load(std::memory_order_acquire);
    const bool under_way = state == BlockSlotState::queued || state == BlockSlotState::running;
    if (under_way && slot.request.generation != d.generation[slot.request.drive % BLOCK_DRIVES]) return true;
  }
  d.cancelled = false;
  return false;
}

bool DeviceHost::requests_in_flight() const {
  for (const auto& device : devices_)
    for (const BlockSlot& slot : device->slot().block.slots) {
      const BlockSlotState state = slot.state.load(std::memory_order_acquire);
      if (state == BlockSlotState::queued || state == BlockSlotState::running) return true;
    }
  return false;
}

} // namespace transom
