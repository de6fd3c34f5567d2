#include "vdev/testing/actions.hpp"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace vdev::testing {

namespace {

// The name of each op, and which of index, offset, width, value it has, in the order of its text.
struct OpText {
  const char* name;
  const char* arguments;
};
constexpr OpText OPS[OP_COUNT] = {
    {"read", "iow"},       {"write", "iowv"},    {"peek", "iow"},       {"step", "v"},       {"step-late", "v"},
    {"receive", "iv"},     {"writable", "iv"},   {"irq-in", "iv"},      {"acknowledge", ""}, {"cfg-read", "iow"},
    {"cfg-write", "iowv"}, {"read-run", "iowv"}, {"write-run", "iowv"}, {"ram", "owv"},      {"dma-fault", "v"},
    {"complete", "v"},     {"complete-at", "v"}, {"block-fail", "v"},   {"medium", "iv"},    {"migrate", ""},
    {"restart", ""},       {"reset", ""},        {"pause", ""},         {"resume", ""},
};

constexpr u64 MOST_NS = u64{1} << 40; // 18 minutes: enough for every timer of a PC
constexpr u32 MOST_FIRINGS = 2000;    // of timers in one action
constexpr u32 RUN_ELEMENTS = 64;

void sanitise(Action& action) {
  action.op = Op(u32(action.op) % OP_COUNT);
  const u8 w = action.width;
  if (w != 1 && w != 2 && w != 4 && w != 8) action.width = u8(1u << (w % 4));
  const std::string_view has = OPS[u32(action.op)].arguments;
  if (has.find('i') == has.npos) action.index = 0;
  if (has.find('o') == has.npos) action.offset = 0;
  if (has.find('w') == has.npos) action.width = 1;
  if (has.find('v') == has.npos) action.value = 0;
}

std::vector<u8> run_bytes(u64 seed, u32 width) {
  std::vector<u8> bytes(std::size_t{width} * (1 + seed % RUN_ELEMENTS));
  for (u8& byte : bytes) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    byte = u8(seed >> 56);
  }
  return bytes;
}

u64 hash(std::span<const u8> bytes) {
  u64 value = 0xcbf29ce484222325;
  for (const u8 byte : bytes) value = (value ^ byte) * 0x100000001b3;
  return value;
}

} // namespace

std::vector<Action> decode(std::span<const u8> bytes) {
  std::vector<Action> actions;
  for (; bytes.size() >= ACTION_BYTES; bytes = bytes.subspan(ACTION_BYTES)) {
    Action action{Op(bytes[0] % OP_COUNT), bytes[1], bytes[2], 0, 0};
    std::memcpy(&action.offset, &bytes[4], 4);
    std::memcpy(&action.value, &bytes[8], 8);
    sanitise(action);
    actions.push_back(action);
  }
  return actions;
}

std::vector<u8> encode(std::span<const Action> actions) {
  std::vector<u8> bytes;
  for (const Action& action : actions) {
    u8 record[ACTION_BYTES] = {u8(action.op), action.index, action.width, 0};
    std::memcpy(record + 4, &action.offset, 4);
    std::memcpy(record + 8, &action.value, 8);
    bytes.insert(bytes.end(), record, record + ACTION_BYTES);
  }
  return bytes;
}

std::string to_text(const Action& action) {
  const OpText& op = OPS[u32(action.op)];
  std::string text = op.name;
  char number[32];
  for (const char* a = op.arguments; *a; ++a) {
    const u64 value = *a == 'i' ? action.index : *a == 'o' ? action.offset : *a == 'w' ? action.width : action.value;
    std::snprintf(number, sizeof number, *a == 'o' || *a == 'v' ? " %#" PRIx64 : " %" PRIu64, value);
    text += number;
  }
  return text;
}

std::string to_text(const Trace& trace) {
  std::string text;
  char number[32];
  for (const TraceLine& line : trace) {
    text += to_text(line.action);
    if (line.result) {
      std::snprintf(number, sizeof number, " = %#" PRIx64, *line.result);
      text += number;
    }
    text += "\n";
  }
  return text;
}

namespace {

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t start = line.find_first_not_of(" \t\r");
    if (start == line.npos || line[start] == '#') return words;
    line.remove_prefix(start);
    const std::size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

u64 parse_number(std::string_view word, const std::string& where) {
  const int base = word.starts_with("0x") ? 16 : 10;
  const std::string_view digits = base == 16 ? word.substr(2) : word;
  u64 value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) {
    throw TraceError(where + "'" + std::string(word) + "' is no number");
  }
  return value;
}

