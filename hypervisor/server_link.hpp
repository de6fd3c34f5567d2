// The hypervisor's end of one ioreq server: synchronous requests of vCPUs, the posted ring, and the effects that come
// back.
#pragma once

#include <mutex>

#include "core/domain_memory.hpp"
#include "core/server_page.hpp"
#include "hypervisor/turns.hpp"

namespace transom {

// The applying end of one host's effect ring. How far it has come is its own knowledge, so that no peer can make it
// apply an effect twice; the head in the ring only tells the host where there is room.
class EffectReader {
 public:
  explicit EffectReader(ServerPage& page)
      : ring_(&page.effects), head_(page.effects.head.load(std::memory_order_acquire)), settled_(head_) {}

  // Any thread: something is committed whose consequences are not all there yet.
  bool waiting() const { return settled_.load(std::memory_order_acquire) != ring_->tail(); }

  // Board lock held. Applies every effect that the host has committed and nobody applied yet, in order. apply() may
  // make the host commit more; that is for the next call.
  template <class Apply>
  bool drain(Apply&& apply) {
    const u32 tail = ring_->tail();
    u32 head = head_;
    if (head == tail) return false;
    if (tail - head > EFFECT_SLOTS) head = tail; // a peer's nonsense: nothing that could be trusted
    while (head != tail) {
      const Effect effect = copy_once(ring_->slot[head % EFFECT_SLOTS]);
      ++head;
      if (effect.device < MAX_DEVICES) apply(effect);
    }
    head_ = tail;
    ring_->head.store(tail, std::memory_order_release);
    return true;
  }
  // Board lock held: what was applied has reached whoever it concerns.
  void settled() { settled_.store(head_, std::memory_order_release); }

 private:
  EffectRing* ring_;
  u32 head_;
  std::atomic<u32> settled_;
};

class ServerLink {
 public:
  ServerLink(const DomainMemory& memory, u32 index, WakePolicy wake, Turns* turns);
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
  // server answered; all ones when the domain is being stopped meanwhile. A vCPU that has to wait gives up its turn.
  u64 call(u32 slot, const Request& request, const EventChannel& waiter);

  // Any thread of the hypervisor. In order with everything posted before. Waits while the ring is full, so the board
  // lock may not be held: the server may itself wait for its effects to be applied.
  void post(const PostedRecord& record, bool doorbell);
  // Never waits, rings the doorbell. False: the ring is full.
  bool try_post(const PostedRecord& record);

  // Waits until the server has taken every posted record: before the EOI of a level-triggered interrupt, reset, pause.
  void flush_posted();

  bool effects_waiting() const { return effects_.waiting(); }
  EffectReader& effects() { return effects_; }

 private:
  u64 spin_ns() const;
  bool append(const PostedRecord& record); // post_lock_ held
  bool domain_stopped() const { return domain_.state.load(std::memory_order_acquire) == DomainState::stopped; }

  ServerPage& page_;
  DomainPage& domain_;
  EventChannel doorbell_;
  WakePolicy wake_;
  Turns* turns_;
  std::mutex post_lock_;
  EffectReader effects_;
};

} // namespace transom
