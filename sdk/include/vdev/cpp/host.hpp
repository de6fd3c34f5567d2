// Wiring: objects a chip makes from its Host, once, in its constructor. Each is a few pointers, cheap to copy. One made
// from an extension that the host lacks is unconnected: it tests false, and using it does nothing. Ask with
// host.required<Dma>() for what the chip cannot do without; then its creation fails, with the reason in the log.
//
// Everything here is [dispatch] unless it says otherwise, and takes effect when the device call returns.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "../ext/block.h"
#include "../ext/clock.h"
#include "../ext/config.h"
#include "../ext/dma.h"
#include "../ext/irq.h"
#include "../ext/irq_route.h"
#include "../ext/log.h"
#include "../ext/memory_map.h"
#include "../ext/state.h"
#include "../ext/stream.h"
#include "../ext/wire.h"
#include "types.hpp"

namespace vdev {

// Thrown in constructors only, and caught before it could cross the ABI.
struct Refused {
  vdev_status status;
  const char* what;
};

// What all wiring is made of: the host and one of its tables, or null.
template <class Table>
class Wiring {
 public:
  Wiring() = default;
  Wiring(const vdev_host* host, const char* id)
      : host_(host), table_(host ? static_cast<const Table*>(host->get_extension(host, id)) : nullptr) {}
  explicit operator bool() const { return table_ != nullptr; }

 protected:
  const vdev_host* host_ = nullptr;
  const Table* table_ = nullptr;
};

// One interrupt output, by its index in the descriptor.
class Irq : public Wiring<vdev_host_irq> {
 public:
  static constexpr const char* ID = VDEV_HOST_IRQ;
  Irq() = default;
  explicit Irq(const vdev_host* host, u32 output = 0) : Wiring(host, ID), output_(output) {}
  void set(bool level) const {
    if (table_) table_->set_level(host_, output_, level);
  }
  void pulse() const { // an edge for edge-triggered inputs
    set(true);
    set(false);
  }

 private:
  u32 output_ = 0;
};

class Clock : public Wiring<vdev_host_clock> {
 public:
  static constexpr const char* ID = VDEV_HOST_CLOCK;
  Clock() = default;
  explicit Clock(const vdev_host* host) : Wiring(host, ID) {}
  u64 now() const { return table_ ? table_->now(host_) : 0; }           // ns, never goes back
  i64 calendar() const { return table_ ? table_->calendar(host_) : 0; } // ns since 1970 at now()
};

// Guest RAM, by copy. Anything else is VDEV_BUS_ERROR and nothing is copied.
class Dma : public Wiring<vdev_host_dma> {
 public:
  static constexpr const char* ID = VDEV_HOST_DMA;
  Dma() = default;
  explicit Dma(const vdev_host* host) : Wiring(host, ID) {}
  vdev_status read(u64 address, void* buffer, u32 length) const {
    return table_ ? table_->read(host_, address, buffer, length) : VDEV_BUS_ERROR;
  }
  vdev_status write(u64 address, const void* buffer, u32 length) const {
    return table_ ? table_->write(host_, address, buffer, length) : VDEV_BUS_ERROR;
  }
  // One value; unchanged when the read fails.
  template <class T>
  bool get(u64 address, T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T copy;
    if (read(address, &copy, sizeof copy) != VDEV_OK) return false;
    value = copy;
    return true;
  }
  template <class T>
  bool put(u64 address, const T& value) const {
    static_assert(std::is_trivially_copyable_v<T>);
    return write(address, &value, sizeof value) == VDEV_OK;
  }
};

// One byte stream. The receiving end is the chip's room() and receive().
class Stream : public Wiring<vdev_host_stream> {
 public:
  static constexpr const char* ID = VDEV_HOST_STREAM;
  Stream() = default;
  explicit Stream(const vdev_host* host, u32 index = 0) : Wiring(host, ID), index_(index) {}
  bool connected() const { return table_ && table_->connected(host_, index_) != 0; }
  // How many bytes were taken; after fewer than given, the chip's writable() is called later. Unconnected: all, into
  // the void.
  u32 write(const u8* bytes, u32 length) const { return table_ ? table_->write(host_, index_, bytes, length) : length; }
  bool put(u8 byte) const { return write(&byte, 1) == 1; }

