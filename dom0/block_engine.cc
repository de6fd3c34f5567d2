#include "dom0/block_engine.hpp"

#include <cerrno>
#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include "core/event_channel.hpp"
#include "core/file_descriptor.hpp"

namespace transom {

namespace {

// ---------------------------------------------------------------------------------------------------- io_uring

class UringEngine final : public BlockEngine {
 public:
  static std::unique_ptr<UringEngine> open(uv_loop_t* loop, Complete complete) {
    auto engine = std::make_unique<UringEngine>(std::move(complete));
    if (::io_uring_queue_init(ENTRIES, &engine->ring_, 0) != 0) return nullptr;
    engine->open_ = true;
    engine->event_ = FileDescriptor(make_eventfd());
    if (!engine->event_ || ::io_uring_register_eventfd(&engine->ring_, engine->event_.get()) != 0) return nullptr;
    engine->poll_ = new uv_poll_t;
    uv_poll_init(loop, engine->poll_, engine->event_.get());
    engine->poll_->data = engine.get();
    uv_poll_start(engine->poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
      auto* self = static_cast<UringEngine*>(handle->data);
      u64 count = 0;
      [[maybe_unused]] const auto n = ::read(self->event_.get(), &count, sizeof count);
      self->poll();
    });
    return engine;
  }
  explicit UringEngine(Complete complete) : complete_(std::move(complete)) {}
  ~UringEngine() override {
    if (poll_ != nullptr) {
      uv_poll_stop(poll_);
      uv_close(reinterpret_cast<uv_handle_t*>(poll_), [](uv_handle_t* h) { delete reinterpret_cast<uv_poll_t*>(h); });
    }
    if (open_) ::io_uring_queue_exit(&ring_);
  }

  void submit(const BlockJob& job) override {
    io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      ::io_uring_submit(&ring_);
      sqe = ::io_uring_get_sqe(&ring_);
    }
    if (sqe == nullptr) return complete_(job.owner, -EBUSY);
    switch (job.kind) {
      case BlockJob::Kind::read: ::io_uring_prep_readv(sqe, job.fd, job.vectors, job.vector_count, job.offset); break;
      case BlockJob::Kind::write:
        ::io_uring_prep_writev2(sqe, job.fd, job.vectors, job.vector_count, job.offset, job.fua ? RWF_DSYNC : 0);
        break;
      case BlockJob::Kind::flush: ::io_uring_prep_fsync(sqe, job.fd, IORING_FSYNC_DATASYNC); break;
      case BlockJob::Kind::discard:
        ::io_uring_prep_fallocate(sqe, job.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  static_cast<off_t>(job.offset), static_cast<off_t>(job.length));
        break;
    }
    ::io_uring_sqe_set_data(sqe, job.owner);
    unsubmitted_ = true;
  }
  void flush_submissions() override {
    if (!unsubmitted_) return;
    ::io_uring_submit(&ring_);
    unsubmitted_ = ::io_uring_sq_ready(&ring_) != 0; // the kernel is short of something: again at the next completion
  }
  bool poll() override {
    io_uring_cqe* cqe = nullptr;
    bool any = false;
    while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
      void* const owner = ::io_uring_cqe_get_data(cqe);
      const i64 result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      complete_(owner, result);
      any = true;
    }
    flush_submissions(); // completions may have submitted the rest of a short transfer
    return any;
  }
  const char* name() const override { return "io_uring"; }

 private:
  static constexpr unsigned ENTRIES = 128;
  Complete complete_;
  io_uring ring_{};
  bool open_ = false, unsubmitted_ = false;
  FileDescriptor event_;
  uv_poll_t* poll_ = nullptr;
};

// ---------------------------------------------------------------------------------------------------- libuv's pool

class PoolEngine final : public BlockEngine {
 public:
  PoolEngine(uv_loop_t* loop, Complete complete) : loop_(loop), complete_(std::move(complete)) {}

  void submit(const BlockJob& job) override {
    auto* work = new Work{{}, this, job, 0};
    work->request.data = work;
    uv_queue_work(
        loop_, &work->request,
        [](uv_work_t* r) {
          auto* w = static_cast<Work*>(r->data);
          w->result = run(w->job);
        },
        [](uv_work_t* r, int) {
          auto* w = static_cast<Work*>(r->data);
          w->engine->complete_(w->job.owner, w->result);
          delete w;
        });
  }
  const char* name() const override { return "thread pool"; }

 private:
  struct Work {
    uv_work_t request;
    PoolEngine* engine;
    BlockJob job;
    i64 result;
  };
  static i64 run(const BlockJob& job) {
    const int vectors = static_cast<int>(job.vector_count);
    const off_t offset = static_cast<off_t>(job.offset);
    i64 result = 0;
    switch (job.kind) {
      case BlockJob::Kind::read: result = ::preadv(job.fd, job.vectors, vectors, offset); break;
      case BlockJob::Kind::write:
        result = ::pwritev2(job.fd, job.vectors, vectors, offset, job.fua ? RWF_DSYNC : 0);
        break;
      case BlockJob::Kind::flush: result = ::fdatasync(job.fd); break;
      case BlockJob::Kind::discard:
        result =
            ::fallocate(job.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(job.length));
        break;
    }
    return result < 0 ? -errno : result;
  }

  uv_loop_t* loop_;
  Complete complete_;
};

} // namespace

std::unique_ptr<BlockEngine> BlockEngine::create(uv_loop_t* loop, Complete complete, bool allow_uring) {
  if (allow_uring)
    if (auto engine = UringEngine::open(loop, complete)) return engine;
  return std::make_unique<PoolEngine>(loop, std::move(complete));
}

} // namespace transom
