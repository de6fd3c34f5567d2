// VDEV_PLUGIN(ChipA, ChipB…): a library's one line. It makes the exported `vdev_entry`, the factory, and the tables of
// every extension that a chip's member functions answer to; sdk/README.md lists them. Absence is visible: a table
// exists only where the chip has the functions.
//
// The tables are stateless; a device is its Chip (wiring) and its State (in the host's memory). Nothing throws past
// this file: constructors are caught, and every other function is noexcept.
#pragma once

#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "../ext/draft/state_cover.h"
#include "../ext/lifecycle.h"
#include "../ext/pci.h"
#include "../ext/pio_string.h"
#include "../ext/posted.h"
#include "host.hpp"
#include "manifest.hpp"
#include "state.hpp"
#include "types.hpp"

namespace vdev {

template <class Chip>
class Device {
 public:
  using State = typename Chip::State;
  static_assert(std::is_trivially_copyable_v<State>, "State is a value: no pointers to own, no destructors");
  static_assert(sizeof(State) <= VDEV_STATE_MAX_BYTES, "State is at most 512 bytes; larger buffers belong into bulk");
  static_assert(alignof(State) <= 64);
  static_assert(std::is_constructible_v<Chip, State&, const Host&>,
                "a chip has the constructor Chip(State&, const Host&)");

  // Null: no memory.
  static const vdev_device* create(const vdev_host* host) noexcept {
    auto* device = new (std::nothrow) Device;
    if (!device) return nullptr;
    device->host_ = host;
    device->abi_ = {device, &init, &destroy, &reset, &read, &write, &get_extension};
    return &device->abi_;
  }

 private:
  vdev_device abi_{};
  const vdev_host* host_ = nullptr;
  State* state_ = nullptr;
  std::unique_ptr<Chip> chip_;

  static Device& self(const vdev_device* device) { return *static_cast<Device*>(device->device_data); }
  static Chip& chip(const vdev_device* device) { return *self(device).chip_; }

  static constexpr bool ONE_REGION = requires(Chip & c) { c.read(u64{}); };
  static constexpr bool READS = ONE_REGION || requires(Chip & c) { c.read(u32{}, u64{}, u32{}); };
  static constexpr bool WRITES_BYTES = requires(Chip & c) { c.write(u64{}, u8{}); };
  static constexpr bool WRITES = WRITES_BYTES || requires(Chip & c) { c.write(u32{}, u64{}, u32{}, u64{}); };
  static constexpr bool byte_chip_has_one_byte_region() {
    return !(ONE_REGION || WRITES_BYTES) ||
           (Chip::descriptor.region_count == 1 && Chip::descriptor.regions[0].widths == VDEV_WIDTH_1);
  }
  static_assert(Chip::descriptor.region_count == 0 || (READS && WRITES), "a chip with regions has read() and write()");
  static_assert(byte_chip_has_one_byte_region(), "read(u64)/write(u64, u8) is for one region of width 1");

  // After every entry: outputs are a function of the state.
  static void sync(Chip& c) noexcept {
    if constexpr (requires { c.sync(); }) c.sync();
  }

  static vdev_status init(const vdev_device* device) noexcept {
    Device& d = self(device);
    try {
      d.construct();
      return VDEV_OK;
    } catch (const Refused& refused) {
      Log(d.host_).error("%s: not created: %s", Chip::descriptor.id, refused.what);
      return refused.status;
    } catch (const std::bad_alloc&) {
      return VDEV_NO_MEMORY;
    } catch (...) {
      return VDEV_FAILED;
    }
  }
  void construct() {
    struct Memory : Wiring<vdev_host_state_memory> {
      explicit Memory(const vdev_host* host) : Wiring(host, VDEV_HOST_STATE_MEMORY) {}
      void* get(u32& fresh) const { return table_ ? table_->memory(host_, sizeof(State), &fresh) : nullptr; }
    };
    u32 fresh = 1;
    void* memory = Memory(host_).get(fresh);
    if (!memory) throw Refused{VDEV_UNSUPPORTED, "the host gave no state memory"};
    if (fresh) {
      new (memory) State{};
    } else if (check_state<State>(memory, sizeof(State)) != VDEV_OK) {
      throw Refused{VDEV_INVALID, "the state found in place is damaged"};
    }
    state_ = std::launder(static_cast<State*>(memory));
    chip_ = std::make_unique<Chip>(*state_, Host(host_, fresh != 0));
    sync(*chip_);
  }
  static void destroy(const vdev_device* device) noexcept { delete &self(device); }

