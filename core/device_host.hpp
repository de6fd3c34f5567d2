// The device host: creates device models from plugins, and is the only one who calls them. One in each ioreq server,
// and one in the hypervisor for the devices placed there; both work on a ServerPage.
//
// Every call into a device is a Dispatch: undo copy, call, commit (effects.hpp). Single-threaded: the owner serialises
// all calls. Nothing here waits for another process.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/domain_page.hpp"
#include "core/domain_plan.hpp"
#include "core/guest_memory.hpp"
#include "core/plugin_library.hpp"
#include "core/result.hpp"
#include "core/server_page.hpp"

namespace transom {

class DeviceInstance;

// What surrounds the devices of one host.
struct HostEnvironment {
  ServerPage* page = nullptr;
  DomainPage* domain = nullptr;
  GuestMemory ram;
  CodePages code;
  DomainClock clock;
  bool keep_undo = true; // false where a crash of the host ends the domain anyway
  CrashPlan crash;
  std::function<void(u32 level, const std::string& device, const char* text)> log;
  std::function<void()> kick_services; // a block or stream ring got work
};

class DeviceHost {
 public:
  explicit DeviceHost(HostEnvironment environment);
  ~DeviceHost();

  // Creates one device and publishes its sheet. The index is its place in the server's device table.
  Result<u32> create(const DevicePlan& plan);
  u32 device_count() const { return static_cast<u32>(devices_.size()); }
  const std::string& name(u32 device) const;

  // --- accesses; `device` and `region` come from a peer and are checked. Widths are legalised here.
  u64 read(u32 device, u32 region, u64 offset, u32 width, u32 slot = ~0u);
  void write(u32 device, u32 region, u64 offset, u32 width, u64 value, u32 slot = ~0u);
  struct Run {
    u32 width, count;
    u64 gpa;
    bool backward;
  };
  // A string instruction on one port: device → guest RAM, or guest RAM → device.
  void read_run(u32 device, u32 region, u64 offset, const Run& run, u32 slot = ~0u);
  void write_run(u32 device, u32 region, u64 offset, const Run& run, u32 slot = ~0u);
  u32 config_read(u32 device, u32 function, u32 offset, u32 width, u32 slot = ~0u);
  void config_write(u32 device, u32 function, u32 offset, u32 width, u32 value, u32 slot = ~0u);
  u8 acknowledge(u32 device, u32 slot = ~0u);
  void irq_in(u32 device, u32 input, u32 level);

  // The next call serves the posted record before `head`; it commits together with that.
  void begin_posted(u32 head) {
    posted_head_ = head;
    serving_posted_ = true;
  }
  void end_posted() { serving_posted_ = false; }

  // --- what happens without an access
  u64 next_deadline() const { return next_deadline_; } // domain clock
  void expire(u64 now); // timers that are due; bounded work, never loops on a device that stays due
  bool completions_waiting() const;
  void deliver_completions(); // from the block rings
  bool bytes_waiting() const;
  void deliver_bytes(); // from the stream rings
  void cancel_all();    // completions of what is in flight will not be delivered any more
  void reset_all();
  void pause_all(bool paused);
  bool requests_in_flight() const; // of any device's block ring
  // The device cancelled requests and some are still under way. It gets no further entry until they are over: they may
  // touch memory that it would use for the next ones.
  bool draining(u32 device) const;

  // Effects are in the ring that an owner elsewhere has to apply.
  bool effects_pending() const;
  // The ring has place for everything that one dispatch may do. Look before each access; timers and completions look
  // themselves.
  bool room_for_dispatch() const;
  ServerPage& page() { return *environment_.page; }

 private:
  friend class DeviceInstance;
  friend class Dispatch;
  friend struct HostAccess;

  DeviceInstance* usable(u32 device);
  void refresh_deadline();
  u64 read_element(DeviceInstance& d, u32 region, u64 offset, u32 width);
  void write_element(DeviceInstance& d, u32 region, u64 offset, u32 width, u64 value);

  HostEnvironment environment_;
  std::map<std::string, std::shared_ptr<PluginLibrary>> libraries_; // outlive devices_
  std::vector<std::unique_ptr<DeviceInstance>> devices_;
  u64 next_deadline_ = ~u64{0};
  u32 effect_tail_; // of the effect ring, committed or not
  u32 bulk_used_ = 0;
  u32 posted_head_ = 0;
  bool serving_posted_ = false;
};

} // namespace transom
