// One disk of a channel: its identity, its registers, and the addresses that the registers hold.
#pragma once

#include "state.hpp"

namespace ide {

class Drive {
 public:
  Drive(DriveState& s, Disk disk) : s_(s), disk_(disk) { refresh(); }

  void refresh() { info_ = disk_.info(); }
  bool present() const { return info_.kind == VDEV_DRIVE_DISK && info_.sectors > 0; }
  bool read_only() const { return info_.read_only != 0; }
  bool write_cache() const { return info_.write_cache != 0 && !s_.write_cache_off; }
  bool has_write_cache() const { return info_.write_cache != 0; }
  u64 sectors() const { return info_.sectors; }
  const vdev_block_info& info() const { return info_; }
  const Disk& disk() const { return disk_; }
  DriveState& state() const { return s_; }

  // Translation of cylinder, head, sector: the default one, or what the host asked for.
  u32 heads() const { return s_.heads ? s_.heads : 16; }
  u32 sectors_per_track() const { return s_.sectors_per_track ? s_.sectors_per_track : 63; }
  u32 default_cylinders() const { return cylinders(16 * 63); }
  u32 current_cylinders() const { return cylinders(heads() * sectors_per_track()); }

  // Registers other than data, device and status. HOB shows the previous content.
  u8 read(u64 reg, bool hob) const;
  void write(u64 reg, u8 value);

  // What the registers address. False: no such address [ATA 6.2].
  bool address(u8 device, bool ext, u64& lba) const;
  u32 count(bool ext) const; // 0 means 256, or 65536
  void set_address(u8& device, u64 lba, bool ext, bool lba_mode);

  void set_signature(); // [ATA 9.12]

 private:
  u32 cylinders(u32 sectors_a_cylinder) const {
    const u64 n = info_.sectors / sectors_a_cylinder;
    return n > 16383 ? 16383 : n < 1 ? 1 : u32(n);
  }
  DriveState& s_;
  Disk disk_;
  vdev_block_info info_{};
};

} // namespace ide
