// What each command code does [ATA 8].
#include <algorithm>

#include "ata_channel.hpp"
#include "identify.hpp"

namespace ide {
namespace {

struct Transfer {
  u8 code;
  Kind kind;
  bool ext = false, dma = false, multiple = false, fua = false;
};
constexpr Transfer transfers[] = {
    {.code = command::READ_SECTORS, .kind = Kind::READ},
    {.code = command::READ_SECTORS_NO_RETRY, .kind = Kind::READ},
    {.code = command::READ_SECTORS_EXT, .kind = Kind::READ, .ext = true},
    {.code = command::READ_MULTIPLE, .kind = Kind::READ, .multiple = true},
    {.code = command::READ_MULTIPLE_EXT, .kind = Kind::READ, .ext = true, .multiple = true},
    {.code = command::READ_DMA, .kind = Kind::READ, .dma = true},
    {.code = command::READ_DMA_NO_RETRY, .kind = Kind::READ, .dma = true},
    {.code = command::READ_DMA_EXT, .kind = Kind::READ, .ext = true, .dma = true},
    {.code = command::WRITE_SECTORS, .kind = Kind::WRITE},
    {.code = command::WRITE_SECTORS_NO_RETRY, .kind = Kind::WRITE},
    {.code = command::WRITE_SECTORS_EXT, .kind = Kind::WRITE, .ext = true},
    {.code = command::WRITE_MULTIPLE, .kind = Kind::WRITE, .multiple = true},
    {.code = command::WRITE_MULTIPLE_EXT, .kind = Kind::WRITE, .ext = true, .multiple = true},
    {.code = command::WRITE_MULTIPLE_FUA_EXT, .kind = Kind::WRITE, .ext = true, .multiple = true, .fua = true},
    {.code = command::WRITE_DMA, .kind = Kind::WRITE, .dma = true},
    {.code = command::WRITE_DMA_NO_RETRY, .kind = Kind::WRITE, .dma = true},
    {.code = command::WRITE_DMA_EXT, .kind = Kind::WRITE, .ext = true, .dma = true},
    {.code = command::WRITE_DMA_FUA_EXT, .kind = Kind::WRITE, .ext = true, .dma = true, .fua = true},
    {.code = command::READ_VERIFY, .kind = Kind::VERIFY},
    {.code = command::READ_VERIFY_NO_RETRY, .kind = Kind::VERIFY},
    {.code = command::READ_VERIFY_EXT, .kind = Kind::VERIFY, .ext = true},
};

} // namespace

void Channel::execute(u8 code) {
  if (code == command::EXECUTE_DIAGNOSTIC) return execute_diagnostic(); // both devices, whichever is selected
  Drive& drive = drive_[selected()];
  if (!drive.present()) return; // nobody listens [ATA 9.16]
  acknowledge(selected());
  s_.command = Command{};
  s_.command.unit = u8(selected());
  if (!start_transfer(code)) non_data(code, drive);
}

bool Channel::start_transfer(u8 code) {
  const auto* t = std::find_if(std::begin(transfers), std::end(transfers), [&](auto& x) { return x.code == code; });
  if (t == std::end(transfers)) return false;
  Drive& drive = executing();
  Command& c = s_.command;
  c.kind = t->kind, c.ext = t->ext, c.dma = t->dma, c.fua = t->fua;
  c.lba_mode = device::LBA(s_.device);
  const u8 multiple = drive.state().multiple;
  const bool refused =
      (t->kind == Kind::WRITE && drive.read_only()) || (t->multiple && multiple == 0) || (t->ext && !c.lba_mode);
  if (refused) return abort(), true;
  if (t->multiple) c.block = u16(multiple * SECTOR);

  const u32 count = drive.count(c.ext);
  if (!drive.address(s_.device, c.ext, c.lba)) return finish(status::FAILED, error::IDNF, true), true;
  if (c.lba >= drive.sectors() || count > drive.sectors() - c.lba) { // nothing is moved; names the first one missing
    c.lba = std::max(c.lba, drive.sectors());
    return fail(error::IDNF), true;
  }
  c.left = count;
  drive.state().standby = false;
  drive.state().error = error::NONE;
  next_request(true);
  return true;
}

void Channel::non_data(u8 code, Drive& drive) {
  switch (code) {
    case command::IDENTIFY_DEVICE: return start_identify(drive);
    case command::FLUSH_CACHE:
    case command::FLUSH_CACHE_EXT: return start_flush();
    case command::SET_FEATURES: return set_features(drive);
    case command::SET_MULTIPLE: return set_multiple(drive);
    case command::INITIALIZE_PARAMETERS: return initialize_parameters(drive);
    case command::READ_NATIVE_MAX: return read_native_max(drive, false);
    case command::READ_NATIVE_MAX_EXT: return read_native_max(drive, true);
    case command::CHECK_POWER:
    case command::CHECK_POWER_OLD: return check_power(drive);
    case command::IDLE:
    case command::IDLE_OLD:
    case command::IDLE_IMMEDIATE:
    case command::IDLE_IMMEDIATE_OLD: return idle(drive);
    case command::STANDBY:
    case command::STANDBY_OLD:
    case command::STANDBY_IMMEDIATE:
    case command::STANDBY_IMMEDIATE_OLD:
    case command::SLEEP:
    case command::SLEEP_OLD: return standby(drive);
    default: break;
  }
  if (code >> 4 == command::RECALIBRATE >> 4) return complete();
  if (code >> 4 == command::SEEK >> 4) return seek(drive);
  abort(); // among them NOP [ATA 8], and DEVICE RESET, PACKET and IDENTIFY PACKET DEVICE, which are for ATAPI
}

void Channel::start_identify(Drive& drive) {
  Command& c = s_.command;
  const auto words = identify(drive, first_drive_ + c.unit);
  buffer_.write(0, words.data(), words.size());
  c.kind = Kind::REGISTERS;
  c.chunk = SECTOR, c.position = 0;
  drive.state().error = error::NONE;
  present_block(Phase::DATA_IN, true);
}

void Channel::start_flush() {
  s_.command.kind = Kind::FLUSH;
  submit(VDEV_BLOCK_FLUSH, 0, {});
}

void Channel::set_features(Drive& drive) {
  DriveState& s = drive.state();
  const u8 mode = u8(s.sector_count);
  switch (u8(s.features)) {
    case feature::WRITE_CACHE_ON:
      if (!drive.has_write_cache()) return abort();
      s.write_cache_off = false;
      return complete();
    case feature::WRITE_CACHE_OFF: // what is cached goes to the medium first [ATA 8.46]
      s.write_cache_off = true;
      return start_flush();
    case feature::TRANSFER_MODE: // PIO default, PIO 0-4 with flow control, multiword DMA 0-2 [ATA 8.46]
      if (!(mode <= 0x01 || (mode >= 0x08 && mode <= 0x0c) || (mode >= 0x20 && mode <= 0x22))) return abort();
      s.transfer_mode = mode;
      return complete();
    case feature::KEEP_SETTINGS: return complete();
    default: return abort();
  }
}

void Channel::set_multiple(Drive& drive) {
  const u8 count = u8(drive.state().sector_count);
  if (count > MAX_MULTIPLE || (count & (count - 1)) != 0) return abort();
  drive.state().multiple = count;
  complete();
}

void Channel::initialize_parameters(Drive& drive) {
  const u8 sectors = u8(drive.state().sector_count);
  if (sectors == 0) return abort();
  drive.state().sectors_per_track = sectors;
  drive.state().heads = u8(device::HEAD(s_.device) + 1);
  complete();
}

void Channel::read_native_max(Drive& drive, bool ext) {
  if (!device::LBA(s_.device)) return abort();
  const u64 limit = ext ? drive.sectors() : std::min(drive.sectors(), LBA28_LIMIT);
  drive.set_address(s_.device, limit - 1, ext, true);
  complete();
}

void Channel::seek(Drive& drive) {
  u64 lba = 0;
  const bool found = drive.address(s_.device, false, lba) && lba < drive.sectors();
  found ? complete() : finish(status::FAILED, error::IDNF, true);
}

void Channel::check_power(Drive& drive) {
  drive.state().sector_count = drive.state().standby ? 0x00 : 0xff;
  complete();
}

void Channel::idle(Drive& drive) {
  drive.state().standby = false;
  complete();
}

// Timers never run out here, and SLEEP is a standby that any command ends. Nothing cached is left behind.
void Channel::standby(Drive& drive) {
  drive.state().standby = true;
  start_flush();
}

void Channel::execute_diagnostic() { // [ATA 9.10]
  for (Drive& drive : drive_) drive.set_signature();
  s_.device = 0;
  s_.command = Command{};
  update_intrq();
  if (drive_[0].present()) raise(0);
}

} // namespace ide