 private:
  u32 index_ = 0;
};

// One drive. Completions arrive at the chip's block_done(drive, tag, status, bytes).
class Disk : public Wiring<vdev_host_block> {
 public:
  static constexpr const char* ID = VDEV_HOST_BLOCK;
  Disk() = default;
  explicit Disk(const vdev_host* host, u32 drive = 0) : Wiring(host, ID), drive_(drive) {}
  u32 drive() const { return drive_; }
  // An absent drive has kind VDEV_DRIVE_ABSENT.
  vdev_block_info info() const {
    vdev_block_info info{};
    info.size = sizeof info;
    if (!table_ || table_->info(host_, drive_, &info) != VDEV_OK) {
      info = {};
      info.size = sizeof info;
    }
    return info;
  }
  vdev_status submit(u32 op, u64 tag, u64 sector, u64 bytes, std::span<const vdev_segment> segments) const {
    if (!table_) return VDEV_UNSUPPORTED;
    const vdev_block_request request = {sizeof request,       op, tag, sector, bytes, segments.data(),
                                        u32(segments.size()), 0};
    return table_->submit(host_, drive_, &request);
  }
  vdev_status flush(u64 tag) const { return submit(VDEV_BLOCK_FLUSH, tag, 0, 0, {}); }
  void cancel() const {
    if (table_) table_->cancel(host_, drive_);
  }

 private:
  u32 drive_ = 0;
};

constexpr vdev_segment guest_segment(u64 address, u32 length) { return {address, length, VDEV_SEGMENT_GUEST}; }
constexpr vdev_segment bulk_segment(u32 buffer, u32 offset, u32 length) {
  return {u64{buffer} << 32 | offset, length, VDEV_SEGMENT_BULK};
}

class Wire : public Wiring<vdev_host_wire> {
 public:
  static constexpr const char* ID = VDEV_HOST_WIRE;
  Wire() = default;
  explicit Wire(const vdev_host* host) : Wiring(host, ID) {}
  void set(u32 wire, u32 value) const {
    if (table_) table_->set(host_, wire, value);
  }
  void a20(bool level) const { set(VDEV_WIRE_A20, level); }
  void reset(u32 kind = VDEV_RESET_SYSTEM) const { set(VDEV_WIRE_RESET, kind); }
  void power_off() const { set(VDEV_WIRE_POWER, 0); }
};

class MemoryMap : public Wiring<vdev_host_memory_map> {
 public:
  static constexpr const char* ID = VDEV_HOST_MEMORY_MAP;
  MemoryMap() = default;
  explicit MemoryMap(const vdev_host* host) : Wiring(host, ID) {}
  void set_shadow(u64 base, u64 length, bool read, bool write) const {
    if (table_) table_->set_shadow(host_, base, length, read, write);
  }
  void map_region(u32 region, u64 base, bool enabled) const {
    if (table_) table_->map_region(host_, region, base, enabled);
  }
};

class IrqRoute : public Wiring<vdev_host_irq_route> {
 public:
  static constexpr const char* ID = VDEV_HOST_IRQ_ROUTE;
  IrqRoute() = default;
  explicit IrqRoute(const vdev_host* host) : Wiring(host, ID) {}
  void set(u32 link, u32 line) const {
    if (table_) table_->set(host_, link, line);
  }
};

// [control] The values of the chip's `config` keys; defaults have been filled in from the manifest.
class Config : public Wiring<vdev_host_config> {
 public:
  static constexpr const char* ID = VDEV_HOST_CONFIG;
  Config() = default;
  explicit Config(const vdev_host* host) : Wiring(host, ID) {}
  // The text lives as long as the device.
  const char* string(const char* key, const char* otherwise = "") const {
    const char* value = nullptr;
    return table_ && table_->get_string(host_, key, &value) == VDEV_OK && value ? value : otherwise;
  }
  u64 integer(const char* key, u64 otherwise = 0) const {
    u64 value = 0;
    return table_ && table_->get_integer(host_, key, &value) == VDEV_OK ? value : otherwise;
  }
  bool boolean(const char* key, bool otherwise = false) const { return integer(key, otherwise) != 0; }
};

// [any] Lines for the operator.
class Log : public Wiring<vdev_host_log> {
 public:
  static constexpr const char* ID = VDEV_HOST_LOG;
  Log() = default;
  explicit Log(const vdev_host* host) : Wiring(host, ID) {}
  [[gnu::format(printf, 2, 3)]] void error(const char* format, ...) const {
    std::va_list args;
    va_start(args, format);
    write(VDEV_LOG_ERROR, format, args);
    va_end(args);
  }
  [[gnu::format(printf, 2, 3)]] void warning(const char* format, ...) const {
    std::va_list args;
    va_start(args, format);
    write(VDEV_LOG_WARNING, format, args);
    va_end(args);
  }
  [[gnu::format(printf, 2, 3)]] void info(const char* format, ...) const {
    std::va_list args;
    va_start(args, format);
    write(VDEV_LOG_INFO, format, args);
    va_end(args);
  }
  [[gnu::format(printf, 2, 3)]] void debug(const char* format, ...) const {
    std::va_list args;
    va_start(args, format);
    write(VDEV_LOG_DEBUG, format, args);
    va_end(args);
  }

