// The device host with real plugins: widths, runs, effects, quarantine, DMA, block and stream rings.
#include "core/device_host.hpp"

#include <gtest/gtest.h>
#include <thread>

#include "core/device_instance.hpp"
#include "core/shared_memory.hpp"
#include "vdev/ext/dma.h"

using namespace transom;

namespace {

constexpr u64 RAM = 4 << 20;
constexpr u32 MMIO = 0, PIO = 1;

class HostTest : public testing::Test {
 protected:
  HostTest() : ram_memory(RAM) {
    page_memory = std::move(*SharedMemory::create("page", sizeof(ServerPage)));
    domain_memory = std::move(*SharedMemory::create("domain", DomainPage::bytes_for(RAM / PAGE_SIZE, 1)));
    domain().vcpu_count = 1;
    environment.page = &page();
    environment.domain = &domain();
    environment.ram = GuestMemory(ram_memory.data(), RAM);
    environment.code = domain().code_pages(RAM / PAGE_SIZE, 1);
    environment.clock = DomainClock(&domain().clock);
    environment.log = [this](u32, const std::string&, const char* text) { logs.emplace_back(text); };
    environment.kick_services = [this] { ++kicks; };
    host = std::make_unique<DeviceHost>(environment);
  }
  ServerPage& page() { return *reinterpret_cast<ServerPage*>(page_memory.data()); }
  DomainPage& domain() { return *reinterpret_cast<DomainPage*>(domain_memory.data()); }
  u32 add(const char* file, const char* id) {
    DevicePlan plan;
    plan.name = "device" + std::to_string(host->device_count());
    plan.plugin = std::string(TRANSOM_PLUGIN_DIR) + "/" + file;
    plan.id = id;
    auto created = host->create(plan);
    EXPECT_TRUE(created) << (created ? "" : created.error().text);
    return created ? *created : 0;
  }
  u32 mmio_test() { return add("mmio_test.so", "org.transom.mmio-test"); }
  u32 awkward() { return add("awkward.so", "org.transom.awkward"); }
  std::vector<Effect> drain() {
    std::vector<Effect> effects;
    EffectRing& ring = page().effects;
    for (u32 at = ring.head; at != ring.tail(); ++at) effects.push_back(ring.slot[at % EFFECT_SLOTS]);
    ring.head = ring.tail();
    return effects;
  }
  DeviceCounters& counters(u32 device) { return page().devices[device].counters; }

  std::vector<u8> ram_memory;
  SharedMemory page_memory, domain_memory;
  HostEnvironment environment;
  std::vector<std::string> logs;
  int kicks = 0;
  std::unique_ptr<DeviceHost> host;
};

} // namespace

// ---------------------------------------------------------------------------------------------------- widths

