// The plan on its way between processes.
#include "core/domain_plan.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>

#include "core/domain_memory.hpp"
#include "vdev/ext/block.h"

using namespace transom;

namespace {

struct Pair {
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    a = FileDescriptor(fds[0]);
    b = FileDescriptor(fds[1]);
  }
  FileDescriptor a, b;
};

DomainPlan full_plan() {
  DomainPlan p;
  p.name = "vm";
  p.memory = 8 << 20;
  p.cpus = 3;
  p.cpu = "soft:interp";
  p.cpu_model = "base";
  p.reboot_exits = true;
  p.calendar_offset_ns = -3'600'000'000'000;
  p.boot = {"/bios", "/kernel", "/initrd", "a b=c", {"disk", "cdrom"}, 0x3f8};
  DevicePlan d;
  d.name = "ide";
  d.plugin = "/lib/ide.so";
  d.id = "org.transom.ide";
  d.server = 1;
  d.config = {{"key", "value"}, {"other", ""}};
  d.region_bases = {{"regs", 0x1'0000'0001}};
  d.irq_lines = {{"intr", 14}};
  d.pci_slot = 7;
  d.drives = {{VDEV_DRIVE_ABSENT, "", "", false, DiskCache::writeback, false, "", 0},
              {VDEV_DRIVE_CDROM, "cd", "/cd.iso", true, DiskCache::unsafe, true, "S1", 500}};
  d.streams = {{StreamKind::unix_socket, "/tmp/s"}, {StreamKind::file, "/tmp/f"}};
  p.devices.push_back(d);
  d = DevicePlan{};
  d.name = "pic";
  d.server = SERVER_HYPERVISOR;
  p.devices.push_back(d);
  p.servers = {{"dom0", WakePolicy::spin}, {"own", WakePolicy::sleep}};
  p.crash = {CrashPoint::before_commit, "ide", 5, 6};
  p.log_level = 4;
  p.debugger = DebuggerPlan{"/tmp/gdb", 0, true, "i386"};
  return p;
}

Result<ReceivedPlan> over_a_socket(const DomainPlan& plan, const DomainDescriptors& fds) {
  Pair pair;
  Result<void> sent = {};
  std::thread sender([&] {
    sent = send_plan(pair.a.get(), plan, fds);
    pair.a.reset();
  });
  auto received = receive_plan(pair.b.get());
  pair.b.reset();
  sender.join();
  return received;
}

} // namespace

TEST(DomainPlan, EveryFieldArrives) {
  const DomainPlan p = full_plan();
  auto fds = create_descriptors(p);
  ASSERT_TRUE(fds) << fds.error().text;
  auto received = over_a_socket(p, *fds);
  ASSERT_TRUE(received) << received.error().text;
  const DomainPlan& q = received->plan;
  EXPECT_EQ(std::tie(q.name, q.memory, q.cpus, q.cpu, q.cpu_model, q.reboot_exits, q.calendar_offset_ns, q.log_level),
            std::tie(p.name, p.memory, p.cpus, p.cpu, p.cpu_model, p.reboot_exits, p.calendar_offset_ns, p.log_level));
  EXPECT_EQ(
      std::tie(q.boot.firmware, q.boot.kernel, q.boot.initrd, q.boot.cmdline, q.boot.order, q.boot.serial_console),
      std::tie(p.boot.firmware, p.boot.kernel, p.boot.initrd, p.boot.cmdline, p.boot.order, p.boot.serial_console));
  EXPECT_EQ(std::tie(q.crash.point, q.crash.device, q.crash.dispatch, q.crash.effect),
            std::tie(p.crash.point, p.crash.device, p.crash.dispatch, p.crash.effect));
  ASSERT_TRUE(q.debugger);
  EXPECT_EQ(std::tie(q.debugger->socket, q.debugger->port, q.debugger->wait, q.debugger->architecture),
            std::tie(p.debugger->socket, p.debugger->port, p.debugger->wait, p.debugger->architecture));
  ASSERT_EQ(q.devices.size(), 2u);
  EXPECT_EQ(q.devices[1].server, SERVER_HYPERVISOR);
  EXPECT_EQ(q.devices[1].pci_slot, ~0u);
  const DevicePlan &d = q.devices[0], &e = p.devices[0];
  EXPECT_EQ(std::tie(d.name, d.plugin, d.id, d.server, d.config, d.region_bases, d.irq_lines, d.pci_slot),
            std::tie(e.name, e.plugin, e.id, e.server, e.config, e.region_bases, e.irq_lines, e.pci_slot));
  ASSERT_EQ(d.drives.size(), 2u);
  for (u32 i = 0; i < 2; ++i) {
    const DrivePlan &x = d.drives[i], &y = e.drives[i];
    EXPECT_EQ(std::tie(x.kind, x.name, x.path, x.read_only, x.cache, x.synchronous, x.serial, x.delay_us),
              std::tie(y.kind, y.name, y.path, y.read_only, y.cache, y.synchronous, y.serial, y.delay_us));
  }
  ASSERT_EQ(d.streams.size(), 2u);
  EXPECT_EQ(d.streams[0].kind, StreamKind::unix_socket);
  EXPECT_EQ(d.streams[1].path, "/tmp/f");
  ASSERT_EQ(q.servers.size(), 2u);
  EXPECT_EQ(q.servers[0].wake, WakePolicy::spin);
  EXPECT_EQ(q.servers[1].name, "own");
  EXPECT_EQ(received->descriptors.vcpu_events.size(), 3u);
  EXPECT_EQ(received->descriptors.doorbells.size(), 2u);
  auto memory = DomainMemory::attach(q, std::move(received->descriptors));
  ASSERT_TRUE(memory) << memory.error().text;
  EXPECT_EQ(memory->ram().size(), p.memory);
  EXPECT_EQ(memory->vcpu_count(), 3u);
}

