// The board with real chips: lines, PCI links, effects, wires; and the hypervisor's end of a server's page.
#include "hypervisor/board.hpp"

#include <gtest/gtest.h>
#include <thread>

#include "vdev/ext/irq_route.h"
#include "vdev/ext/wire.h"

using namespace transom;

namespace {

constexpr u64 RAM = 2 << 20;

// A domain whose server 0 is played by the test: it writes effects as a device host commits them.
class BoardTest : public testing::Test {
 protected:
  BoardTest() {
    plan.name = "boardtest";
    plan.memory = RAM;
    plan.servers = {{"dom0", WakePolicy::adaptive}};
  }
  void device(u32 place, const std::string& name, u32 slot = ~0u, std::vector<std::pair<std::string, u32>> lines = {}) {
    DevicePlan d;
    d.name = name;
    d.irq_lines = std::move(lines);
    plan.devices.push_back(d);
    pending.push_back({place, name, slot});
  }
  void pic() {
    DevicePlan d;
    d.name = "pic_pit";
    d.plugin = std::string(TRANSOM_PLUGIN_DIR) + "/pic_pit.so";
    d.id = "org.transom.pic-pit";
    const auto library = PluginLibrary::load(d.plugin);
    ASSERT_TRUE(library);
    const vdev_descriptor* descriptor = (*library)->factory().descriptor(0);
    d.id = descriptor->id;
    d.server = SERVER_HYPERVISOR;
    d.irq_lines = {{descriptor->irq_names[0], LINE_INTR}};
    plan.devices.push_back(d);
  }
  void start() {
    auto fds = create_descriptors(plan);
    ASSERT_TRUE(fds);
    auto attached = DomainMemory::attach(plan, std::move(*fds));
    ASSERT_TRUE(attached);
    memory = std::make_unique<DomainMemory>(std::move(*attached));
    memory->page().vcpu_count = plan.cpus;
    for (const auto& p : pending) {
      DeviceSheet& sheet = server().devices[p.place].sheet;
      std::snprintf(sheet.name, sizeof sheet.name, "%s", p.name.c_str());
      sheet.irq_count = 1;
      std::snprintf(sheet.irq_names[0], 16, "intr");
      sheet.region_count = 1;
      sheet.regions[0] = {VDEV_SPACE_PIO, 1, 0, 0, 0x700 + p.place * 16, 16};
      if (p.slot != ~0u) {
        sheet.function_count = 1;
        sheet.functions[0].slot = p.slot;
        sheet.functions[0].interrupt_pin = 1;
      }
      server().device_count = p.place + 1;
    }
    board = std::make_unique<Board>(*memory, plan);
    auto created = board->create_local_devices({});
    ASSERT_TRUE(created) << created.error().text;
    const auto held = board->lock();
    taken = board->take_in_sheets();
  }
  ServerPage& server() { return memory->server(0); }
  // As a device host: effects, then one commit.
  void commit(std::initializer_list<Effect> effects) {
    EffectRing& ring = server().effects;
    u32 tail = ring.tail();
    for (const Effect& e : effects) ring.slot[tail++ % EFFECT_SLOTS] = e;
    ring.commit = u64{ring.sequence() + 1} << 32 | tail;
  }
  void settle() {
    const auto held = board->lock();
    board->settle();
  }
  void line(u16 place, bool level) {
    commit({{EffectKind::line, place, 0, level, 0, 0}});
    settle();
  }
  void wire(u16 place, u32 which, u64 value) {
    commit({{EffectKind::wire, place, which, value, 0, 0}});
    settle();
  }
  u64 level(u32 n) { return memory->page().lines[n]; }
  void pic_write(u32 region, u64 offset, u8 value) {
    const auto held = board->lock();
    board->local().write(0, region, offset, 1, value);
    board->settle();
  }
  void program_pic() { // ICW1–4, vectors 20h and 28h, all unmasked
    for (const u32 chip : {0u, 1u}) {
      pic_write(chip, 0, 0x11);
      pic_write(chip, 1, chip == 0 ? 0x20 : 0x28);
      pic_write(chip, 1, chip == 0 ? 4 : 2);
      pic_write(chip, 1, 1);
      pic_write(chip, 1, 0);
    }
  }
  int acknowledge() {
    auto held = board->lock();
    return board->acknowledge(0, held);
  }

