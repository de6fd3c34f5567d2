// PIIX3 IDE function: two channels in legacy mode and their bus master.
//
// Models:  both channels' command and control blocks, IDETIM's decode enable, the bus master of SFF-8038i, disks.
// Missing: ATAPI, SMART, HPA and security; Ultra DMA, which this chip has not; timing: every cycle takes no time.
// Ignored bits: the timings in IDETIM and SIDETIM; BMICOM's direction, as the command decides it.
// Sources: Intel 290550-002, 82371FB (PIIX) and 82371SB (PIIX3); T13/1410D (ATA/ATAPI-6); SFF-8038i rev. 1.0.
#pragma once

#include "ata_channel.hpp"

namespace ide {

class PiixIde {
 public:
  using State = ide::State;
  enum Region : u32 { COMMAND0, CONTROL0, COMMAND1, CONTROL1, BUS_MASTER };
  static constexpr u32 BYTES_TO_DWORDS = VDEV_WIDTH_1 | VDEV_WIDTH_2 | VDEV_WIDTH_4;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "command0", 0x1f0, 8, BYTES_TO_DWORDS, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "control0", 0x3f6, 1, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "command1", 0x170, 8, BYTES_TO_DWORDS, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "control1", 0x376, 1, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "bmide", 0, 16, BYTES_TO_DWORDS, VDEV_REGION_BAR},
  };
  static constexpr const char* irqs[] = {"irq14", "irq15"};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.piix-ide", "PIIX3 IDE", "Transom", "1.0.0", regions, 5, 2, irqs};
  static constexpr vdev_pci_bar bars[] = {{sizeof(vdev_pci_bar), 4, BUS_MASTER, VDEV_BAR_IO}};
  static constexpr vdev_pci_function pci_functions[] = {{.size = sizeof(vdev_pci_function),
                                                         .slot = 1,
                                                         .function = 1,
                                                         .vendor_id = 0x8086,
                                                         .device_id = 0x7010,
                                                         .subsystem_vendor_id = 0x1af4,
                                                         .subsystem_id = 0x1100,
                                                         .class_code = 0x010180,
                                                         .revision = 0,
                                                         .header_type = 0,
                                                         .interrupt_pin = 0, // IRQ 14 and 15 have wires of their own
                                                         .reserved = 0,
                                                         .status = 0x0280,
                                                         .reserved2 = 0,
                                                         .irq = 0,
                                                         .bars = bars,
                                                         .bar_count = 1}};
  // The task file without its device register, which selects whose INTRQ is on the wire.
  static constexpr vdev_posted_range posted[] = {
      {sizeof(vdev_posted_range), COMMAND0, ERROR_FEATURES, LBA_HIGH - ERROR_FEATURES + 1, 0, 0},
      {sizeof(vdev_posted_range), COMMAND1, ERROR_FEATURES, LBA_HIGH - ERROR_FEATURES + 1, 0, 0}};
  static constexpr u32 drive_count = 4; // channel * 2 + unit
  static constexpr u64 bulk[] = {BUFFER_BYTES, BUFFER_BYTES};

  State& state;
  PiixIde(State& s, const Host& host);

  void reset();
  void sync();
  u64 read(u32 region, u64 offset, u32 width);
  void write(u32 region, u64 offset, u32 width, u64 value);
  u64 peek(u32 region, u64 offset, u32 width) const;
  bool read_run(u32 region, u64 offset, u32 width, u32 count, u8* data);
  bool write_run(u32 region, u64 offset, u32 width, u32 count, const u8* data);
  u32 read_config(u32 function, u32 offset, u32 width);
  void write_config(u32 function, u32 offset, u32 width, u32 value);
  void block_done(u32 drive, u64 tag, vdev_status status, u64 bytes);
  void medium_changed(u32 drive);

 private:
  bool decoded(u32 region) const { return region == BUS_MASTER || idetim::DECODE(state.idetim[region / 2]); }
  u8 read_byte(u32 region, u64 offset);
  void write_byte(u32 region, u64 offset, u8 value);
  u8 peek_byte(u32 region, u64 offset) const;
  u8 config_byte(u32 offset) const;
  void write_config_byte(u32 offset, u8 value);

  std::array<Channel, 2> channel_;
};

} // namespace ide
