// The block service: takes requests from the rings of all devices with drives, wherever they are placed, and fulfils
// them straight between image and guest memory. It alone opens images.
//
// Promises: a write completes after the data is with the host kernel; a flush completes after fdatasync returned 0 for
// every write that completed before the flush was submitted; once a flush failed, no later one of that image succeeds;
// requests that overlap a write in flight wait for it.
#pragma once

#include <deque>
#include <memory>
#include <uv.h>
#include <vector>

#include "core/domain_memory.hpp"
#include "dom0/block_engine.hpp"
#include "dom0/disk_image.hpp"

namespace transom {

class BlockService {
 public:
  BlockService(uv_loop_t* loop, const DomainMemory& memory, bool allow_uring = true);
  ~BlockService();

  // Opens every image of the plan and describes the drives in the device table. `place`: the index that each device has
  // in its server's table, which is its rank among the plan's devices of that server.
  Result<void> open(const DomainPlan& plan);

  bool pump(); // takes what is queued, completes what is done; true if anything moved
  bool work_waiting() const;
  bool busy() const { return in_flight_ != 0 || !held_.empty(); }
  void sync_all(); // at the end of the domain: everything completed so far is made durable; blocking

 private:
  struct Drive {
    std::unique_ptr<DiskImage> image;
    bool flush_failed = false;
  };
  struct Attached { // a device with drives
    u32 server = 0;
    u16 device = 0;
    u32 taken = 0; // bit per slot that is in running_
    std::array<Drive, BLOCK_DRIVES> drives;
  };
  struct Running {
    BlockService* service = nullptr;
    Attached* from = nullptr;
    u32 slot = 0;
    BlockRequest request{}; // our copy
    u64 done = 0;           // bytes of a transfer that came in pieces
    bool active = false;    // start() was called
    bool touched = false;   // handed to the engine: memory may have changed
    i32 status = 0;
    u64 release_at = 0; // host clock, for a delayed drive
    iovec vectors[VDEV_BLOCK_MAX_SEGMENTS];
  };

  void take(Attached& from, u32 slot);
  void start_ready();
  bool blocked(const Running& r) const;
  void start(Running& r);
  i32 check(const Running& r) const;
  bool gather(Running& r, u32& count);
  void completed(Running& r, i64 result);
  void finish(Running& r, i32 status);
  void publish(Running& r);
  void release_held();

  uv_loop_t* loop_;
  const DomainMemory& memory_;
  CodePages code_;
  std::unique_ptr<BlockEngine> engine_;
  std::vector<std::unique_ptr<Attached>> attached_;
  std::deque<std::unique_ptr<Running>> running_; // in order of submission, at most BLOCK_SLOTS a device
  std::deque<Running*> held_;                    // finished, waiting for their delay
  u32 in_flight_ = 0;
  u32 submitted_ = 0;      // with the engine now
  bool published_ = false; // something finished: what waited for it may start
  uv_timer_t* delay_timer_ = nullptr;
};

} // namespace transom
