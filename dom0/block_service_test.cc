// The block service with both engines, and what a hostile ring may hold.
#include "dom0/block_service.hpp"

#include <csignal>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dom0/disk_image.hpp"

using namespace transom;

namespace {

constexpr u64 IMAGE = 64 << 10; // bytes
constexpr u64 RAM = 1 << 20;

std::string image_path() {
  static int n = 0;
  return testing::TempDir() + "transom_image_" + std::to_string(::getpid()) + "_" + std::to_string(n++);
}
void make_image(const std::string& path, u64 bytes) {
  std::vector<char> data(bytes);
  for (u64 i = 0; i < bytes; ++i) data[i] = static_cast<char>(i / 512);
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(data.data(), static_cast<std::streamsize>(bytes));
}

class BlockTest : public testing::TestWithParam<bool> {
 protected:
  BlockTest() : path(image_path()) {
    make_image(path, IMAGE);
    uv_loop_init(&loop);
    plan.name = "blocktest";
    plan.memory = RAM;
    plan.servers = {{"dom0", WakePolicy::adaptive}};
    DevicePlan device;
    device.name = "ide";
    DrivePlan drive;
    drive.kind = VDEV_DRIVE_DISK;
    drive.name = "disk0";
    drive.path = path;
    drive.serial = "SERIAL-LONGER-THAN-TWENTY";
    device.drives = {drive};
    plan.devices = {device};
  }
  ~BlockTest() override {
    service.reset();
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    ::unlink(path.c_str());
  }
  DrivePlan& drive() { return plan.devices[0].drives[0]; }
  void open() {
    auto fds = create_descriptors(plan);
    ASSERT_TRUE(fds) << fds.error().text;
    auto attached = DomainMemory::attach(plan, std::move(*fds));
    ASSERT_TRUE(attached);
    memory = std::make_unique<DomainMemory>(std::move(*attached));
    memory->page().vcpu_count = 1;
    service = std::make_unique<BlockService>(&loop, *memory, GetParam());
    auto opened = service->open(plan);
    ASSERT_TRUE(opened) << opened.error().text;
  }
  BlockRing& ring() { return memory->server(0).devices[0].block; }
  BlockSlot& slot(u32 n) { return ring().slots[n]; }
  u8* ram(u64 at) { return memory->ram().at(at, 1); }

