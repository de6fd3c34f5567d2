// Where block requests really happen: io_uring where the kernel allows it, libuv's thread pool otherwise. Both complete
// on the event loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <sys/uio.h>
#include <uv.h>

#include "core/types.hpp"

namespace transom {

struct BlockJob {
  enum class Kind : u8 { read, write, flush, discard };
  Kind kind = Kind::read;
  bool fua = false;
  int fd = -1;
  u64 offset = 0;
  u64 length = 0;           // discard
  iovec* vectors = nullptr; // read, write; they live until completion
  u32 vector_count = 0;
  void* owner = nullptr;
};

class BlockEngine {
 public:
  // `result`: bytes, or −errno. May be called from inside submit() only when submission itself failed.
  using Complete = std::function<void(void* owner, i64 result)>;
  virtual ~BlockEngine() = default;
  virtual void submit(const BlockJob& job) = 0;
  virtual void flush_submissions() {}   // after a batch of submit()
  virtual bool poll() { return false; } // completions that wait, without a system call
  virtual const char* name() const = 0;

  // The best that works here. `allow_uring` false: the thread pool (tests use both).
  static std::unique_ptr<BlockEngine> create(uv_loop_t* loop, Complete complete, bool allow_uring = true);
};

} // namespace transom
