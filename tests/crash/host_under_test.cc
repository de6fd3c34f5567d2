#include "tests/crash/host_under_test.hpp"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace transom::tests {

HostUnderTest::HostUnderTest(const DevicePlan& device, const CrashPlan& crash) {
  plan_.name = "crash";
  plan_.memory = 2 << 20;
  plan_.devices = {device};
  plan_.servers = {{"dom0", WakePolicy::adaptive}};
  plan_.crash = crash;
  plan_.crash.device = device.name;
  std::ofstream(folder_ / "disk") << std::string(65536, 'd');
  for (DrivePlan& drive : plan_.devices[0].drives)
    if (drive.kind != 0) drive.path = folder_ / "disk";
  for (StreamPlan& stream : plan_.devices[0].streams) stream = {StreamKind::file, folder_ / "stream"};

  auto descriptors = create_descriptors(plan_);
  auto copies = descriptors->duplicate();
  memory_ = std::move(*DomainMemory::attach(plan_, std::move(*copies)));
  memory_.page().magic = DomainPage::MAGIC;
  memory_.page().vcpu_count = memory_.page().server_count = 1;
  memory_.clock().start();
  page().magic = ServerPage::MAGIC;

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) std::abort();
  const std::string path = program("transom-dom0");
  pid_ = ::fork();
  if (pid_ == 0) {
    if (pair[1] == 3)
      ::fcntl(3, F_SETFD, 0);
    else
      ::dup2(pair[1], 3);
    ::execl(path.c_str(), path.c_str(), "0", nullptr);
    ::_exit(127);
  }
  ::close(pair[1]);
  socket_ = pair[0];
  EXPECT_TRUE(send_plan(socket_, plan_, *descriptors));
}

HostUnderTest::~HostUnderTest() {
  if (!reaped_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
  }
  ::close(socket_);
}

bool HostUnderTest::dead(int wait_ms) {
  for (int i = 0; !reaped_ && i <= wait_ms; ++i) {
    if (::waitpid(pid_, &status_, WNOHANG) == pid_) reaped_ = true;
    if (!reaped_ && wait_ms != 0) ::usleep(1000);
  }
  return reaped_;
}

bool HostUnderTest::died_by_kill() { return dead(30'000) && WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL; }

bool HostUnderTest::wait_ready() {
  while (page().state.load() == ServerState::starting && !dead(0)) ::usleep(200);
  return page().state.load() == ServerState::ready;
}

HostUnderTest::Answer HostUnderTest::access(IoreqType type, u16 region, u64 offset, u32 width, u64 value, bool read) {
  Ioreq& ioreq = page().ioreq[0];
  page().side[0] = {request_id_ = ++memory_.page().next_request_id, offset, 0, region, 0};
  ioreq.addr = offset;
  ioreq.data = value;
  ioreq.count = 1;
  ioreq.size = width;
  ioreq.type = static_cast<u8>(type);
  ioreq.set_state(IoreqState::ready, read ? Ioreq::READ : 0);
  memory_.doorbell(0).notify();
  while (ioreq.state() != IoreqState::response_ready)
    if (dead(0)) break;
  if (ioreq.state() != IoreqState::response_ready) return {};
  const Answer answer{true, ioreq.data};
  if (!dead(0)) ioreq.set_state(IoreqState::none, 0);
  return answer;
}

void HostUnderTest::post(u8 region, u32 offset, u8 width, u64 value) {
  put({PostedRecord::write, width, 0, region, offset, value});
}
void HostUnderTest::raise(u32 input, u64 level) { put({PostedRecord::irq_in, 0, 0, 0, input, level}); }

void HostUnderTest::put(const PostedRecord& record) {
  const u32 tail = page().posted_tail.load();
  page().posted[tail % POSTED_SLOTS] = record;
  page().posted_tail.store(tail + 1);
  memory_.doorbell(0).notify();
}

bool HostUnderTest::wait_posted() {
  while (page().posted_head.load() != page().posted_tail.load())
    if (dead(0)) return page().posted_head.load() == page().posted_tail.load();
  return true;
}

DeviceImage HostUnderTest::image_of(const ServerPage& page, u32 effects_from) {
  DeviceImage image;
  const DeviceSlot& slot = page.devices[0];
  image.state.assign(slot.state, slot.state + slot.state_bytes.load());
  for (u32 at = effects_from; at != page.effects.tail(); ++at)
    image.effects.push_back(page.effects.slot[at % EFFECT_SLOTS]);
  image.posted_head = page.posted_head.load();
  for (const BlockSlot& block : slot.block.slots) image.block_slots.push_back(static_cast<u32>(block.state.load()));
  image.stream_tail = slot.streams[0].out.tail.load();
  return image;
}

std::shared_ptr<ServerPage> copy_of(const ServerPage& page) {
  void* memory = std::aligned_alloc(4096, (sizeof(ServerPage) + 4095) & ~size_t{4095});
  std::memcpy(memory, &page, sizeof page);
  return {static_cast<ServerPage*>(memory), [](ServerPage* p) { std::free(p); }};
}

} // namespace transom::tests
