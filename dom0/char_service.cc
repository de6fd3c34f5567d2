#include "dom0/char_service.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace transom {

namespace {
constexpr size_t MAX_PENDING = 64 << 10; // bytes handed to the system and not written yet; beyond it the ring fills
constexpr size_t CHUNK = 4096;

union AnyStream {
  uv_handle_t handle;
  uv_stream_t stream;
  uv_tty_t tty;
  uv_pipe_t pipe;
};
void close_handle(AnyStream*& s) {
  if (s == nullptr) return;
  uv_close(&s->handle, [](uv_handle_t* h) { delete reinterpret_cast<AnyStream*>(h); });
  s = nullptr;
}
} // namespace

// One stream of one device, and what it is connected to.
class CharService::Port {
 public:
  Port(uv_loop_t* loop, StreamPair& pair, EventChannel host, const std::function<void()>& escape)
      : loop_(loop), pair_(pair), host_(host), escape_(escape) {}

  Result<void> open(const StreamPlan& plan, bool input);
  bool pump();
  bool can_take() const { return pending_ < MAX_PENDING && (fd_ >= 0 || out_ != nullptr) && pair_.out.used() != 0; }
  bool drained() const { return pending_ == 0 && (pair_.out.used() == 0 || (fd_ < 0 && out_ == nullptr)); }
  u64 written() const { return written_; }
  void close();

 private:
  struct Write {
    uv_write_t request;
    Port* port;
    std::vector<char> bytes;
  };
  Result<void> open_stdio(bool input);
  void refill();
  Result<void> open_file(const std::string& path);
  Result<void> listen(const std::string& path);
  Result<AnyStream*> wrap(int fd);
  void accept();
  void hang_up();
  void start_reading();
  void received(const char* bytes, size_t length);
  bool push_input();
  void write_out(const u8* bytes, u32 length);

  uv_loop_t* loop_;
  StreamPair& pair_;
  EventChannel host_;
  std::function<void()> escape_;
  int fd_ = -1; // a regular file is written directly
  AnyStream* out_ = nullptr;
  AnyStream* in_ = nullptr; // may be the same as out_
  AnyStream* listener_ = nullptr;
  std::string socket_path_;
  size_t pending_ = 0;
  u64 written_ = 0;
  int input_fd_ = -1;       // standard input, when it is a file
  std::vector<char> input_; // read, and not yet in the ring
  bool reading_ = false;
  char chunk_[CHUNK];
};

Result<void> CharService::Port::open(const StreamPlan& plan, bool input) {
  Result<void> opened = {};
  switch (plan.kind) {
    case StreamKind::none: return {};
    case StreamKind::stdio: opened = open_stdio(input); break;
    case StreamKind::file: opened = open_file(plan.path); break;
    case StreamKind::unix_socket: opened = listen(plan.path); break;
  }
  if (opened) pair_.connected.store(1, std::memory_order_release);
  return opened;
}

// A descriptor of the caller's, for us to use without blocking. O_NONBLOCK belongs to the open file, which others share
// (the supervisor's messages, the shell's next program), so a pipe is opened once more.
int open_again(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)) {
    const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
    const int own = ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), mode | O_NONBLOCK | O_CLOEXEC);
    if (own >= 0) return own; // else its other end is gone
  }
  return ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

// A terminal, pipe or socket as a libuv stream. The descriptor stays the caller's.
Result<AnyStream*> CharService::Port::wrap(int fd) {
  auto s = new AnyStream;
  int status = 0;
  if (uv_guess_handle(fd) == UV_TTY) {
    status = uv_tty_init(loop_, &s->tty, fd, 0);
  } else {
    uv_pipe_init(loop_, &s->pipe, 0);
    const int own = open_again(fd);
    status = uv_pipe_open(&s->pipe, own);
    if (status != 0) {
      ::close(own);
      s->handle.data = this;
      close_handle(s);
      return error(fmt::format("stdio: {}", uv_strerror(status)));
    }
  }
  if (status == 0) {
    s->handle.data = this;
    return s;
  }
  delete s;
  return error(fmt::format("stdio: {}", uv_strerror(status)));
}

