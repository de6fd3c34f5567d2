// What is left in memory when the device host is killed at each labelled point of a dispatch, and what recover() makes
// of it: a dispatch that had not committed never happened, one that had happened once.
#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/recovery.hpp"
#include "tests/crash/host_under_test.hpp"
#include "vdev/ext/block.h"

namespace transom::tests {
namespace {

enum class Way { mmio, pio, config, posted, irq_in };
struct Access {
  Way way;
  u16 region; // irq_in: the input
  u64 offset;
  u32 width;
  u64 value;
};
struct Case {
  const char* name;
  DevicePlan device;
  std::vector<Access> before; // what brings the device to the brink, a dispatch each
  Access access;              // the dispatch in which the host dies
  u32 effects;                // how many that one has
  bool repeatable;            // its outcome does not depend on the time
  bool changes_state = true;
};

DevicePlan device(const std::string& name, const std::string& library, const std::string& id) {
  DevicePlan plan;
  plan.name = name;
  plan.plugin = std::string(TRANSOM_PLUGIN_DIR) + "/" + library + ".so";
  plan.id = "org.transom." + id;
  return plan;
}
DevicePlan with_disk(DevicePlan plan) {
  plan.drives.resize(4);
  plan.drives[0].kind = VDEV_DRIVE_DISK;
  plan.drives[0].name = "disk0";
  plan.drives[0].delay_us = 20'000'000; // no completion comes while a test looks
  return plan;
}
DevicePlan with_stream(DevicePlan plan) {
  plan.streams.resize(1);
  return plan;
}

// Of mmio_test's State: sixteen words of scratch, eight posted ones, and twelve fields before it.
u32 offset_of_block_status() { return 8 * (16 + 8 + 11); }

std::vector<Case> cases() {
  using enum Way;
  const DevicePlan mmio_test = with_disk(device("mmio0", "mmio_test", "mmio-test"));
  return {
      {"an interrupt line", mmio_test, {{mmio, 0, 0, 8, 1}}, {mmio, 0, 0x110, 8, 1}, 1, true},
      {"a register and no effect", mmio_test, {{mmio, 0, 0, 8, 1}}, {mmio, 0, 0, 8, 2}, 0, true},
      {"a block request",
       mmio_test,
       {{mmio, 0, 0x150, 8, 0x1000}, {mmio, 0, 0x158, 8, 512}},
       {mmio, 0, 0x160, 8, 1},
       1,
       true},
      {"a posted write", mmio_test, {{posted, 0, 0x1c0, 8, 1}}, {posted, 0, 0x1c0, 8, 7}, 0, true},
      {"a byte from the UART: its interrupt falls and rises, the byte goes out",
       with_stream(device("uart0", "uart", "uart16550")),
       {{pio, 0, 4, 1, 0x08}, {pio, 0, 1, 1, 0x02}}, // MCR OUT2; IER: transmitter empty
       {pio, 0, 0, 1, 'x'},
       3,
       false,
       false},
      {"a PIC that is unmasked with a request waiting",
       device("pic_pit", "pic_pit", "pic-pit"),
       {{pio, 0, 0, 1, 0x11},
        {pio, 0, 1, 1, 0x20},
        {pio, 0, 1, 1, 4},
        {pio, 0, 1, 1, 1},
        {pio, 0, 1, 1, 0xff},
        {irq_in, 5, 0, 1, 1}},
       {pio, 0, 1, 1, 0xdf},
       1,
       false},
      {"a line that reaches the PIC",
       device("pic_pit", "pic_pit", "pic-pit"),
       {{pio, 0, 0, 1, 0x11}, {pio, 0, 1, 1, 0x20}, {pio, 0, 1, 1, 4}, {pio, 0, 1, 1, 1}, {pio, 0, 1, 1, 0xdf}},
       {irq_in, 5, 0, 1, 1},
       1,
       false},
      {"an IDE command: the interrupt of the last falls, the request is queued",
       with_disk(device("ide", "ide", "piix-ide")),
       {{config, 0, 0x40, 2, 0x8000}, {pio, 0, 6, 1, 0xe0}, {pio, 0, 2, 1, 1}, {pio, 0, 7, 1, 0x91}, {pio, 0, 2, 1, 1}},
       {pio, 0, 7, 1, 0x20},
       2,
       true},
  };
}

bool is_posted(const Access& a) { return a.way == Way::posted || a.way == Way::irq_in; }

// True: answered, or taken.
bool perform(HostUnderTest& host, const Access& a) {
  if (is_posted(a)) {
    if (a.way == Way::irq_in)
      host.raise(a.region, a.value);
    else
      host.post(static_cast<u8>(a.region), static_cast<u32>(a.offset), static_cast<u8>(a.width), a.value);
    return host.wait_posted();
  }
  const IoreqType type = a.way == Way::mmio  ? IoreqType::mmio
                         : a.way == Way::pio ? IoreqType::pio
                                             : IoreqType::pci_config;
  return host.access(type, a.region, a.offset, a.width, a.value, false).answered;
}

u32 dispatch_of(const Case& c) { return 2 + static_cast<u32>(c.before.size()); } // the first is the device's creation

bool same(const Effect& a, const Effect& b) {
  return a.kind == b.kind && a.device == b.device && a.a == b.a && a.b == b.b;
}

// What an undisturbed host does.
struct Reference {
  DeviceImage before, after;
};
Reference undisturbed(const Case& c) {
  HostUnderTest host(c.device, {});
  Reference r;
  EXPECT_TRUE(host.wait_ready()) << host.page().failure;
  for (const Access& a : c.before) EXPECT_TRUE(perform(host, a));
  const u32 from = host.page().effects.tail();
  r.before = host.image(from);
  EXPECT_TRUE(perform(host, c.access));
  r.after = host.image(from);
  EXPECT_EQ(r.after.effects.size(), c.effects);
  return r;
}

// "" if the page says that the dispatch happened once (or never), else what is wrong.
std::string broken_promise(const ServerPage& page, u32 from, const Case& c, const DeviceImage& before,
                           const Reference& reference, bool happened) {
  const DeviceImage now = HostUnderTest::image_of(page, from);
  if (page.journal.begun.load() != page.effects.sequence()) return "a dispatch is still under way";
  if (page.effects.own_head.load() != page.effects.tail()) return "own effects are not published";
  if (!happened) {
    if (now.state != before.state) return "the state is not the old one";
    if (!now.effects.empty()) return "an effect of what never happened";
    if (now.block_slots != before.block_slots) return "a block slot of what never happened";
    if (now.stream_tail != before.stream_tail) return "a byte of what never happened";
    if (now.posted_head != before.posted_head) return "a posted record is taken that was never served";
    return "";
  }
  if (c.changes_state && now.state == before.state) return "the state is the old one";
  if (c.repeatable && now.state != reference.after.state) return "the state is not the new one";
  if (!std::equal(now.effects.begin(), now.effects.end(), reference.after.effects.begin(),
                  reference.after.effects.end(), same))
    return "the effects are not those of one dispatch";
  u32 submitted = 0, queued = 0, bytes = 0;
  for (const Effect& e : now.effects)
    submitted += e.kind == EffectKind::block_submit, bytes += e.kind == EffectKind::stream_out;
  for (const u32 s : now.block_slots) queued += s == static_cast<u32>(BlockSlotState::queued);
  if (queued != submitted) return "a request is not queued";
  if (now.stream_tail != before.stream_tail + bytes) return "a byte is not out";
  if (now.posted_head != before.posted_head + (is_posted(c.access) ? 1 : 0))
    return "a posted record would be served again";
  return "";
}

void die_at(const Case& c, const Reference& reference, CrashPoint point, u32 effect = 1) {
  SCOPED_TRACE(fmt::format("{}, point {}, effect {}", c.name, static_cast<int>(point), effect));
  HostUnderTest host(c.device, {point, c.device.name, dispatch_of(c), effect});
  ASSERT_TRUE(host.wait_ready()) << host.page().failure;
  for (const Access& a : c.before) ASSERT_TRUE(perform(host, a));
  ServerPage& page = host.page();
  const u32 from = page.effects.tail(), sequence = page.effects.sequence();
  const DeviceImage before = host.image(from);
  const bool done = perform(host, c.access);
  ASSERT_TRUE(host.died_by_kill());

  // As it was left.
  const bool happened = point == CrashPoint::after_commit || point == CrashPoint::after_response;
  EXPECT_EQ(done, point == CrashPoint::after_response);
  EXPECT_EQ(page.effects.sequence(), sequence + (happened ? 1 : 0));
  if (point == CrashPoint::after_effect || point == CrashPoint::before_commit) {
    EXPECT_EQ(page.journal.begun.load(), sequence + 1);
    EXPECT_EQ(std::vector<u8>(page.journal.undo, page.journal.undo + page.journal.undo_bytes), before.state);
    EXPECT_EQ(page.effects.tail(), from);
  } else {
    EXPECT_EQ(page.journal.begun.load(), page.effects.sequence());
  }

  // As it is after a recovery; and again, which changes nothing.
  const auto unmended = copy_of(page);
  for (int i = 0; i < 2; ++i) {
    const auto recovery = recover(page);
    ASSERT_TRUE(recovery) << recovery.error().text;
    EXPECT_EQ(broken_promise(page, from, c, before, reference, happened), "");
    if (is_posted(c.access) || point == CrashPoint::after_response) {
      EXPECT_TRUE(recovery->requests.empty());
    } else {
      ASSERT_EQ(recovery->requests.size(), 1u);
      EXPECT_EQ(recovery->requests[0].request_id, host.last_request());
      EXPECT_EQ(recovery->requests[0].answered, happened);
    }
  }
  // The negative control: a recovery without the undo leaves a state that never was.
  if (point == CrashPoint::before_commit && c.changes_state) {
    unmended->journal.begun.store(sequence);
    ASSERT_TRUE(recover(*unmended));
    EXPECT_NE(broken_promise(*unmended, from, c, before, reference, happened), "");
  }
}

void die_everywhere(size_t which) {
  const Case c = cases().at(which);
  const Reference reference = undisturbed(c);
  die_at(c, reference, CrashPoint::before_entry);
  for (u32 effect = 1; effect <= c.effects; ++effect) die_at(c, reference, CrashPoint::after_effect, effect);
  die_at(c, reference, CrashPoint::before_commit);
  die_at(c, reference, CrashPoint::after_commit);
  if (!is_posted(c.access)) die_at(c, reference, CrashPoint::after_response);
}

TEST(Promise, HoldsForAnInterruptLine) { die_everywhere(0); }
TEST(Promise, HoldsForARegisterWithoutEffect) { die_everywhere(1); }
TEST(Promise, HoldsForABlockRequest) { die_everywhere(2); }
TEST(Promise, HoldsForAPostedWrite) { die_everywhere(3); }
TEST(Promise, HoldsForAByteFromTheUart) { die_everywhere(4); }
TEST(Promise, HoldsForAPicThatIsUnmasked) { die_everywhere(5); }
TEST(Promise, HoldsForALineThatReachesThePic) { die_everywhere(6); }
TEST(Promise, HoldsForAnIdeCommand) { die_everywhere(7); }

// The dispatch that nobody asked for: a completed block request. The host took the hint before it died.
TEST(Promise, HoldsForACompletion) {
  Case request = cases().at(2);
  request.device.drives[0].delay_us = 0;
  for (const CrashPoint point :
       {CrashPoint::before_entry, CrashPoint::after_effect, CrashPoint::before_commit, CrashPoint::after_commit}) {
    SCOPED_TRACE(static_cast<int>(point));
    HostUnderTest host(request.device, {point, request.device.name, dispatch_of(request) + 1, 1});
    ASSERT_TRUE(host.wait_ready());
    for (const Access& a : request.before) ASSERT_TRUE(perform(host, a));
    ServerPage& page = host.page();
    ASSERT_TRUE(perform(host, request.access));
    ASSERT_TRUE(host.died_by_kill());
    const u32 busy = 1, finished = 2, status_at = offset_of_block_status();
    ASSERT_TRUE(recover(page));
    const BlockRing& ring = page.devices[0].block;
    const bool happened = point == CrashPoint::after_commit;
    EXPECT_EQ(ring.slots[0].state.load(), happened ? BlockSlotState::free : BlockSlotState::done);
    EXPECT_EQ(ring.done.load(), happened ? 0u : 1u) << "the completion has to be found again";
    u64 status = 0;
    std::memcpy(&status, page.devices[0].state + status_at, sizeof status);
    EXPECT_EQ(status, happened ? finished : busy);
  }
}

TEST(Recovery, RefusesAPageThatContradictsItself) {
  const auto page = std::make_unique<ServerPage>();
  page->journal.begun.store(7);
  EXPECT_FALSE(recover(*page));
  page->journal.begun.store(1);
  page->journal.device = MAX_DEVICES;
  EXPECT_FALSE(recover(*page));
  page->journal.device = 0;
  page->journal.undo_bytes = STATE_BYTES + 1;
  EXPECT_FALSE(recover(*page));
  page->journal.undo_bytes = STATE_BYTES;
  EXPECT_TRUE(recover(*page));
  page->effects.own_head.store(1); // ahead of the tail
  EXPECT_FALSE(recover(*page));
}

// The answer of the last dispatch is not taken for one of a request whose dispatch was only being prepared.
TEST(Recovery, DoesNotPairARequestWithAnOlderAnswer) {
  const auto page = std::make_unique<ServerPage>();
  page->journal.answered_id = 1;
  page->journal.response = 42;
  page->journal.request_id = 2;
  page->side[0].request_id = 2;
  page->ioreq[0].set_state(IoreqState::in_process, Ioreq::READ);
  auto recovery = recover(*page);
  ASSERT_TRUE(recovery);
  ASSERT_EQ(recovery->requests.size(), 1u);
  EXPECT_FALSE(recovery->requests[0].answered);
  page->side[0].request_id = 1;
  recovery = recover(*page);
  EXPECT_TRUE(recovery->requests[0].answered);
  EXPECT_EQ(recovery->requests[0].answer, 42u);
}

} // namespace
} // namespace transom::tests
