// Dom0: one event loop with an ioreq server on it, and in the first server of a domain the services behind all devices
// (block, character). Single-threaded.
//
// The loop is hand-made around libuv: while there is traffic it spins on the shared words, because a sleeping process
// costs a vCPU a cross-CPU wake-up on every access; when none comes it sleeps in libuv, where the doorbell is one
// descriptor among others.
#pragma once

#include <memory>
#include <uv.h>

#include "core/domain_memory.hpp"
#include "dom0/block_service.hpp"
#include "dom0/char_service.hpp"
#include "dom0/ioreq_server.hpp"

namespace transom {

class Dom0 {
 public:
  Dom0(const DomainPlan& plan, const DomainMemory& memory, u32 index);
  ~Dom0();

  // Opens images and streams, creates the devices. On failure the server page says why. `control`: the supervisor's
  // socket.
  Result<void> start(int control);
  // Serves until the control socket ends, then finishes what was accepted: requests, bytes, flushes.
  void run();

 private:
  bool serve();
  bool work_waiting() const;
  void sleep();
  void finish();
  void watch(uv_poll_t*& handle, int fd, uv_poll_cb callback);

  const DomainPlan& plan_;
  const DomainMemory& memory_;
  const u32 index_;
  uv_loop_t loop_;
  EventChannel doorbell_;
  WakePolicy wake_;
  std::unique_ptr<BlockService> block_;
  std::unique_ptr<CharService> chars_;
  std::unique_ptr<IoreqServer> server_;
  uv_poll_t* doorbell_poll_ = nullptr;
  uv_poll_t* control_poll_ = nullptr;
  uv_poll_t* timer_poll_ = nullptr;
  int timer_fd_ = -1;
  int control_ = -1;
  bool stop_ = false;
  u64 spin_ns_;
};

} // namespace transom
