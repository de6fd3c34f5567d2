// The host side of the device ABI: the vdev.host.* tables that a device finds through get_extension.
#include <charconv>
#include <cstring>
#include <fmt/format.h>

#include "core/device_instance.hpp"
#include "vdev/ext/config.h"
#include "vdev/ext/dma.h"
#include "vdev/ext/irq_route.h"
#include "vdev/ext/log.h"
#include "vdev/ext/memory_map.h"
#include "vdev/ext/wire.h"

namespace transom {

// The environment of a device, for the tables below.
struct HostAccess {
  static DeviceInstance& instance(const vdev_host* host) { return *static_cast<DeviceInstance*>(host->host_data); }
  static HostEnvironment& environment(DeviceInstance& d) { return d.host.environment_; }
  static u32 take_bulk(DeviceInstance& d, u64 bytes) {
    const u64 aligned = (bytes + 4095) & ~u64{4095};
    if (aligned > BULK_BYTES - d.host.bulk_used_) return ~0u;
    const u32 at = d.host.bulk_used_;
    d.host.bulk_used_ += static_cast<u32>(aligned);
    return at;
  }
};

namespace {

DeviceInstance& self(const vdev_host* host) { return HostAccess::instance(host); }
HostEnvironment& env(DeviceInstance& d) { return HostAccess::environment(d); }

// --- config
const std::string* value_of(DeviceInstance& d, const char* key) {
  for (const auto& [name, value] : d.plan.config)
    if (name == key) return &value;
  return nullptr;
}
vdev_status config_string(const vdev_host* host, const char* key, const char** value) {
  const std::string* text = value_of(self(host), key);
  if (text == nullptr) return VDEV_NOT_FOUND;
  *value = text->c_str();
  return VDEV_OK;
}
vdev_status config_integer(const vdev_host* host, const char* key, uint64_t* value) {
  const std::string* text = value_of(self(host), key);
  if (text == nullptr) return VDEV_NOT_FOUND;
  if (*text == "true" || *text == "false") {
    *value = *text == "true";
    return VDEV_OK;
  }
  u64 parsed = 0;
  const bool hex = text->starts_with("0x");
  const auto [end, failure] =
      std::from_chars(text->data() + (hex ? 2 : 0), text->data() + text->size(), parsed, hex ? 16 : 10);
  if (failure != std::errc{} || end != text->data() + text->size()) return VDEV_INVALID;
  *value = parsed;
  return VDEV_OK;
}

// --- outputs
void set_irq(const vdev_host* host, uint32_t irq, uint32_t level) {
  DeviceInstance& d = self(host);
  if (irq >= SHEET_IRQS) return;
  const u32 bit = 1u << irq, now = level != 0 ? bit : 0;
  if ((d.irq_levels & bit) == now) return;
  d.irq_levels ^= bit;
  d.push({EffectKind::line, 0, irq, level != 0 ? u64{1} : 0, 0, 0});
}
void set_wire(const vdev_host* host, uint32_t wire, uint32_t value) {
  self(host).push({EffectKind::wire, 0, wire, value, 0, 0});
}
void set_shadow(const vdev_host* host, uint64_t base, uint64_t length, uint32_t read, uint32_t write) {
  self(host).push({EffectKind::shadow, 0, (read != 0 ? 1u : 0) | (write != 0 ? 2u : 0), base, length, 0});
}
void map_region(const vdev_host* host, uint32_t region, uint64_t base, uint32_t enabled) {
  self(host).push({EffectKind::map_region, 0, region, base, enabled, 0});
}
void set_route(const vdev_host* host, uint32_t link, uint32_t line) {
  self(host).push({EffectKind::route, 0, link, line, 0, 0});
}

// --- time
uint64_t now(const vdev_host* host) { return env(self(host)).clock.now(); }
int64_t calendar(const vdev_host* host) { return env(self(host)).clock.calendar(); }

// --- guest memory
constexpr u32 DMA_LIMIT = 1 << 20;
// RAM as a bus master reaches it: what lies behind the display's window is not on the bus.
u8* dma_target(DeviceInstance& d, u64 address, u64 length) {
  constexpr u64 WINDOW = 0xa'0000, WINDOW_END = 0xc'0000;
  if (address < WINDOW_END && length > 0 && (address >= WINDOW || length > WINDOW - address)) return nullptr;
  return env(d).ram.at(address, length);
}
bool may_master(DeviceInstance& d) {
  return d.pci == nullptr || d.slot().bus_master.load(std::memory_order_acquire) != 0;
}
vdev_status dma_read(const vdev_host* host, uint64_t address, void* buffer, uint32_t length) {
  DeviceInstance& d = self(host);
  const u8* from = length > DMA_LIMIT || !may_master(d) ? nullptr : dma_target(d, address, length);
  if (from == nullptr) return VDEV_BUS_ERROR;
  std::memcpy(buffer, from, length);
  return VDEV_OK;
}
vdev_status dma_write(const vdev_host* host, uint64_t address, const void* buffer, uint32_t length) {
  DeviceInstance& d = self(host);
  HostEnvironment& e = env(d);
  u8* to = length > DMA_LIMIT || !may_master(d) ? nullptr : dma_target(d, address, length);
  if (to == nullptr) return VDEV_BUS_ERROR;
  std::memcpy(to, buffer, length);
  e.domain->memory_written(e.code, address, length);
  return VDEV_OK;
}

// --- memory that the host owns
void* state_memory(const vdev_host* host, uint32_t bytes, uint32_t* fresh) {
  DeviceInstance& d = self(host);
  DeviceSlot& slot = d.slot();
  if (bytes == 0 || bytes > STATE_BYTES) return nullptr;
  const u32 had = slot.state_bytes.exchange(bytes, std::memory_order_acq_rel);
  *fresh = had == bytes ? 0 : 1;
  if (*fresh) std::memset(slot.state, 0, STATE_BYTES);
  return slot.state;
}
void* bulk_memory(const vdev_host* host, uint32_t index, uint64_t bytes) {
  DeviceInstance& d = self(host);
  if (index >= d.bulk_size.size() || bytes == 0 || bytes > BULK_BYTES) return nullptr;
  if (d.bulk_size[index] == 0) {
    const u32 at = HostAccess::take_bulk(d, bytes);
    if (at == ~0u) return nullptr;
    d.bulk_offset[index] = at;
    d.bulk_size[index] = static_cast<u32>(bytes);
  }
  return d.bulk_size[index] >= bytes ? d.host.page().bulk + d.bulk_offset[index] : nullptr;
}

// --- block
vdev_status block_info(const vdev_host* host, uint32_t drive, vdev_block_info* info) {
  DeviceInstance& d = self(host);
  if (drive >= BLOCK_DRIVES) return VDEV_NOT_FOUND;
  const u32 asked = std::min<u32>(info->size, sizeof *info);
  vdev_block_info found = d.slot().block.drives[drive];
  found.size = asked;
  std::memcpy(info, &found, asked);
  return found.kind == VDEV_DRIVE_ABSENT ? VDEV_NOT_FOUND : VDEV_OK;
}

vdev_status check_segments(DeviceInstance& d, const vdev_block_request& r) {
  if (r.segment_count > VDEV_BLOCK_MAX_SEGMENTS) return VDEV_INVALID;
  u64 total = 0;
  for (u32 i = 0; i < r.segment_count; ++i) {
    const vdev_segment& s = r.segments[i];
    total += s.length;
    if (s.kind == VDEV_SEGMENT_GUEST) {
      if (!may_master(d) || dma_target(d, s.address, s.length) == nullptr) return VDEV_BUS_ERROR;
    } else if (s.kind == VDEV_SEGMENT_BULK) {
      const u64 index = s.address >> 32, offset = s.address & 0xffff'ffff;
      if (index >= d.bulk_size.size() || offset > d.bulk_size[index] || s.length > d.bulk_size[index] - offset)
        return VDEV_INVALID;
    } else {
      return VDEV_INVALID;
    }
  }
  return total == r.bytes ? VDEV_OK : VDEV_INVALID;
}

vdev_status block_submit(const vdev_host* host, uint32_t drive, const vdev_block_request* given) {
  DeviceInstance& d = self(host);
  BlockRing& ring = d.slot().block;
  const vdev_block_request& r = *given;
  if (drive >= BLOCK_DRIVES || ring.drives[drive].kind == VDEV_DRIVE_ABSENT) return VDEV_NOT_FOUND;
  const u32 op = r.op & 0xff;
  if (op == VDEV_BLOCK_READ || op == VDEV_BLOCK_WRITE) {
    if (const vdev_status status = check_segments(d, r); status < 0) return status;
  } else if (op != VDEV_BLOCK_FLUSH && op != VDEV_BLOCK_DISCARD) {
    return VDEV_INVALID;
  }
  for (u32 i = 0; i < BLOCK_SLOTS; ++i) {
    BlockSlot& slot = ring.slots[i];
    if (slot.state.load(std::memory_order_acquire) != BlockSlotState::free) continue;
    BlockRequest& q = slot.request;
    q.drive = drive;
    q.generation = d.generation[drive];
    q.op = r.op;
    q.tag = r.tag;
    q.sector = r.sector;
    q.bytes = r.bytes;
    q.order = ring.next_order.fetch_add(1, std::memory_order_relaxed);
    q.segment_count = op <= VDEV_BLOCK_WRITE ? r.segment_count : 0;
    for (u32 s = 0; s < q.segment_count; ++s) {
      q.segments[s] = r.segments[s];
      if (q.segments[s].kind == VDEV_SEGMENT_BULK) // the service knows the server's bulk area, not the device's buffers
        q.segments[s].address = d.bulk_offset[r.segments[s].address >> 32] + (r.segments[s].address & 0xffff'ffff);
    }
    slot.state.store(BlockSlotState::written, std::memory_order_release);
    d.push({EffectKind::block_submit, 0, i, 0, 0, 0});
    return VDEV_OK;
  }
  return VDEV_BUSY;
}

void block_cancel(const vdev_host* host, uint32_t drive) {
  DeviceInstance& d = self(host);
  if (drive >= BLOCK_DRIVES) return;
  d.push({EffectKind::block_cancel, 0, drive, ++d.generation[drive], 0, 0});
  d.cancelled = true;
}

// --- streams
uint32_t stream_write(const vdev_host* host, uint32_t stream, const uint8_t* bytes, uint32_t length) {
  DeviceInstance& d = self(host);
  if (stream >= STREAMS || !d.inside) return 0;
  StreamPair& pair = d.slot().streams[stream];
  if (pair.connected.load(std::memory_order_relaxed) == 0) return length; // nobody listens: the line is open-ended
  const u32 taken = pair.out.put(d.out_tail[stream], bytes, length);
  d.out_tail[stream] += taken;
  d.out_written[stream] = d.out_written[stream] || taken != 0;
  d.out_starved[stream] = taken < length;
  return taken;
}
uint32_t stream_connected(const vdev_host* host, uint32_t stream) {
  return stream < STREAMS ? self(host).slot().streams[stream].connected.load(std::memory_order_relaxed) : 0;
}

void write_log(const vdev_host* host, uint32_t level, const char* text) { self(host).log(level, text); }

constexpr vdev_host_config CONFIG{config_string, config_integer};
constexpr vdev_host_irq IRQ{set_irq};
constexpr vdev_host_wire WIRE{set_wire};
constexpr vdev_host_memory_map MEMORY_MAP{set_shadow, map_region};
constexpr vdev_host_irq_route IRQ_ROUTE{set_route};
constexpr vdev_host_clock CLOCK{now, calendar};
constexpr vdev_host_dma DMA{dma_read, dma_write};
constexpr vdev_host_state_memory STATE_MEMORY{state_memory};
constexpr vdev_host_bulk_memory BULK_MEMORY{bulk_memory};
constexpr vdev_host_block BLOCK{block_info, block_submit, block_cancel};
constexpr vdev_host_stream STREAM{stream_write, stream_connected};
constexpr vdev_host_log LOG{write_log};

struct Named {
  const char* id;
  const void* table;
};
constexpr Named TABLES[] = {
    {VDEV_HOST_CONFIG, &CONFIG},
    {VDEV_HOST_IRQ, &IRQ},
    {VDEV_HOST_WIRE, &WIRE},
    {VDEV_HOST_MEMORY_MAP, &MEMORY_MAP},
    {VDEV_HOST_IRQ_ROUTE, &IRQ_ROUTE},
    {VDEV_HOST_CLOCK, &CLOCK},
    {VDEV_HOST_DMA, &DMA},
    {VDEV_HOST_STATE_MEMORY, &STATE_MEMORY},
    {VDEV_HOST_BULK_MEMORY, &BULK_MEMORY},
    {VDEV_HOST_BLOCK, &BLOCK},
    {VDEV_HOST_STREAM, &STREAM},
    {VDEV_HOST_LOG, &LOG},
};

} // namespace

const void* host_extension(const char* id) {
  for (const Named& named : TABLES)
    if (std::strcmp(named.id, id) == 0) return named.table;
  return nullptr;
}

} // namespace transom
