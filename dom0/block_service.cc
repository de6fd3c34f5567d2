#include "dom0/block_service.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

namespace transom {

namespace {
i32 status_of(i64 result) {
  switch (-result) {
    case ENOSPC:
    case EDQUOT: return VDEV_NO_SPACE;
    case EROFS:
    case EBADF: return VDEV_READ_ONLY;
    default: return VDEV_IO_ERROR;
  }
}
bool is_write(const BlockRequest& q) {
  return (q.op & 0xff) == VDEV_BLOCK_WRITE || (q.op & 0xff) == VDEV_BLOCK_DISCARD;
}
bool transfers(const BlockRequest& q) { return (q.op & 0xff) == VDEV_BLOCK_READ || (q.op & 0xff) == VDEV_BLOCK_WRITE; }
} // namespace

BlockService::BlockService(uv_loop_t* loop, const DomainMemory& memory, bool allow_uring)
    : loop_(loop), memory_(memory), code_(memory.code()) {
  engine_ = BlockEngine::create(
      loop,
      [](void* owner, i64 result) {
        auto* r = static_cast<Running*>(owner);
        r->service->completed(*r, result);
      },
      allow_uring);
  delay_timer_ = new uv_timer_t;
  uv_timer_init(loop, delay_timer_);
  delay_timer_->data = this;
}

BlockService::~BlockService() {
  while (submitted_ != 0) // the kernel or a thread still looks at these requests
    if (!engine_->poll()) uv_run(loop_, UV_RUN_ONCE);
  uv_timer_stop(delay_timer_);
  uv_close(reinterpret_cast<uv_handle_t*>(delay_timer_),
           [](uv_handle_t* h) { delete reinterpret_cast<uv_timer_t*>(h); });
}

Result<void> BlockService::open(const DomainPlan& plan) {
  std::vector<u32> rank(memory_.server_count() + 1, 0);
  for (const DevicePlan& device : plan.devices) {
    const u32 place = rank[device.server == SERVER_HYPERVISOR ? memory_.server_count() : device.server]++;
    if (device.drives.empty() || place >= MAX_DEVICES) continue;
    if (device.drives.size() > BLOCK_DRIVES)
      return error(fmt::format("{}: {} drives, at most {} fit on one controller", device.name, device.drives.size(),
                               BLOCK_DRIVES));
    auto attached = std::make_unique<Attached>();
    attached->server = device.server;
    attached->device = static_cast<u16>(place);
    BlockRing& ring = memory_.server(device.server).devices[place].block;
    for (u32 n = 0; n < device.drives.size(); ++n) {
      const DrivePlan& drive = device.drives[n];
      if (drive.kind == VDEV_DRIVE_ABSENT) continue;
      auto image = DiskImage::open(drive);
      if (!image) return tl::unexpected(image.error());
      vdev_block_info& info = ring.drives[n];
      info = {};
      info.size = sizeof info;
      info.kind = drive.kind;
      info.sectors = image->bytes() / VDEV_SECTOR_BYTES;
      info.read_only = drive.read_only;
      info.write_cache = drive.cache == DiskCache::writethrough ? 0 : 1;
      info.medium = 1;
      info.synchronous = drive.synchronous;
      std::memcpy(info.serial, drive.serial.data(), std::min(drive.serial.size(), sizeof info.serial));
      attached->drives[n].image = std::make_unique<DiskImage>(std::move(*image));
    }
    attached_.push_back(std::move(attached));
  }
  return {};
}

// ---------------------------------------------------------------------------------------------------- taking requests

bool BlockService::work_waiting() const {
  if (published_) return true;
  for (const auto& a : attached_)
    if (memory_.server(a->server).devices[a->device].block.queued.load(std::memory_order_seq_cst) != 0) return true;
  return false;
}

bool BlockService::pump() {
  bool moved = engine_->poll();
  moved |= std::exchange(published_, false);
  for (const auto& a : attached_) {
    BlockRing& ring = memory_.server(a->server).devices[a->device].block;
    if (ring.queued.load(std::memory_order_relaxed) == 0) continue;
    const size_t before = running_.size();
    for (u32 bits = ring.queued.exchange(0, std::memory_order_acq_rel); bits != 0; bits &= bits - 1)
      take(*a, static_cast<u32>(std::countr_zero(bits)));
    std::stable_sort(running_.begin() + static_cast<std::ptrdiff_t>(before), running_.end(),
                     [](const auto& x, const auto& y) { return x->request.order < y->request.order; });
    moved = true;
  }
  if (moved) {
    start_ready();
    engine_->flush_submissions();
  }
  return moved;
}

void BlockService::take(Attached& from, u32 slot_index) {
  BlockSlot& slot = memory_.server(from.server).devices[from.device].block.slots[slot_index];
  auto expected = BlockSlotState::queued;
  if ((from.taken >> slot_index & 1) != 0) return; // a peer that queues a running slot again gets one answer
  if (!slot.state.compare_exchange_strong(expected, BlockSlotState::running, std::memory_order_acq_rel)) return;
  auto r = std::make_unique<Running>();
  r->service = this;
  r->from = &from;
  r->slot = slot_index;
  r->request = copy_once(slot.request); // everything below looks at the copy
  from.taken |= 1u << slot_index;
  ++in_flight_;
  running_.push_back(std::move(r));
}

// A request waits while an older one of its drive is not finished and touches the same sectors, one of the two writing.
bool BlockService::blocked(const Running& r) const {
  const BlockRequest& q = r.request;
  for (const auto& other : running_) {
    if (other.get() == &r) return false;
    const BlockRequest& o = other->request;
    if (other->from != r.from || o.drive != q.drive || (!is_write(o) && !is_write(q))) continue;
    if ((o.op & 0xff) == VDEV_BLOCK_FLUSH || (q.op & 0xff) == VDEV_BLOCK_FLUSH)
      continue; // a flush covers what completed before it came
    if (q.sector < o.sector + o.bytes / VDEV_SECTOR_BYTES && o.sector < q.sector + q.bytes / VDEV_SECTOR_BYTES)
      return true;
  }
  return false;
}

void BlockService::start_ready() {
  // start() may finish a request at once and so change the list: begin again until nothing more starts.
  for (bool again = true; again;) {
    again = false;
    for (const auto& r : running_) {
      if (r->active || r->release_at != 0 || blocked(*r)) continue;
      start(*r);
      again = true;
      break;
    }
  }
}

// ---------------------------------------------------------------------------------------------------- running them

i32 BlockService::check(const Running& r) const {
  const BlockRequest& q = r.request;
  const u32 op = q.op & 0xff;
  const Drive& drive = r.from->drives[q.drive % BLOCK_DRIVES];
  if (q.drive >= BLOCK_DRIVES || drive.image == nullptr) return VDEV_NOT_FOUND;
  if (op < VDEV_BLOCK_READ || op > VDEV_BLOCK_DISCARD) return VDEV_INVALID;
  if (op == VDEV_BLOCK_FLUSH) return drive.flush_failed ? VDEV_IO_ERROR : VDEV_OK;
  const u64 sectors = drive.image->bytes() / VDEV_SECTOR_BYTES;
  if (q.bytes % VDEV_SECTOR_BYTES != 0 || q.sector > sectors || q.bytes / VDEV_SECTOR_BYTES > sectors - q.sector)
    return VDEV_INVALID;
  if (op != VDEV_BLOCK_READ && drive.image->plan().read_only) return VDEV_READ_ONLY;
  return VDEV_OK;
}

// The request's segments as host memory, from byte `r.done` on.
bool BlockService::gather(Running& r, u32& count) {
  const BlockRequest& q = r.request;
  const GuestMemory ram = memory_.ram();
  u64 skip = r.done, total = 0;
  count = 0;
  if (q.segment_count > VDEV_BLOCK_MAX_SEGMENTS) return false;
  for (u32 i = 0; i < q.segment_count; ++i) {
    const vdev_segment& s = q.segments[i];
    u8* host = nullptr;
    if (s.kind == VDEV_SEGMENT_GUEST)
      host = ram.at(s.address, s.length);
    else if (s.kind == VDEV_SEGMENT_BULK && s.address <= BULK_BYTES && s.length <= BULK_BYTES - s.address)
      host = memory_.server(r.from->server).bulk + s.address;
    if (host == nullptr) return false;
    total += s.length;
    const u64 used = std::min<u64>(skip, s.length);
    skip -= used;
    if (used < s.length) r.vectors[count++] = {host + used, s.length - used};
  }
  return total == q.bytes;
}

void BlockService::start(Running& r) {
  r.active = true;
  const BlockRequest& q = r.request;
  const u32 current = memory_.server(r.from->server)
                          .devices[r.from->device]
                          .block.generation[q.drive % BLOCK_DRIVES]
                          .load(std::memory_order_acquire);
  if (current != q.generation) return finish(r, VDEV_FAILED); // cancelled before it began; nobody will look
  if (const i32 status = check(r); status < 0) return finish(r, status);
  const Drive& drive = r.from->drives[q.drive];
  BlockJob job;
  job.fd = drive.image->fd();
  job.offset = q.sector * VDEV_SECTOR_BYTES + r.done;
  job.length = q.bytes;
  job.owner = &r;
  switch (q.op & 0xff) {
    case VDEV_BLOCK_FLUSH:
      if (!drive.image->durable()) return finish(r, VDEV_OK);
      job.kind = BlockJob::Kind::flush;
      break;
    case VDEV_BLOCK_DISCARD:
      if (q.bytes == 0) return finish(r, VDEV_OK);
      job.kind = BlockJob::Kind::discard;
      break;
    default:
      if (!gather(r, job.vector_count)) return finish(r, VDEV_INVALID);
      if (job.vector_count == 0) return finish(r, VDEV_OK);
      job.vectors = r.vectors;
      job.kind = (q.op & 0xff) == VDEV_BLOCK_READ ? BlockJob::Kind::read : BlockJob::Kind::write;
      job.fua = (q.op & VDEV_BLOCK_FUA) != 0 && drive.image->durable();
  }
  ++submitted_;
  r.touched = true;
  engine_->submit(job);
}

void BlockService::completed(Running& r, i64 result) {
  --submitted_;
  if (result == -EINTR || result == -EAGAIN) return start(r);
  const u32 op = r.request.op & 0xff;
  if (result == -EOPNOTSUPP && op == VDEV_BLOCK_DISCARD) result = 0; // a hint: the old data stay
  if (result < 0) {
    // The kernel has dropped the pages that it could not write: a later flush would lie about them.
    if (op == VDEV_BLOCK_FLUSH) r.from->drives[r.request.drive].flush_failed = true;
    return finish(r, status_of(result));
  }
  if (transfers(r.request)) {
    if (result == 0) return finish(r, VDEV_IO_ERROR); // the file became shorter than the disk
    r.done += static_cast<u64>(result);
    if (r.done < r.request.bytes) return start(r);
  }
  finish(r, VDEV_OK);
}

void BlockService::finish(Running& r, i32 status) {
  r.status = status;
  const Drive& drive = r.from->drives[r.request.drive % BLOCK_DRIVES];
  const u32 delay = drive.image ? drive.image->plan().delay_us : 0;
  r.release_at = delay == 0 ? 1 : monotonic_ns() + u64{delay} * 1000;
  held_.push_back(&r);
  if (delay == 0) return release_held();
  if (uv_is_active(reinterpret_cast<uv_handle_t*>(delay_timer_)) != 0) return; // it looks every millisecond
  uv_timer_start(
      delay_timer_, [](uv_timer_t* t) { static_cast<BlockService*>(t->data)->release_held(); }, (delay + 999) / 1000,
      1);
}

void BlockService::release_held() {
  const u64 now = monotonic_ns();
  for (auto it = held_.begin(); it != held_.end();) {
    Running* r = *it;
    if (r->release_at > now) {
      ++it;
      continue;
    }
    it = held_.erase(it);
    publish(*r);
  }
  if (held_.empty()) uv_timer_stop(delay_timer_);
}

// Data landed → code pages → status → done → host is told. Then the request is gone.
void BlockService::publish(Running& r) {
  const BlockRequest& q = r.request;
  if ((q.op & 0xff) == VDEV_BLOCK_READ && r.touched) // its segments were checked then
    for (u32 i = 0; i < q.segment_count; ++i)
      if (q.segments[i].kind == VDEV_SEGMENT_GUEST)
        memory_.page().memory_written(code_, q.segments[i].address, q.segments[i].length);
  const u32 server = r.from->server;
  BlockRing& ring = memory_.server(server).devices[r.from->device].block;
  BlockSlot& slot = ring.slots[r.slot];
  slot.status = r.status;
  slot.transferred = r.done;
  slot.state.store(BlockSlotState::done, std::memory_order_release);
  ring.done.fetch_or(1u << r.slot, std::memory_order_seq_cst);
  r.from->taken &= ~(1u << r.slot);
  --in_flight_;
  published_ = true;
  running_.erase(std::find_if(running_.begin(), running_.end(), [&](const auto& p) { return p.get() == &r; }));
  memory_.host_event(server).notify();
}

void BlockService::sync_all() {
  for (const auto& a : attached_)
    for (const Drive& drive : a->drives)
      if (drive.image != nullptr && !drive.image->plan().read_only && drive.image->plan().cache != DiskCache::unsafe)
        ::fdatasync(drive.image->fd());
}

} // namespace transom