 private:
  [[gnu::format(printf, 3, 0)]] void write(u32 level, const char* format, std::va_list args) const {
    if (!table_) return;
    char line[256];
    std::vsnprintf(line, sizeof line, format, args);
    table_->write(host_, level, line);
  }
};

// A large buffer in host memory. Every access is bounded: outside reads are 0, outside writes vanish. load() reads each
// value once, so it is safe on memory that a guest writes meanwhile.
class Bulk {
 public:
  Bulk() = default;
  Bulk(u8* data, u64 size, u32 index) : data_(data), size_(size), index_(index) {}
  explicit operator bool() const { return data_ != nullptr; }
  u8* data() const { return data_; }
  u64 size() const { return size_; }
  bool holds(u64 offset, u64 length) const { return length <= size_ && offset <= size_ - length; }

  template <class T = u8>
  T load(u64 offset) const {
    T value{};
    if (holds(offset, sizeof value)) std::memcpy(&value, data_ + offset, sizeof value);
    return value;
  }
  template <class T = u8>
  void store(u64 offset, T value) const {
    if (holds(offset, sizeof value)) std::memcpy(data_ + offset, &value, sizeof value);
  }
  bool read(u64 offset, void* buffer, u64 length) const {
    if (!holds(offset, length)) return false;
    if (length) std::memcpy(buffer, data_ + offset, length);
    return true;
  }
  bool write(u64 offset, const void* buffer, u64 length) const {
    if (!holds(offset, length)) return false;
    if (length) std::memcpy(data_ + offset, buffer, length);
    return true;
  }
  void fill(u8 value) const {
    if (data_) std::memset(data_, value, size_);
  }
  // For block requests.
  vdev_segment segment(u64 offset, u32 length) const { return {u64{index_} << 32 | offset, length, VDEV_SEGMENT_BULK}; }

 private:
  u8* data_ = nullptr;
  u64 size_ = 0;
  u32 index_ = 0;
};

class Host {
 public:
  Host() = default;
  explicit Host(const vdev_host* host, bool fresh = true) : host_(host), fresh_(fresh) {}

  Irq irq(u32 output = 0) const { return Irq(host_, output); }
  Clock clock() const { return Clock(host_); }
  Dma dma() const { return Dma(host_); }
  Stream stream(u32 index = 0) const { return Stream(host_, index); }
  Disk disk(u32 drive = 0) const { return Disk(host_, drive); }
  Wire wire() const { return Wire(host_); }
  MemoryMap memory_map() const { return MemoryMap(host_); }
  IrqRoute irq_route() const { return IrqRoute(host_); }
  Config config() const { return Config(host_); }
  Log log() const { return Log(host_); }

  // host.required<Irq>(1): as irq(1), but creation of the chip fails where the host does not offer it.
  template <class W, class... Index>
  W required(Index... index) const {
    W wiring(host_, index...);
    if (!wiring) throw Refused{VDEV_UNSUPPORTED, W::ID};
    return wiring;
  }

  // [control] Buffer `index` of that many bytes; creation fails where the host refuses.
  Bulk bulk(u32 index, u64 bytes) const {
    const Wiring<vdev_host_bulk_memory> memory(host_, VDEV_HOST_BULK_MEMORY);
    void* data = memory ? BulkTable(memory).get(index, bytes) : nullptr;
    if (!data) throw Refused{VDEV_NO_MEMORY, VDEV_HOST_BULK_MEMORY};
    return Bulk(static_cast<u8*>(data), bytes, index);
  }

  // Fails the creation of the chip.
  [[noreturn]] void refuse(vdev_status status, const char* why) const { throw Refused{status, why}; }

  // False: the State holds the value of an earlier incarnation. Then the constructor leaves it alone.
  bool fresh() const { return fresh_; }
  const vdev_host* raw() const { return host_; }

 private:
  struct BulkTable : Wiring<vdev_host_bulk_memory> {
    explicit BulkTable(const Wiring& wiring) : Wiring(wiring) {}
    void* get(u32 index, u64 bytes) const { return table_->memory(host_, index, bytes); }
  };
  const vdev_host* host_ = nullptr;
  bool fresh_ = true;
};

} // namespace vdev
