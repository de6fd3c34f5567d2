// The hypervisor's end of one ioreq server: synchronous requests of vCPUs, the posted ring, and the effects that come
// back.
#pragma once

#include <mutex>

#include "core/domain_memory.hpp"
#include "core/server_page.hpp"

namespace transom {

// Board lock held. Applies every effect that the host of `page` has committed and nobody applied yet, in order.
template <class Apply>
void drain_effects(ServerPage& page, Apply&& apply) {
  EffectRing& ring = page.effects;
  const u32 tail = ring.tail();
  u32 head = ring.head.load(std::memory_order_relaxed);
  if (tail - head > EFFECT_SLOTS) head = tail; // a peer's nonsense: nothing that could be trusted
  for (; head != tail; ++head) {
    const Effect effect = ring.slot[head % EFFECT_SLOTS]; // copy once: the peer may scribble
    if (effect.device < MAX_DEVICES) apply(effect);
  }
  ring.head.store(tail, std::memory_order_release);
}

class ServerLink {
 public:
  ServerLink(const DomainMemory& memory, u32 index, WakePolicy wake);
  ServerLink(const ServerLink&) = delete;
  ServerLink& operator=(const ServerLink&) = delete;

  struct Request {
    IoreqType type;
    u16 device = 0, region = 0;
    u64 offset = 0; // within the region
    u64 addr = 0;   // port or guest-physical address, for the record
    u32 size = 0, count = 1;
    u64 data = 0;
    u8 flags = 0; // Ioreq::DATA_IS_PTR | READ | BACKWARD
  };
  // A vCPU's thread (slot = vCPU number) or the device thread (CONTROL_SLOT), without the board lock. Blocks until the
  // server answered; all ones when the domain is being stopped meanwhile.
  u64 call(u32 slot, const Request& request, const EventChannel& waiter);

  // Any thread of the hypervisor. In order with everything posted before. Waits while the ring is full.
  void post(const PostedRecord& record, bool doorbell);

  // Waits until the server has taken every posted record: before the EOI of a level-triggered interrupt, reset, pause.
  void flush_posted();

  bool effects_waiting() const { return page_.effects.head.load(std::memory_order_relaxed) != page_.effects.tail(); }
  ServerPage& page() const { return page_; }

 private:
  u64 spin_ns() const;
  bool domain_stopped() const { return domain_.state.load(std::memory_order_acquire) == DomainState::stopped; }

  ServerPage& page_;
  DomainPage& domain_;
  EventChannel doorbell_;
  WakePolicy wake_;
  std::mutex post_lock_;
};

} // namespace transom