TraceLine parse_line(const std::vector<std::string_view>& words, const std::string& where) {
  const auto* op = std::find_if(std::begin(OPS), std::end(OPS), [&](const OpText& o) { return words[0] == o.name; });
  if (op == std::end(OPS)) throw TraceError(where + "no action '" + std::string(words[0]) + "'");
  TraceLine line;
  line.action.op = Op(op - OPS);
  const std::size_t wanted = 1 + std::strlen(op->arguments);
  const bool has_result = words.size() == wanted + 2 && words[wanted] == "=";
  if (words.size() != wanted && !has_result)
    throw TraceError(where + "'" + op->name + "' takes " + std::to_string(wanted - 1) + " numbers");
  for (std::size_t i = 1; i < wanted; ++i) {
    const u64 value = parse_number(words[i], where);
    const char kind = op->arguments[i - 1];
    const u64 most = kind == 'i' ? 0xff : kind == 'o' ? 0xffffffff : kind == 'w' ? 8 : ~u64{0};
    const bool width_is_good = kind != 'w' || value == 1 || value == 2 || value == 4 || value == 8;
    if (value > most || !width_is_good)
      throw TraceError(where + "'" + std::string(words[i]) + "' is not accepted here");
    if (kind == 'i') line.action.index = u8(value);
    if (kind == 'o') line.action.offset = u32(value);
    if (kind == 'w') line.action.width = u8(value);
    if (kind == 'v') line.action.value = value;
  }
  if (has_result) line.result = parse_number(words[wanted + 1], where);
  return line;
}

} // namespace

Trace parse_trace(std::string_view text) {
  Trace trace;
  for (u32 number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::vector<std::string_view> words = words_of(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!words.empty()) trace.push_back(parse_line(words, "line " + std::to_string(number) + ": "));
  }
  return trace;
}

namespace {

std::optional<u64> run_register(Bench& bench, const Action& a) {
  if (bench.region_count() == 0) return std::nullopt;
  const u32 region = a.index % bench.region_count();
  const u64 offset = a.offset % bench.region_at(region).length;
  switch (a.op) {
    case Op::Read: return bench.in(region, offset, a.width);
    case Op::Write: bench.out(region, offset, a.width, a.value); return std::nullopt;
    case Op::ReadRun: return hash(bench.in_run(region, offset, a.width, 1 + u32(a.value % RUN_ELEMENTS)));
    case Op::WriteRun: bench.out_run(region, offset, a.width, run_bytes(a.value, a.width)); return std::nullopt;
    default: break;
  }
  const vdev_region& r = bench.region_at(region);
  const bool legal = (r.widths & a.width) != 0 && offset % a.width == 0 && a.width <= r.length - offset;
  return legal ? bench.peek(region, offset, a.width) : std::nullopt;
}

std::optional<u64> run_config(Bench& bench, const Action& a) {
  if (bench.function_count() == 0) return std::nullopt;
  const u32 function = a.index % bench.function_count(), width = a.width > 4 ? 4 : a.width;
  const u32 offset = a.offset % 256 & ~(width - 1);
  if (a.op == Op::CfgRead) return bench.cfg_read(function, offset, width);
  bench.cfg_write(function, offset, width, u32(a.value));
  return std::nullopt;
}

void run_block(Bench& bench, const Action& a) {
  FakeHost& host = bench.host;
  if (a.op == Op::Complete) bench.complete(u32(a.value % 33));
  if (a.op == Op::CompleteAt && !host.pending.empty()) bench.complete_at(a.value % host.pending.size());
  if (a.op == Op::BlockFail) host.block_fails_in = u32(a.value % 64);
  if (a.op == Op::Medium && !host.drives.empty()) bench.set_medium(a.index % u32(host.drives.size()), a.value & 1);
}

std::optional<u64> run_signal(Bench& bench, const Action& a) {
  const u32 stream = std::min(bench.host.stream_count, 16u) == 0 ? 0 : a.index % std::min(bench.host.stream_count, 16u);
  const char byte = char(a.value);
  switch (a.op) {
    case Op::Receive: return bench.send({&byte, 1}, stream);
    case Op::Writable: bench.writable(stream, a.value); return std::nullopt;
    case Op::IrqIn:
      if (const u32 inputs = bench.irq_inputs()) bench.irq_in(a.index % inputs, a.value & 1);
      return std::nullopt;
    default: break;
  }
  if (!bench.has_intack()) return std::nullopt;
  return bench.acknowledge();
}

void write_ram(Bench& bench, const Action& a) {
  std::vector<u8>& ram = bench.host.ram;
  if (ram.size() < 8) return;
  std::memcpy(ram.data() + a.offset % (ram.size() - 7), &a.value, a.width);
}

} // namespace