  struct Sheet {
    u32 place;
    std::string name;
    u32 slot;
  };
  DomainPlan plan;
  std::vector<Sheet> pending;
  std::unique_ptr<DomainMemory> memory;
  std::unique_ptr<Board> board;
  Result<void> taken = {};
};

} // namespace

// ---------------------------------------------------------------------------------------------------- lines

TEST_F(BoardTest, ALineIsTheOrOfItsSources) {
  device(0, "a", ~0u, {{"intr", 5}});
  device(1, "b", ~0u, {{"intr", 5}});
  start();
  line(0, true);
  line(1, true);
  EXPECT_EQ(__builtin_popcountll(level(5)), 2);
  line(0, false);
  EXPECT_NE(level(5), 0u) << "the other still holds it";
  line(1, false);
  EXPECT_EQ(level(5), 0u);
}

TEST_F(BoardTest, PciPinsSwizzleToLinksAndFollowTheirRoute) { // PIIX3: slot 1, INTA# is PIRQA
  device(0, "a", 3);                                          // slot 3, INTA# → PIRQC
  device(1, "b", 7);                                          // the same link
  device(2, "c", 4);                                          // PIRQD
  start();
  line(0, true);
  for (u32 n = 0; n < 16; ++n) EXPECT_EQ(level(n), 0u) << "not routed yet";
  commit({{EffectKind::route, 2, 2, 11, 0, 0}});
  settle();
  EXPECT_NE(level(11), 0u) << "the level was waiting";
  line(1, true);
  line(0, false);
  EXPECT_NE(level(11), 0u);
  commit({{EffectKind::route, 2, 2, 10, 0, 0}});
  settle();
  EXPECT_EQ(level(11), 0u);
  EXPECT_NE(level(10), 0u);
  line(1, false);
  EXPECT_EQ(level(10), 0u);
  line(2, true);
  EXPECT_EQ(level(10), 0u) << "another link";
  commit({{EffectKind::route, 2, 2, VDEV_ROUTE_NONE, 0, 0}, {EffectKind::route, 2, 99, 5, 0, 0}});
  settle();
}

TEST_F(BoardTest, APeerThatScribblesOnTheLineTableCausesNoInterruptAndLosesNone) {
  device(0, "a", ~0u, {{"intr", 5}});
  pic();
  start();
  program_pic();
  memory->page().lines[5] = ~u64{0};
  line(0, true);
  EXPECT_TRUE(board->interrupt_pending(0)) << "the real edge counts";
  EXPECT_EQ(acknowledge(), 0x25);
}

TEST_F(BoardTest, AnIsaInterruptReachesTheCoreThroughThePic) {
  device(0, "a", ~0u, {{"intr", 4}});
  pic();
  start();
  program_pic();
  EXPECT_FALSE(board->interrupt_pending(0));
  EXPECT_EQ(acknowledge(), -1);
  line(0, true);
  EXPECT_TRUE(board->interrupt_pending(0));
  EXPECT_NE(memory->page().vcpus[0].exit_flag & EXIT_LOOK, 0u);
  EXPECT_EQ(acknowledge(), 0x24);
  EXPECT_FALSE(board->interrupt_pending(0));
  pic_write(0, 0, 0x20); // EOI
  EXPECT_FALSE(board->interrupt_pending(0)) << "an edge counts once";
}

// One commit with more edges than the PIC's own ring has room for effects.
TEST_F(BoardTest, AFloodOfEdgesLosesNoInterrupt) {
  device(0, "a", ~0u, {{"intr", 4}});
  pic();
  start();
  program_pic();
  for (int burst = 0; burst < 4; ++burst) {
    EffectRing& ring = server().effects;
    u32 tail = ring.tail();
    for (u32 i = 0; i < EFFECT_SLOTS - 1; ++i)
      ring.slot[tail++ % EFFECT_SLOTS] = {EffectKind::line, 0, 0, (i & 1) == 0, 0, 0};
    ring.commit = u64{ring.sequence() + 1} << 32 | tail; // ends high
    settle();
    EXPECT_TRUE(board->interrupt_pending(0));
    EXPECT_EQ(acknowledge(), 0x24);
    pic_write(0, 0, 0x20);
    line(0, false);
  }
}

