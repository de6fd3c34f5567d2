// One channel: two devices on one cable, one command at a time, and the bus master beside them.
//
// A command is a chain of block requests. While one is in flight the device is BSY; its completion arrives at done()
// and leads to a DRQ block, to the next request, or to the end. PIO data passes through the channel's buffer of 256
// sectors: one request fills it, and the data register then serves DRQ blocks from it without waiting.
#pragma once

#include "ata_drive.hpp"
#include "bus_master.hpp"

namespace ide {

class Channel {
 public:
  Channel(ChannelState& s, const Host& host, u32 index, u64 buffer_bytes);

  // Command block. A run is so many bytes at the data register.
  u8 read(u64 reg);
  u8 peek(u64 reg) const;
  void write(u64 reg, u8 value);
  void read_data(u8* to, u64 bytes);
  void peek_data(u8* to, u64 bytes) const;
  void write_data(const u8* from, u64 bytes);

  u8 alternate_status() const; // reading it leaves INTRQ alone
  void write_control(u8 value);

  u8 read_bus_master(u64 offset) const { return bus_master_.read(offset); }
  void write_bus_master(u64 offset, u8 value);

  void done(u32 unit, u64 tag, vdev_status status, u64 bytes);
  void medium_changed(u32 unit) { drive_[unit].refresh(); }
  void reset(); // the reset pin
  void sync() { irq_.set(s_.intrq); }

 private:
  // Who answers.
  u32 selected() const { return device::DEV(s_.device); }
  bool any_present() const { return drive_[0].present() || drive_[1].present(); }
  const Drive& responder() const { return drive_[drive_[selected()].present() ? selected() : selected() ^ 1]; }
  Drive& executing() { return drive_[s_.command.unit]; }
  bool busy() const { return s_.command.phase != Phase::IDLE || control::SRST(s_.control); }

  // INTRQ [ATA 5.2].
  void raise(u32 unit);
  void acknowledge(u32 unit);
  void update_intrq();

  // Ends of a command.
  void complete() { finish(status::READY, error::NONE, true); }
  void end_of_data_in() { finish(status::READY, error::NONE, false); } // the last block had its interrupt [ATA 9.5]
  void fail(u8 error);                                                 // at command.lba
  void abort() { finish(status::FAILED, error::ABRT, true); }
  void finish(u8 status, u8 error, bool interrupt);
  void enter(Phase phase, u8 status);

  // Commands (ata_commands.cc).
  void execute(u8 code);
  bool start_transfer(u8 code);
  void non_data(u8 code, Drive& drive);
  void check_power(Drive& drive);
  void idle(Drive& drive);
  void standby(Drive& drive);
  void set_features(Drive& drive);
  void set_multiple(Drive& drive);
  void initialize_parameters(Drive& drive);
  void read_native_max(Drive& drive, bool ext);
  void seek(Drive& drive);
  void start_identify(Drive& drive);
  void start_flush();
  void execute_diagnostic();

  // Transfers (ata_transfer.cc).
  void next_request(bool first = false);
  void submit(u32 op, u32 bytes, std::span<const vdev_segment> segments);
  void submit_buffer(u32 op, u32 bytes);
  void request_done(vdev_status status, u32 good);
  void read_done(vdev_status status, u32 good);
  void write_done(vdev_status status, u32 good);
  void verify_done(vdev_status status, u32 good);
  void dma_done(vdev_status status, u32 good);
  void continue_dma();
  void bounce();
  void wait_dma();
  void advance(u32 bytes);
  u32 write_op();
  void present_block(Phase phase, bool interrupt);
  u32 block_end() const;
  void block_read();
  void block_written();
  void cancel();
  void soft_reset();

  ChannelState& s_;
  std::array<Drive, 2> drive_;
  BusMaster bus_master_;
  Irq irq_;
  Bulk buffer_;
  u32 first_drive_;
};

} // namespace ide