TEST(DomainPlan, DescriptorsOfASmallerDomainAreRefused) {
  DomainPlan small = full_plan();
  auto fds = create_descriptors(small);
  ASSERT_TRUE(fds);
  DomainPlan big = small;
  big.memory *= 2;
  auto received = over_a_socket(big, *fds);
  ASSERT_TRUE(received);
  EXPECT_FALSE(DomainMemory::attach(received->plan, std::move(received->descriptors)));
}

TEST(DomainPlan, WhatEveryoneIndexesByIsCheckedOnArrival) {
  const DomainPlan good = full_plan();
  auto fds = create_descriptors(good);
  ASSERT_TRUE(fds);
  const auto refused = [&](auto&& damage) {
    DomainPlan bad = good;
    damage(bad);
    return !over_a_socket(bad, *fds);
  };
  EXPECT_FALSE(refused([](DomainPlan&) {})) << "the negative control";
  EXPECT_TRUE(refused([](DomainPlan& p) { p.cpus = 2; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.cpus = 0; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.cpus = 9; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.servers.pop_back(), p.devices.clear(); }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.servers.resize(9); }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.devices[0].server = 2; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.memory = 0; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.memory = ~u64{0} & ~u64{4095}; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.memory += 1; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.servers[0].wake = static_cast<WakePolicy>(3); }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.devices[0].drives[0].kind = 77; }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.devices[0].drives[1].cache = static_cast<DiskCache>(4); }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.devices[0].streams[0].kind = static_cast<StreamKind>(4); }));
  EXPECT_TRUE(refused([](DomainPlan& p) { p.crash.point = static_cast<CrashPoint>(6); }));
}

TEST(DomainPlan, MessagesOfStrangersAreRefusedAndLeakNothing) {
  struct Header {
    u32 magic, bytes, descriptors, servers, vcpus;
  };
  const Header headers[] = {{0, 0, 0, 0, 0},          {0x6e616c50, 0, 4, 0, 0},   {0x6e616c50, ~0u, 4, 0, 0},
                            {0x6e616c50, 8, 0, 0, 0}, {0x6e616c50, 8, 0, ~0u, 4}, {0x6e616c50, 8, 0, 0x7fff'fffe, 0}};
  for (const Header& header : headers) {
    Pair pair;
    ASSERT_EQ(::send(pair.a.get(), &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
    pair.a.reset();
    EXPECT_FALSE(receive_plan(pair.b.get()));
  }
  Pair pair;
  pair.a.reset();
  EXPECT_FALSE(receive_plan(pair.b.get())) << "nobody there";
}
