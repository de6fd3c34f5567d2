#include "ata_channel.hpp"

namespace ide {

Channel::Channel(ChannelState& s, const Host& host, u32 index, u64 buffer_bytes)
    : s_(s),
      drive_{Drive(s.drive[0], host.disk(2 * index)), Drive(s.drive[1], host.disk(2 * index + 1))},
      bus_master_(s.bus_master, host.dma()),
      irq_(host.irq(index)),
      buffer_(host.bulk(index, buffer_bytes)),
      first_drive_(2 * index) {}

// ---- registers

u8 Channel::peek(u64 reg) const {
  if (!any_present()) return 0; // an empty cable, as pull-downs would show it: no device, and never BSY
  switch (reg) {
    case STATUS_COMMAND: return alternate_status();
    case DEVICE: return s_.device;
    default: return responder().read(reg, control::HOB(s_.control));
  }
}

u8 Channel::read(u64 reg) {
  const u8 value = peek(reg);
  if (reg == STATUS_COMMAND) acknowledge(selected()); // [ATA 7.15]
  return value;
}

// A device that is not there has status 0: the other one answers for it [ATA 9.16].
u8 Channel::alternate_status() const {
  const Drive& drive = drive_[selected()];
  return drive.present() ? drive.state().status : u8{0};
}

void Channel::write(u64 reg, u8 value) {
  // While BSY or DRQ is set the outcome is indeterminate [ATA 7]: here such a write does nothing.
  if (!any_present() || busy()) return;
  control::HOB.set(s_.control, 0);
  switch (reg) {
    case STATUS_COMMAND: return execute(value);
    case DEVICE: s_.device = value; return update_intrq();
    default: // both devices take it
      drive_[0].write(reg, value);
      drive_[1].write(reg, value);
  }
}

void Channel::write_control(u8 value) {
  const bool was = control::SRST(s_.control), now = control::SRST(value);
  s_.control = value & control::WRITABLE;
  if (!was && now) { // the devices are BSY while SRST is held [ATA 9.2]
    cancel();
    for (Drive& drive : drive_) drive.state().status = status::BSY, drive.state().interrupt = false;
  }
  if (was && !now) soft_reset();
  update_intrq();
}

// [ATA 9.2]: both devices post their signature, and device 0 is selected. Settings of SET FEATURES and SET MULTIPLE
// stay, as after subcommand 66h.
void Channel::soft_reset() {
  s_.device = 0;
  for (Drive& drive : drive_) drive.set_signature();
}

void Channel::reset() {
  cancel();
  s_ = ChannelState{};
  for (Drive& drive : drive_) drive.refresh();
}

void Channel::write_bus_master(u64 offset, u8 value) {
  if (offset == bm::STATUS) return bus_master_.write_status(value);
  if (offset >= bm::TABLE && offset < bm::TABLE + 4) return bus_master_.write_table(offset - bm::TABLE, value);
  if (offset != bm::COMMAND) return;
  const bool was = bmicom::START(s_.bus_master.command);
  bus_master_.write_command(value);
  const bool now = bmicom::START(s_.bus_master.command);
  Command& c = s_.command;
  if (was && !now && c.phase == Phase::WORKING && c.dma) { // stopped in mid-transfer: the device goes on waiting
    drive_[c.unit].disk().cancel();
    c.tag = 0;
    wait_dma();
  }
  if (!was && now && c.phase == Phase::WAIT_DMA) continue_dma();
}

// ---- INTRQ: of the selected device, while nIEN is 0

void Channel::raise(u32 unit) {
  drive_[unit].state().interrupt = true;
  update_intrq();
}

void Channel::acknowledge(u32 unit) {
  drive_[unit].state().interrupt = false;
  update_intrq();
}

// Edges matter twice: to an edge-triggered interrupt controller, and to the bus master's status bit, which follows the
// rising edge only [PIIX BMISTA]. So the wire moves at once, not at the end of the access.
void Channel::update_intrq() {
  const Drive& drive = drive_[selected()];
  const bool level = drive.present() && drive.state().interrupt && !control::nIEN(s_.control);
  if (level == s_.intrq) return;
  s_.intrq = level;
  if (level) bus_master_.interrupt();
  irq_.set(level);
}

// ---- the end of a command

void Channel::enter(Phase phase, u8 status) {
  s_.command.phase = phase;
  executing().state().status = status;
}

void Channel::finish(u8 status, u8 error, bool interrupt) {
  const u32 unit = s_.command.unit;
  s_.command.tag = 0;
  enter(Phase::IDLE, status);
  executing().state().error = error;
  if (interrupt) raise(unit);
}

void Channel::fail(u8 error) {
  const Command& c = s_.command;
  executing().set_address(s_.device, c.lba, c.ext, c.lba_mode);
  finish(status::FAILED, error, true);
}

// Nothing of the command in hand will happen any more; a write that was not yet submitted never reaches the disk.
void Channel::cancel() {
  if (s_.command.tag) executing().disk().cancel();
  s_.command = Command{};
}

} // namespace ide
