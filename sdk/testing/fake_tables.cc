// The host's extension tables over a FakeHost.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "vdev/ext/config.h"
#include "vdev/ext/dma.h"
#include "vdev/ext/irq.h"
#include "vdev/ext/log.h"
#include "vdev/ext/memory_map.h"
#include "vdev/ext/state.h"
#include "vdev/ext/stream.h"
#include "vdev/testing/fake_host.hpp"

namespace vdev::testing {

struct FakeTables {
  static FakeHost& self(const vdev_host* host) { return *static_cast<FakeHost*>(host->host_data); }

  static u64 hash(const u8* bytes, u32 length) { // FNV-1a
    u64 value = 0xcbf29ce484222325;
    for (u32 i = 0; i < length; ++i) value = (value ^ bytes[i]) * 0x100000001b3;
    return value;
  }

  // vdev.host.irq/1
  static void set_level(const vdev_host* host, u32 irq, u32 level) {
    FakeHost& h = self(host);
    if (!h.allowed("irq.set_level")) return;
    if (irq >= h.irq_count) return h.violation("irq.set_level of output " + std::to_string(irq) + ", which it has not");
    if (level > 1) h.violation("irq.set_level with level " + std::to_string(level));
    h.irq_levels[irq] = level != 0;
    h.set_output(EventKind::Irq, irq, level != 0);
  }

  // vdev.host.clock/1
  static u64 now(const vdev_host* host) { return self(host).allowed("clock.now") ? self(host).now : 0; }
  static i64 calendar(const vdev_host* host) {
    FakeHost& h = self(host);
    return h.allowed("clock.calendar") ? h.options_.calendar_ns + i64(h.now) : 0;
  }

  // vdev.host.dma/1
  static vdev_status dma_check(FakeHost& h, u64 address, u32 length, const char* call) {
    if (!h.allowed(call) || !h.spend(length / 1024, call)) return VDEV_BUS_ERROR;
    if (length > 1u << 20) return h.violation(std::string(call) + " of more than 1 MiB"), VDEV_INVALID;
    if (h.dma_faults_in > 0 && --h.dma_faults_in == 0) return VDEV_BUS_ERROR;
    const bool inside = address <= h.ram.size() && length <= h.ram.size() - address;
    return h.bus_master && inside ? VDEV_OK : VDEV_BUS_ERROR;
  }
  static vdev_status dma_read(const vdev_host* host, u64 address, void* buffer, u32 length) {
    FakeHost& h = self(host);
    const vdev_status status = dma_check(h, address, length, "dma.read");
    if (status == VDEV_OK && length) std::memcpy(buffer, h.ram.data() + address, length);
    return status;
  }
  static vdev_status dma_write(const vdev_host* host, u64 address, const void* buffer, u32 length) {
    FakeHost& h = self(host);
    const vdev_status status = dma_check(h, address, length, "dma.write");
    if (status != VDEV_OK || length == 0) return status;
    std::memcpy(h.ram.data() + address, buffer, length);
    h.record(EventKind::DmaWrite, address, length, hash(static_cast<const u8*>(buffer), length));
    return VDEV_OK;
  }

  // vdev.host.state-memory/1, vdev.host.bulk-memory/1
  static void* state_memory(const vdev_host* host, u32 bytes, u32* fresh) {
    FakeHost& h = self(host);
    if (!h.allowed("state-memory.memory", true)) return nullptr;
    if (h.state_given_) return h.violation("state memory was asked for twice"), nullptr;
    if (bytes == 0 || bytes > h.state_limit) {
      h.violation("state memory of " + std::to_string(bytes) + " bytes; the manifest says " +
                  std::to_string(h.state_limit));
      return nullptr;
    }
    h.state_given_ = true;
    *fresh = !(h.state_kept_ && h.state_bytes_ == bytes);
    if (*fresh) {
      h.drop_state();
      h.state_given_ = true;
      h.state_ = static_cast<u8*>(::operator new (bytes, std::align_val_t{64}));
      h.state_bytes_ = bytes;
      std::memset(h.state_, 0, bytes);
    }
    return h.state_;
  }
  static void* bulk_memory(const vdev_host* host, u32 index, u64 bytes) {
    FakeHost& h = self(host);
    if (!h.allowed("bulk-memory.memory", true)) return nullptr;
    FakeHost::Memory& memory = h.bulk[index];
    if (memory.bytes == bytes && bytes) return memory.data();
    u64 total = bytes;
    for (const auto& [other, buffer] : h.bulk) total += other == index ? 0 : buffer.bytes;
    if (bytes == 0 || total > h.bulk_limit || total > u64{1} << 30) {
      return h.violation("bulk memory of " + std::to_string(total) + " bytes together; the manifest says " +
                         std::to_string(h.bulk_limit)),
             nullptr;
    }
    memory.words.assign((bytes + 7) / 8, 0);
    memory.bytes = bytes;
    return memory.data();
  }

