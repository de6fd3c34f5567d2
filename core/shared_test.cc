// What crosses between processes: event channels, the clock, code pages, sealed memory, rings, the ioreq layout.
#include <cstddef>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>

#include "core/code_pages.hpp"
#include "core/domain_clock.hpp"
#include "core/ioreq.hpp"
#include "core/shared_memory.hpp"
#include "core/stream_ring.hpp"

#define __XEN_INTERFACE_VERSION__ 0x00040e00
#define __XEN_TOOLS__
#include <xen/hvm/ioreq.h>
#include <xen/xen.h>

using namespace transom;

// ---------------------------------------------------------------------------------------------------- ioreq layout

static_assert(sizeof(Ioreq) == sizeof(::ioreq));
static_assert(offsetof(Ioreq, addr) == offsetof(::ioreq, addr));
static_assert(offsetof(Ioreq, data) == offsetof(::ioreq, data));
static_assert(offsetof(Ioreq, count) == offsetof(::ioreq, count));
static_assert(offsetof(Ioreq, size) == offsetof(::ioreq, size));
static_assert(offsetof(Ioreq, vp_eport) == offsetof(::ioreq, vp_eport));
static_assert(offsetof(Ioreq, type) == offsetof(::ioreq, type));
static_assert(offsetof(Ioreq, bits) == offsetof(::ioreq, type) - 1);
static_assert(static_cast<int>(IoreqState::none) == STATE_IOREQ_NONE);
static_assert(static_cast<int>(IoreqState::ready) == STATE_IOREQ_READY);
static_assert(static_cast<int>(IoreqState::in_process) == STATE_IOREQ_INPROCESS);
static_assert(static_cast<int>(IoreqState::response_ready) == STATE_IORESP_READY);
static_assert(static_cast<int>(IoreqType::pio) == IOREQ_TYPE_PIO);
static_assert(static_cast<int>(IoreqType::mmio) == IOREQ_TYPE_COPY);
static_assert(static_cast<int>(IoreqType::pci_config) == IOREQ_TYPE_PCI_CONFIG);
static_assert(static_cast<int>(IoreqType::intack) > IOREQ_TYPE_INVALIDATE);

TEST(Ioreq, StateAndFlagsAreTheBitFieldsOfXensRecord) {
  Ioreq ours;
  ours.set_state(IoreqState::in_process, Ioreq::DATA_IS_PTR | Ioreq::BACKWARD);
  ::ioreq xens;
  std::memcpy(&xens, &ours, sizeof xens);
  EXPECT_EQ(xens.state, STATE_IOREQ_INPROCESS);
  EXPECT_EQ(xens.data_is_ptr, 1);
  EXPECT_EQ(xens.dir, 0);
  EXPECT_EQ(xens.df, 1);
  ours.set_state(IoreqState::ready, Ioreq::READ);
  std::memcpy(&xens, &ours, sizeof xens);
  EXPECT_EQ(xens.state, STATE_IOREQ_READY);
  EXPECT_EQ(xens.dir, IOREQ_READ);
  EXPECT_EQ(xens.data_is_ptr, 0);
}

// ---------------------------------------------------------------------------------------------------- event channels

namespace {

struct PingPong {
  EventWord to_a, to_b;
  std::atomic<u32> ping{0}, pong{0};
};

// A lost wake-up leaves both sides asleep for ever: the watchdog of the test run is the check.
void serve(PingPong& shared, const EventChannel& a, const EventChannel& b, u32 rounds, u64 spin_ns) {
  for (u32 n = 1; n <= rounds; ++n) {
    b.wait([&] { return shared.ping.load(std::memory_order_acquire) == n; }, n % 3 == 0 ? 0 : spin_ns);
    shared.pong.store(n, std::memory_order_release);
    a.notify();
  }
}
void drive(PingPong& shared, const EventChannel& a, const EventChannel& b, u32 rounds, u64 spin_ns) {
  for (u32 n = 1; n <= rounds; ++n) {
    shared.ping.store(n, std::memory_order_release);
    b.notify();
    a.wait([&] { return shared.pong.load(std::memory_order_acquire) == n; }, n % 2 == 0 ? 0 : spin_ns);
  }
}

class EventChannelMix : public testing::TestWithParam<u64> {};

} // namespace