std::optional<u64> run(Bench& bench, const Action& a) {
  switch (a.op) {
    case Op::Read:
    case Op::Write:
    case Op::Peek:
    case Op::ReadRun:
    case Op::WriteRun: return run_register(bench, a);
    case Op::CfgRead:
    case Op::CfgWrite: return run_config(bench, a);
    case Op::Receive:
    case Op::Writable:
    case Op::IrqIn:
    case Op::Acknowledge: return run_signal(bench, a);
    case Op::Complete:
    case Op::CompleteAt:
    case Op::BlockFail:
    case Op::Medium: run_block(bench, a); break;
    case Op::Step: bench.step(a.value % MOST_NS, MOST_FIRINGS); break;
    case Op::StepLate: bench.step_late(a.value % MOST_NS); break;
    case Op::Ram: write_ram(bench, a); break;
    case Op::DmaFault: bench.host.dma_faults_in = u32(a.value % 64); break;
    case Op::Migrate: bench.migrate(); break;
    case Op::Restart: bench.restart(); break;
    case Op::Reset: bench.reset(); break;
    case Op::Pause: bench.pause(); break;
    case Op::Resume: bench.resume(); break;
  }
  return std::nullopt;
}

Trace run(Bench& bench, std::span<const Action> actions) {
  Trace trace;
  for (const Action& action : actions) trace.push_back({action, run(bench, action)});
  return trace;
}

std::string replay(Bench& bench, const Trace& trace) {
  std::string text;
  for (std::size_t i = 0; i < trace.size(); ++i) {
    const std::optional<u64> result = run(bench, trace[i].action);
    if (!trace[i].result || result == trace[i].result) continue;
    text += "action " + std::to_string(i + 1) + ": " + to_text(Trace{{trace[i].action, result}});
    text.pop_back();
    text += ", recorded" + to_text(Trace{trace[i]}).substr(to_text(trace[i].action).size());
  }
  return text;
}

namespace {

// Mostly values at which something happens: few bits, or all of them.
u64 random_value(Random& random) {
  switch (random() % 6) {
    case 0: return 0;
    case 1: return ~u64{0};
    case 2: return u64{1} << (random() % 64);
    case 3: return random() & random() & 0xff;
    case 4: return random() & 0xff;
    default: return random();
  }
}

// Nanoseconds of every magnitude up to a second.
u64 random_time(Random& random) { return random() % ((u64{1} << (1 + random() % 30))); }

Op random_op(Bench& shape, Random& random) {
  std::vector<Op> rare = {Op::Peek,    Op::StepLate, Op::Reset, Op::Ram,   Op::DmaFault,
                          Op::Receive, Op::Writable, Op::Pause, Op::Resume};
  if (shape.irq_inputs()) rare.insert(rare.end(), {Op::IrqIn, Op::IrqIn, Op::IrqIn, Op::Acknowledge});
  if (shape.function_count()) rare.insert(rare.end(), {Op::CfgRead, Op::CfgWrite, Op::CfgWrite});
  if (shape.has_runs()) rare.insert(rare.end(), {Op::ReadRun, Op::WriteRun});
  if (!shape.host.drives.empty()) {
    rare.insert(rare.end(), {Op::Complete, Op::Complete, Op::Complete, Op::CompleteAt, Op::BlockFail, Op::Medium});
  }
  const u64 dice = random() % 100;
  if (dice < 28) return Op::Read;
  if (dice < 64) return Op::Write;
  if (dice < 74) return Op::Step;
  return rare[random() % rare.size()];
}

} // namespace

Action random_action(Bench& shape, Random& random) {
  Action action;
  action.op = random_op(shape, random);
  action.index = u8(random());
  action.offset = u32(random());
  action.value = random_value(random);
  action.width = random() % 4 ? 1 : u8(1u << (random() % 4));
  if (action.op == Op::Step || action.op == Op::StepLate) action.value = random_time(random);
  if (const u32 regions = shape.region_count()) {
    action.index = action.op <= Op::Peek ? u8(action.index % regions) : action.index;
    const vdev_region& region = shape.region_at(action.index % regions);
    if (random() % 4) action.width = u8(region.widths & (~region.widths + 1)); // its own width
    if (action.op <= Op::Peek && action.width)
      action.offset = u32(action.offset % region.length & ~u64(action.width - 1));
  }
  sanitise(action);
  return action;
}

std::vector<Action> random_actions(Bench& shape, Random& random, u32 count) {
  std::vector<Action> actions;
  for (u32 i = 0; i < count; ++i) actions.push_back(random_action(shape, random));
  return actions;
}

} // namespace vdev::testing
