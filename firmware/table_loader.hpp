// The table-loader script: how the machine tells its firmware to place tables whose addresses only the firmware knows
// (QEMU's "linker/loader", fw_cfg file etc/table-loader). The script is written once; SeaBIOS runs it for guests that
// boot through firmware, run_table_loader() runs the same script for kernels that are booted directly.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "core/guest_memory.hpp"
#include "core/result.hpp"
#include "firmware/bytes.hpp"

namespace transom::firmware {

enum class LoaderZone : u8 { high = 1, f_segment = 2 };

// 128-byte little-endian entries; names take 56 bytes.
class LoaderScript {
 public:
  void allocate(std::string_view file, u32 alignment, LoaderZone zone);
  // The `width` bytes at `offset` of `dest` hold an offset into `source`; adds source's address to them.
  void add_pointer(std::string_view dest, u32 offset, u8 width, std::string_view source);
  // Makes the bytes start … start + length of `file` sum to zero by the byte at `result`.
  void add_checksum(std::string_view file, u32 result, u32 start, u32 length);

  const Bytes& bytes() const { return script_; }

 private:
  void finish(u64 begin);
  Bytes script_;
};

struct LoaderHost {
  // Contents of a named file, or null.
  std::function<const Bytes*(std::string_view)> file;
  // A guest-physical place for `size` bytes, or 0 when there is none.
  std::function<u64(u64 size, u32 alignment, LoaderZone)> allocate;
};

// Runs a script on guest memory. Returns where each file went.
Result<std::map<std::string, u64>> run_table_loader(const GuestMemory& ram, ByteView script, const LoaderHost& host);

} // namespace transom::firmware
