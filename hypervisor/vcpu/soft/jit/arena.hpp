// Memory for translated code, mapped twice, because no page may be writable and executable. The first half
// is for what runs, the second for what seldom does (slow paths), so that the first stays dense.
#pragma once

#include "core/types.hpp"

namespace transom::soft {

class CodeArena {
 public:
  explicit CodeArena(u64 bytes); // throws std::system_error
  ~CodeArena();
  CodeArena(const CodeArena&) = delete;
  CodeArena& operator=(const CodeArena&) = delete;

  // A part, bump-allocated. `next()` is where the following byte will run.
  struct Part {
    u64 begin = 0, end = 0, used = 0; // offsets; used counts from begin
  };
  Part hot, cold;

  const u8* next(const Part& p) const { return exec_ + p.begin + p.used; }
  u64 left(const Part& p) const { return p.end - p.begin - p.used; }
  u8* writable(const u8* exec) const { return write_ + (exec - exec_); }
  const u8* executable(const u8* write) const { return exec_ + (write - write_); }
  u64 bytes() const { return bytes_; }

 private:
  u64 bytes_;
  u8* write_ = nullptr;
  const u8* exec_ = nullptr;
};

} // namespace transom::soft
