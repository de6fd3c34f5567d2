#include "hypervisor/server_link.hpp"

#include <thread>

namespace transom {

namespace {
// How long a vCPU spins for an answer before it sleeps. An awake server answers in about a microsecond; a sleeping one
// needs a cross-CPU wake (tens of microseconds), and going to sleep here as well would double that.
constexpr u64 ADAPTIVE_SPIN_NS = 100'000;
constexpr u64 UNTIL_ANSWERED = 10'000'000'000;
// And how long it keeps its turn meanwhile: handing over costs two wakes.
constexpr u64 TURN_SPIN_NS = 10'000;
} // namespace

ServerLink::ServerLink(const DomainMemory& memory, u32 index, WakePolicy wake, Turns* turns)
    : page_(memory.server(index)),
      domain_(memory.page()),
      doorbell_(memory.doorbell(index)),
      wake_(wake),
      turns_(turns),
      effects_(page_) {}

u64 ServerLink::spin_ns() const {
  return wake_ == WakePolicy::spin ? UNTIL_ANSWERED : wake_ == WakePolicy::sleep ? 0 : ADAPTIVE_SPIN_NS;
}

u64 ServerLink::call(u32 slot, const Request& request, const EventChannel& waiter) {
  Ioreq& ioreq = page_.ioreq[slot];
  IoreqSide& side = page_.side[slot];
  side.request_id = domain_.next_request_id.fetch_add(1, std::memory_order_relaxed) + 1;
  side.device = request.device;
  side.region = request.region;
  side.offset = request.offset;
  ioreq.addr = request.addr;
  ioreq.data = request.data;
  ioreq.count = request.count;
  ioreq.size = request.size;
  ioreq.type = static_cast<u8>(request.type);
  ioreq.set_state(IoreqState::ready, request.flags);
  doorbell_.notify();

  const auto answered = [&] { return ioreq.state() == IoreqState::response_ready || domain_stopped(); };
  if (turns_ != nullptr && !EventChannel::spin(answered, TURN_SPIN_NS) && turns_->give(slot)) {
    waiter.wait(answered, spin_ns());
    turns_->take(slot, true);
  } else {
    waiter.wait(answered, spin_ns());
  }
  if (ioreq.state() != IoreqState::response_ready) return ~u64{0};
  const u64 answer = ioreq.data;
  ioreq.set_state(IoreqState::none, 0);
  return answer;
}

void ServerLink::post(const PostedRecord& record, bool doorbell) {
  {
    const std::lock_guard lock(post_lock_);
    if (!append(record)) {
      page_.posted_full.fetch_add(1, std::memory_order_relaxed);
      doorbell_.notify();
      while (!append(record)) {
        if (domain_stopped()) return;
        std::this_thread::yield();
      }
    }
  }
  if (doorbell) doorbell_.notify();
}

bool ServerLink::try_post(const PostedRecord& record) {
  const std::unique_lock lock(post_lock_, std::try_to_lock); // whoever holds it may be waiting for room
  const bool posted = lock.owns_lock() && append(record);
  doorbell_.notify();
  return posted;
}

bool ServerLink::append(const PostedRecord& record) {
  const u32 tail = page_.posted_tail.load(std::memory_order_relaxed);
  if (tail - page_.posted_head.load(std::memory_order_acquire) >= POSTED_SLOTS) return false;
  page_.posted[tail % POSTED_SLOTS] = record;
  page_.posted_tail.store(tail + 1, std::memory_order_release);
  return true;
}

void ServerLink::flush_posted() {
  const auto empty = [&] {
    return page_.posted_head.load(std::memory_order_acquire) == page_.posted_tail.load(std::memory_order_acquire);
  };
  if (empty()) return;
  doorbell_.notify();
  while (!empty() && !domain_stopped()) std::this_thread::yield();
}

} // namespace transom