TEST_F(BoardTest, ThePicsOutputReachesIoapicPinZero) { // MP specification: ExtINT through INTIN0
  device(0, "a", ~0u, {{"intr", 4}});
  pic();
  start();
  program_pic();
  {
    const auto held = board->lock();
    board->lapic(0).write(0xf0, 0x1ff);
    board->lapic(0).write(0x350, 0x10700); // LINT0 masked
    board->settle();
  }
  line(0, true);
  EXPECT_FALSE(board->interrupt_pending(0));
  {
    const auto held = board->lock();
    board->write_ioapic(0, 0x10);
    board->write_ioapic(0x10, 0x700);
    board->settle();
  }
  EXPECT_TRUE(board->interrupt_pending(0));
  EXPECT_EQ(acknowledge(), 0x24);
}

TEST_F(BoardTest, ALevelGoesThroughTheIoapicUntilItsEoi) {
  device(0, "a", ~0u, {{"intr", 11}});
  start();
  {
    const auto held = board->lock();
    board->lapic(0).write(0xf0, 0x1ff);
    board->write_ioapic(0, 0x10 + 22);
    board->write_ioapic(0x10, 0x8061);
  }
  line(0, true);
  EXPECT_EQ(acknowledge(), 0x61);
  EXPECT_EQ(acknowledge(), -1);
  {
    const auto held = board->lock();
    board->lapic(0).write(0xb0, 0);
    board->settle();
  }
  EXPECT_EQ(acknowledge(), 0x61) << "still asserted";
}

// ---------------------------------------------------------------------------------------------------- effects

TEST_F(BoardTest, EffectsAreAppliedOnceAndInOrder) {
  device(0, "a", ~0u, {{"intr", 5}});
  start();
  commit({{EffectKind::line, 0, 0, 1, 0, 0}, {EffectKind::line, 0, 0, 0, 0, 0}, {EffectKind::line, 0, 0, 1, 0, 0}});
  EXPECT_TRUE(board->link(0).effects_waiting());
  settle();
  EXPECT_FALSE(board->link(0).effects_waiting());
  EXPECT_NE(level(5), 0u);
  EXPECT_EQ(server().effects.head, server().effects.tail());
  server().effects.slot[0].b = server().effects.slot[1].b = server().effects.slot[2].b = 0;
  server().effects.head = 0; // a peer that would like it done again
  settle();
  EXPECT_NE(level(5), 0u);
}

TEST_F(BoardTest, HostileEffectsAreHarmless) {
  device(0, "a", ~0u, {{"intr", 5}});
  start();
  for (u32 kind = 0; kind < 20; ++kind)
    for (const u32 a : {0u, 8u, ~0u})
      for (const u64 b : {u64{0}, u64{1} << 40, ~u64{0}}) {
        if (kind == static_cast<u32>(EffectKind::wire)) continue; // wires do what they say
        commit({{static_cast<EffectKind>(kind), static_cast<u16>(a), a, b, b, b},
                {static_cast<EffectKind>(kind), 0, a, b, b, 0}});
        settle();
      }
  server().effects.commit = u64{9} << 32 | 0x7000'0000; // a tail from nowhere
  settle();
  EXPECT_FALSE(board->link(0).effects_waiting());
  line(0, true);
  EXPECT_NE(level(5), 0u) << "the board still works";
}