TEST_P(EventChannelMix, NoWakeUpIsLostBetweenTwoThreads) {
  constexpr u32 ROUNDS = 20'000;
  PingPong shared;
  const FileDescriptor fd_a(make_eventfd()), fd_b(make_eventfd());
  const EventChannel a(&shared.to_a, fd_a.get()), b(&shared.to_b, fd_b.get());
  std::thread other([&] { serve(shared, a, b, ROUNDS, GetParam()); });
  drive(shared, a, b, ROUNDS, GetParam());
  other.join();
  EXPECT_EQ(shared.pong.load(), ROUNDS);
}

TEST_P(EventChannelMix, NoWakeUpIsLostBetweenTwoProcesses) {
  constexpr u32 ROUNDS = 20'000;
  auto memory = SharedMemory::create("events", sizeof(PingPong));
  ASSERT_TRUE(memory);
  auto& shared = *new (memory->data()) PingPong;
  const FileDescriptor fd_a(make_eventfd()), fd_b(make_eventfd());
  const EventChannel a(&shared.to_a, fd_a.get()), b(&shared.to_b, fd_b.get());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    serve(shared, a, b, ROUNDS, GetParam());
    ::_exit(0);
  }
  drive(shared, a, b, ROUNDS, GetParam());
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}
INSTANTIATE_TEST_SUITE_P(Spin, EventChannelMix, testing::Values(0, 300, 5'000));

TEST(EventChannel, AnAwakePeerCostsNoSystemCallAndASleepingOneDoes) {
  EventWord word;
  const FileDescriptor fd(make_eventfd());
  const EventChannel channel(&word, fd.get());
  u64 count = 0;
  channel.notify();
  EXPECT_LT(::read(fd.get(), &count, sizeof count), 0);
  channel.announce_sleep();
  channel.notify();
  EXPECT_EQ(::read(fd.get(), &count, sizeof count), static_cast<ssize_t>(sizeof count));
  EXPECT_EQ(word.wakes.load(), 1u);
  channel.awake();
  channel.notify();
  EXPECT_EQ(word.wakes.load(), 1u);
}

TEST(EventChannel, TheEndOfTheDomainWakesEvenWhereTheWordWasDamaged) {
  EventWord word;
  const FileDescriptor fd(make_eventfd());
  const EventChannel channel(&word, fd.get());
  channel.announce_sleep();
  word.sleeping.store(0);
  u64 count = 0;
  channel.notify();
  EXPECT_LT(::read(fd.get(), &count, sizeof count), 0);
  channel.wake();
  EXPECT_EQ(::read(fd.get(), &count, sizeof count), static_cast<ssize_t>(sizeof count));
}

// ---------------------------------------------------------------------------------------------------- clock

TEST(DomainClock, StandsStillWhilePausedAndGoesOnWhereItStood) {
  ClockPage page;
  DomainClock clock(&page);
  EXPECT_EQ(clock.now(), 0u);
  clock.start();
  while (clock.now() < 1000) {
  }
  clock.stop();
  const u64 at = clock.now();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(clock.now(), at);
  clock.start();
  EXPECT_GE(clock.now(), at);
  EXPECT_EQ(clock.host_deadline(~u64{0} - 1), ~u64{0});
}

TEST(DomainClock, NeverGoesBackWhileTheHypervisorStopsAndStartsIt) {
  ClockPage page;
  DomainClock clock(&page);
  clock.start();
  std::atomic<bool> over{false};
  std::thread reader([&] {
    u64 last = 0;
    while (!over.load()) {
      const u64 now = clock.now();
      ASSERT_GE(now, last);
      ASSERT_LT(now, u64{3600} * 1'000'000'000) << "an offset of one state with the meaning of the other";
      last = now;
    }
  });
  for (int i = 0; i < 20'000; ++i) {
    clock.stop();
    clock.start();
  }
  over.store(true);
  reader.join();
}

// ---------------------------------------------------------------------------------------------------- code pages

TEST(CodePages, EveryWriteToAMarkedPageIsHarvestedOnceAndOthersNever) {
  constexpr u64 PAGES = 10'000;
  std::vector<u64> memory(CodePages::bytes_for(PAGES) / 8 + 1);
  CodePages code(memory.data(), PAGES);
  VcpuCodePages cpu(code, 0);
  cpu.mark(0);
  cpu.mark(4097);
  cpu.mark(PAGES - 1);
  EXPECT_FALSE(code.wrote(1));
  EXPECT_FALSE(cpu.pending());
  EXPECT_TRUE(code.wrote(u64{4096} << PAGE_SHIFT, 2 * PAGE_SIZE));
  EXPECT_TRUE(code.wrote(PAGES - 1));
  EXPECT_TRUE(cpu.pending());
  std::vector<u64> dropped;
  cpu.harvest([&](u64 page) { dropped.push_back(page); });
  EXPECT_EQ(dropped, (std::vector<u64>{4097, PAGES - 1}));
  EXPECT_FALSE(cpu.pending());
  dropped.clear();
  cpu.harvest([&](u64 page) { dropped.push_back(page); });
  EXPECT_TRUE(dropped.empty());
}

TEST(CodePages, RangesThatWrapOrLieOutsideTouchNothingAndEnd) {
  std::vector<u64> memory(CodePages::bytes_for(4) / 8 + 1);
  CodePages code(memory.data(), 4);
  VcpuCodePages cpu(code, 0);
  cpu.mark(0);
  cpu.mark(3);
  EXPECT_FALSE(code.wrote(~u64{0}, 2));
  EXPECT_FALSE(code.wrote(u64{1} << 40, 1 << 20));
  EXPECT_FALSE(code.wrote(0, 0));
  EXPECT_FALSE(code.wrote(PAGE_SIZE, PAGE_SIZE));
  EXPECT_TRUE(code.wrote(PAGE_SIZE, ~u64{0} - PAGE_SIZE)); // ends at the last page, at once
}

TEST(CodePages, AWriteIsQueuedForEveryVcpuThatHasCodeThereAndForNoOther) {
  std::vector<u64> memory(CodePages::bytes_for(100, 3) / 8 + 1);
  CodePages code(memory.data(), 100, 3);
  VcpuCodePages first(code, 0), second(code, 1), third(code, 2);
  first.mark(70);
  second.mark(70);
  EXPECT_EQ(code.wrote(70), 0b011);
  EXPECT_EQ(third.wrote(70), 0b011);
  EXPECT_EQ(first.wrote(70), 0b010) << "who stores drops its own code itself";
  EXPECT_FALSE(third.pending());
  for (VcpuCodePages* cpu : {&first, &second}) {
    std::vector<u64> dropped;
    cpu->harvest([&](u64 page) { dropped.push_back(page); });
    EXPECT_EQ(dropped, std::vector<u64>{70});
  }
  first.unmark(70);
  EXPECT_TRUE(third.marked_by_others(70));
  EXPECT_FALSE(second.marked_by_others(70));
  EXPECT_EQ(code.wrote(70), 0b010);
}

TEST(CodePages, TheFirstMarkOfAPageIsNewsToThoseWhoMayBeWritingThere) {
  std::vector<u64> memory(CodePages::bytes_for(100, 2) / 8 + 1);
  CodePages code(memory.data(), 100, 2);
  VcpuCodePages first(code, 0), second(code, 1);
  first.mark(3);
  EXPECT_TRUE(second.take_news());
  EXPECT_FALSE(second.take_news()) << "once";
  EXPECT_FALSE(first.take_news());
  second.mark(3);
  EXPECT_FALSE(first.take_news()) << "it has code there itself, so its stores look already";
}

// The promise: a decoder that read the old bytes after its mark finds the page in a later harvest.
TEST(CodePages, ADecoderNeverKeepsBytesThatAWriterReplaced) {
  std::vector<u64> memory(CodePages::bytes_for(64) / 8 + 1);
  CodePages code(memory.data(), 64);
  VcpuCodePages cpu(code, 0);
  std::atomic<u32> content{0}, written{0};
  constexpr u32 ROUNDS = 30'000;
  std::thread writer([&] {
    for (u32 n = 1; n <= ROUNDS; ++n) {
      content.store(n, std::memory_order_relaxed);
      code.wrote(5);
      written.store(n, std::memory_order_release); // the completion that the guest sees
    }
  });
  u32 decoded = 0;
  bool have = false;
  while (decoded != ROUNDS) {
    const u32 visible = written.load(std::memory_order_acquire);
    if (cpu.pending()) cpu.harvest([&](u64 page) { have = have && page != 5; });
    if (have) {
      ASSERT_GE(decoded, visible) << "stale code after a visible completion";
    }
    if (!have) {
      cpu.mark(5);
      decoded = content.load(std::memory_order_relaxed);
      have = true;
    }
    if (decoded == ROUNDS) break;
  }
  writer.join();
}

// ---------------------------------------------------------------------------------------------------- shared memory

TEST(SharedMemory, IsZeroedWholePagesAndCanNoLongerBeResized) {
  auto memory = SharedMemory::create("test", 5000);
  ASSERT_TRUE(memory);
  EXPECT_EQ(memory->size(), 8192u);
  EXPECT_EQ(memory->data()[8191], 0);
  EXPECT_NE(::ftruncate(memory->fd(), 4096), 0);
  EXPECT_NE(::ftruncate(memory->fd(), 65536), 0);
}

TEST(SharedMemory, APeersMemoryIsRefusedUnlessSealedAndLongEnough) {
  FileDescriptor unsealed(::memfd_create("peer", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 8192), 0);
  const auto copy = [](int fd) { return FileDescriptor(::fcntl(fd, F_DUPFD_CLOEXEC, 3)); };
  auto refused = SharedMemory::attach(copy(unsealed.get()), 8192);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text.find("sealed"), std::string::npos);
  ASSERT_EQ(::fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0); // could still be unsealed of nothing
  EXPECT_FALSE(SharedMemory::attach(copy(unsealed.get()), 8192));
  ASSERT_EQ(::fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SEAL), 0);
  EXPECT_FALSE(SharedMemory::attach(copy(unsealed.get()), 8193));
  EXPECT_TRUE(SharedMemory::attach(copy(unsealed.get()), 8192));
  EXPECT_FALSE(SharedMemory::attach(FileDescriptor(::open("/dev/null", O_RDWR)), 0));
  EXPECT_FALSE(SharedMemory::attach(FileDescriptor(), 0));
}

// ---------------------------------------------------------------------------------------------------- byte rings

TEST(ByteRing, HostileIndicesNeverLeadOutsideTheBuffer) {
  auto ring = std::make_unique<ByteRing>();
  std::vector<u8> bytes(3 * ByteRing::BYTES, 7);
  for (const u32 head : {0u, 1u, 0x7fff'ffffu, 0x8000'0000u, ~0u})
    for (const u32 tail : {0u, 5u, ByteRing::BYTES + 9u, 0x8000'0001u, ~0u}) {
      ring->head.store(head);
      ring->tail.store(tail);
      EXPECT_LE(ring->used(), ByteRing::BYTES);
      EXPECT_LE(ring->peek(bytes.data(), static_cast<u32>(bytes.size())), ByteRing::BYTES);
      EXPECT_LE(ring->put(tail, bytes.data(), static_cast<u32>(bytes.size())), ByteRing::BYTES);
    }
}

TEST(ByteRing, BytesComeOutInOrderOverTheWrapOfIndexAndBuffer) {
  auto ring = std::make_unique<ByteRing>();
  u32 at = ~0u - 3000; // the index wraps in the middle
  ring->head.store(at);
  ring->tail.store(at);
  u8 next_in = 0, next_out = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<u8> chunk(977);
    for (u8& b : chunk) b = next_in++;
    ASSERT_EQ(ring->put(at, chunk.data(), 977), 977u);
    at += 977;
    ring->tail.store(at);
    std::vector<u8> got(2000);
    ASSERT_EQ(ring->peek(got.data(), 2000), 977u);
    for (u32 i = 0; i < 977; ++i) ASSERT_EQ(got[i], next_out++);
    ring->head.store(ring->head.load() + 977);
  }
}