TEST_F(HostTest, AWiderAccessIsSplitAscending) {
  const u32 d = awkward();
  host->write(d, 0, 0, 8, 0x1122'3344'5566'7788);
  EXPECT_EQ(host->read(d, 0, 0, 4), 0x5566'7788u);
  EXPECT_EQ(host->read(d, 0, 4, 4), 0x1122'3344u);
  EXPECT_EQ(host->read(d, 0, 0, 8), 0x1122'3344'5566'7788u);
  host->write(d, 1, 2, 4, 0xaabb'ccdd);
  EXPECT_EQ(host->read(d, 1, 2, 2), 0xccddu);
  EXPECT_EQ(host->read(d, 1, 4, 2), 0xaabbu);
}

TEST_F(HostTest, ANarrowerReadTakesItsBytesFromTheReadAroundIt) {
  const u32 d = awkward();
  host->write(d, 0, 4, 4, 0x4433'2211);
  for (u32 i = 0; i < 4; ++i) EXPECT_EQ(host->read(d, 0, 4 + i, 1), 0x11u * (i + 1));
  EXPECT_EQ(host->read(d, 0, 5, 2), 0x3322u);
  host->write(d, 0, 8, 4, 0x8877'6655);
  EXPECT_EQ(host->read(d, 0, 7, 2), 0x5544u) << "over the border of two registers";
  EXPECT_EQ(host->read(d, 0, 13, 1), 0xffu) << "the register around it is not all there";
}

TEST_F(HostTest, ANarrowerWriteIsDroppedAndCounted) {
  const u32 d = awkward();
  host->write(d, 0, 0, 4, 0x1234'5678);
  host->write(d, 0, 0, 1, 0xff);
  host->write(d, 0, 2, 2, 0xffff);
  EXPECT_EQ(host->read(d, 0, 0, 4), 0x1234'5678u);
  EXPECT_EQ(counters(d).guest_errors, 2u);
}

TEST_F(HostTest, WhatAPeerAsksForOutsideADeviceReadsAllOnes) {
  const u32 d = mmio_test();
  EXPECT_EQ(host->read(d, MMIO, 0x100, 8), 0x54534554'4f494d4du);
  EXPECT_EQ(host->read(99, MMIO, 0, 4), 0xffff'ffffu);
  EXPECT_EQ(host->read(d, 99, 0, 4), 0xffff'ffffu);
  EXPECT_EQ(host->read(d, MMIO, 0xfff, 2), 0xffffu);
  EXPECT_EQ(host->read(d, MMIO, ~u64{0}, 4), 0xffff'ffffu);
  EXPECT_EQ(host->read(d, MMIO, 0, 9), ~u64{0});
  EXPECT_EQ(host->read(d, MMIO, 0, 0), 0u);
  EXPECT_EQ(host->config_read(d, 0, 0x40, 4), 0xffff'ffffu);
  host->write(99, 0, 0, 4, 1);
  host->irq_in(d, 99, 1);
  EXPECT_EQ(host->acknowledge(d), 0xff);
}

// ---------------------------------------------------------------------------------------------------- string runs

TEST_F(HostTest, ARunReachesGuestMemoryInElementOrderBothWays) {
  const u32 d = mmio_test();
  host->read_run(d, PIO, 0, {2, 4, 0x1000, false});
  EXPECT_EQ(*reinterpret_cast<u64*>(&ram_memory[0x1000]), 0x0003'0002'0001'0000u);
  host->read_run(d, PIO, 0, {2, 4, 0x2006, true}); // DF: the first element at the top
  EXPECT_EQ(*reinterpret_cast<u64*>(&ram_memory[0x2000]), 0x0004'0005'0006'0007u);
  ram_memory[0x3000] = 5;
  ram_memory[0x3004] = 6;
  host->write_run(d, PIO, 0, {4, 2, 0x3004, true});
  EXPECT_EQ(host->read(d, PIO, 4, 4), 11u);
  EXPECT_EQ(host->read(d, PIO, 8, 4), 3u) << "each one call";
}

TEST_F(HostTest, ARunIsLegalisedLikeASingleAccess) {
  const u32 d = awkward();
  host->write(d, 1, 0, 2, 0x4142);
  host->read_run(d, 1, 0, {1, 2, 0x1000, false});
  EXPECT_EQ(ram_memory[0x1000], 0x42);
  EXPECT_EQ(ram_memory[0x1001], 0x42);
  host->write_run(d, 1, 0, {1, 2, 0x1000, false});
  EXPECT_EQ(counters(d).guest_errors, 2u);
}

TEST_F(HostTest, HostileRunsEndWithoutTouchingAnything) {
  const u32 d = mmio_test();
  const std::vector<u8> before = ram_memory;
  for (const DeviceHost::Run& run :
       {DeviceHost::Run{3, 1, 0, false}, DeviceHost::Run{0, 1, 0, false}, DeviceHost::Run{255, 1, 0, false},
        DeviceHost::Run{4, ~0u, 0, false}, DeviceHost::Run{4, 0, 0, false}, DeviceHost::Run{1, 4097, 0, false},
        DeviceHost::Run{4, 2, 0, true}, DeviceHost::Run{4, 2, RAM - 4, false}, DeviceHost::Run{4, 2, ~u64{0}, false},
        DeviceHost::Run{1, 1, u64{1} << 60, true}}) {
    host->read_run(d, PIO, 0, run);
    host->write_run(d, PIO, 0, run);
  }
  EXPECT_EQ(ram_memory, before);
  host->read_run(99, PIO, 0, {1, 2, 0x1000, false});
  EXPECT_EQ(ram_memory[0x1001], 0xff) << "an absent device reads all ones";
}

TEST_F(HostTest, ARunOverDecodedCodeTellsTheProcessor) {
  const u32 d = mmio_test();
  VcpuCodePages(environment.code, 0).mark(1);
  host->read_run(d, PIO, 0, {1, 4, 0x2000, false});
  EXPECT_EQ(domain().vcpus[0].exit_flag, 0u);
  host->read_run(d, PIO, 0, {1, 4, 0x1000, false});
  EXPECT_EQ(domain().vcpus[0].exit_flag, EXIT_LOOK);
}

// ---------------------------------------------------------------------------------------------------- effects

TEST_F(HostTest, EffectsCommitInOrderWithTheDispatchSequence) {
  const u32 d = mmio_test();
  drain();
  const u32 before = page().effects.sequence();
  host->write(d, MMIO, 0x110, 8, 1);
  host->write(d, MMIO, 0x110, 8, 1); // no change, no effect
  host->write(d, MMIO, 0x110, 8, 0);
  EXPECT_EQ(page().effects.sequence(), before + 3);
  EXPECT_EQ(page().journal.begun, page().effects.sequence()) << "no dispatch is under way";
  EXPECT_TRUE(host->effects_pending());
  const auto effects = drain();
  ASSERT_EQ(effects.size(), 2u);
  EXPECT_EQ(effects[0].kind, EffectKind::line);
  EXPECT_EQ(effects[0].b, 1u);
  EXPECT_EQ(effects[1].b, 0u);
  EXPECT_FALSE(host->effects_pending());
}

TEST_F(HostTest, TheJournalHoldsTheStateBeforeTheDispatch) {
  const u32 d = mmio_test();
  host->write(d, MMIO, 0, 8, 0x1111);
  host->write(d, MMIO, 0, 8, 0x2222, 3);
  EXPECT_EQ(page().journal.device, d);
  EXPECT_EQ(page().journal.slot, 3u);
  EXPECT_EQ(page().journal.undo_bytes, page().devices[d].state_bytes);
  EXPECT_EQ(*reinterpret_cast<u64*>(page().journal.undo), 0x1111u);
  EXPECT_EQ(*reinterpret_cast<u64*>(page().devices[d].state), 0x2222u);
  page().devices[d].state_bytes = ~0u; // a peer's nonsense
  host->write(d, MMIO, 0, 8, 0x3333);
  EXPECT_EQ(page().journal.undo_bytes, STATE_BYTES);
}

TEST_F(HostTest, SixtyFourEffectsPassAndOneMoreQuarantinesWithoutAnyEffect) {
  const u32 d = awkward();
  drain();
  host->write(d, 2, 0, 1, 64);
  EXPECT_EQ(drain().size(), 64u);
  EXPECT_EQ(page().devices[d].quarantined, 0u);
  host->write(d, 2, 0, 1, 65);
  EXPECT_EQ(page().devices[d].quarantined, 1u);
  const auto effects = drain();
  ASSERT_EQ(effects.size(), 1u) << "its line falls, nothing else";
  EXPECT_EQ(effects[0].kind, EffectKind::line);
  EXPECT_EQ(effects[0].b, 0u);
  EXPECT_EQ(host->read(d, 0, 0, 4), 0xffff'ffffu);
  EXPECT_EQ(logs.size(), 1u);
}

TEST_F(HostTest, ANegativeStatusQuarantinesThatDeviceAlone) {
  const u32 bad = awkward(), good = awkward();
  host->write(bad, 2, 0, 1, 1); // line up
  drain();
  host->write(bad, 2, 1, 1, 0);
  EXPECT_EQ(page().devices[bad].quarantined, 1u);
  const auto effects = drain();
  ASSERT_EQ(effects.size(), 1u);
  EXPECT_EQ(effects[0].b, 0u) << "the line is let go";
  host->write(good, 0, 0, 4, 7);
  EXPECT_EQ(host->read(good, 0, 0, 4), 7u);
}

TEST_F(HostTest, ThereIsNoRoomBeforeTheRingCouldOverflow) {
  const u32 d = awkward();
  drain();
  u32 dispatches = 0;
  for (; host->room_for_dispatch() && dispatches < 100; ++dispatches) host->write(d, 2, 0, 1, 64);
  EXPECT_EQ(dispatches, EFFECT_SLOTS / EFFECTS_PER_DISPATCH);
  EXPECT_EQ(drain().size(), EFFECT_SLOTS);
  EXPECT_TRUE(host->room_for_dispatch());
}

TEST_F(HostTest, DamagedRingIndicesDoNotHang) {
  const u32 d = awkward();
  page().effects.own_head = page().effects.tail() + 0x4000'0000;
  host->write(d, 2, 0, 1, 2);
  page().effects.head = 12345;
  EXPECT_FALSE(host->room_for_dispatch());
  EXPECT_EQ(host->read(d, 0, 0, 4), 0u);
}

// ---------------------------------------------------------------------------------------------------- DMA

TEST_F(HostTest, DmaReachesRamOnlyAndTellsTheProcessorOfCode) {
  const u32 d = mmio_test();
  const auto copy = [&](u64 from, u64 to, u64 length) {
    host->write(d, MMIO, 0x118, 8, from);
    host->write(d, MMIO, 0x120, 8, to);
    host->write(d, MMIO, 0x128, 8, length);
    host->write(d, MMIO, 0x130, 8, 1);
    return host->read(d, MMIO, 0x130, 8);
  };
  ram_memory[0x5000] = 0x5a;
  EXPECT_EQ(copy(0x5000, 0x6000, 16), 0u);
  EXPECT_EQ(ram_memory[0x6000], 0x5a);
  VcpuCodePages(environment.code, 0).mark(7);
  EXPECT_EQ(copy(0x5000, 0x7000, 16), 0u);
  EXPECT_TRUE(VcpuCodePages(environment.code, 0).pending());
  EXPECT_EQ(copy(0x5000, RAM - 8, 16), 1u) << "over the end of RAM";
  EXPECT_EQ(copy(0xfee0'0000, 0x6000, 16), 1u) << "registers are no memory";
  EXPECT_EQ(copy(~u64{0} - 7, 0x6000, 16), 1u);
  EXPECT_EQ(copy(0x5000, 0xa'0000, 16), 1u) << "the display's window";
  EXPECT_EQ(copy(0x5000, 0x9'fff8, 16), 1u) << "into the window";
  EXPECT_EQ(copy(0x5000, 0xc'0000, 16), 0u);
}

TEST_F(HostTest, APciFunctionWithoutBusMasteringIsRefused) {
  DevicePlan plan;
  plan.name = "ide";
  plan.plugin = std::string(TRANSOM_PLUGIN_DIR) + "/ide.so";
  const auto library = PluginLibrary::load(plan.plugin);
  ASSERT_TRUE(library) << library.error().text;
  plan.id = (*library)->factory().descriptor(0)->id;
  DeviceInstance device(*host, 0, plan, *library, *(*library)->factory().descriptor(0));
  {
    Dispatch dispatch(*host, device, ~0u);
    ASSERT_TRUE(device.create());
  }
  ASSERT_NE(device.pci, nullptr);
  const auto* dma = static_cast<const vdev_host_dma*>(host_extension(VDEV_HOST_DMA));
  u32 value = 0;
  EXPECT_EQ(dma->read(&device.abi, 0, &value, 4), VDEV_BUS_ERROR);
  EXPECT_EQ(dma->write(&device.abi, 0, &value, 4), VDEV_BUS_ERROR);
  device.slot().bus_master = 1;
  EXPECT_EQ(dma->read(&device.abi, 0, &value, 4), VDEV_OK);
  EXPECT_EQ(dma->read(&device.abi, 0, nullptr, (1 << 20) + 1), VDEV_BUS_ERROR);
}

// ---------------------------------------------------------------------------------------------------- block ring

namespace {
class BlockHostTest : public HostTest {
 protected:
  BlockHostTest() {
    vdev_block_info& info = page().devices[0].block.drives[0];
    info.size = sizeof info;
    info.kind = VDEV_DRIVE_DISK;
    info.sectors = 1000;
    info.medium = 1;
    device = mmio_test();
  }
  BlockRing& ring() { return page().devices[device].block; }
  void submit(u64 command) {
    host->write(device, MMIO, 0x148, 8, 5);
    host->write(device, MMIO, 0x150, 8, 0x8000);
    host->write(device, MMIO, 0x158, 8, 1024);
    host->write(device, MMIO, 0x160, 8, command);
  }
  void complete(u32 slot, i32 status) {
    ring().slots[slot].status = status;
    ring().slots[slot].transferred = 1024;
    ring().slots[slot].state = BlockSlotState::done;
    ring().done.fetch_or(1u << slot);
  }
  u64 status() { return host->read(device, MMIO, 0x168, 8); }
  u32 device = 0;
};
} // namespace

TEST_F(BlockHostTest, ARequestIsQueuedByTheCommitAndItsSlotFreedByTheCompletion) {
  submit(VDEV_BLOCK_READ);
  EXPECT_EQ(status(), 1u);
  EXPECT_EQ(kicks, 1);
  ASSERT_EQ(ring().queued, 1u);
  const BlockSlot& slot = ring().slots[0];
  EXPECT_EQ(slot.state, BlockSlotState::queued);
  EXPECT_EQ(slot.request.sector, 5u);
  EXPECT_EQ(slot.request.segments[0].address, 0x8000u);
  EXPECT_TRUE(host->requests_in_flight());
  complete(0, VDEV_OK);
  EXPECT_TRUE(host->completions_waiting());
  host->deliver_completions();
  EXPECT_EQ(status(), 2u);
  EXPECT_EQ(slot.state, BlockSlotState::free);
  EXPECT_FALSE(host->completions_waiting());
  complete(0, VDEV_OK); // a second completion of what is over
  host->deliver_completions();
  EXPECT_EQ(host->read(device, MMIO, 0x170, 8), 1u);
}

TEST_F(BlockHostTest, ACompletionOfAnOldGenerationIsDropped) {
  submit(VDEV_BLOCK_READ);
  host->cancel_all();
  EXPECT_EQ(ring().generation[0], 1u);
  complete(0, VDEV_OK);
  host->deliver_completions();
  EXPECT_EQ(ring().slots[0].state, BlockSlotState::free);
  host->reset_all();
  EXPECT_EQ(host->read(device, MMIO, 0x170, 8), 0u);
  submit(VDEV_BLOCK_READ);
  complete(0, VDEV_IO_ERROR);
  host->deliver_completions();
  EXPECT_EQ(status(), 3u) << "the new life gets its own";
}

TEST_F(BlockHostTest, ADeviceWithoutDrivesOrWithBadMemoryIsToldSo) {
  host->write(device, MMIO, 0x150, 8, RAM);
  host->write(device, MMIO, 0x158, 8, 512);
  host->write(device, MMIO, 0x160, 8, VDEV_BLOCK_READ);
  EXPECT_EQ(status(), 3u);
  EXPECT_EQ(ring().queued, 0u);
  ring().drives[0].kind = VDEV_DRIVE_ABSENT;
  submit(VDEV_BLOCK_READ);
  EXPECT_EQ(status(), 3u);
  EXPECT_EQ(kicks, 0);
}

// ---------------------------------------------------------------------------------------------------- streams, time

TEST_F(HostTest, BytesOfASerialLineCrossTheRingBothWays) {
  page().devices[0].streams[0].connected = 1;
  const u32 d = add("uart.so", "org.transom.uart16550");
  for (const char c : std::string("hello")) host->write(d, 0, 0, 1, static_cast<u8>(c));
  domain().clock.running = 1; // far beyond any transmission
  for (int i = 0; i < 1000 && page().devices[d].streams[0].out.used() < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    host->expire(environment.clock.now());
  }
  u8 bytes[16] = {};
  StreamPair& pair = page().devices[d].streams[0];
  ASSERT_GE(pair.out.peek(bytes, 16), 1u);
  EXPECT_EQ(bytes[0], 'h');
  const u8 typed[] = {'x', 'y'};
  pair.in.tail = pair.in.put(0, typed, 2);
  EXPECT_TRUE(host->bytes_waiting());
  for (int i = 0; i < 10 && pair.in.used() != 0; ++i) {
    host->deliver_bytes();
    if ((host->read(d, 0, 5, 1) & 1) != 0 && pair.in.used() == 1) {
      EXPECT_EQ(host->read(d, 0, 0, 1), u64{'x'});
    }
  }
  EXPECT_LE(pair.in.used(), 1u);
}

TEST_F(HostTest, ATimerFiresWhenDueAndNotBefore) {
  const u32 d = mmio_test();
  EXPECT_EQ(host->next_deadline(), ~u64{0});
  host->write(d, MMIO, 0x138, 8, 5000);
  EXPECT_EQ(host->next_deadline(), 5000u);
  host->expire(4999);
  EXPECT_EQ(host->read(d, MMIO, 0x168 - 0x20, 8), 0u);
  EXPECT_EQ(host->next_deadline(), 5000u);
  host->expire(5000);
  EXPECT_EQ(host->next_deadline(), ~u64{0});
  EXPECT_EQ(host->read(d, MMIO, 0x140, 8), 1u);
}

TEST_F(HostTest, AMissingPluginOrDeviceIsNamed) {
  DevicePlan plan;
  plan.name = "x";
  plan.plugin = "/nonexistent.so";
  EXPECT_NE(host->create(plan).error().text.find("/nonexistent.so"), std::string::npos);
  plan.plugin = std::string(TRANSOM_PLUGIN_DIR) + "/uart.so";
  plan.id = "org.transom.nothing";
  EXPECT_NE(host->create(plan).error().text.find("org.transom.nothing"), std::string::npos);
  EXPECT_EQ(host->device_count(), 0u);
}