TEST_F(BoardTest, WiresDoWhatTheySay) {
  device(0, "a");
  device(1, "b");
  start();
  constexpr u64 BIT = 1 << 20;
  EXPECT_NE(board->a20_mask() & BIT, 0u);
  wire(0, VDEV_WIRE_A20, 0);
  EXPECT_EQ(board->a20_mask() & BIT, 0u);
  EXPECT_EQ(board->take_requests(0), REQUEST_MAP_CHANGED);
  wire(1, VDEV_WIRE_A20, 1);
  EXPECT_NE(board->a20_mask() & BIT, 0u) << "the sources are ORed";
  wire(1, VDEV_WIRE_A20, 0);
  EXPECT_EQ(board->a20_mask() & BIT, 0u);
  board->take_requests(0);
  wire(0, VDEV_WIRE_NMI, 0);
  EXPECT_FALSE(board->take_nmi(0));
  wire(0, VDEV_WIRE_NMI, 1);
  EXPECT_TRUE(board->take_nmi(0));
  EXPECT_FALSE(board->take_nmi(0)) << "once";
  wire(0, VDEV_WIRE_RESET, VDEV_RESET_SYSTEM);
  EXPECT_EQ(board->take_requests(0), REQUEST_RESET);
  wire(0, VDEV_WIRE_POWER, 1);
  EXPECT_NE(memory->page().state, DomainState::stopped);
  wire(0, VDEV_WIRE_EXIT, 42);
  wire(0, VDEV_WIRE_POWER, 0);
  EXPECT_EQ(memory->page().state, DomainState::stopped);
  EXPECT_EQ(memory->page().stop_reason, StopReason::debug_exit) << "the first reason counts";
}

TEST_F(BoardTest, ShadowAndRegionEffectsMoveTheMap) {
  device(0, "a");
  start();
  EXPECT_EQ(board->memory_map().page(0xe0000).read, nullptr);
  commit({{EffectKind::shadow, 0, 3, 0xe0000, 0x4000, 0}, {EffectKind::map_region, 0, 0, 0x900, 1, 0}});
  settle();
  EXPECT_NE(board->memory_map().page(0xe0000).read, nullptr);
  EXPECT_EQ(board->take_requests(0), REQUEST_MAP_CHANGED);
  EXPECT_NE(board->router().port(0x900, 1), nullptr);
  EXPECT_EQ(board->router().port(0x700, 1), nullptr);
}

TEST_F(BoardTest, AServerThatDescribesItsDevicesWronglyIsRefused) {
  device(0, "a");
  start();
  ASSERT_TRUE(taken);
  const auto refused = [&](auto&& damage) {
    damage(server().devices[0].sheet);
    Board fresh(*memory, plan);
    EXPECT_TRUE(fresh.create_local_devices({}));
    const auto held = fresh.lock();
    const bool bad = !fresh.take_in_sheets();
    return bad;
  };
  const DeviceSheet good = server().devices[0].sheet;
  EXPECT_FALSE(refused([](DeviceSheet&) {}));
  EXPECT_TRUE(refused([](DeviceSheet& s) { s.region_count = 17; }));
  EXPECT_TRUE(refused([&](DeviceSheet& s) { s = good, s.irq_count = ~0u; }));
  EXPECT_TRUE(refused([&](DeviceSheet& s) { s = good, s.function_count = 5; }));
  EXPECT_TRUE(refused([&](DeviceSheet& s) { s = good, std::memset(s.name, 'x', sizeof s.name); }));
  plan.devices[0].server = SERVER_HYPERVISOR; // the name of a device that lives elsewhere
  plan.devices[0].plugin = std::string(TRANSOM_PLUGIN_DIR) + "/uart.so";
  plan.devices[0].id = "org.transom.uart16550";
  memory->server(SERVER_HYPERVISOR).device_count = 0;
  EXPECT_TRUE(refused([&](DeviceSheet& s) { s = good; }));
}

TEST_F(BoardTest, ResetForgetsRoutesWiresAndInterrupts) {
  device(0, "a", 3);
  start();
  commit({{EffectKind::route, 0, 2, 11, 0, 0},
          {EffectKind::line, 0, 0, 1, 0, 0},
          {EffectKind::wire, 0, VDEV_WIRE_A20, 0, 0, 0}});
  settle();
  {
    const auto held = board->lock();
    board->lapic(0).write(0x80, 0x50);
    board->reset();
    EXPECT_EQ(board->lapic(0).read(0x80), 0u);
  }
  EXPECT_EQ(level(11), 0u);
  EXPECT_NE(board->a20_mask() & 1 << 20, 0u);
}

// ---------------------------------------------------------------------------------------------------- server link

