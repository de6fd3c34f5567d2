// Turns and Standstill: how the threads of several vCPUs share a CPU and stop together.
#include <gtest/gtest.h>
#include <thread>
#include <vector>

#include "hypervisor/standstill.hpp"
#include "hypervisor/turns.hpp"

using namespace transom;

TEST(Turns, NeverGivesTwoAtOnceAndNobodyStarves) {
  constexpr u32 VCPUS = 4, ROUNDS = 300;
  std::array<std::atomic<bool>, VCPUS> preempted{};
  Turns turns([&](u32 v) { preempted[v].store(true); });
  std::atomic<u32> inside{0}, most{0};
  u64 unguarded = 0; // a data race if two had a turn
  std::vector<std::thread> threads;
  for (u32 v = 0; v < VCPUS; ++v)
    threads.emplace_back([&, v] {
      for (u32 n = 0; n < ROUNDS; ++n) {
        turns.take(v, n % 7 == 0);
        most.store(std::max(most.load(), ++inside));
        ++unguarded;
        --inside;
        EXPECT_TRUE(turns.give(v));
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(most, 1u);
  EXPECT_EQ(unguarded, VCPUS * ROUNDS);
  EXPECT_FALSE(turns.wanted());
}

TEST(Turns, MakeOneGiveUpThatKeepsItsTurnTooLong) {
  std::atomic<u32> preempted{~0u};
  Turns turns([&](u32 v) { preempted.store(v); });
  turns.take(3);
  std::thread second([&] {
    turns.take(1);
    turns.give(1);
  });
  while (preempted.load() == ~0u) std::this_thread::yield(); // the holder runs guest code without an exit
  EXPECT_EQ(preempted, 3u);
  EXPECT_TRUE(turns.wanted());
  turns.give(3);
  second.join();
}

TEST(Turns, AreNotGivenBackByWhoHasNone) {
  Turns turns([](u32) {});
  EXPECT_FALSE(turns.give(0));
  turns.take(0);
  EXPECT_FALSE(turns.give(1));
  EXPECT_TRUE(turns.give(0));
  EXPECT_FALSE(turns.give(0));
}

TEST(Standstill, HoldsEveryVcpuUntilItIsReleased) {
  constexpr u32 VCPUS = 3;
  std::atomic<u32> kicks{0};
  std::atomic<bool> over{false};
  Standstill standstill(VCPUS, [&] { ++kicks; });
  std::array<u64, VCPUS> progress{}; // read by the holder without a lock: nobody moves meanwhile
  std::vector<std::thread> threads;
  for (u32 v = 0; v < VCPUS; ++v)
    threads.emplace_back([&, v] {
      while (!over.load()) {
        ++progress[v];
        standstill.pass(v);
      }
      standstill.retire();
    });
  for (int n = 0; n < 50; ++n) {
    standstill.hold(false);
    const auto before = progress;
    std::this_thread::yield();
    EXPECT_EQ(progress, before);
    standstill.release(false);
  }
  over.store(true);
  for (auto& thread : threads) thread.join();
  EXPECT_GE(kicks, 50u);
  standstill.hold(false); // those who have ended are not waited for
  standstill.release(false);
}

TEST(Standstill, KeepsSomeWhileTheOthersGoOn) {
  constexpr u32 VCPUS = 3;
  Standstill standstill(VCPUS, [] {});
  std::atomic<bool> over{false};
  std::array<std::atomic<u64>, VCPUS> progress{};
  standstill.keep(~0u); // before the first instruction
  std::vector<std::thread> threads;
  for (u32 v = 0; v < VCPUS; ++v)
    threads.emplace_back([&, v] {
      standstill.pass(v);
      while (!over.load()) {
        ++progress[v];
        standstill.pass(v);
      }
      standstill.retire();
    });
  standstill.hold(false);
  for (const auto& p : progress) EXPECT_EQ(p, 0u);
  standstill.let_go(1 << 1);
  EXPECT_EQ(progress[1], 0u); // still held
  standstill.release(false);
  while (progress[1] < 100) std::this_thread::yield();
  EXPECT_EQ(progress[0], 0u);
  EXPECT_EQ(progress[2], 0u);
  standstill.keep_nobody();
  while (progress[0] == 0 || progress[2] == 0) std::this_thread::yield();
  standstill.keep(1); // too late: the domain ends
  over.store(true);
  for (auto& thread : threads) thread.join();
}

TEST(Standstill, TwoVcpusThatBothWantItComeOneAfterTheOther) {
  Standstill standstill(2, [] {});
  u64 unguarded = 0;
  const auto holder = [&](u32 v) {
    for (int n = 0; n < 200; ++n) {
      standstill.hold(true);
      ++unguarded;
      standstill.release(true);
      standstill.pass(v);
    }
    standstill.retire();
  };
  std::thread other(holder, 1);
  holder(0);
  other.join();
  EXPECT_EQ(unguarded, 400u);
}
