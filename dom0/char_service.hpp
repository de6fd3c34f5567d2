// The character service: connects the byte streams of devices (serial lines, debug consoles), wherever they are placed,
// to the terminal, files and sockets. It alone opens them.
//
// What a guest has written is kept until it is out: a slow reader fills the ring, and the device then waits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <uv.h>
#include <vector>

#include "core/domain_memory.hpp"
#include "core/domain_plan.hpp"

namespace transom {

class CharService {
 public:
  CharService(uv_loop_t* loop, const DomainMemory& memory);
  ~CharService();

  // `escape` is called when Ctrl-] is typed on a terminal.
  Result<void> open(const DomainPlan& plan, const std::function<void()>& escape = {});
  bool pump();               // moves what waits in either direction; true if anything moved
  bool work_waiting() const; // bytes that could be taken out of a ring now
  bool drained() const;      // nothing waits to be written
  u64 written() const;       // bytes that the system took, of all streams
  void close();              // stops reading; call before the loop is run down

 private:
  class Port;

  uv_loop_t* loop_;
  const DomainMemory& memory_;
  std::vector<std::unique_ptr<Port>> ports_;
  bool input_taken_ = false; // standard input goes to the first port that is on stdio
};

} // namespace transom