Result<void> CharService::Port::open_stdio(bool input) {
  struct stat st {};
  if (::fstat(STDOUT_FILENO, &st) == 0 && (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode)) &&
      uv_guess_handle(STDOUT_FILENO) != UV_TTY) {
    fd_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3); // a file, or /dev/null: never blocks
  } else {
    auto stream = wrap(STDOUT_FILENO);
    if (!stream) return tl::unexpected(stream.error());
    out_ = *stream;
  }
  if (!input) return {};
  const uv_handle_type kind = uv_guess_handle(STDIN_FILENO);
  if (kind == UV_TTY || kind == UV_NAMED_PIPE) {
    auto stream = wrap(STDIN_FILENO);
    if (!stream) return tl::unexpected(stream.error());
    in_ = *stream;
    start_reading();
  } else if (kind == UV_FILE) {
    input_fd_ = STDIN_FILENO;
    refill();
  }
  return {};
}

// The next piece of a file, once the guest has read the one before.
void CharService::Port::refill() {
  if (input_fd_ < 0 || !input_.empty()) return;
  const ssize_t n = ::read(input_fd_, chunk_, sizeof chunk_);
  if (n > 0)
    input_.assign(chunk_, chunk_ + n);
  else
    input_fd_ = -1;
}

Result<void> CharService::Port::open_file(const std::string& path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
  struct stat st {};
  if (fd_ < 0 || ::fstat(fd_, &st) != 0) return error(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISFIFO(st.st_mode) && uv_guess_handle(fd_) != UV_TTY) return {};
  auto stream = wrap(fd_); // may be slow
  ::close(std::exchange(fd_, -1));
  if (!stream) return error(fmt::format("{}: {}", path, stream.error().text));
  out_ = *stream;
  return {};
}

Result<void> CharService::Port::listen(const std::string& path) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0) {
    if (!S_ISSOCK(st.st_mode)) return error(fmt::format("unix:{}: exists and is no socket", path));
    ::unlink(path.c_str()); // a dead domain's
  }
  listener_ = new AnyStream;
  uv_pipe_init(loop_, &listener_->pipe, 0);
  listener_->handle.data = this;
  int status = uv_pipe_bind(&listener_->pipe, path.c_str());
  if (status == 0)
    status = uv_listen(&listener_->stream, 1, [](uv_stream_t* s, int failed) {
      failed == 0 ? static_cast<Port*>(s->data)->accept() : void();
    });
  if (status != 0) return error(fmt::format("unix:{}: {}", path, uv_strerror(status)));
  socket_path_ = path;
  return {};
}

// The newest peer has the line.
void CharService::Port::accept() {
  hang_up();
  auto peer = new AnyStream;
  uv_pipe_init(loop_, &peer->pipe, 0);
  peer->handle.data = this;
  uv_accept(&listener_->stream, &peer->stream);
  out_ = in_ = peer;
  start_reading();
}

void CharService::Port::hang_up() {
  if (in_ != out_) close_handle(in_);
  in_ = nullptr;
  close_handle(out_);
  reading_ = false;
}

