// QEMU's fw_cfg device: how a PC's firmware is told about its machine. Selector 510h, data 511h, DMA 514h–51Bh.
//
// Items are byte strings under 16-bit keys; named files have keys from 20h up and stand in a directory, itself the item
// with key 19h. A guest selects a key, then reads bytes one by one from 511h or has them copied by a DMA request; both
// ways share one offset. Public specification: QEMU's docs/specs/fw_cfg.rst; what guests do with it:
// firmware/README.md.
//
// One vCPU thread at a time calls read() and write(); items are registered before the guest runs. Every request is
// bounded by the item and by guest RAM: a range that is not RAM from end to end is answered by the error bit and
// nothing is touched. DMA into pages with decoded code follows the code-page protocol (core/code_pages.hpp).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "core/code_pages.hpp"
#include "core/guest_memory.hpp"
#include "firmware/bytes.hpp"

namespace transom::firmware {

class FwCfg {
 public:
  static constexpr u16 PORT_SELECTOR = 0x510, PORT_DATA = 0x511, PORT_DMA_HIGH = 0x514, PORT_DMA_LOW = 0x518;
  static constexpr u16 PORT_FIRST = 0x510, PORT_LAST = 0x51b;

  static constexpr u16 KEY_SIGNATURE = 0x00, KEY_FEATURES = 0x01, KEY_DIRECTORY = 0x19, KEY_FIRST_FILE = 0x20;
  static constexpr u16 KEY_WRITE_CHANNEL = 0x4000; // ignored in a selector, as in current QEMU
  static constexpr u16 KEY_LAST_FILE = 0x3fff;
  static constexpr u64 NAME_LENGTH = 55;

  // DMA control word, as the guest writes it (big endian).
  enum Control : u32 { CONTROL_ERROR = 1, CONTROL_READ = 2, CONTROL_SKIP = 4, CONTROL_SELECT = 8, CONTROL_WRITE = 16 };

  // The device's registers, for snapshots. Any value is safe to restore.
  struct State {
    u16 key = 0;
    u32 offset = 0;
    u32 dma_high = 0; // high half of the next request's address
  };

  // `code` may be null where no decoded code exists; `code_written` runs when a vCPU has to drop some.
  explicit FwCfg(GuestMemory ram = {}, CodePages* code = nullptr, std::function<void(u8 vcpus)> code_written = {});

  // Registering. A second set of the same key or name replaces the bytes.
  void set(u16 key, Bytes bytes);
  void set_number(u16 key, u32 width, u64 value) { set(key, le_bytes(width, value)); }
  // False: the name is empty, too long, or there are no keys left.
  bool add_file(std::string_view name, Bytes bytes, bool writable = false);

  const Bytes* item(u16 key) const;
  const Bytes* file(std::string_view name) const;
  std::vector<std::string> file_names() const; // in the order of the directory

  // Port accesses, width 1, 2 or 4. What no part of the device answers reads as all ones.
  u32 read(u16 port, u32 width);
  void write(u16 port, u32 width, u32 value);
  // The bytes that `to.size()` one-byte reads of 511h return: REP INSB in one go.
  void read_data(std::span<u8> to);

  void reset() { state_ = {}; }
  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  struct Item {
    Bytes bytes;
    bool writable = false;
  };
  struct File {
    std::string name;
    u16 key;
  };

  void select(u16 key);
  void rebuild_directory();
  const File* find(std::string_view name) const;
  u64 remaining() const;
  void dma(u64 control_gpa);
  bool dma_transfer(u32 control, u32 length, u64 gpa);
  void dma_landed(u64 gpa, u64 length);

  GuestMemory ram_;
  CodePages* code_;
  std::function<void(u8)> code_written_;
  std::map<u16, Item> items_;
  std::vector<File> files_;
  State state_;
};

} // namespace transom::firmware
