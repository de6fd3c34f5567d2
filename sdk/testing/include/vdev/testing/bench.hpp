// Bench: one device of a shipping library on a deterministic host.
//
//   Bench b("uart.so");                       // from TRANSOM_PLUGIN_DIR (compiled in) or $VDEV_PLUGIN_DIR; or a path
//   b.out(MCR, 0x08);  b.out(IER, 0x02);      // region 0, one byte, legalised as a host does
//   EXPECT_TRUE(b.irq("intr"));
//   b.step(1'000'000);                        // 1 ms; timers fire exactly at their deadlines
//   EXPECT_EQ(b.field("rx.count"), 0u);       // any saved field, by its name
//
// A test may read and change everything in b.host. Breaking a rule of vdev.h is reported through on_violation when the
// bench goes. Errors in the test itself (no such file, region, field) are LoadError or std::out_of_range.
#pragma once

#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vdev/ext/clock.h"
#include "vdev/ext/irq.h"
#include "vdev/ext/lifecycle.h"
#include "vdev/ext/pci.h"
#include "vdev/ext/pio_string.h"
#include "vdev/ext/posted.h"
#include "vdev/ext/state.h"
#include "vdev/ext/stream.h"
#include "vdev/testing/fake_host.hpp"
#include "vdev/testing/library.hpp"
#include "vdev/testing/snapshot.hpp"

namespace vdev::testing {

// "name.so" in $VDEV_PLUGIN_DIR, else where the build puts plugins; anything with a slash as it is.
static inline std::string plugin_path(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  if (const char* folder = std::getenv("VDEV_PLUGIN_DIR")) return std::string(folder) + "/" + name;
#ifdef TRANSOM_PLUGIN_DIR
  return std::string(TRANSOM_PLUGIN_DIR) + "/" + name;
#else
  return "./" + name;
#endif
}

// The device refused to be created.
struct CreationFailed : std::runtime_error {
  CreationFailed(const std::string& text, vdev_status with) : std::runtime_error(text), status(with) {}
  vdev_status status;
};

// The header of one PCI function as the host keeps it.
struct FakeFunction {
  vdev_pci_function function{};
  std::array<u8, 256> config{};
  std::array<u32, 6> bar_mask{}; // writable bits
  std::array<vdev_pci_bar, 6> bars{};
};

class Bench {
 public:
  explicit Bench(const std::string& plugin, Options options = {})
      : Bench(Library::open(plugin_path(plugin)), std::move(options)) {}
  Bench(const std::string& plugin, const std::string& device, Options options = {})
      : Bench(plugin, with_device(std::move(options), device)) {}
  Bench(const std::string& plugin, const char* device, Options options = {})
      : Bench(plugin, with_device(std::move(options), device)) {}
  Bench(std::shared_ptr<Library> library, Options options);
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  // Registers. Offsets are relative to the region. A wider access than the region accepts is split, a narrower read
  // takes its bytes out of an accepted one, a narrower write is dropped; outside of the region: all ones.
  u64 in(u64 offset) { return in(0, offset, 1); }
  u64 in(u64 offset, u32 width) { return in(0, offset, width); }
  u64 in(u32 region, u64 offset, u32 width);
  void out(u64 offset, u64 value) { out(0, offset, 1, value); }
  void out(u64 offset, u32 width, u64 value) { out(0, offset, width, value); }
  void out(u32 region, u64 offset, u32 width, u64 value);
  u32 region(std::string_view name) const; // its index
  u32 region_count() const { return u32(regions_.size()); }
  const vdev_region& region_at(u32 index) const { return regions_.at(index); }
  bool has_runs() const { return runs_ != nullptr; }
  std::optional<u64> peek(u32 region, u64 offset, u32 width); // nothing: the device has no vdev.inspect/1
  std::vector<u8> in_run(u32 region, u64 offset, u32 width, u32 count);
  void out_run(u32 region, u64 offset, u32 width, std::span<const u8> data);

  // PCI configuration space: 00h–3Fh is the bench's, 40h–FFh the device's.
  u32 cfg_read(u32 function, u32 offset, u32 width);
  void cfg_write(u32 function, u32 offset, u32 width, u32 value);
  u64 bar(u32 function, u32 index) const; // the address the guest gave it
  u32 function_count() const { return u32(functions_.size()); }

