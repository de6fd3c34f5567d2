// What an ioreq server and the hypervisor share: the ioreq page, posted writes, effects, and everything the server's
// devices own (state, bulk memory, request rings), in one sealed memfd that the supervisor also holds.
//
// The hypervisor runs the devices that are placed there by the very same tables, in a server page of its own.
#pragma once

#include <atomic>

#include "core/block_ring.hpp"
#include "core/effects.hpp"
#include "core/ioreq.hpp"
#include "core/stream_ring.hpp"
#include "core/types.hpp"
#include "vdev/ext/pci.h"

namespace transom {

inline constexpr u32 MAX_VCPUS = 8;
inline constexpr u32 CONTROL_SLOT = MAX_VCPUS; // the device thread's own ioreq slot
inline constexpr u32 IOREQ_SLOTS = MAX_VCPUS + 1;
inline constexpr u32 MAX_SERVERS = 8;
inline constexpr u32 MAX_DEVICES = 16; // a server
inline constexpr u32 POSTED_SLOTS = 256;
inline constexpr u32 BULK_BYTES = 8 << 20; // a server, all devices together
inline constexpr u32 SHEET_REGIONS = 16, SHEET_POSTED = 8, SHEET_FUNCTIONS = 4, SHEET_BARS = 6, SHEET_IRQS = 8;

// What a device turned out to be once its library was loaded: written by its server, read by the hypervisor's router,
// which copies it and checks every count.
struct SheetRegion {
  u32 space, widths, flags;
  u32 reserved;
  u64 base, length;
};
struct SheetPosted {
  u32 region, flags;
  u64 offset, length;
};
struct SheetBar {
  u32 index, region, type, reserved;
};
struct SheetFunction {
  u32 slot, function, class_code, irq;
  u16 vendor_id, device_id, subsystem_vendor_id, subsystem_id, status;
  u8 revision, header_type, interrupt_pin, bar_count;
  SheetBar bars[SHEET_BARS];
};
struct DeviceSheet {
  char name[32]; // of the instance
  u32 region_count, posted_count, function_count, irq_count;
  u32 irq_inputs, has_intack, reserved0, reserved1;
  char irq_names[SHEET_IRQS][16];
  SheetRegion regions[SHEET_REGIONS];
  SheetPosted posted[SHEET_POSTED];
  SheetFunction functions[SHEET_FUNCTIONS];
};

struct DeviceCounters {
  std::atomic<u64> ioreqs;       // synchronous requests that crossed to this server
  std::atomic<u64> posted;       // posted writes
  std::atomic<u64> local;        // accesses by a direct call (device placed in the hypervisor)
  std::atomic<u64> runs;         // string instructions served as one request
  std::atomic<u64> events;       // timers, completions, received bytes, interrupt inputs
  std::atomic<u64> guest_errors; // accesses of a width the device does not have
};

struct alignas(64) DeviceSlot {
  alignas(64) u8 state[STATE_BYTES];
  std::atomic<u32> state_bytes; // 0: not asked for yet
  std::atomic<u32> quarantined;
  std::atomic<u32> bus_master; // bit per PCI function; written by the hypervisor, checked before each DMA
  u32 bulk_offset, bulk_bytes; // within ServerPage::bulk
  DeviceCounters counters;
  DeviceSheet sheet;
  StreamPair streams[STREAMS];
  BlockRing block;
};

enum class ServerState : u32 { starting = 0, ready, failed, stopped };

struct ServerPage {
  static constexpr u64 MAGIC = 0x3167'5065'6d6f'7254; // "TromePg1"
  u64 magic;
  std::atomic<ServerState> state;
  std::atomic<u32> device_count;
  char failure[512]; // why `failed`, for the operator

  alignas(64) Ioreq ioreq[IOREQ_SLOTS];
  IoreqSide side[IOREQ_SLOTS];

  alignas(64) std::atomic<u32> posted_head; // server
  alignas(64) std::atomic<u32> posted_tail; // hypervisor
  std::atomic<u64> posted_full;             // how often a vCPU had to wait for room
  PostedRecord posted[POSTED_SLOTS];

  alignas(64) Journal journal;
  EffectRing effects;
  DeviceSlot devices[MAX_DEVICES];
  alignas(4096) u8 bulk[BULK_BYTES];
};

} // namespace transom