  void prepare(u32 n, u32 op, u64 sector, u64 bytes, u64 address) {
    BlockRequest& q = slot(n).request;
    q = {};
    q.op = op;
    q.sector = sector;
    q.bytes = bytes;
    q.order = next_order++;
    q.tag = n;
    if ((op & 0xff) <= VDEV_BLOCK_WRITE) {
      q.segment_count = 1;
      q.segments[0] = {address, static_cast<u32>(bytes), VDEV_SEGMENT_GUEST};
    }
  }
  void queue(u32 n) {
    slot(n).state = BlockSlotState::queued;
    ring().queued.fetch_or(1u << n);
  }
  void step() {
    service->pump();
    uv_run(&loop, UV_RUN_NOWAIT);
  }
  i32 finish(u32 n) {
    const u64 limit = monotonic_ns() + 20'000'000'000;
    while (slot(n).state != BlockSlotState::done && monotonic_ns() < limit) step();
    EXPECT_EQ(slot(n).state, BlockSlotState::done);
    EXPECT_NE(ring().done & 1u << n, 0u);
    slot(n).state = BlockSlotState::free;
    ring().done.fetch_and(~(1u << n));
    return slot(n).status;
  }
  i32 request(u32 op, u64 sector, u64 bytes, u64 address = 0x1000) {
    prepare(0, op, sector, bytes, address);
    queue(0);
    return finish(0);
  }
  std::string file() {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::string path;
  uv_loop_t loop;
  DomainPlan plan;
  std::unique_ptr<DomainMemory> memory;
  std::unique_ptr<BlockService> service;
  u64 next_order = 0;
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Engine, BlockTest, testing::Bool(),
                         [](const auto& engine) { return engine.param ? "uring" : "pool"; });

TEST_P(BlockTest, ReadsWritesAndFlushesReachTheImage) {
  open();
  EXPECT_EQ(request(VDEV_BLOCK_READ, 3, 1024), VDEV_OK);
  EXPECT_EQ(*ram(0x1000), 3);
  EXPECT_EQ(*ram(0x13ff), 4);
  EXPECT_EQ(slot(0).transferred, 1024u);
  std::memset(ram(0x2000), 0xab, 512);
  EXPECT_EQ(request(VDEV_BLOCK_WRITE, 127, 512, 0x2000), VDEV_OK);
  EXPECT_EQ(static_cast<u8>(file()[127 * 512]), 0xab) << "with the kernel when it is done";
  EXPECT_EQ(request(VDEV_BLOCK_WRITE | VDEV_BLOCK_FUA, 126, 512, 0x2000), VDEV_OK);
  EXPECT_EQ(static_cast<u8>(file()[126 * 512]), 0xab);
  EXPECT_EQ(request(VDEV_BLOCK_FLUSH, 0, 0), VDEV_OK);
  EXPECT_EQ(file().size(), IMAGE);
  EXPECT_FALSE(service->busy());
  EXPECT_EQ(std::memcmp(ring().drives[0].serial, "SERIAL-LONGER-THAN-TWENTY", 20), 0);
}

TEST_P(BlockTest, ADiscardedRangeReadsZerosOrItsOldData) {
  open();
  EXPECT_EQ(request(VDEV_BLOCK_DISCARD, 8, 8192), VDEV_OK);
  EXPECT_EQ(request(VDEV_BLOCK_DISCARD, 8, 0), VDEV_OK);
  EXPECT_EQ(file().size(), IMAGE);
  EXPECT_TRUE(file()[8 * 512] == 0 || file()[8 * 512] == 8);
  EXPECT_EQ(file()[7 * 512], 7);
  EXPECT_EQ(file()[24 * 512], 24);
}

TEST_P(BlockTest, SegmentsOfAllKindsAreGatheredInOrder) {
  open();
  prepare(0, VDEV_BLOCK_READ, 10, 1024, 0);
  BlockRequest& q = slot(0).request;
  q.segment_count = 4;
  q.segments[0] = {0x5000, 100, VDEV_SEGMENT_GUEST};
  q.segments[1] = {0x8000, 412, VDEV_SEGMENT_BULK};
  q.segments[2] = {0x100, 0, VDEV_SEGMENT_GUEST};
  q.segments[3] = {0x9000, 512, VDEV_SEGMENT_GUEST};
  queue(0);
  EXPECT_EQ(finish(0), VDEV_OK);
  EXPECT_EQ(*ram(0x5063), 10);
  EXPECT_EQ(memory->server(0).bulk[0x8000 + 411], 10);
  EXPECT_EQ(*ram(0x9000), 11);
  EXPECT_EQ(*ram(0x5064), 0);
}

TEST_P(BlockTest, ReadsOverDecodedCodeTellTheProcessorBeforeTheyComplete) {
  open();
  CodePages code = memory->code();
  VcpuCodePages cpu(code, 0);
  cpu.mark(1);
  EXPECT_EQ(request(VDEV_BLOCK_WRITE, 0, 512, 0x1000), VDEV_OK);
  EXPECT_FALSE(cpu.pending()) << "a write only reads memory";
  EXPECT_EQ(request(VDEV_BLOCK_READ, 0, 512, 0x1000), VDEV_OK);
  EXPECT_TRUE(cpu.pending());
  EXPECT_EQ(memory->page().vcpus[0].exit_flag, EXIT_LOOK);
}

TEST_P(BlockTest, ARequestOutsideTheDiskOrMemoryIsRefused) {
  open();
  const u64 sectors = IMAGE / 512;
  struct {
    u64 sector, bytes, address;
  } const table[] = {{sectors, 512, 0x1000},
                     {sectors - 1, 1024, 0x1000},
                     {~u64{0}, 512, 0x1000},
                     {u64{1} << 55, 512, 0x1000},
                     {0, 100, 0x1000},
                     {0, 512, RAM},
                     {0, 512, RAM - 256},
                     {0, 512, ~u64{0} - 100},
                     {~u64{0} / 512, 1024, 0x1000}};
  for (const auto& row : table)
    for (const u32 op : {VDEV_BLOCK_READ, VDEV_BLOCK_WRITE})
      EXPECT_EQ(request(op, row.sector, row.bytes, row.address), VDEV_INVALID) << row.sector << " " << row.bytes;
  EXPECT_EQ(request(VDEV_BLOCK_READ, sectors - 1, 512), VDEV_OK);
  EXPECT_EQ(file()[5 * 512], 5);
}

TEST_P(BlockTest, HostileRingContentsAreAnsweredAndHurtNobody) {
  open();
  prepare(0, VDEV_BLOCK_READ, 0, 512, 0x1000);
  slot(0).request.segment_count = ~0u;
  queue(0);
  EXPECT_EQ(finish(0), VDEV_INVALID);
  for (const u32 drive : {1u, 3u, 4u, ~0u}) {
    prepare(0, VDEV_BLOCK_FLUSH, 0, 0, 0);
    slot(0).request.drive = drive;
    queue(0);
    const i32 status = finish(0);
    EXPECT_TRUE(status == VDEV_NOT_FOUND || status == VDEV_FAILED) << drive;
  }
  for (const u32 op : {0u, 5u, 0xffu, ~0u}) EXPECT_EQ(request(op, 0, 512), VDEV_INVALID);
  prepare(0, VDEV_BLOCK_READ, 0, 512, 0x1000);
  slot(0).request.segments[0].kind = 9;
  queue(0);
  EXPECT_EQ(finish(0), VDEV_INVALID);
  prepare(0, VDEV_BLOCK_READ, 0, 512, BULK_BYTES);
  slot(0).request.segments[0].kind = VDEV_SEGMENT_BULK;
  queue(0);
  EXPECT_EQ(finish(0), VDEV_INVALID);
  prepare(0, VDEV_BLOCK_READ, 0, 1024, 0x1000); // lengths that do not add up
  slot(0).request.segments[0].length = 512;
  queue(0);
  EXPECT_EQ(finish(0), VDEV_INVALID);
  slot(5).state = BlockSlotState::written; // a hint without a queued slot
  ring().queued = ~0u;
  step();
  EXPECT_FALSE(service->busy());
  EXPECT_EQ(request(VDEV_BLOCK_FLUSH, 0, 0), VDEV_OK) << "none of that latched a failed flush";
}

TEST_P(BlockTest, ASlotQueuedAgainWhileItRunsIsTakenOnce) {
  drive().delay_us = 30'000;
  open();
  prepare(0, VDEV_BLOCK_READ, 0, 512, 0x1000);
  queue(0);
  service->pump();
  for (int i = 0; i < 1000; ++i) {
    queue(0);
    service->pump();
  }
  slot(0).state = BlockSlotState::running;
  EXPECT_EQ(finish(0), VDEV_OK);
  EXPECT_FALSE(service->busy());
}

TEST_P(BlockTest, AReadOnlyImageIsNeverWritten) {
  drive().read_only = true;
  open();
  const std::string before = file();
  EXPECT_EQ(request(VDEV_BLOCK_WRITE, 0, 512), VDEV_READ_ONLY);
  EXPECT_EQ(request(VDEV_BLOCK_DISCARD, 0, 512), VDEV_READ_ONLY);
  EXPECT_EQ(request(VDEV_BLOCK_READ, 0, 512), VDEV_OK);
  EXPECT_EQ(request(VDEV_BLOCK_FLUSH, 0, 0), VDEV_OK);
  EXPECT_EQ(file(), before);
}

TEST_P(BlockTest, OverlappingWritesHappenInTheirOrder) {
  open();
  for (int round = 0; round < 50; ++round) {
    for (u32 n = 0; n < 8; ++n) {
      std::memset(ram(0x1000 * (n + 1)), static_cast<int>(n + 1), 4096);
      prepare(n, VDEV_BLOCK_WRITE, 16, 4096, 0x1000 * (n + 1));
    }
    for (u32 n = 8; n-- > 0;) queue(n); // the hint says nothing about the order
    for (u32 n = 0; n < 8; ++n) ASSERT_EQ((step(), finish(n)), VDEV_OK);
    const std::string now = file();
    ASSERT_EQ(now.substr(16 * 512, 4096), std::string(4096, 8));
  }
}

TEST_P(BlockTest, AFileThatBecameShorterIsAnErrorAndNotAHang) {
  open();
  ASSERT_EQ(::truncate(path.c_str(), 10 * 512), 0);
  EXPECT_EQ(request(VDEV_BLOCK_READ, 8, 4096), VDEV_IO_ERROR) << "two sectors came, then nothing";
  EXPECT_EQ(slot(0).transferred, 1024u);
  EXPECT_EQ(*ram(0x1000), 8);
  EXPECT_EQ(request(VDEV_BLOCK_READ, 8, 1024), VDEV_OK);
}

TEST_P(BlockTest, AWriteThatTheSystemRefusesIsReported) {
  open();
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = 20 * 512;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const i32 status = request(VDEV_BLOCK_WRITE, 18, 4096); // goes in pieces, then fails
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(status, VDEV_IO_ERROR);
  EXPECT_EQ(slot(0).transferred, 1024u);
}

TEST_P(BlockTest, ACancelledRequestLeavesNoTrace) {
  open();
  ring().generation[0] = 7;
  EXPECT_EQ(request(VDEV_BLOCK_WRITE, 0, 512), VDEV_FAILED) << "of generation 0";
  EXPECT_EQ(request(VDEV_BLOCK_FLUSH, 0, 0), VDEV_FAILED);
  EXPECT_EQ(file()[0], 0);
  prepare(0, VDEV_BLOCK_FLUSH, 0, 0, 0);
  slot(0).request.generation = 7;
  queue(0);
  EXPECT_EQ(finish(0), VDEV_OK) << "a cancelled flush is no failed flush";
}

TEST_P(BlockTest, OnceAFlushFailedNoLaterOneSucceeds) {
  const int stand_in = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  open();
  // The image's descriptor becomes a pipe: fdatasync fails with EINVAL.
  struct stat image {};
  ASSERT_EQ(::fstat(stand_in, &image), 0);
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  int kept = -1, at = -1;
  for (int fd = 3; fd < 256; ++fd) {
    struct stat st {};
    if (fd != stand_in && ::fstat(fd, &st) == 0 && st.st_ino == image.st_ino && st.st_dev == image.st_dev) at = fd;
  }
  ASSERT_GE(at, 0);
  kept = ::dup(at);
  ::dup2(pipe_fds[1], at);
  EXPECT_LT(request(VDEV_BLOCK_FLUSH, 0, 0), 0);
  ::dup2(kept, at);
  EXPECT_EQ(request(VDEV_BLOCK_READ, 0, 512), VDEV_OK) << "the disk works";
  EXPECT_EQ(request(VDEV_BLOCK_FLUSH, 0, 0), VDEV_IO_ERROR) << "but the lost write is not forgotten";
  for (const int fd : {kept, stand_in, pipe_fds[0], pipe_fds[1]}) ::close(fd);
}

TEST_P(BlockTest, ADelayedDriveHoldsEachRequestThatLongAndNoLongerForOthers) {
  drive().delay_us = 20'000;
  open();
  const u64 start = monotonic_ns();
  prepare(0, VDEV_BLOCK_READ, 0, 512, 0x1000);
  queue(0);
  service->pump();
  EXPECT_NE(slot(0).state, BlockSlotState::done);
  EXPECT_TRUE(service->busy());
  u32 n = 1; // others that keep coming must not push it away
  while (slot(0).state != BlockSlotState::done && monotonic_ns() - start < 20'000'000'000) {
    if (n < 30 && monotonic_ns() - start > n * 5'000'000) {
      prepare(n, VDEV_BLOCK_READ, 0, 512, 0x2000);
      queue(n++);
    }
    step();
  }
  EXPECT_GE(monotonic_ns() - start, 20'000'000u);
  EXPECT_LT(n, 30u) << "it came before the stream of requests ended";
  EXPECT_EQ(*ram(0x1000), 0);
}

TEST_P(BlockTest, EndingTheServiceWaitsForWhatTheKernelStillHolds) {
  open();
  for (u32 n = 0; n < 16; ++n) {
    prepare(n, VDEV_BLOCK_WRITE, n * 8, 4096, 0x1000 * n);
    queue(n);
  }
  service->pump();
  service.reset(); // under the sanitizer: no use after free
}

// ---------------------------------------------------------------------------------------------------- images

namespace {
DrivePlan plan_for(const std::string& path, bool read_only = false) {
  DrivePlan plan;
  plan.kind = VDEV_DRIVE_DISK;
  plan.name = "disk0";
  plan.path = path;
  plan.read_only = read_only;
  return plan;
}
std::string refusal(const DrivePlan& plan) {
  auto image = DiskImage::open(plan);
  return image ? "" : image.error().text;
}
} // namespace

TEST(DiskImage, WhatIsNoImageIsRefusedByNameAndReason) {
  const std::string path = image_path();
  EXPECT_NE(refusal(plan_for(path)).find("No such file"), std::string::npos);
  EXPECT_NE(refusal(plan_for(testing::TempDir(), true)).find("directory"), std::string::npos);
  EXPECT_NE(refusal(plan_for("/dev/null")).find("neither"), std::string::npos);
  make_image(path, 0);
  EXPECT_NE(refusal(plan_for(path)).find("empty"), std::string::npos);
  make_image(path, 1000);
  EXPECT_NE(refusal(plan_for(path)).find("1000"), std::string::npos);
  ::unlink(path.c_str());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_NE(refusal(plan_for(path)).find("neither"), std::string::npos) << "and no hang";
  ::unlink(path.c_str());
}

TEST(DiskImage, OneWriterOrManyReaders) {
  const std::string path = image_path();
  make_image(path, 1024);
  {
    auto writer = DiskImage::open(plan_for(path));
    ASSERT_TRUE(writer);
    EXPECT_EQ(writer->bytes(), 1024u);
    EXPECT_EQ(::fcntl(writer->fd(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(refusal(plan_for(path)).find("in use"), std::string::npos);
    EXPECT_NE(refusal(plan_for(path, true)).find("in use"), std::string::npos);
  }
  auto reader = DiskImage::open(plan_for(path, true));
  ASSERT_TRUE(reader);
  EXPECT_EQ(refusal(plan_for(path, true)), "");
  EXPECT_NE(refusal(plan_for(path)).find("in use"), std::string::npos);
  ::unlink(path.c_str());
}
