// A device that exists for tests: of the memory map, access widths, posted writes, string I/O, DMA, timers, block
// requests and interrupts. Bare-metal guests and the host's own tests program it.
// Models:  itself. Missing: nothing. Ignored bits: none; every register is 8 bytes wide and takes any narrower access.
// Source:  the register table in README.md.
#pragma once

#include <vdev/cpp.hpp>

namespace mmio_test {
using namespace vdev;

enum : u32 { MMIO, PIO }; // regions

// Offsets in "mmio".
enum : u64 {
  SCRATCH = 0x000, // 16 words of memory
  SCRATCH_END = 0x080,
  ID = 0x100,     // read-only
  WRITES = 0x108, // read-only: writes to this region since reset, posted ones too
  IRQ = 0x110,    // bit 0: level of "intr"; a timer or a completion sets it, the guest clears it
  DMA_SOURCE = 0x118,
  DMA_TARGET = 0x120,
  DMA_LENGTH = 0x128,
  DMA_COMMAND = 0x130, // write: copies now; read: DmaResult of the last copy
  TIMER = 0x138,       // write: nanoseconds from now, 0 stops; read: the deadline
  EXPIRED = 0x140,     // read-only: how often the timer ran out
  BLOCK_SECTOR = 0x148,
  BLOCK_ADDRESS = 0x150,
  BLOCK_BYTES = 0x158,
  BLOCK_COMMAND = 0x160, // write: VDEV_BLOCK_READ, WRITE or FLUSH; ignored while one is running
  BLOCK_STATUS = 0x168,  // read-only: BlockStatus
  BLOCK_DONE = 0x170,    // read-only: completions since reset
  POSTED = 0x180,        // 8 words whose writes nobody waits for
  POSTED_END = 0x1c0,
  DOORBELL = 0x1c0, // posted, and wakes the host
  RINGS = 0x1c8     // read-only: writes to DOORBELL
};

// Offsets in "pio".
enum : u64 {
  DATA = 0,     // reads count up from 0, one step a read; writes add to SUM. The only port with runs
  SUM = 4,      // read-only; a write clears SUM, RUNS, ELEMENTS and the pattern
  RUNS = 8,     // read-only: string runs that came in one call
  ELEMENTS = 12 // read-only: accesses to DATA, alone or in a run
};

inline constexpr u64 ID_VALUE = 0x54534554'4f494d4d; // "MMIOTEST"
inline constexpr u64 DMA_LIMIT = 65536;              // bytes a command
inline constexpr u64 BLOCK_LIMIT = 65536;
enum DmaResult : u64 { DMA_OK = 0, DMA_FAULT = 1, DMA_TOO_LONG = 2 };
enum BlockStatus : u64 { BLOCK_IDLE = 0, BLOCK_BUSY = 1, BLOCK_OK = 2, BLOCK_FAILED = 3 };

struct State {
  std::array<u64, 16> scratch{};
  std::array<u64, 8> posted{};
  u64 writes = 0, irq = 0;
  u64 dma_source = 0, dma_target = 0, dma_length = 0, dma_result = DMA_OK;
  u64 deadline = 0, expired = 0; // deadline 0: stopped
  u64 block_sector = 0, block_address = 0, block_bytes = 0, block_status = BLOCK_IDLE, block_done = 0;
  u64 doorbell = 0, rings = 0;
  u32 next = 0, sum = 0, runs = 0, elements = 0;

  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [scratch, posted, writes, irq, dma_source, dma_target, dma_length, dma_result, deadline, expired,
           block_sector, block_address, block_bytes, block_status, block_done, doorbell, rings, next, sum, runs,
           elements] = s;
    f(1, "scratch", scratch), f(2, "posted", posted), f(3, "writes", writes), f(4, "irq", irq, 1);
    f(5, "dma_source", dma_source), f(6, "dma_target", dma_target), f(7, "dma_length", dma_length);
    f(8, "dma_result", dma_result, DMA_TOO_LONG), f(9, "deadline", deadline), f(10, "expired", expired);
    f(11, "block_sector", block_sector), f(12, "block_address", block_address), f(13, "block_bytes", block_bytes);
    f(14, "block_status", block_status, BLOCK_FAILED), f(15, "block_done", block_done);
    f(16, "doorbell", doorbell), f(17, "rings", rings), f(18, "next", next), f(19, "sum", sum);
    f(20, "runs", runs), f(21, "elements", elements);
  }
};

class MmioTest {
 public:
  using State = mmio_test::State;
  State& state;
  static constexpr u32 ANY_WIDTH = VDEV_WIDTH_1 | VDEV_WIDTH_2 | VDEV_WIDTH_4 | VDEV_WIDTH_8;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_MMIO, "mmio", 0xd0000000, 0x1000, ANY_WIDTH, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "pio", 0x1000, 16, VDEV_WIDTH_1 | VDEV_WIDTH_2 | VDEV_WIDTH_4, 0},
  };
  static constexpr vdev_posted_range posted[] = {
      {sizeof(vdev_posted_range), MMIO, POSTED, POSTED_END - POSTED, 0, 0},
      {sizeof(vdev_posted_range), MMIO, DOORBELL, 8, VDEV_POSTED_DOORBELL, 0},
  };
  static constexpr const char* irqs[] = {"intr"};
  static constexpr vdev_descriptor descriptor = {
      sizeof(vdev_descriptor), 1, "org.transom.mmio-test", "Test device", "Transom", "1.0.0", regions, 2, 1, irqs};
  static constexpr u32 drive_count = 1;

  MmioTest(State& s, const Host& host)
      : state(s), intr_(host.irq()), dma_(host.dma()), disk_(host.disk()), clock_(host.clock()) {}

  u64 read(u32 region, u64 offset, u32 width);
  void write(u32 region, u64 offset, u32 width, u64 value);
  u64 peek(u32 region, u64 offset, u32 width) const;
  bool read_run(u32 region, u64 offset, u32 width, u32 count, u8* data);
  bool write_run(u32 region, u64 offset, u32 width, u32 count, const u8* data);
  u64 next_event() const { return state.deadline ? state.deadline : VDEV_NEVER; }
  void expire(u64 now);
  void block_done(u32 drive, u64 tag, vdev_status status, u64 bytes);
  void reset();
  void sync() { intr_.set(state.irq & 1); }

 private:
  u64 word(u64 offset) const;
  void write_word(u64 offset, u64 value);
  u32 port(u64 offset) const;
  void copy();
  void submit(u64 command);

  vdev::Irq intr_;
  Dma dma_;
  Disk disk_;
  Clock clock_;
};

} // namespace mmio_test
