// A chip that has every member function which the C++ face recognises; its registers serve the tests beside it.
//
// Region "regs", bytes:  0 VALUE   read/write; "irq" follows its bit 0        1 COUNT   how often sync() ran (not
// saved)
//                        2 START   write: reads sector `value` of the drive into bulk memory; read: its first byte
//                        3 TIMER   write: expires after `value` ticks of 105/88 MHz, and then sets VALUE to 1
// Region "bar", 32 bit:  a scratch word that is bulk memory 1
#include "vdev/cpp.hpp"

namespace everything {
using namespace vdev;

enum : u64 { VALUE, COUNT, START, TIMER };
enum class Mode : u8 { Idle, Reading, Failed };

struct Port {
  u16 latch = 7;
  bool gate = false;
  Fifo<u8, 2> bytes;
  friend bool operator==(const Port&, const Port&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [latch, gate, bytes] = s;
    f(1, "latch", latch);
    f(2, "gate", gate);
    f(3, "bytes", bytes);
  }
};

struct State {
  u8 value = 0, vector = 0x20;
  Mode mode = Mode::Idle;
  bool paused = false;
  u64 deadline = VDEV_NEVER;
  std::array<Port, 2> ports;
  std::array<std::array<u16, 2>, 2> grid{{{1, 2}, {3, 4}}};
  u32 inputs = 0;
  u8 config[4] = {};
  bool valid() const { return ports[0].bytes.valid() && ports[1].bytes.valid() && value != 0xee; }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [value, vector, mode, paused, deadline, ports, grid, inputs, config] = s;
    f(1, "value", value);
    f(2, "vector", vector);
    f(3, "mode", mode, u64(Mode::Failed));
    f(4, "paused", paused);
    f(5, "deadline", deadline);
    f(6, "port", ports);
    f(7, "grid", grid);
    f(8, "inputs", inputs);
    f(9, "config", config);
  }
};

