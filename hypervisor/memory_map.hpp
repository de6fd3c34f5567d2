// The guest-physical map below and above 4 GiB: RAM, the firmware ROM at the top of 4 GiB and its alias under 1 MiB,
// and shadow RAM in C0000h–FFFFFh as the chipset's PAM registers say (440FX datasheet 290549, section 3.2.18 "PAM").
//
// Changed under the board lock; read by the vCPU threads when they fill their TLBs (one atomic byte a segment).
#pragma once

#include <array>
#include <atomic>
#include <string>

#include "core/guest_memory.hpp"
#include "core/result.hpp"
#include "hypervisor/vcpu/vcpu.hpp"

namespace transom {

class MemoryMap {
 public:
  static constexpr u64 SHADOW_BASE = 0xc'0000, SHADOW_END = 0x10'0000, SEGMENT = 0x4000;
  static constexpr u64 VGA_WINDOW = 0xa'0000;

  explicit MemoryMap(GuestMemory ram) : ram_(ram) { reset(); }
  MemoryMap(const MemoryMap&) = delete;
  MemoryMap& operator=(const MemoryMap&) = delete;
  ~MemoryMap();

  // The image is mapped to end at 4 GiB; its last 128 KiB also show at E0000h. 64 KiB to 16 MiB, whole pages.
  Result<void> load_firmware(const std::string& path);

  void reset();
  void set_shadow(u64 base, u64 length, bool read, bool write);
  // Direct boot runs without firmware: C0000h–FFFFFh is plain RAM then.
  void open_shadow() { set_shadow(SHADOW_BASE, SHADOW_END - SHADOW_BASE, true, true); }

  PhysPage page(u64 gpa) const;
  const GuestMemory& ram() const { return ram_; }
  u64 firmware_size() const { return rom_size_; } // it ends at 4 GiB

 private:
  static constexpr u32 SEGMENTS = (SHADOW_END - SHADOW_BASE) / SEGMENT;
  enum : u8 { READ_RAM = 1, WRITE_RAM = 2 };

  u8* rom_at(u64 gpa) const; // page in the ROM, or null

  GuestMemory ram_;
  u8* rom_ = nullptr;
  u64 rom_size_ = 0;
  std::array<std::atomic<u8>, SEGMENTS> shadow_;
};

} // namespace transom