void CharService::Port::close() {
  hang_up();
  close_handle(listener_);
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
  socket_path_.clear();
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

// ---------------------------------------------------------------------------------------------------- inwards

void CharService::Port::start_reading() {
  if (in_ == nullptr || reading_) return;
  reading_ = true;
  uv_read_start(
      &in_->stream,
      [](uv_handle_t* h, size_t, uv_buf_t* buffer) {
        auto* self = static_cast<Port*>(h->data);
        *buffer = uv_buf_init(self->chunk_, sizeof self->chunk_);
      },
      [](uv_stream_t* s, ssize_t n, const uv_buf_t* buffer) {
        auto* self = static_cast<Port*>(s->data);
        if (n > 0) return self->received(buffer->base, static_cast<size_t>(n));
        if (n == 0) return;
        if (self->listener_ != nullptr) return self->hang_up();
        uv_read_stop(s); // end of standard input: the line stays, nobody types any more
      });
}

void CharService::Port::received(const char* bytes, size_t length) {
  constexpr char ESCAPE = 0x1d; // Ctrl-]
  if (in_->handle.type == UV_TTY && escape_ && std::memchr(bytes, ESCAPE, length) != nullptr) return escape_();
  input_.insert(input_.end(), bytes, bytes + length);
  push_input();
  if (input_.empty()) return;
  uv_read_stop(&in_->stream); // until the guest has read
  reading_ = false;
}

bool CharService::Port::push_input() {
  if (input_.empty()) return false;
  const u32 tail = pair_.in.tail.load(std::memory_order_relaxed);
  const u32 taken = pair_.in.put(tail, reinterpret_cast<const u8*>(input_.data()), static_cast<u32>(input_.size()));
  if (taken == 0) return false;
  pair_.in.tail.store(tail + taken, std::memory_order_seq_cst);
  input_.erase(input_.begin(), input_.begin() + taken);
  host_.notify();
  if (input_.empty()) start_reading();
  refill();
  return true;
}

// ---------------------------------------------------------------------------------------------------- outwards

bool CharService::Port::pump() {
  bool moved = push_input();
  u8 bytes[CHUNK];
  while (can_take()) {
    const u32 n = pair_.out.peek(bytes, sizeof bytes);
    write_out(bytes, n);
    pair_.out.head.store(pair_.out.head.load(std::memory_order_relaxed) + n, std::memory_order_seq_cst);
    moved = true;
  }
  if (moved) host_.notify(); // the device may wait for room
  return moved;
}

void CharService::Port::write_out(const u8* bytes, u32 length) {
  if (fd_ >= 0) {
    for (u32 done = 0; done < length;) {
      const ssize_t n = ::write(fd_, bytes + done, length - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return; // the file system is full or the file is gone: a log is not worth stopping a guest
      done += static_cast<u32>(n);
    }
    written_ += length;
    return;
  }
  auto* w = new Write{{}, this, std::vector<char>(bytes, bytes + length)};
  w->request.data = w;
  pending_ += length;
  const uv_buf_t buffer = uv_buf_init(w->bytes.data(), length);
  const int status = uv_write(&w->request, &out_->stream, &buffer, 1, [](uv_write_t* r, int) {
    auto* done = static_cast<Write*>(r->data);
    done->port->pending_ -= done->bytes.size();
    done->port->written_ += done->bytes.size();
    delete done;
  });
  if (status == 0) return;
  pending_ -= length;
  delete w;
}

// ---------------------------------------------------------------------------------------------------- the service

CharService::CharService(uv_loop_t* loop, const DomainMemory& memory) : loop_(loop), memory_(memory) {}
CharService::~CharService() = default;

Result<void> CharService::open(const DomainPlan& plan, const std::function<void()>& escape) {
  std::vector<u32> rank(memory_.server_count() + 1, 0);
  for (const DevicePlan& device : plan.devices) {
    const u32 place = rank[device.server == SERVER_HYPERVISOR ? memory_.server_count() : device.server]++;
    for (u32 s = 0; s < device.streams.size() && s < STREAMS && place < MAX_DEVICES; ++s) {
      if (device.streams[s].kind == StreamKind::none) continue;
      auto port = std::make_unique<Port>(loop_, memory_.server(device.server).devices[place].streams[s],
                                         memory_.host_event(device.server), escape);
      const bool stdio = device.streams[s].kind == StreamKind::stdio;
      const bool input = stdio && !std::exchange(input_taken_, input_taken_ || stdio);
      if (auto opened = port->open(device.streams[s], input); !opened)
        return error(fmt::format("{}: {}", device.name, opened.error().text));
      ports_.push_back(std::move(port));
    }
  }
  return {};
}

bool CharService::pump() {
  bool moved = false;
  for (const auto& port : ports_) moved |= port->pump();
  return moved;
}

bool CharService::work_waiting() const {
  for (const auto& port : ports_)
    if (port->can_take()) return true;
  return false;
}

bool CharService::drained() const {
  for (const auto& port : ports_)
    if (!port->drained()) return false;
  return true;
}

u64 CharService::written() const {
  u64 sum = 0;
  for (const auto& port : ports_) sum += port->written();
  return sum;
}

void CharService::close() {
  for (const auto& port : ports_) port->close();
}

} // namespace transom
