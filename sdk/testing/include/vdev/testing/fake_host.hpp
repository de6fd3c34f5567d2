// The bench's side of the ABI: every host extension, deterministic, and open to the test. What the device does outside
// its State is recorded as events, in order; two runs with the same events and the same saved state behaved the same.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "vdev/cpp/types.hpp"
#include "vdev/ext/block.h"
#include "vdev/ext/clock.h"
#include "vdev/ext/config.h"
#include "vdev/ext/dma.h"
#include "vdev/ext/irq.h"
#include "vdev/ext/irq_route.h"
#include "vdev/ext/log.h"
#include "vdev/ext/memory_map.h"
#include "vdev/ext/state.h"
#include "vdev/ext/stream.h"
#include "vdev/ext/wire.h"

namespace vdev::testing {

// Called with a text when a device breaks a rule of vdev.h. The default prints it and aborts; properties.hpp makes it a
// test failure.
using ViolationHandler = void (*)(const std::string&);
inline ViolationHandler on_violation = nullptr;

enum class EventKind : u8 { Irq, Wire, Shadow, Map, Route, Sent, DmaWrite, Submit, Cancel };

struct Event {
  u64 time; // ns
  EventKind kind;
  u64 a = 0, b = 0, c = 0; // what the host call was given, in order
  friend bool operator==(const Event&, const Event&) = default;
};
std::string to_string(const Event& event);

struct DriveOptions {
  u32 kind = VDEV_DRIVE_DISK;
  std::vector<u8> data; // whole sectors
  bool read_only = false;
  bool write_cache = false;
  bool synchronous = false;
  bool medium = true;
  std::string serial = "VDEV0001";
};
DriveOptions blank_disk(u64 sectors);

struct Options {
  std::string device;                        // id; empty: the library's first
  std::map<std::string, std::string> config; // values of the manifest's keys
  std::vector<DriveOptions> drives;
  u64 ram_bytes = 1 << 20;
  u64 start_ns = 0;
  i64 calendar_ns = 1'000'000'000'000'000'000; // 2001-09-09T01:46:40Z, at ns 0
  std::set<std::string> without;               // host extensions not offered
  bool auto_complete = false;                  // block requests complete right after the entry that submitted them
  u32 step_budget = 1u << 20;                  // host calls and KiB of DMA an entry may make
};

struct FakeDrive {
  vdev_block_info info{};
  std::vector<u8> data;
};

struct PendingRequest {
  u32 drive;
  u32 op;
  u64 tag, sector, bytes;
  std::vector<vdev_segment> segments;
};

struct FakeStream {
  std::string sent;      // what the device wrote; the test may clear it
  u64 accepts = ~u64{0}; // bytes still taken before write() falls short
  bool connected = true;
  std::string queued; // waits until the device has room
};

class FakeHost {
 public:
  explicit FakeHost(const Options& options);
  FakeHost(const FakeHost&) = delete;
  FakeHost& operator=(const FakeHost&) = delete;
  const vdev_host* abi() const { return &abi_; }

  // What the device sees and does.
  u64 now;
  std::vector<u8> ram;
  std::map<u32, bool> irq_levels;
  std::vector<Event> events;
  std::vector<FakeDrive> drives;
  std::deque<PendingRequest> pending;
  std::map<u32, FakeStream> streams;
  std::map<u32, u32> wires; // the last value of each
  std::array<u32, 4> routes{VDEV_ROUTE_NONE, VDEV_ROUTE_NONE, VDEV_ROUTE_NONE, VDEV_ROUTE_NONE};
  std::vector<std::string> log;
  bool bus_master = true; // false: DMA is a bus error. The bench sets it from the PCI command registers
  u32 dma_faults_in = 0;  // the n-th DMA from now fails; 0: none
  u32 block_fails_in = 0; // the n-th completion from now fails with block_error; 0: none
  vdev_status block_error = VDEV_IO_ERROR;
  u64 dropped_writes = 0; // narrower than the region accepts

  // Memory that outlives a device.
  struct Memory {
    std::vector<u64> words; // aligned, and exactly sized as far as a sanitizer can see
    u64 bytes = 0;
    u8* data() { return reinterpret_cast<u8*>(words.data()); }
  };
  std::span<u8> state_memory() { return {state_, state_bytes_}; }
  std::map<u32, Memory> bulk;

  // Limits from the manifest.
  u32 irq_count = ~0u, drive_count = ~0u, stream_count = ~0u;
  u64 state_limit = VDEV_STATE_MAX_BYTES, bulk_limit = ~u64{0};

  // Import mode: levels are recorded without events (while a snapshot loads).
  void begin_import();
  void end_import();

  // Forgets the state memory (the next device is fresh), or hands it to the next device as it is.
  void drop_state();
  void keep_state();

  // Every device call runs inside one entry.
  enum class Phase : u8 { Outside, Any, Control, Init, Dispatch, Gone };
  class Entry {
   public:
    Entry(FakeHost& host, Phase phase, const char* what);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    FakeHost& host_;
    Phase before_;
  };
  void set_gone() { phase_ = Phase::Gone; }
  void revive() { phase_ = Phase::Outside; } // before the next device

  void violation(const std::string& text);
  const std::vector<std::string>& violations() const { return violations_; }
  std::vector<std::string> take_violations();

  // Carries out one request and takes it off the queue. The completion is the caller's to deliver.
  struct Completion {
    u32 drive;
    u64 tag;
    vdev_status status;
    u64 bytes;
  };
  Completion finish(std::size_t index);

  ~FakeHost();

 private:
  friend struct FakeTables;
  // True when this call is allowed now; counts it against the step budget.
  bool allowed(const char* call, bool control_only = false);
  bool spend(u64 steps, const char* call);
  u8* segment_memory(const vdev_segment& segment);
  vdev_status transfer(const PendingRequest& request);
  void record(EventKind kind, u64 a, u64 b = 0, u64 c = 0) { events.push_back({now, kind, a, b, c}); }
  // An output that holds its value: an event only where it changes.
  void set_output(EventKind kind, u64 key, u64 b, u64 c = 0);

  Options options_;
  vdev_host abi_;
  std::atomic<Phase> phase_{Phase::Outside};
  std::thread::id thread_;
  const char* entry_name_ = "";
  u64 steps_ = 0;
  u8* state_ = nullptr;
  u32 state_bytes_ = 0;
  bool state_given_ = false, state_kept_ = false;
  bool importing_ = false;
  using Outputs = std::map<std::pair<EventKind, u64>, std::pair<u64, u64>>;
  Outputs outputs_, before_import_;
  std::mutex violations_mutex_;
  std::vector<std::string> violations_;
};

} // namespace vdev::testing