  // Time. step() fires timers at their deadlines, in order; step_late() advances first and fires what is due then.
  u64 now() const { return host.now; }
  // After `most_firings` it stops, at the time of the last one.
  void step(u64 ns, u64 most_firings = ~u64{0});
  void step_late(u64 ns);
  u64 next_event(); // VDEV_NEVER: none, or no vdev.timer/1

  // Interrupt outputs and inputs.
  bool irq(u32 output = 0) const;
  bool irq(std::string_view name) const { return irq(irq_index(name)); }
  u32 rising_edges(u32 output = 0) const; // since the start or clear_events()
  u32 rising_edges(std::string_view name) const { return rising_edges(irq_index(name)); }
  u32 irq_index(std::string_view name) const;
  void irq_in(u32 input, bool level);
  u32 irq_inputs();
  bool has_intack() const { return intack_ != nullptr; }
  u8 acknowledge();

  // Streams. send() delivers what the device has room for now and says how much; queue() delivers all, as room comes.
  u32 room(u32 stream = 0);
  u32 send(std::string_view bytes, u32 stream = 0);
  void queue(std::string_view bytes, u32 stream = 0);
  void writable(u32 stream = 0, u64 accepts = ~u64{0});
  std::string take_sent(u32 stream = 0) { return std::exchange(host.streams[stream].sent, {}); }

  // Block requests wait in host.pending until they are completed; the data moves at that moment.
  u32 complete(u32 count = 1);                 // the oldest ones; how many there were
  u32 complete_all() { return complete(~0u); } // and those that completions bring forth (at most 65536)
  void complete_at(std::size_t index);
  void set_medium(u32 drive, bool present, std::vector<u8> data = {});

  void reset(); // drops what is in flight, as a host does
  void pause();
  void resume();

  // State. restore() is vdev.state/1 load into this device; migrate() saves, makes a new device and loads there;
  // restart() makes a new device over the state memory as it lies.
  Snapshot save();
  // host_checks = false: values beyond a field's maximum reach the device, which has to refuse them itself.
  vdev_status restore(const Snapshot& snapshot, bool host_checks = true);
  void migrate();
  void restart();
  u64 field(std::string_view name, u32 index = 0);
  void set_field(std::string_view name, u64 value, u32 index = 0); // save, change, load; throws if refused
  std::string inspect() { return save().to_text(); }
  vdev_status check(std::span<const u8> state);

  const std::vector<Event>& events() const { return host.events; }
  void clear_events() { host.events.clear(); }

  const vdev_descriptor& descriptor() const { return descriptor_; }
  const vdev_device* device() const { return device_; }
  const void* extension(const char* id);
  const std::shared_ptr<Library>& library() const { return library_; }
  const Options& options() const { return options_; }

  FakeHost host;
  bool polls_purely = true; // compares the state around next_event(); a little slower

 private:
  static Options with_device(Options options, const std::string& device) {
    options.device = device;
    return options;
  }
  void create();
  void destroy();
  void find_extensions();
  void make_functions();
  void reset_functions();
  void update_bus_master();
  template <class Call>
  void enter(const char* what, Call&& call) {
    {
      const FakeHost::Entry entry(host, FakeHost::Phase::Dispatch, what);
      call();
    }
    after_entry();
  }
  void after_entry();
  void expect_ok(vdev_status status, const char* what);
  bool is_posted(u32 region, u64 offset, u32 width) const;
  u64 read_device(u32 region, u64 offset, u32 width);
  u32 fire_due();
  void deliver(const FakeHost::Completion& completion);

  Options options_;
  std::shared_ptr<Library> library_;
  const vdev_descriptor& descriptor_;
  std::vector<vdev_region> regions_;
  std::vector<FakeFunction> functions_;
  const vdev_device* device_ = nullptr;
  const vdev_state* state_ = nullptr;
  const vdev_timer* timer_ = nullptr;
  const vdev_stream* stream_ = nullptr;
  const vdev_block_done* block_ = nullptr;
  const vdev_inspect* inspect_ = nullptr;
  const vdev_pci* pci_ = nullptr;
  const vdev_posted* posted_ = nullptr;
  const vdev_pio_string* runs_ = nullptr;
  const vdev_lifecycle* lifecycle_ = nullptr;
  const vdev_irq_in* irq_in_ = nullptr;
  const vdev_intack* intack_ = nullptr;
  bool delivering_ = false;
  bool stuck_ = false;
  u64 armed_ = VDEV_NEVER; // next_event as of the last entry
};

} // namespace vdev::testing
