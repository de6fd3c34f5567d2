// A device for the host's tests that does what no good device does: narrow register files, too many effects in one
// call, a negative status.
#include <vdev/cpp.hpp>

namespace {
using namespace vdev;

enum : u32 { DWORDS, WORDS, CONTROL }; // regions
enum : u32 { TOGGLE, FAIL };           // registers of CONTROL, one byte each

struct State {
  u32 dwords[4] = {};
  u16 words[4] = {};
  u32 accesses = 0;
  static void fields(auto& s, auto&& f) {
    for (u32 i = 0; i < 4; ++i) f(1 + i, "dword", s.dwords[i]), f(11 + i, "word", s.words[i]);
    f(20, "accesses", s.accesses);
  }
  friend bool operator==(const State&, const State&) = default;
};

class Awkward {
 public:
  using State = ::State;
  State& state;
  static constexpr vdev_region regions[] = {
      {sizeof(vdev_region), VDEV_SPACE_PIO, "dwords", 0x100, 14, VDEV_WIDTH_4, 0}, // the last one is cut short
      {sizeof(vdev_region), VDEV_SPACE_PIO, "words", 0x200, 8, VDEV_WIDTH_2, 0},
      {sizeof(vdev_region), VDEV_SPACE_PIO, "control", 0x300, 4, VDEV_WIDTH_1, 0},
  };
  static constexpr const char* irqs[] = {"intr"};
  static constexpr vdev_descriptor descriptor = {
      sizeof(vdev_descriptor), 1, "org.transom.awkward", "Test device", "Transom", "1.0.0", regions, 3, 1, irqs};

  Awkward(State& s, const Host& host) : state(s), intr_(host.irq()) {}
  u64 read(u32 region, u64 offset, u32) {
    state.accesses++;
    return region == DWORDS ? state.dwords[offset / 4] : region == WORDS ? state.words[offset / 2] : 0;
  }
  u64 peek(u32, u64, u32) const { return 0; }
  void write(u32 region, u64 offset, u32, u64 value) {
    state.accesses++;
    if (region == DWORDS) state.dwords[offset / 4] = u32(value);
    if (region == WORDS) state.words[offset / 2] = u16(value);
    if (region == CONTROL && offset == TOGGLE)
      for (u64 i = 0; i < value; ++i) intr_.set((i & 1) == 0);
  }
  void reset() { state = State{}; }

 private:
  Irq intr_;
};

using Base = Library<Awkward>;
const vdev_factory* base() { return static_cast<const vdev_factory*>(Base::get_factory(VDEV_FACTORY)); }

// The C++ face cannot fail a write; the ABI can.
vdev_status (*good_write)(const vdev_device*, u32, u64, u32, u64);
vdev_status failing_write(const vdev_device* device, u32 region, u64 offset, u32 width, u64 value) {
  return region == CONTROL && offset == FAIL ? VDEV_FAILED : good_write(device, region, offset, width, value);
}
const vdev_device* create(const vdev_host* host, const char* id) {
  static vdev_device patched[64];
  static u32 next = 0;
  const vdev_device* made = base()->create(host, id);
  if (made == nullptr) return nullptr;
  vdev_device& mine = patched[next++ % 64];
  mine = *made;
  good_write = made->write;
  mine.write = failing_write;
  return &mine;
}
const void* get_factory(const char* id) {
  static const vdev_factory factory{base()->count, base()->descriptor, create};
  return base() != nullptr && std::strcmp(id, VDEV_FACTORY) == 0 ? &factory : nullptr;
}
[[gnu::section(VDEV_MANIFEST_SECTION), gnu::used, gnu::retain, gnu::aligned(8)]] constexpr auto manifest =
    make_manifest<Awkward>();

} // namespace

extern "C" VDEV_EXPORT const vdev_entry_t vdev_entry = {VDEV_ABI_MAJOR, VDEV_ABI_MINOR, &Base::init, &Base::deinit,
                                                        &get_factory};