  static void reset(const vdev_device* device) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.reset(); }) {
      c.reset();
    } else {
      *self(device).state_ = State{};
    }
    sync(c);
  }

  static u64 read_one(Chip& c, u32 region, u64 offset, u32 width) noexcept {
    (void)region, (void)width, (void)c, (void)offset;
    if constexpr (ONE_REGION) {
      return c.read(offset);
    } else if constexpr (READS) {
      return c.read(region, offset, width);
    } else {
      return ~u64{0};
    }
  }
  static void write_one(Chip& c, u32 region, u64 offset, u32 width, u64 value) noexcept {
    (void)region, (void)width, (void)c, (void)offset, (void)value;
    if constexpr (WRITES_BYTES) {
      c.write(offset, u8(value));
    } else if constexpr (WRITES) {
      c.write(region, offset, width, value);
    }
  }
  static vdev_status read(const vdev_device* device, u32 region, u64 offset, u32 width, u64* value) noexcept {
    Chip& c = chip(device);
    *value = read_one(c, region, offset, width);
    sync(c);
    return VDEV_OK;
  }
  static vdev_status write(const vdev_device* device, u32 region, u64 offset, u32 width, u64 value) noexcept {
    Chip& c = chip(device);
    write_one(c, region, offset, width, value);
    sync(c);
    return VDEV_OK;
  }

  // vdev.state/1
  static vdev_status save(const vdev_device* device, const vdev_state_sink* sink) noexcept {
    return save_state(*self(device).state_, *sink);
  }
  static vdev_status load(const vdev_device* device, u32 version, const vdev_state_source* source) noexcept {
    if (version > Chip::descriptor.state_version) return VDEV_UNSUPPORTED;
    State parsed{};
    if (const vdev_status status = load_state(parsed, *source); status < 0) return status;
    if constexpr (requires { Chip::migrate(parsed, version); }) {
      Chip::migrate(parsed, version);
      if (!detail::is_valid(parsed)) return VDEV_INVALID;
    }
    *self(device).state_ = parsed;
    sync(chip(device));
    return VDEV_OK;
  }
  static vdev_status check(const vdev_device*, const void* memory, u32 bytes) noexcept {
    return check_state<State>(memory, bytes);
  }

  // vdev.timer/1
  static u64 next_event(const vdev_device* device) noexcept {
    if constexpr (requires(const Chip& c) { c.next_event(); }) return std::as_const(chip(device)).next_event();
    return VDEV_NEVER;
  }
  static void expire(const vdev_device* device, u64 now) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.expire(now); }) c.expire(now);
    sync(c);
  }

  // vdev.inspect/1
  static constexpr bool PEEKS_BYTES = requires(const Chip& c) { c.peek(u64{}); };
  static constexpr bool PEEKS = requires(const Chip& c) { c.peek(u32{}, u64{}, u32{}); };
  static vdev_status peek(const vdev_device* device, u32 region, u64 offset, u32 width, u64* value) noexcept {
    const Chip& c = chip(device);
    (void)c, (void)region, (void)offset, (void)width, (void)value;
    if constexpr (PEEKS_BYTES) {
      *value = c.peek(offset);
    } else if constexpr (PEEKS) {
      *value = c.peek(region, offset, width);
    }
    return VDEV_OK;
  }

  // vdev.stream/1
  static constexpr bool RECEIVES = requires(Chip & c) { c.receive(u8{}); }
  || requires(Chip& c) { c.receive(u32{}, u8{}); }
  || requires(Chip& c, const u8* bytes) { c.receive(u32{}, bytes, u32{}); };
  static u32 room(const vdev_device* device, u32 stream) noexcept {
    Chip& c = chip(device);
    (void)c, (void)stream;
    if constexpr (requires { c.room(stream); }) {
      return c.room(stream);
    } else if constexpr (requires { c.room(); }) {
      return c.room();
    }
    return 0;
  }
  static void receive(const vdev_device* device, u32 stream, const u8* bytes, u32 length) noexcept {
    Chip& c = chip(device);
    (void)stream;
    if constexpr (requires { c.receive(stream, bytes, length); }) {
      c.receive(stream, bytes, length);
    } else {
      for (u32 i = 0; i < length; ++i) {
        if constexpr (requires { c.receive(stream, bytes[i]); }) {
          c.receive(stream, bytes[i]);
        } else if constexpr (requires { c.receive(bytes[i]); }) {
          c.receive(bytes[i]);
        }
      }
    }
    sync(c);
  }
  static constexpr bool WRITABLE = requires(Chip & c) { c.writable(); }
  || requires(Chip& c) { c.writable(u32{}); };
  static void writable(const vdev_device* device, u32 stream) noexcept {
    Chip& c = chip(device);
    (void)stream;
    if constexpr (requires { c.writable(stream); }) {
      c.writable(stream);
    } else if constexpr (requires { c.writable(); }) {
      c.writable();
    }
    sync(c);
  }

  // vdev.block-done/1
  static constexpr bool HAS_MEDIUM_CHANGED = requires(Chip & c) { c.medium_changed(u32{}); };
  static void block_done(const vdev_device* device, u32 drive, u64 tag, vdev_status status, u64 bytes) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.block_done(drive, tag, status, bytes); }) c.block_done(drive, tag, status, bytes);
    sync(c);
  }
  static void medium_changed(const vdev_device* device, u32 drive) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.medium_changed(drive); }) c.medium_changed(drive);
    sync(c);
  }

  // vdev.irq-in/1, vdev.intack/1
  static u32 irq_inputs(const vdev_device*) noexcept {
    if constexpr (requires { Chip::irq_inputs; }) return Chip::irq_inputs;
    return 0;
  }
  static void irq_in(const vdev_device* device, u32 input, u32 level) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.irq_in(input, true); }) c.irq_in(input, level != 0);
    sync(c);
  }
  static u8 acknowledge(const vdev_device* device) noexcept {
    Chip& c = chip(device);
    u8 vector = 0;
    if constexpr (requires { c.acknowledge(); }) vector = c.acknowledge();
    sync(c);
    return vector;
  }

  // vdev.pci/1
  static u32 read_config(const vdev_device* device, u32 function, u32 offset, u32 width) noexcept {
    Chip& c = chip(device);
    u32 value = 0;
    if constexpr (requires { c.read_config(function, offset, width); }) value = c.read_config(function, offset, width);
    sync(c);
    return value;
  }
  static void write_config(const vdev_device* device, u32 function, u32 offset, u32 width, u32 value) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.write_config(function, offset, width, value); }) {
      c.write_config(function, offset, width, value);
    }
    sync(c);
  }

  // vdev.pio-string/1. A chip's read_run and write_run answer false for a run they have no fast way for.
  static vdev_status read_run(const vdev_device* device, u32 region, u64 offset, u32 width, u32 count,
                              u8* data) noexcept {
    Chip& c = chip(device);
    bool done = false;
    if constexpr (requires { c.read_run(region, offset, width, count, data); }) {
      done = c.read_run(region, offset, width, count, data);
    }
    for (u32 i = 0; i < count && !done; ++i) {
      const u64 value = read_one(c, region, offset, width);
      std::memcpy(data + std::size_t{i} * width, &value, width);
      sync(c);
    }
    sync(c);
    return VDEV_OK;
  }
  static vdev_status write_run(const vdev_device* device, u32 region, u64 offset, u32 width, u32 count,
                               const u8* data) noexcept {
    Chip& c = chip(device);
    bool done = false;
    if constexpr (requires { c.write_run(region, offset, width, count, data); }) {
      done = c.write_run(region, offset, width, count, data);
    }
    for (u32 i = 0; i < count && !done; ++i) {
      u64 value = 0;
      std::memcpy(&value, data + std::size_t{i} * width, width);
      write_one(c, region, offset, width, value);
      sync(c);
    }
    sync(c);
    return VDEV_OK;
  }

  // vdev.lifecycle/1
  static void pause(const vdev_device* device) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.pause(); }) c.pause();
    sync(c);
  }
  static void resume(const vdev_device* device) noexcept {
    Chip& c = chip(device);
    if constexpr (requires { c.resume(); }) c.resume();
    sync(c);
  }

  static i64 first_unlisted() noexcept {
    if constexpr (std::equality_comparable<State>) return first_unlisted_byte<State>();
    return -1;
  }

  static const void* get_extension(const vdev_device*, const char* id) noexcept {
    const auto is = [id](const char* name) { return std::strcmp(id, name) == 0; };
    if (is(VDEV_STATE)) {
      static constexpr vdev_state table = {&save, &load, &check};
      return &table;
    }
    if constexpr (std::equality_comparable<State>) {
      static constexpr vdev_state_cover table = {&first_unlisted};
      if (is(VDEV_STATE_COVER)) return &table;
    }
    if constexpr (requires(const Chip& c, Chip& m) {
                    c.next_event();
                    m.expire(u64{});
                  }) {
      static constexpr vdev_timer table = {&next_event, &expire};
      if (is(VDEV_TIMER)) return &table;
    }
    if constexpr (PEEKS_BYTES || PEEKS) {
      static constexpr vdev_inspect table = {&peek};
      if (is(VDEV_INSPECT)) return &table;
    }
    if constexpr (RECEIVES || WRITABLE) {
      static constexpr vdev_stream table = {&room, &receive, WRITABLE ? &writable : nullptr};
      if (is(VDEV_STREAM)) return &table;
    }
    return get_board_extension(id);
  }

  static const void* get_board_extension(const char* id) noexcept {
    const auto is = [id](const char* name) { return std::strcmp(id, name) == 0; };
    if constexpr (requires(Chip & c) { c.block_done(u32{}, u64{}, vdev_status{}, u64{}); }) {
      static constexpr vdev_block_done table = {&block_done, HAS_MEDIUM_CHANGED ? &medium_changed : nullptr};
      if (is(VDEV_BLOCK_DONE)) return &table;
    }
    if constexpr (requires(Chip & c) { c.irq_in(u32{}, true); }) {
      static_assert(
          requires { Chip::irq_inputs; }, "irq_in() needs static constexpr u32 irq_inputs");
      static constexpr vdev_irq_in table = {&irq_inputs, &irq_in};
      if (is(VDEV_IRQ_IN)) return &table;
    }
    if constexpr (requires(Chip & c) { c.acknowledge(); }) {
      static constexpr vdev_intack table = {&acknowledge};
      if (is(VDEV_INTACK)) return &table;
    }
    if constexpr (requires { Chip::pci_functions[0]; }) {
      static constexpr vdev_pci table = {u32(std::size(Chip::pci_functions)), Chip::pci_functions, &read_config,
                                         &write_config};
      if (is(VDEV_PCI)) return &table;
    }
    if constexpr (requires { Chip::posted[0]; }) {
      static constexpr vdev_posted table = {u32(std::size(Chip::posted)), Chip::posted};
      if (is(VDEV_POSTED)) return &table;
    }
    if constexpr (
        requires(Chip & c, u8 * data) { c.read_run(u32{}, u64{}, u32{}, u32{}, data); } ||
        requires(Chip & c, const u8* data) { c.write_run(u32{}, u64{}, u32{}, u32{}, data); }) {
      static constexpr vdev_pio_string table = {&read_run, &write_run};
      if (is(VDEV_PIO_STRING)) return &table;
    }
    if constexpr (
        requires(Chip & c) { c.pause(); } || requires(Chip & c) { c.resume(); }) {
      static constexpr vdev_lifecycle table = {&pause, &resume};
      if (is(VDEV_LIFECYCLE)) return &table;
    }
    return nullptr;
  }
};

