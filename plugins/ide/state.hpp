// Everything that a snapshot of the IDE function holds. Sector buffers lie in bulk memory; a request in flight is named
// by its tag, so that whoever has this State can take its completion.
#pragma once

#include "ata_regs.hpp"
#include "piix_regs.hpp"

namespace ide {

// A device's own registers and settings. The four address registers and features are two deep [ATA, 48-bit Address
// feature set]: the high byte is the previous content, which the EXT commands use. The reset values are the signature
// of a disk [ATA 9.12].
struct DriveState {
  u8 status = status::READY, error = error::PASSED;
  u16 features = 0, sector_count = 1, lba_low = 1, lba_mid = 0, lba_high = 0;
  u8 heads = 0, sectors_per_track = 0; // of INITIALIZE DEVICE PARAMETERS; 0: the default translation
  u8 multiple = MAX_MULTIPLE;          // 0: READ/WRITE MULTIPLE are off
  u8 transfer_mode = 0;                // as SET FEATURES 03h gave it
  bool standby = false;
  bool write_cache_off = false;
  bool interrupt = false; // INTRQ wanted; on the wire while the device is selected and nIEN is 0

  bool valid() const { return heads <= 16 && multiple <= MAX_MULTIPLE && (multiple & (multiple - 1)) == 0; }
  friend bool operator==(const DriveState&, const DriveState&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [status, error, features, sector_count, lba_low, lba_mid, lba_high, heads, sectors_per_track, multiple,
           transfer_mode, standby, write_cache_off, interrupt] = s;
    f(1, "status", status), f(2, "error", error), f(3, "features", features), f(4, "sector_count", sector_count);
    f(5, "lba_low", lba_low), f(6, "lba_mid", lba_mid), f(7, "lba_high", lba_high), f(8, "heads", heads, 16);
    f(9, "sectors_per_track", sectors_per_track), f(10, "multiple", multiple, MAX_MULTIPLE);
    f(11, "transfer_mode", transfer_mode), f(12, "standby", standby), f(13, "write_cache_off", write_cache_off);
    f(14, "interrupt", interrupt);
  }
};

enum class Phase : u8 {
  IDLE,     // no command
  WORKING,  // BSY: a block request is in flight
  DATA_IN,  // DRQ: the host reads the data register
  DATA_OUT, // DRQ: the host writes the data register
  WAIT_DMA, // DRQ: the device waits for the bus master
};
enum class Kind : u8 { NONE, READ, WRITE, VERIFY, FLUSH, REGISTERS /* data that is no sector: IDENTIFY */ };

// The command a channel executes. It has its own copy of all that it needs: no later write to a register, and no reset,
// can turn it into another one.
struct Command {
  u64 lba = 0;                 // of the next sector
  u64 tag = 0;                 // of the request in flight; 0: none
  u32 left = 0;                // sectors that were not yet transferred
  u32 chunk = 0, position = 0; // bytes in the buffer or in the request; where the data register stands
  u16 block = SECTOR;          // bytes a DRQ block
  u8 unit = 0;
  Phase phase = Phase::IDLE;
  Kind kind = Kind::NONE;
  u8 failure = 0; // error register to report once the good sectors before the bad one were read
  bool dma = false, ext = false, lba_mode = false, fua = false;
  bool bounce = false; // the DMA request goes through the buffer: its PRDs are too small to name

  bool valid() const;
  friend bool operator==(const Command&, const Command&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [lba, tag, left, chunk, position, block, unit, phase, kind, failure, dma, ext, lba_mode, fua, bounce] = s;
    f(1, "lba", lba), f(2, "tag", tag), f(3, "left", left, 65536), f(4, "chunk", chunk), f(5, "position", position);
    f(6, "block", block), f(7, "unit", unit, 1), f(8, "phase", phase, u64(Phase::WAIT_DMA));
    f(9, "kind", kind, u64(Kind::REGISTERS)), f(10, "failure", failure), f(11, "dma", dma), f(12, "ext", ext);
    f(13, "lba_mode", lba_mode), f(14, "fua", fua), f(15, "bounce", bounce);
  }
};

struct BusMasterState {
  u8 command = 0, status = 0;
  u32 table = 0;
  // The walk through the table since the last start.
  u32 next = 0;               // address of the next descriptor
  u32 address = 0, bytes = 0; // what is left of the region in hand
  u16 entries = 0;            // descriptors fetched
  bool last = false;          // the region in hand is the table's last

  bool valid() const { return bytes <= 0x10000; }
  friend bool operator==(const BusMasterState&, const BusMasterState&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [command, status, table, next, address, bytes, entries, last] = s;
    f(1, "command", command), f(2, "status", status), f(3, "table", table), f(4, "next", next);
    f(5, "address", address), f(6, "bytes", bytes, 0x10000), f(7, "entries", entries, prd::MAX_ENTRIES);
    f(8, "last", last);
  }
};

struct ChannelState {
  std::array<DriveState, 2> drive;
  Command command;
  BusMasterState bus_master;
  u64 last_tag = 0;
  u8 device = 0;      // one register a channel will do: both devices take every write
  u8 control = 0;     // device control
  bool intrq = false; // the level of the wire, for its edges

  bool valid() const {
    return drive[0].valid() && drive[1].valid() && command.valid() && bus_master.valid() && command.tag <= last_tag;
  }
  friend bool operator==(const ChannelState&, const ChannelState&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [drive, command, bus_master, last_tag, device, control, intrq] = s;
    f(1, "drive0", drive[0]), f(2, "drive1", drive[1]), f(3, "command", command), f(4, "bus_master", bus_master);
    f(5, "last_tag", last_tag), f(6, "device", device), f(7, "control", control), f(8, "intrq", intrq);
  }
};

struct State {
  std::array<ChannelState, 2> channel;
  std::array<u16, 2> idetim{};
  u8 sidetim = 0;

  bool valid() const { return channel[0].valid() && channel[1].valid(); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [channel, idetim, sidetim] = s;
    f(1, "channel", channel), f(2, "idetim", idetim), f(3, "sidetim", sidetim);
  }
};
static_assert(sizeof(State) <= VDEV_STATE_MAX_BYTES);

constexpr u32 BUFFER_BYTES = 128 * 1024;     // a channel's: 256 sectors, the longest 28-bit command
constexpr u32 MAX_DMA_REQUEST = 1024 * 1024; // bytes of one block request for the bus master

inline bool Command::valid() const {
  const bool sane = position <= chunk && chunk % SECTOR == 0 && left <= 65536 && unit <= 1 && block >= SECTOR &&
                    block <= MAX_MULTIPLE * SECTOR && (block & (block - 1)) == 0;
  const bool moves_sectors = kind == Kind::READ || kind == Kind::WRITE || kind == Kind::VERIFY;
  const bool fits = chunk <= (dma ? MAX_DMA_REQUEST : BUFFER_BYTES) && (!moves_sectors || chunk <= u64{left} * SECTOR);
  const bool serving = tag == 0 && !dma && position < chunk;
  switch (phase) {
    case Phase::IDLE: return sane && tag == 0;
    case Phase::WORKING: return sane && fits && tag != 0;
    case Phase::DATA_IN: return sane && fits && serving && (kind == Kind::READ || kind == Kind::REGISTERS);
    case Phase::DATA_OUT: return sane && fits && serving && kind == Kind::WRITE;
    case Phase::WAIT_DMA: return sane && tag == 0 && dma && left > 0;
  }
  return false;
}

} // namespace ide
