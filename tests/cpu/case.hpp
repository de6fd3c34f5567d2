// One differential test: instructions, the state they start from, and what came of them.
#pragma once

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::cpu_test {

// The same linear addresses natively and in the guest. All of it lies below 1 GiB + 4 KiB, where nothing else of a
// position-independent test program is.
inline constexpr u64 DATA = 0x2000'0000; // two pages read/write, one read-only, nothing around them
inline constexpr u64 DATA_WRITABLE = 0x2000, DATA_SIZE = 0x3000;
inline constexpr u64 CODE = 0x4000'0000; // two pages, filled with INT3 around the instructions; nothing behind them
inline constexpr u64 CODE_SIZE = 0x2000;
inline constexpr u64 CODE_START = CODE + 0x400; // of most cases
inline constexpr unsigned MAX_CODE = 512;
// The same pages are there once more above 4 GiB, for 64-bit code whose RIP does not fit into 32 bits.
inline constexpr u64 HIGH = u64{1} << 36;

// bits16: segments over code and data alone, with byte-granular limits and a 32-bit stack pointer.
enum class Mode : u8 { bits64, bits32, bits16 };
constexpr u64 code_base(Mode m) { return m == Mode::bits16 ? CODE : 0; }
constexpr u64 data_base(Mode m) { return m == Mode::bits16 ? DATA : 0; }
inline constexpr u16 LDT_CODE = 0x07, LDT_DATA = 0x0f; // selectors of those segments

struct State {
  u64 gpr[16] = {};
  u64 rip = 0;
  u64 rflags = 0x202;
  soft::Fx fx;
};

struct Poke { // eight bytes of the arena that differ from its pattern
  u64 address, value;
};

struct Case {
  Mode mode = Mode::bits64;
  std::array<u8, MAX_CODE> code{};
  unsigned code_size = 0;
  u64 start = CODE_START; // linear address of code[0], with HIGH set or not
  State initial;          // rip is start in the segment
  std::array<Poke, 24> poke{};
  unsigned pokes = 0;
};

// vector 3: the end was reached (or another INT3 around the code), with rip at that INT3.
inline constexpr int HUNG = -1;
struct Outcome {
  State state;
  int vector = HUNG;
  u32 error = 0;
  u64 cr2 = 0;
  std::vector<u8> data;    // DATA_WRITABLE bytes
  bool wrote_code = false; // host only
  u64 instructions = 0;    // software CPU only: those that completed
  u64 translated = 0;      // of those, the ones that ran as code of the host
};

// The arena before the pokes: the same for every case.
const std::vector<u8>& arena_pattern();
void fill_arena(const Case& c, u8* data); // the writable part

std::string describe(const Case& c);

} // namespace transom::cpu_test
