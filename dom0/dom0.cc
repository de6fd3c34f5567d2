#include "dom0/dom0.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vdev/ext/log.h"

namespace transom {

namespace {
// The spin window: long enough for a guest that polls a register, short enough to leave the CPU to others. It grows
// while work keeps arriving within it and shrinks when it runs out.
constexpr u64 SPIN_MIN_NS = 20'000, SPIN_MAX_NS = 200'000;
constexpr u64 FOR_EVER = ~u64{0};
// While spinning, descriptors are looked at this often.
constexpr u64 LOOP_EVERY_NS = 20'000;

void log_device(u32 level, const std::string& device, const char* text) {
  const auto severity = level <= VDEV_LOG_ERROR     ? spdlog::level::err
                        : level == VDEV_LOG_WARNING ? spdlog::level::warn
                        : level == VDEV_LOG_INFO    ? spdlog::level::info
                                                    : spdlog::level::debug;
  spdlog::log(severity, "{}: {}", device, text);
}
void close_poll(uv_poll_t*& handle) {
  if (handle == nullptr) return;
  uv_poll_stop(handle);
  uv_close(reinterpret_cast<uv_handle_t*>(handle), [](uv_handle_t* h) { delete reinterpret_cast<uv_poll_t*>(h); });
  handle = nullptr;
}
} // namespace

Dom0::Dom0(const DomainPlan& plan, const DomainMemory& memory, u32 index)
    : plan_(plan),
      memory_(memory),
      index_(index),
      doorbell_(memory.doorbell(index)),
      wake_(plan.servers[index].wake),
      spin_ns_(wake_ == WakePolicy::spin    ? FOR_EVER
               : wake_ == WakePolicy::sleep ? 0
                                            : SPIN_MAX_NS) {
  uv_loop_init(&loop_);
}

Dom0::~Dom0() {
  server_.reset();
  if (chars_) chars_->close();
  block_.reset();
  close_poll(doorbell_poll_);
  close_poll(control_poll_);
  close_poll(timer_poll_);
  uv_run(&loop_, UV_RUN_DEFAULT); // closes run their callbacks here
  chars_.reset();
  uv_loop_close(&loop_);
  if (timer_fd_ >= 0) ::close(timer_fd_);
}

Result<void> Dom0::start(int control) {
  control_ = control;
  ServerPage& page = memory_.server(index_);
  const auto refuse = [&](const Error& failure) -> Result<void> {
    fmt::format_to_n(page.failure, sizeof page.failure - 1, "{}", failure.text);
    page.state.store(ServerState::failed, std::memory_order_seq_cst);
    memory_.device_thread_event().notify();
    return tl::unexpected(failure);
  };
  std::function<void()> kick = [] {}; // the services run on this very loop
  if (index_ == 0) {
    block_ = std::make_unique<BlockService>(&loop_, memory_);
    chars_ = std::make_unique<CharService>(&loop_, memory_);
    if (auto opened = block_->open(plan_); !opened) return refuse(opened.error());
    if (auto opened = chars_->open(plan_, [control] { ::send(control, "escape\n", 7, MSG_NOSIGNAL | MSG_DONTWAIT); });
        !opened)
      return refuse(opened.error());
  } else {
    kick = [this] { memory_.doorbell(0).notify(); };
  }
  timer_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  server_ = std::make_unique<IoreqServer>(plan_, memory_, index_, std::move(kick), log_device);
  return server_->start();
}

void Dom0::watch(uv_poll_t*& handle, int fd, uv_poll_cb callback) {
  if (fd < 0) return;
  handle = new uv_poll_t;
  uv_poll_init(&loop_, handle, fd);
  handle->data = this;
  uv_poll_start(handle, UV_READABLE | UV_DISCONNECT, callback);
}

// ---------------------------------------------------------------------------------------------------- the loop

bool Dom0::serve() {
  bool worked = server_->poll();
  if (block_) worked |= block_->pump();
  if (chars_) worked |= chars_->pump();
  return worked;
}

bool Dom0::work_waiting() const {
  return server_->work_waiting() || (block_ && block_->work_waiting()) || (chars_ && chars_->work_waiting());
}

void Dom0::run() {
  watch(doorbell_poll_, doorbell_.fd(), [](uv_poll_t*, int, int) {}); // its count is taken back by awake()
  watch(timer_poll_, timer_fd_, [](uv_poll_t* h, int, int) {
    u64 expirations = 0;
    [[maybe_unused]] const auto n = ::read(static_cast<Dom0*>(h->data)->timer_fd_, &expirations, sizeof expirations);
  });
  watch(control_poll_, control_, [](uv_poll_t* h, int, int) { static_cast<Dom0*>(h->data)->stop_ = true; });

  u64 last_work = monotonic_ns(), last_loop = last_work;
  while (!stop_) {
    const bool worked = serve();
    const u64 now = monotonic_ns();
    if (worked) last_work = now;
    if (now - last_loop >= LOOP_EVERY_NS) {
      uv_run(&loop_, UV_RUN_NOWAIT);
      last_loop = now;
    }
    if (worked) continue;
    if (now - last_work < spin_ns_) {
      if (now - last_work > SPIN_ALONE_NS)
        ::sched_yield();
      else
        cpu_relax();
      continue;
    }
    if (wake_ == WakePolicy::adaptive) spin_ns_ = std::max(SPIN_MIN_NS, spin_ns_ / 2);
    const u64 slept_at = monotonic_ns();
    sleep();
    last_work = last_loop = monotonic_ns();
    // Woken soon after falling asleep: a longer spin would have met it.
    if (wake_ == WakePolicy::adaptive && last_work - slept_at < SPIN_MAX_NS)
      spin_ns_ = std::min(SPIN_MAX_NS, spin_ns_ * 2 + SPIN_MIN_NS);
  }
  finish();
}

void Dom0::sleep() {
  doorbell_.announce_sleep();
  if (!work_waiting()) {
    const u64 deadline = server_->next_deadline();
    itimerspec at{};
    if (deadline != FOR_EVER && memory_.clock().running()) {
      const u64 host = memory_.clock().host_deadline(deadline);
      at.it_value = {static_cast<time_t>(host / 1'000'000'000), static_cast<long>(host % 1'000'000'000)};
    }
    ::timerfd_settime(timer_fd_, TFD_TIMER_ABSTIME, &at, nullptr);
    uv_run(&loop_, UV_RUN_ONCE);
  }
  doorbell_.awake();
}

// The domain is over. What was accepted is finished: disk requests reach the kernel and the disk, bytes their reader.
void Dom0::finish() {
  constexpr u64 PATIENCE_NS = 5'000'000'000; // for a reader that does not read at all
  u64 last_progress = monotonic_ns(), written = 0;
  while (monotonic_ns() - last_progress < PATIENCE_NS) {
    const bool worked = serve();
    if ((!block_ || (!block_->busy() && !block_->work_waiting())) && (!chars_ || chars_->drained())) break;
    uv_run(&loop_, UV_RUN_NOWAIT);
    const u64 now_written = chars_ ? chars_->written() : 0;
    if (worked || now_written != written)
      last_progress = monotonic_ns();
    else
      ::usleep(100);
    written = now_written;
  }
  if (block_) block_->sync_all();
  memory_.server(index_).state.store(ServerState::stopped, std::memory_order_release);
}

} // namespace transom
