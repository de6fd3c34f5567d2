#include "hypervisor/vcpu/kvm/calibrate.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"

namespace transom {

namespace {

constexpr u64 RAM = 0x4000, LOOP = 0x1000, EXITS = 0x2000;
// dec ecx; jnz $-1; hlt: counts down for longer than anybody waits
constexpr u8 LOOP_CODE[] = {0x49, 0x75, 0xfd, 0xf4};
// out 80h, al; jmp $-2
constexpr u8 EXIT_CODE[] = {0xe6, 0x80, 0xeb, 0xfc};
constexpr u64 ENOUGH_NS = 3'000'000; // of processor time
constexpr u64 MOST_NS = 200'000'000; // of the clock on the wall
constexpr u32 EXIT_COUNT = 32;
constexpr int PATIENCE_MS = 1000; // the parent's

// A processor makes thousands of MIPS of the loop, the software CPU hundreds, an emulated KVM a few.
constexpr double WORTH_MIPS = 500;
constexpr double WORTH_EXIT_US = 200;

u64 now(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// What the measuring process writes to its parent.
struct Report {
  char failure[256] = {};
  KvmSpeed speed;
};

kvm_run* g_run = nullptr; // of the measuring process, for its timer

class Measurement {
 public:
  Result<KvmSpeed> take();

 private:
  Result<void> build();
  Result<void> start_at(u64 rip);
  Result<u64> run(); // processor time

  FileDescriptor kvm_, vm_, vcpu_;
};

// 32-bit protected mode without paging: what every KVM can run on the processor itself.
Result<void> Measurement::start_at(u64 rip) {
  kvm_sregs s{};
  if (kvm_call(vcpu_.get(), KVM_GET_SREGS, &s) != 0) return error(kvm_failure("KVM_GET_SREGS"));
  s.cs.base = 0, s.cs.limit = 0xffff'ffff, s.cs.selector = 8;
  s.cs.type = 11, s.cs.present = s.cs.s = s.cs.db = s.cs.g = 1, s.cs.dpl = s.cs.l = 0;
  s.ss = s.cs;
  s.ss.type = 3, s.ss.selector = 16;
  s.ds = s.es = s.fs = s.gs = s.ss;
  s.cr0 |= 1;
  if (kvm_call(vcpu_.get(), KVM_SET_SREGS, &s) != 0) return error(kvm_failure("KVM_SET_SREGS"));
  kvm_regs r{};
  r.rip = rip;
  r.rcx = 0xffff'ffff;
  r.rflags = 2;
  if (kvm_call(vcpu_.get(), KVM_SET_REGS, &r) != 0) return error(kvm_failure("KVM_SET_REGS"));
  return {};
}

Result<void> Measurement::build() {
  auto kvm = open_kvm();
  if (!kvm) return tl::unexpected(kvm.error());
  kvm_ = std::move(*kvm);
  auto vm = create_kvm_vm(kvm_.get());
  if (!vm) return tl::unexpected(vm.error());
  vm_ = std::move(*vm);
  void* const ram = ::mmap(nullptr, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) return error("no memory");
  std::memcpy(static_cast<u8*>(ram) + LOOP, LOOP_CODE, sizeof LOOP_CODE);
  std::memcpy(static_cast<u8*>(ram) + EXITS, EXIT_CODE, sizeof EXIT_CODE);
  kvm_userspace_memory_region region{0, 0, 0, RAM, reinterpret_cast<u64>(ram)};
  if (kvm_call(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0)
    return error(kvm_failure("KVM_SET_USER_MEMORY_REGION"));
  vcpu_ = FileDescriptor(kvm_call(vm_.get(), KVM_CREATE_VCPU, 0));
  if (!vcpu_) return error(kvm_failure("KVM_CREATE_VCPU"));
  const int size = kvm_call(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  void* const run =
      size < 0 ? MAP_FAILED
               : ::mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_.get(), 0);
  if (run == MAP_FAILED) return error(kvm_failure("mmap of a KVM vCPU"));
  g_run = static_cast<kvm_run*>(run);
  return {};
}

Result<u64> Measurement::run() {
  const u64 before = now(CLOCK_THREAD_CPUTIME_ID);
  const int result = ::ioctl(vcpu_.get(), KVM_RUN, 0);
  const int code = errno;
  const u64 spent = now(CLOCK_THREAD_CPUTIME_ID) - before;
  if (result == 0 && g_run->exit_reason != KVM_EXIT_IO)
    return error(fmt::format("KVM leaves a loop with exit {}", g_run->exit_reason));
  if (result != 0 && code != EINTR) return error(fmt::format("KVM_RUN: {}", std::strerror(code)));
  return spent;
}

Result<KvmSpeed> Measurement::take() {
  if (auto built = build(); !built) return tl::unexpected(built.error());
  // Every millisecond: no KVM_RUN is longer.
  std::signal(SIGALRM, [](int) { __atomic_store_n(&g_run->immediate_exit, 1, __ATOMIC_SEQ_CST); });
  const itimerval tick{{0, 1000}, {0, 1000}};
  ::setitimer(ITIMER_REAL, &tick, nullptr);
  const u64 deadline = now(CLOCK_MONOTONIC) + MOST_NS;
  KvmSpeed speed;

  if (auto started = start_at(EXITS); !started) return tl::unexpected(started.error());
  u64 spent = 0;
  u32 exits = 0;
  for (bool warm = false; exits < EXIT_COUNT && now(CLOCK_MONOTONIC) < deadline; warm = true) {
    __atomic_store_n(&g_run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    const auto time = run();
    if (!time) return tl::unexpected(time.error());
    if (!warm) continue; // the first one builds page tables
    spent += *time;
    ++exits;
  }
  if (exits == 0) return error("KVM does not leave a guest that writes to a port");
  speed.exit_us = static_cast<double>(spent) / exits / 1000;

  if (auto started = start_at(LOOP); !started) return tl::unexpected(started.error());
  for (spent = 0; spent < ENOUGH_NS && now(CLOCK_MONOTONIC) < deadline;) {
    __atomic_store_n(&g_run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    const auto time = run();
    if (!time) return tl::unexpected(time.error());
    spent += *time;
  }
  kvm_regs r{};
  if (kvm_call(vcpu_.get(), KVM_GET_REGS, &r) != 0) return error(kvm_failure("KVM_GET_REGS"));
  const u32 rounds = 0xffff'ffff - static_cast<u32>(r.rcx);
  speed.mips = spent == 0 ? 0 : 2.0 * rounds * 1000 / static_cast<double>(spent);
  return speed;
}

[[noreturn]] void measure_and_report(int pipe) {
  Report report;
  const auto measured = Measurement().take();
  if (measured)
    report.speed = *measured;
  else
    std::strncpy(report.failure, measured.error().text.c_str(), sizeof report.failure - 1);
  const bool sent = ::write(pipe, &report, sizeof report) == sizeof report;
  ::_exit(sent ? 0 : 1);
}

} // namespace

Result<KvmSpeed> measure_kvm() {
  if (std::string obstacle = kvm_obstacle(); !obstacle.empty()) return error(std::move(obstacle));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return error(kvm_failure("pipe"));
  const FileDescriptor in(ends[0]);
  FileDescriptor out(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return error(kvm_failure("fork"));
  if (child == 0) measure_and_report(out.get());
  out.reset();
  Report report;
  pollfd fd{in.get(), POLLIN, 0};
  int ready;
  do ready = ::poll(&fd, 1, PATIENCE_MS);
  while (ready < 0 && errno == EINTR);
  const bool answered = ready > 0 && ::read(in.get(), &report, sizeof report) == sizeof report;
  end_process(child);
  if (!answered) return error("KVM was started, and did not come back");
  if (report.failure[0] != 0) return error(report.failure);
  return report.speed;
}

CpuChoice choose_cpu(const Result<KvmSpeed>& measured) {
  if (!measured) return {false, measured.error().text};
  if (measured->mips < WORTH_MIPS)
    return {false, fmt::format("KVM here executes {:.1f} MIPS (nested emulation)", measured->mips)};
  if (measured->exit_us > WORTH_EXIT_US)
    return {false, fmt::format("an exit of KVM takes {:.0f} µs here", measured->exit_us)};
  return {true,
          fmt::format("KVM here executes {:.0f} MIPS, an exit takes {:.1f} µs", measured->mips, measured->exit_us)};
}

std::string kvm_obstacle() {
  const auto kvm = open_kvm();
  return kvm ? std::string() : kvm.error().text;
}

} // namespace transom