  // vdev.host.config/1
  static vdev_status get_string(const vdev_host* host, const char* key, const char** value) {
    FakeHost& h = self(host);
    if (!h.allowed("config.get_string", true)) return VDEV_NOT_FOUND;
    const auto found = h.options_.config.find(key);
    if (found == h.options_.config.end()) return VDEV_NOT_FOUND;
    *value = found->second.c_str();
    return VDEV_OK;
  }
  static vdev_status get_integer(const vdev_host* host, const char* key, u64* value) {
    const char* text = nullptr;
    if (const vdev_status status = get_string(host, key, &text); status < 0) return status;
    if (std::strcmp(text, "true") == 0 || std::strcmp(text, "false") == 0) return *value = text[0] == 't', VDEV_OK;
    char* end = nullptr;
    const u64 number = std::strtoull(text, &end, 0);
    if (*text == 0 || *end != 0) return VDEV_INVALID;
    return *value = number, VDEV_OK;
  }

  // vdev.host.stream/1
  static u32 stream_write(const vdev_host* host, u32 stream, const u8* bytes, u32 length) {
    FakeHost& h = self(host);
    if (!h.allowed("stream.write") || !h.spend(length / 1024, "stream.write")) return 0;
    if (stream >= h.stream_count) return h.violation("stream.write to a stream that the manifest does not ask for"), 0;
    FakeStream& s = h.streams[stream];
    const u32 taken = u32(std::min<u64>(length, s.accepts));
    if (s.accepts != ~u64{0}) s.accepts -= taken;
    if (s.connected) s.sent.append(reinterpret_cast<const char*>(bytes), taken);
    for (u32 i = 0; i < taken; ++i) h.record(EventKind::Sent, stream, bytes[i]);
    return taken;
  }
  static u32 connected(const vdev_host* host, u32 stream) {
    FakeHost& h = self(host);
    return h.allowed("stream.connected") && stream < h.stream_count && h.streams[stream].connected;
  }

  // vdev.host.block/1
  static vdev_status info(const vdev_host* host, u32 drive, vdev_block_info* info) {
    FakeHost& h = self(host);
    const auto phase = h.phase_.load();
    if (phase != FakeHost::Phase::Control && !h.allowed("block.info")) return VDEV_FAILED;
    if (drive >= h.drive_count)
      return h.violation("block.info of a drive that the manifest does not ask for"), VDEV_NOT_FOUND;
    if (drive >= h.drives.size()) return VDEV_NOT_FOUND;
    const u32 size = std::min<u32>(info->size, sizeof *info);
    std::memcpy(info, &h.drives[drive].info, size);
    info->size = size;
    return VDEV_OK;
  }
  static const char* what_is_wrong_with(const vdev_block_request& request) {
    const u32 op = request.op & ~VDEV_BLOCK_FUA;
    const bool moves = op == VDEV_BLOCK_READ || op == VDEV_BLOCK_WRITE;
    if (op < VDEV_BLOCK_READ || op > VDEV_BLOCK_DISCARD) return "an unknown operation";
    if ((request.op & VDEV_BLOCK_FUA) && op != VDEV_BLOCK_WRITE) return "FUA on something else than a write";
    if (request.segment_count > VDEV_BLOCK_MAX_SEGMENTS) return "more than 64 segments";
    if (request.bytes % VDEV_SECTOR_BYTES != 0) return "a part of a sector";
    if (moves && request.bytes == 0) return "no bytes";
    u64 sum = 0;
    for (u32 i = 0; i < request.segment_count; ++i) {
      if (request.segments[i].length % 2 != 0) return "a segment of odd length";
      sum += request.segments[i].length;
    }
    return moves && sum != request.bytes ? "segments that do not add up to its bytes" : nullptr;
  }
  static vdev_status submit(const vdev_host* host, u32 drive, const vdev_block_request* request) {
    FakeHost& h = self(host);
    if (!h.allowed("block.submit")) return VDEV_FAILED;
    if (const char* wrong = what_is_wrong_with(*request)) {
      return h.violation(std::string("block.submit with ") + wrong), VDEV_INVALID;
    }
    if (drive >= h.drives.size()) return VDEV_NOT_FOUND;
    if (h.pending.size() >= VDEV_BLOCK_MAX_IN_FLIGHT) return VDEV_BUSY;
    h.record(EventKind::Submit, u64{drive} << 32 | request->op, request->sector, request->bytes);
    h.pending.push_back({drive,
                         request->op,
                         request->tag,
                         request->sector,
                         request->bytes,
                         {request->segments, request->segments + request->segment_count}});
    return VDEV_OK;
  }
  static void cancel(const vdev_host* host, u32 drive) {
    FakeHost& h = self(host);
    if (!h.allowed("block.cancel")) return;
    h.record(EventKind::Cancel, drive);
    std::erase_if(h.pending, [drive](const PendingRequest& request) { return request.drive == drive; });
  }