// What one library exports.
template <class... Chips>
struct Library {
  static constexpr const vdev_descriptor* descriptors[] = {&Chips::descriptor...};

  static u32 count() noexcept { return sizeof...(Chips); }
  static const vdev_descriptor* descriptor(u32 index) noexcept {
    return index < sizeof...(Chips) ? descriptors[index] : nullptr;
  }
  static const vdev_device* create(const vdev_host* host, const char* id) noexcept {
    const vdev_device* device = nullptr;
    (void)((std::strcmp(id, Chips::descriptor.id) == 0 && (device = Device<Chips>::create(host), true)) || ...);
    return device;
  }
  static constexpr vdev_factory factory = {&count, &descriptor, &create};

  static vdev_status init(const char*) noexcept { return VDEV_OK; }
  static void deinit() noexcept {}
  static const void* get_factory(const char* id) noexcept {
    return std::strcmp(id, VDEV_FACTORY) == 0 ? &factory : nullptr;
  }
};

} // namespace vdev

#define VDEV_PLUGIN(...)                                                                                          \
  [[gnu::section(VDEV_MANIFEST_SECTION), gnu::used, gnu::retain,                                                  \
    gnu::aligned(8)]] static constexpr auto vdev_manifest_of_this_library = ::vdev::make_manifest<__VA_ARGS__>(); \
  extern "C" VDEV_EXPORT constexpr vdev_entry_t vdev_entry = {                                                    \
      VDEV_ABI_MAJOR, VDEV_ABI_MINOR, &::vdev::Library<__VA_ARGS__>::init, &::vdev::Library<__VA_ARGS__>::deinit, \
      &::vdev::Library<__VA_ARGS__>::get_factory}
