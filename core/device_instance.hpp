// One created device inside a DeviceHost, and the Dispatch around each call into it.
#pragma once

#include <array>
#include <map>
#include <string>

#include "core/device_host.hpp"
#include "vdev/ext/block.h"
#include "vdev/ext/clock.h"
#include "vdev/ext/irq.h"
#include "vdev/ext/lifecycle.h"
#include "vdev/ext/log.h"
#include "vdev/ext/pci.h"
#include "vdev/ext/pio_string.h"
#include "vdev/ext/posted.h"
#include "vdev/ext/state.h"
#include "vdev/ext/stream.h"

namespace transom {

class DeviceInstance {
 public:
  DeviceInstance(DeviceHost& host, u32 index, const DevicePlan& plan, std::shared_ptr<PluginLibrary> library,
                 const vdev_descriptor& descriptor);
  ~DeviceInstance();
  DeviceInstance(const DeviceInstance&) = delete;
  DeviceInstance& operator=(const DeviceInstance&) = delete;

  Result<void> create();

  // The device broke a rule or reported that it is broken: it answers all ones from now on.
  void quarantine(const char* why);
  void log(u32 level, const char* text) const;

  DeviceSlot& slot() const { return host.page().devices[index]; }
  void push(const Effect& effect);

  DeviceHost& host;
  const u32 index;
  const DevicePlan plan;
  const std::shared_ptr<PluginLibrary> library;
  const vdev_descriptor& descriptor;
  const vdev_device* device = nullptr;
  vdev_host abi{};
  bool inside = false; // a call into the device is under way
  bool quarantined = false;
  u64 deadline = ~u64{0}; // as next_event() said after the last entry

  // Extensions of the device; null where it has none.
  const vdev_timer* timer = nullptr;
  const vdev_irq_in* irq_in = nullptr;
  const vdev_intack* intack = nullptr;
  const vdev_pci* pci = nullptr;
  const vdev_pio_string* pio_string = nullptr;
  const vdev_posted* posted = nullptr;
  const vdev_stream* stream = nullptr;
  const vdev_block_done* block_done = nullptr;
  const vdev_lifecycle* lifecycle = nullptr;

  // What the running dispatch has collected besides the effect ring.
  u32 irq_levels = 0;                         // last level of each output, as told to the hypervisor
  std::array<u32, STREAMS> out_tail{};        // of each stream, published or not
  std::array<bool, STREAMS> out_written{};    // in this dispatch
  std::array<bool, STREAMS> out_starved{};    // a write was cut short: call writable() when there is room
  std::array<u32, BLOCK_DRIVES> generation{}; // of each drive, published or not
  bool cancelled = false;                     // since its last idle moment: look for stale requests under way
  std::array<u32, 16> bulk_offset{};          // of each buffer, within ServerPage::bulk
  std::array<u32, 16> bulk_size{};            // 0: not asked for

 private:
  Result<void> publish_sheet();
};

// One call into a device. Construct, call the device if ok(), then finish.
class Dispatch {
 public:
  Dispatch(DeviceHost& host, DeviceInstance& device, u32 slot);
  ~Dispatch();
  Dispatch(const Dispatch&) = delete;
  Dispatch& operator=(const Dispatch&) = delete;

  void respond(u64 value) { response_ = value; }

 private:
  void publish_own_effects();
  void take_back(ServerPage& page);

  DeviceHost& host_;
  DeviceInstance& device_;
  u64 response_ = 0;
};

// Publishes an effect that is the device host's own (block ring, streams); true if a service should look. Idempotent.
bool apply_own_effect(ServerPage& page, const Effect& effect);

// vdev.host.* tables for DeviceInstance::abi.get_extension.
const void* host_extension(const char* id);

// Kills this process if the crash plan says so. `dispatch` counts calls into the planned device.
void crash_point(const CrashPlan& plan, const std::string& device, CrashPoint point, u32 effect);

} // namespace transom