  // vdev.host.wire/1, memory-map/1, irq-route/1, log/1
  static void set_wire(const vdev_host* host, u32 wire, u32 value) {
    FakeHost& h = self(host);
    if (!h.allowed("wire.set")) return;
    if (wire < VDEV_WIRE_A20 || wire > VDEV_WIRE_EXIT) return h.violation("wire.set of an unknown wire");
    const bool is_level = wire == VDEV_WIRE_A20 || wire == VDEV_WIRE_SMI || wire == VDEV_WIRE_NMI;
    h.wires[wire] = value;
    if (is_level) return h.set_output(EventKind::Wire, wire, value);
    h.record(EventKind::Wire, wire, value);
  }
  static void set_shadow(const vdev_host* host, u64 base, u64 length, u32 read, u32 write) {
    FakeHost& h = self(host);
    if (!h.allowed("memory-map.set_shadow")) return;
    const bool good =
        base % 4096 == 0 && length % 4096 == 0 && base >= 0xc0000 && length <= 0x40000 && base + length <= 0x100000;
    if (!good) h.violation("memory-map.set_shadow outside of C0000h-FFFFFh, or not of whole pages");
    h.set_output(EventKind::Shadow, base, length, read << 1 | write);
  }
  static void map_region(const vdev_host* host, u32 region, u64 base, u32 enabled) {
    FakeHost& h = self(host);
    if (h.allowed("memory-map.map_region")) h.set_output(EventKind::Map, region, base, enabled);
  }
  static void set_route(const vdev_host* host, u32 link, u32 line) {
    FakeHost& h = self(host);
    if (!h.allowed("irq-route.set")) return;
    if (link > 3 || (line > 15 && line != VDEV_ROUTE_NONE))
      return h.violation("irq-route.set of an unknown link or line");
    h.routes[link] = line;
    h.set_output(EventKind::Route, link, line);
  }
  static void write_log(const vdev_host* host, u32 level, const char* text) {
    FakeHost& h = self(host);
    if (h.phase_ == FakeHost::Phase::Gone) return h.violation("log.write was called after destroy returned");
    const std::lock_guard lock(h.violations_mutex_);
    static constexpr const char* LEVELS[] = {"", "error: ", "warning: ", "info: ", "debug: "};
    if (h.log.size() < 10000) h.log.push_back((level < 5 ? LEVELS[level] : "") + std::string(text));
  }

  static const void* get_extension(const vdev_host* host, const char* id) {
    static constexpr vdev_host_irq irq = {&set_level};
    static constexpr vdev_host_clock clock = {&now, &calendar};
    static constexpr vdev_host_dma dma = {&dma_read, &dma_write};
    static constexpr vdev_host_state_memory state = {&state_memory};
    static constexpr vdev_host_bulk_memory bulk = {&bulk_memory};
    static constexpr vdev_host_config config = {&get_string, &get_integer};
    static constexpr vdev_host_stream stream = {&stream_write, &connected};
    static constexpr vdev_host_block block = {&info, &submit, &cancel};
    static constexpr vdev_host_wire wire = {&set_wire};
    static constexpr vdev_host_memory_map map = {&set_shadow, &map_region};
    static constexpr vdev_host_irq_route route = {&set_route};
    static constexpr vdev_host_log log = {&write_log};
    static const std::map<std::string, const void*> tables = {
        {VDEV_HOST_IRQ, &irq},          {VDEV_HOST_CLOCK, &clock},
        {VDEV_HOST_DMA, &dma},          {VDEV_HOST_STATE_MEMORY, &state},
        {VDEV_HOST_BULK_MEMORY, &bulk}, {VDEV_HOST_CONFIG, &config},
        {VDEV_HOST_STREAM, &stream},    {VDEV_HOST_BLOCK, &block},
        {VDEV_HOST_WIRE, &wire},        {VDEV_HOST_MEMORY_MAP, &map},
        {VDEV_HOST_IRQ_ROUTE, &route},  {VDEV_HOST_LOG, &log}};
    FakeHost& h = self(host);
    if (h.phase_ == FakeHost::Phase::Gone) return h.violation("host.get_extension was called after destroy"), nullptr;
    const auto found = tables.find(id);
    return found == tables.end() || h.options_.without.contains(id) ? nullptr : found->second;
  }
};

FakeHost::FakeHost(const Options& options)
    : now(options.start_ns), ram(options.ram_bytes), options_(options), abi_{this, &FakeTables::get_extension} {
  for (const DriveOptions& from : options.drives) {
    FakeDrive drive;
    drive.data = from.data;
    drive.info.size = sizeof drive.info;
    drive.info.kind = from.kind;
    drive.info.sectors = from.data.size() / VDEV_SECTOR_BYTES;
    drive.info.read_only = from.read_only;
    drive.info.write_cache = from.write_cache;
    drive.info.medium = from.medium;
    drive.info.synchronous = from.synchronous;
    std::memcpy(drive.info.serial, from.serial.data(), std::min(from.serial.size(), sizeof drive.info.serial));
    drives.push_back(std::move(drive));
  }
}

} // namespace vdev::testing
