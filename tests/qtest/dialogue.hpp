// Register dialogues spoken with two machines at once: QEMU, and the shipping library on the SDK's bench.
#pragma once

#include <cstdio>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

#include "qtest_client.hpp"
#include "vdev/testing/properties.hpp"

namespace transom::qtest {

using vdev::u16;
using vdev::u32;
using vdev::u64;
using vdev::u8;

struct Op {
  enum Kind : u8 { Out, In, Irq, Step } kind;
  u16 port;       // Irq: the input; Step: nanoseconds
  u8 value = 0;   // Irq: the level
  u8 mask = 0xff; // In: bits that are compared
};
constexpr Op out(u32 port, u32 value) { return {Op::Out, u16(port), u8(value), 0xff}; }
constexpr Op in(u32 port, u32 mask = 0xff) { return {Op::In, u16(port), 0, u8(mask)}; }
constexpr Op irq(u32 input, bool level) { return {Op::Irq, u16(input), level, 0xff}; }
constexpr Op step(u32 ns) { return {Op::Step, u16(ns)}; } // for ours: QEMU's clock stands still
using Dialogue = std::vector<Op>;

inline std::string to_text(const Op& op) {
  char text[48];
  switch (op.kind) {
    case Op::Out: std::snprintf(text, sizeof text, "out %xh %02xh", op.port, op.value); break;
    case Op::In: std::snprintf(text, sizeof text, "in %xh", op.port); break;
    case Op::Irq: std::snprintf(text, sizeof text, "irq %u %u", op.port, op.value); break;
    case Op::Step: std::snprintf(text, sizeof text, "step %u ns", op.port); break;
  }
  return text;
}

// Ours. Port numbers are found in the descriptor's regions.
class BenchMachine {
 public:
  explicit BenchMachine(const std::string& plugin) : bench(plugin) {}
  u8 in(u16 port) {
    const auto [region, offset] = place(port);
    return u8(bench.in(region, offset, 1));
  }
  void out(u16 port, u8 value) {
    const auto [region, offset] = place(port);
    bench.out(region, offset, 1, value);
  }
  void irq(u32 input, bool level) { bench.irq_in(input, level); }
  void step(u32 ns) { bench.step(ns); }
  vdev::testing::Bench bench;

 private:
  std::pair<u32, u64> place(u16 port) const {
    for (u32 i = 0; i < bench.descriptor().region_count; i++) {
      const vdev_region region = vdev::testing::region_of(bench.descriptor(), i);
      if (port >= region.default_base && port < region.default_base + region.length)
        return {i, port - region.default_base};
    }
    throw std::out_of_range("no region at this port");
  }
};

// QEMU's, with the two 8259A as its interrupt inputs.
class QemuMachine {
 public:
  explicit QemuMachine(const std::vector<std::string>& arguments = {}) : client(arguments) {}
  u8 in(u16 port) { return client.inb(port); }
  void out(u16 port, u8 value) { client.outb(port, value); }
  void irq(u32 input, bool level) {
    if (pics_.empty()) pics_ = client.devices("isa-i8259");
    client.set_irq_in(pics_.at(input / 8), input % 8, level);
  }
  void step(u32) {}
  QtestClient client;

 private:
  std::vector<std::string> pics_;
};

template <class Machine>
std::vector<u8> speak(Machine& machine, const Dialogue& dialogue) {
  std::vector<u8> answers;
  for (const Op& op : dialogue) {
    switch (op.kind) {
      case Op::Out: machine.out(op.port, op.value); break;
      case Op::Irq: machine.irq(op.port, op.value != 0); break;
      case Op::Step: machine.step(op.port); break;
      case Op::In: answers.push_back(u8(machine.in(op.port) & op.mask)); break;
    }
  }
  return answers;
}

// Speaks to both; a failure shows the dialogue up to the first answer that differs.
template <class Ours, class Theirs>
void expect_same_answers(Ours& ours, Theirs& theirs, const Dialogue& dialogue) {
  std::string story;
  for (const Op& op : dialogue) {
    story += "  " + to_text(op);
    if (op.kind == Op::In) {
      const u8 a = u8(ours.in(op.port) & op.mask), b = u8(theirs.in(op.port) & op.mask);
      char text[48];
      std::snprintf(text, sizeof text, " = %02xh (QEMU %02xh)", a, b);
      story += text;
      ASSERT_EQ(a, b) << story;
    } else {
      speak(ours, {op}), speak(theirs, {op});
    }
    story += "\n";
  }
}

// A difference that is meant to be: QEMU answers one thing, the datasheet and we another. The table is run, so that it
// cannot outlive its reason.
struct Accepted {
  const char* what;
  const char* reason;
  Dialogue dialogue;
  std::vector<u8> ours, qemu;
};

#define TRANSOM_NEEDS_QEMU() \
  if (!::transom::qtest::qemu_is_installed()) GTEST_SKIP() << "qemu-system-x86_64 is not installed"

} // namespace transom::qtest
