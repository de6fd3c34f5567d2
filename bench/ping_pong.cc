// The limits of this machine that an ioreq is measured against: a round trip between two processes over shared memory,
// spinning on both sides, and sleeping on futexes on both sides. Prints "NAME NANOSECONDS" a line, medians of several
// runs.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "core/event_channel.hpp"

namespace {

using transom::u32;
using transom::u64;

struct alignas(64) Word {
  std::atomic<u32> value{0};
};
struct Shared {
  Word ping, pong;
};

void wait_for(Word& word, u32 value, bool futex) {
  u32 seen = 0;
  while ((seen = word.value.load(std::memory_order_acquire)) != value) {
    if (futex)
      ::syscall(SYS_futex, &word.value, FUTEX_WAIT, seen, nullptr, nullptr, 0);
    else
      transom::cpu_relax();
  }
}

void send(Word& word, u32 value, bool futex) {
  word.value.store(value, std::memory_order_release);
  if (futex) ::syscall(SYS_futex, &word.value, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

double round_trip_ns(u32 rounds, bool futex) {
  auto* shared =
      static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t child = ::fork();
  if (child == 0) {
    for (u32 i = 1; i <= rounds; ++i) {
      wait_for(shared->ping, i, futex);
      send(shared->pong, i, futex);
    }
    ::_exit(0);
  }
  const u64 start = transom::monotonic_ns();
  for (u32 i = 1; i <= rounds; ++i) {
    send(shared->ping, i, futex);
    wait_for(shared->pong, i, futex);
  }
  const double ns = static_cast<double>(transom::monotonic_ns() - start) / rounds;
  ::waitpid(child, nullptr, 0);
  ::munmap(shared, sizeof(Shared));
  return ns;
}

double median(u32 rounds, bool futex) {
  std::vector<double> runs;
  runs.reserve(7);
  for (int i = 0; i < 7; ++i) runs.push_back(round_trip_ns(rounds, futex));
  std::nth_element(runs.begin(), runs.begin() + 3, runs.end());
  return runs[3];
}

} // namespace

int main() {
  std::printf("spin %.0f\n", median(200'000, false));
  std::printf("futex %.0f\n", median(5'000, true));
  return 0;
}