class Chip {
 public:
  using State = everything::State;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x600, 4, VDEV_WIDTH_1, 0},
      {sizeof(vdev_region), VDEV_SPACE_MMIO, "bar", 0, 16, VDEV_WIDTH_4, VDEV_REGION_BAR}};
  static constexpr const char* irqs[] = {"irq"};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 2, "org.transom.test.everything", "Everything", "Transom", "1.0.0", regions, 2, 1, irqs};
  static constexpr vdev_config_key config[] = {
      {"start", VDEV_CONFIG_INTEGER, "5", "First value of VALUE.", 0, 255},
      {"count", VDEV_CONFIG_BOOLEAN, "false", "COUNT counts; it is not saved."},
      {"refuse", VDEV_CONFIG_STRING, "", "A reason not to be created."}};
  static constexpr u32 drive_count = 1, stream_count = 2, irq_inputs = 3;
  static constexpr u64 bulk[] = {512, 16};
  static constexpr vdev_pci_bar bars[] = {{sizeof(vdev_pci_bar), 2, 1, VDEV_BAR_MEM32}};
  static constexpr vdev_pci_function pci_functions[] = {{sizeof(vdev_pci_function), VDEV_PCI_ANY_SLOT, 0, 0x1234,
                                                         0x5678, 0x1af4, 1, 0xff0000, 3, 0, 1, 0, 0x0280, 0, 0, bars,
                                                         1}};
  static constexpr vdev_posted_range posted[] = {{sizeof(vdev_posted_range), 1, 0, 16, 0, 0}};

  Chip(State& s, const Host& h)
      : state(s),
        irq_(h.required<Irq>(0)),
        clock_(h.clock()),
        dma_(h.dma()),
        wire_(h.wire()),
        disk_(h.disk(0)),
        streams_{h.stream(0), h.stream(1)},
        sector_(h.bulk(0, bulk[0])),
        words_(h.bulk(1, bulk[1])) {
    if (const char* why = h.config().string("refuse"); *why) h.refuse(VDEV_INVALID, why);
    counts_ = h.config().boolean("count");
    if (h.fresh()) state.value = u8(h.config().integer("start"));
    h.log().info("made at %u", unsigned(state.value));
  }

  u64 read(u32 region, u64 off, u32 width) { return peek(region, off, width); }
  u64 peek(u32 region, u64 off, u32) const {
    if (region == 1) return words_.load<u32>(off);
    switch (off) {
      case VALUE: return state.value;
      case COUNT: return counts_ ? syncs_ : 0;
      case START: return sector_.load(0);
      default: return u64(state.mode);
    }
  }
  void write(u32 region, u64 off, u32, u64 v) {
    if (region == 1) return words_.store(off, u32(v));
    if (off == VALUE) state.value = u8(v);
    if (off == START) start(v);
    if (off == TIMER) state.deadline = PIT_RATE.ns(PIT_RATE.ticks(clock_.now()) + v);
  }
  void reset() {
    state = State{};
    state.value = 9;
  }
  void sync() {
    ++syncs_;
    irq_.set(state.value & 1);
    wire_.a20(state.value & 2);
  }
  u64 next_event() const { return state.deadline; }
  void expire(u64) {
    state.deadline = VDEV_NEVER;
    state.value = 1;
  }
  u32 room(u32 stream) const { return state.ports[stream & 1].bytes.room(); }
  void receive(u32 stream, u8 byte) { state.ports[stream & 1].bytes.push(byte); }
  void writable(u32 stream) { streams_[stream & 1].put('w'); }
  void block_done(u32, u64 tag, vdev_status status, u64 bytes) {
    state.mode = status == VDEV_OK && tag == 77 && bytes == 512 ? Mode::Idle : Mode::Failed;
  }
  void medium_changed(u32 drive) { state.vector = disk_.info().medium && drive == 0 ? 0x31 : 0x30; }
  void irq_in(u32 input, bool level) { state.inputs = (state.inputs & ~(1u << input)) | u32{level} << input; }
  u8 acknowledge() { return state.vector++; }
  u32 read_config(u32, u32 offset, u32) { return state.config[offset & 3]; }
  void write_config(u32, u32 offset, u32, u32 value) { state.config[offset & 3] = u8(value); }
  bool read_run(u32 region, u64 off, u32 width, u32 count, u8* data) {
    if (region != 0 || off != VALUE) return false;
    for (u32 i = 0; i < count * width; ++i) data[i] = 0xaa;
    return true;
  }
  void pause() { state.paused = true; }
  void resume() { state.paused = false; }
  static void migrate(State& s, u32 from) {
    if (from == 1) s.inputs = 0x111;
  }

 private:
  void start(u64 sector) {
    const vdev_segment segments[] = {sector_.segment(0, 512)};
    state.mode = disk_.submit(VDEV_BLOCK_READ, 77, sector, 512, segments) == VDEV_OK ? Mode::Reading : Mode::Failed;
  }
  State& state;
  Irq irq_;
  Clock clock_;
  Dma dma_;
  Wire wire_;
  Disk disk_;
  Stream streams_[2];
  Bulk sector_, words_;
  bool counts_ = false;
  u8 syncs_ = 0;
};

// A second chip in the library: one byte region, and nothing else.
class Least {
 public:
  struct State {
    u8 scratch = 3;
    static void fields(auto& s, auto&& f) { f(1, "scratch", s.scratch); }
  };
  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x80, 1, VDEV_WIDTH_1, 0}};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.test.least", "Least", "Transom", "1.0.0", regions, 1, 0, nullptr};
  Least(State& s, const Host&) : state(s) {}
  u8 read(u64) { return state.scratch; }
  void write(u64, u8 v) { state.scratch = v; }

 private:
  State& state;
};

// A third, which breaks two promises: its list of fields lacks a member, and a posted write moves a wire.
class Careless {
 public:
  struct State {
    u8 listed = 0;
    u16 forgotten = 0;
    friend bool operator==(const State&, const State&) = default;
    static void fields(auto& s, auto&& f) { f(1, "listed", s.listed); }
  };
  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x90, 2, VDEV_WIDTH_1, 0}};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.test.careless", "Careless", "Transom", "1.0.0", regions, 1, 0, nullptr};
  static constexpr vdev_posted_range posted[] = {{sizeof(vdev_posted_range), 0, 0, 1, 0, 0}};
  Careless(State& s, const Host& h) : state(s), wire_(h.wire()) {}
  u8 read(u64 off) { return off ? u8(state.forgotten) : state.listed; }
  void write(u64 off, u8 v) {
    if (off) {
      state.forgotten = v;
    } else {
      state.listed = v;
      wire_.a20(v & 1);
    }
  }

 private:
  State& state;
  Wire wire_;
};

} // namespace everything

VDEV_PLUGIN(everything::Chip, everything::Least, everything::Careless);
