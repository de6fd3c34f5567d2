// What a new host, or whoever looks at the memory of a dead one, does first: restores the promise of effects.hpp.
//
// A dispatch that had not committed never happened: the device's state comes back from the undo copy, its block slots
// are free again, its effects lie behind the committed tail where nobody looks. One that had committed happened once:
// what is the device host's own to publish (queues, streams) is published again, which is idempotent; what the
// hypervisor applies lies in [head, tail) and is applied by it, once. Guest RAM is not rolled back.
//
// The memory was written by a process that may have been hostile: every index is checked, and a page that contradicts
// itself is refused, untouched.
#pragma once

#include <vector>

#include "core/result.hpp"
#include "core/server_page.hpp"

namespace transom {

struct Recovery {
  bool rolled_back = false; // a dispatch was under way
  u32 device = 0;           // of the dispatch that was rolled back
  // Requests that were taken and not answered: those whose dispatch committed have their answer; the others are to be
  // delivered again, at most once.
  struct Request {
    u32 slot = 0;
    u64 request_id = 0;
    bool answered = false;
    u64 answer = 0;
  };
  std::vector<Request> requests;
};

// The host of `page` is dead and nobody else works on the page. May be called again: the second time finds nothing.
Result<Recovery> recover(ServerPage& page);

} // namespace transom
