// The bus master of one channel: its registers, and the walk through the table of physical regions.
#pragma once

#include "state.hpp"

namespace ide {

// Guest addresses for one block request, whole sectors.
struct Gathered {
  std::array<vdev_segment, VDEV_BLOCK_MAX_SEGMENTS> segments;
  u32 count = 0;
  u32 bytes = 0;
};

class BusMaster {
 public:
  BusMaster(BusMasterState& s, Dma dma) : s_(s), dma_(dma) {}

  u8 read(u64 offset) const;
  void write_status(u8 value);
  void write_table(u64 byte, u8 value);
  // Start and direction. The caller acts on a change of active().
  void write_command(u8 value);

  bool active() const { return bmista::ACTIVE(s_.status); }
  void interrupt() { bmista::INTERRUPT.set(s_.status, 1); }
  // Ends the transfer with the error bit: an address that is no RAM [PIIX BMISTA]. No interrupt.
  void bus_error() { bmista::ERROR.set(s_.status, 1), bmista::ACTIVE.set(s_.status, 0); }
  // Clears active when the last byte of the last region is used up.
  void retire() {
    if (s_.bytes == 0 && s_.last) bmista::ACTIVE.set(s_.status, 0);
  }

  // Takes whole sectors from the table, at most `limit` bytes. Nothing is taken when the next 64 regions together hold
  // less than a sector; then copy_* move one.
  Gathered gather(u32 limit);
  // Copies through the regions, however small; the bytes moved. Fewer than asked: the table ended, or bus_error().
  u32 copy_to_guest(const u8* data, u32 length);
  u32 copy_from_guest(u8* data, u32 length);

 private:
  bool fetch(); // makes a region with bytes left current. False: none, or bus_error()
  template <class Move>
  u32 copy(u32 length, Move move);
  BusMasterState& s_;
  Dma dma_;
};

} // namespace ide