TEST_F(BoardTest, PostedRecordsArriveInOrderAndAFullRingWaits) {
  start();
  ServerLink& link = board->link(0);
  constexpr u32 COUNT = 5000;
  std::atomic<bool> ordered{true};
  std::thread reader([&] {
    for (u32 n = 0; n < COUNT; ++n) {
      while (server().posted_tail.load(std::memory_order_acquire) == n) std::this_thread::yield();
      if (server().posted[n % POSTED_SLOTS].value != n) ordered = false;
      server().posted_head.store(n + 1, std::memory_order_release);
    }
  });
  for (u32 n = 0; n < COUNT; ++n) link.post({PostedRecord::write, 1, 0, 0, 0, n}, n % 7 == 0);
  link.flush_posted();
  EXPECT_EQ(server().posted_head, COUNT);
  reader.join();
  EXPECT_TRUE(ordered);
}

TEST_F(BoardTest, AFullPostedRingRefusesTheBoardAndLetsGoAtTheEndOfTheDomain) {
  start();
  ServerLink& link = board->link(0);
  for (u32 n = 0; n < POSTED_SLOTS; ++n) EXPECT_TRUE(link.try_post({PostedRecord::irq_in, 0, 0, 0, n, 1}));
  EXPECT_FALSE(link.try_post({PostedRecord::irq_in, 0, 0, 0, 0, 1}));
  memory->page().state = DomainState::stopped;
  link.post({PostedRecord::write, 1, 0, 0, 0, 0}, true); // returns
  link.flush_posted();
  EXPECT_EQ(server().posted_full, 1u);
}

TEST_F(BoardTest, APicInAServerIsToldInOrderWithoutTheBoardWaiting) {
  device(0, "a", ~0u, {{"intr", 5}});
  device(1, "pic");
  plan.servers[0].wake = WakePolicy::sleep;
  auto fds = create_descriptors(plan);
  start();
  server().devices[1].sheet.has_intack = 1;
  server().devices[1].sheet.irq_inputs = 16;
  Board fresh(*memory, plan);
  ASSERT_TRUE(fresh.create_local_devices({}));
  const auto held = fresh.lock();
  ASSERT_TRUE(fresh.take_in_sheets());
  for (u32 n = 0; n < POSTED_SLOTS + 100; ++n) { // nobody takes the records
    commit({{EffectKind::line, 0, 0, (n & 1) == 0, 0, 0}});
    fresh.settle();
  }
  EXPECT_TRUE(fresh.pic_inputs_waiting());
  u32 seen = 0;
  while (server().posted_head != server().posted_tail) {
    const u32 head = server().posted_head;
    EXPECT_EQ(server().posted[head % POSTED_SLOTS].value, (seen++ & 1) == 0 ? 1u : 0u);
    server().posted_head = head + 1;
    fresh.settle();
  }
  EXPECT_EQ(seen, POSTED_SLOTS + 100);
  EXPECT_FALSE(fresh.pic_inputs_waiting());
}

TEST_F(BoardTest, ACallGetsItsAnswerAndAllOnesWhenTheDomainEnds) {
  start();
  ServerLink& link = board->link(0);
  const auto ask = [&] {
    return link.call(0, {IoreqType::pio, 3, 1, 4, 0x704, 1, 1, 0, Ioreq::READ}, memory->vcpu_event(0));
  };
  std::thread host([&] {
    Ioreq& ioreq = server().ioreq[0];
    while (ioreq.state() != IoreqState::ready) std::this_thread::yield();
    EXPECT_EQ(server().side[0].device, 3);
    EXPECT_EQ(server().side[0].offset, 4u);
    ioreq.set_state(IoreqState::in_process, 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(5)); // until the vCPU sleeps
    ioreq.data = 0x5a;
    ioreq.set_state(IoreqState::response_ready, 0);
    memory->vcpu_event(0).notify();
  });
  EXPECT_EQ(ask(), 0x5au);
  host.join();
  EXPECT_EQ(server().ioreq[0].state(), IoreqState::none);
  std::thread end([&] {
    while (memory->page().vcpus[0].event.sleeping.load() == 0) std::this_thread::yield();
    memory->page().vcpus[0].event.sleeping = 0; // a peer's damage
    const auto held = board->lock();
    board->stop(StopReason::killed);
  });
  EXPECT_EQ(ask(), ~u64{0});
  end.join();
}
