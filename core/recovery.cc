#include "core/recovery.hpp"

#include <cstring>
#include <fmt/format.h>

#include "core/device_instance.hpp"

namespace transom {

namespace {

// The state of the device that was in the dispatch becomes what it was before.
Result<void> roll_back(ServerPage& page) {
  const Journal& journal = page.journal;
  const u32 device = journal.device, bytes = journal.undo_bytes; // copy once
  if (device >= MAX_DEVICES || bytes > STATE_BYTES)
    return error(fmt::format("the journal names device {} with {} bytes of state", device, bytes));
  DeviceSlot& slot = page.devices[device];
  std::memcpy(slot.state, journal.undo, bytes);
  slot.state_bytes.store(bytes, std::memory_order_release); // 0: its constructor had not returned
  return {};
}

// Requests that were written down but whose submission did not commit are gone. The hints are made anew: a host takes
// them before it looks at the slots, and may have died in between.
void settle_block_slots(ServerPage& page) {
  for (DeviceSlot& device : page.devices)
    for (u32 n = 0; n < BLOCK_SLOTS; ++n) {
      BlockSlot& slot = device.block.slots[n];
      auto expected = BlockSlotState::written;
      slot.state.compare_exchange_strong(expected, BlockSlotState::free, std::memory_order_acq_rel);
      const BlockSlotState state = slot.state.load(std::memory_order_acquire);
      if (state == BlockSlotState::queued) device.block.queued.fetch_or(1u << n, std::memory_order_seq_cst);
      if (state == BlockSlotState::done) device.block.done.fetch_or(1u << n, std::memory_order_seq_cst);
    }
}

std::vector<Recovery::Request> unanswered(const ServerPage& page) {
  std::vector<Recovery::Request> requests;
  for (u32 s = 0; s < IOREQ_SLOTS; ++s) {
    if (page.ioreq[s].state() != IoreqState::in_process) continue;
    const u64 id = page.side[s].request_id;
    const bool answered = id != 0 && page.journal.answered_id == id;
    requests.push_back({s, id, answered, answered ? page.journal.response : 0});
  }
  return requests;
}

} // namespace

Result<Recovery> recover(ServerPage& page) {
  EffectRing& ring = page.effects;
  const u32 sequence = ring.sequence(), tail = ring.tail();
  const u32 begun = page.journal.begun.load(std::memory_order_acquire);
  const u32 own_head = ring.own_head.load(std::memory_order_acquire);
  if (begun != sequence && begun != sequence + 1)
    return error(fmt::format("dispatch {} was begun, {} committed last", begun, sequence));
  if (tail - own_head > EFFECT_SLOTS) return error("the effect ring holds more than it has room for");

  Recovery result;
  const bool under_way = begun != sequence;
  if (under_way) {
    if (auto done = roll_back(page); !done) return tl::unexpected(done.error());
    result.rolled_back = true;
    result.device = page.journal.device;
    page.journal.answered_id = 0; // written before the commit that did not come
  }
  for (u32 at = own_head; at != tail; ++at) apply_own_effect(page, ring.slot[at % EFFECT_SLOTS]);
  ring.own_head.store(tail, std::memory_order_release);
  settle_block_slots(page);
  // A posted record whose dispatch committed is taken, even if its host could not say so any more.
  if (!under_way && page.journal.posted_sequence == sequence && sequence != 0) {
    const u32 next = page.journal.posted_head;
    if (next == page.posted_head.load(std::memory_order_relaxed) + 1)
      page.posted_head.store(next, std::memory_order_release);
  }
  result.requests = unanswered(page);
  page.journal.begun.store(sequence, std::memory_order_release);
  return result;
}

} // namespace transom
