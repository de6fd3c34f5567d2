// The action alphabet: everything that can happen to a device, as small values. One alphabet is the fuzzer's input
// (binary), the trace and replay format (text), and a bug report.
//
//   # a line an action; "= result" is checked by replay
//   write 0 0x3 1 0x80          region offset width value
//   read 0 0x3 1 = 0x80
//   step 1000000                ns
//   migrate                     save, make a new device, load
#pragma once

#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "vdev/testing/bench.hpp"

namespace vdev::testing {

enum class Op : u8 {
  Read,        // region offset width
  Write,       // region offset width value
  Peek,        // region offset width
  Step,        // ns
  StepLate,    // ns
  Receive,     // stream byte
  Writable,    // stream, bytes accepted from now on
  IrqIn,       // input level
  Acknowledge, //
  CfgRead,     // function offset width
  CfgWrite,    // function offset width value
  ReadRun,     // region offset width count
  WriteRun,    // region offset width seed; 1 + seed % 64 elements, whose bytes follow from the seed
  Ram,         // address width value: the guest writes its memory
  DmaFault,    // the n-th DMA from now fails
  Complete,    // the n oldest block requests
  CompleteAt,  // the n-th block request, of those there are
  BlockFail,   // the n-th completion from now fails
  Medium,      // drive present
  Migrate,     // save, make a new device, load
  Restart,     // make a new device over the state memory as it lies
  Reset,
  Pause,
  Resume,
};
inline constexpr u32 OP_COUNT = u32(Op::Resume) + 1;

struct Action {
  Op op = Op::Read;
  u8 index = 0; // region, function, stream, drive, input
  u8 width = 1; // 1, 2, 4, 8
  u32 offset = 0;
  u64 value = 0;
  friend bool operator==(const Action&, const Action&) = default;
};

// Binary: 16 bytes an action, little-endian: op, index, width, 0, offset (4), value (8). Any bytes decode; a rest is
// cut.
inline constexpr std::size_t ACTION_BYTES = 16;
std::vector<Action> decode(std::span<const u8> bytes);
std::vector<u8> encode(std::span<const Action> actions);

struct TraceLine {
  Action action;
  std::optional<u64> result; // of Read, Peek, CfgRead, Acknowledge, ReadRun (a hash), Receive (how many)
};
using Trace = std::vector<TraceLine>;
struct TraceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
std::string to_text(const Action& action);
std::string to_text(const Trace& trace);
Trace parse_trace(std::string_view text); // throws TraceError with the line

// Carries one action out. What the device has no place for (a region, a drive) is brought within what it has by
// remainder, or does nothing, so that every sequence can run.
std::optional<u64> run(Bench& bench, const Action& action);
Trace run(Bench& bench, std::span<const Action> actions);
// A line for each result that is not as recorded; empty: the device answered the same.
std::string replay(Bench& bench, const Trace& trace);

// Actions that make sense for this device, mostly reads, writes and steps. Without Migrate and Restart.
using Random = std::mt19937_64;
Action random_action(Bench& shape, Random& random);
std::vector<Action> random_actions(Bench& shape, Random& random, u32 count);

} // namespace vdev::testing
