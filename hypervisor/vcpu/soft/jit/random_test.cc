// Random programs on two machines, one of which translates. They are disturbed at the same places of the guest: at its
// OUT instructions, and between runs.
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <thread>

#include "hypervisor/vcpu/soft/jit/test_program.hpp"
#include "hypervisor/vcpu/soft/jit/test_twins.hpp"

namespace transom::soft {
namespace {

u64 from_environment(const char* name, u64 otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

// What happens at the n-th event is the same on both machines.
class Disturber {
 public:
  Disturber(const Program& program, u64 seed) : program_(program), seed_(seed) {}

  void at_out(TestMachine& m, u64 n) const {
    std::mt19937_64 random(seed_ << 32 | n);
    std::atomic<u32>& flag = m.vcpu.exit_flag();
    switch (random() % 8) {
      case 0:
      case 1: // an interrupt, or two
        for (u64 left = 1 + random() % 2; left > 0; --left)
          m.platform.interrupts.push_back(static_cast<int>(0x40 + random() % 0x40));
        flag |= Vcpu::LOOK;
        break;
      case 2: flag |= Vcpu::LEAVE; break;
      case 3: write(m, random); break;
      case 4:
        if (random() % 4 == 0) m.vcpu.memory_map_changed();
        break;
      default: break;
    }
  }
  // A device writes code, and says so.
  void write(TestMachine& m, std::mt19937_64& random) const {
    if (program_.immediates.empty()) return;
    for (u64 left = 1 + random() % 3; left > 0; --left) {
      const u64 at = program_.immediates[random() % program_.immediates.size()];
      m.put<u32>(at, static_cast<u32>(random()));
      if (m.code_pages.wrote(at, 4)) m.vcpu.exit_flag() |= Vcpu::LOOK;
    }
  }
  void between_runs(TestMachine& m, u64 n) const {
    std::mt19937_64 random(~seed_ << 32 | n);
    switch (random() % 8) {
      case 0: write(m, random); break;
      case 1: m.vcpu.memory_map_changed(); break;
      case 2: m.vcpu.run_instructions(1 + random() % 30); break;
      case 3:
        if (m.vcpu.cpu().translator != nullptr) m.vcpu.cpu().translator->reset();
        break;
      case 4: { // a debugger comes
        DebugControl d;
        for (u64 left = random() % 4; left > 0; --left)
          d.breakpoints.push_back(random() % 2 ? program_.functions[random() % program_.functions.size()]
                                               : place::CODE + random() % 0x4000);
        d.step = random() % 4 == 0;
        m.vcpu.set_debug(d);
        break;
      }
      case 5: m.vcpu.set_debug({}); break;
      default: break;
    }
  }

 private:
  const Program& program_;
  const u64 seed_;
};

constexpr u64 MOST_RUNS = 400;

// Ends a program that does not come to its end. The one that interprets comes first: what it cannot end is a bad
// program.
class Watchdog {
 public:
  explicit Watchdog(Twins& twins)
      : thread_([this, &twins] {
          for (unsigned n = 0; n < 6000 && !done_; ++n) std::this_thread::sleep_for(std::chrono::milliseconds(10));
          if (done_) return;
          barked_ = true;
          for (; !done_; std::this_thread::sleep_for(std::chrono::milliseconds(10)))
            twins.both([](TestMachine& m) { m.vcpu.exit_flag() |= Vcpu::LEAVE; });
        }) {}
  ~Watchdog() {
    done_ = true;
    thread_.join();
  }
  bool barked() const { return barked_; }

 private:
  std::atomic<bool> done_{false}, barked_{false};
  std::thread thread_;
};

class RandomPrograms {
 public:
  explicit RandomPrograms(const SoftOptions& options) : twins_(options) {
    twins_.both([](TestMachine& m) { m.platform.record = false; });
  }

  // Empty if both machines did the same from the beginning to the end.
  std::string run(bool long_mode, u64 seed) {
    const Program program = ProgramBuilder(long_mode, seed).build();
    const Disturber disturber(program, seed);
    u64 outs[2] = {};
    twins_.both([&](TestMachine& m) {
      begin(m, program);
      u64& count = outs[&m == &twins_.fast];
      m.platform.on_out = [&disturber, &m, &count](u16, u32, u32) { disturber.at_out(m, count++); };
    });
    std::string wrong = run_disturbed(disturber);
    if (wrong.empty()) wrong = twins_.difference();
    all_ += instructions_executed(twins_.fast.vcpu.cpu());
    translated_ += twins_.fast.vcpu.cpu().translated.instructions;
    logged_ += twins_.plain.get<u32>(place::LOG_AT) - place::LOG;
    interrupts_ += twins_.plain.get<u32>(place::INTERRUPTS);
    if (wrong.empty()) return wrong;
    if (const char* const folder = std::getenv("TRANSOM_FUZZ_DUMP")) dump(program, std::string(folder) + "/program");
    return "seed " + std::to_string(seed) + (long_mode ? ", 64" : ", 32") + " bits\n" + wrong;
  }

  void expect_agreement(u64 programs) {
    const u64 first = from_environment("TRANSOM_FUZZ_SEED", 1);
    programs = from_environment("TRANSOM_FUZZ_PROGRAMS", programs);
    unsigned failures = 0;
    for (u64 seed = first; seed < first + programs && failures < 5; ++seed)
      for (const bool long_mode : {true, false}) {
        const std::string wrong = run(long_mode, seed);
        EXPECT_EQ(wrong, "");
        failures += !wrong.empty();
      }
    std::printf("%llu instructions, %llu of them translated; %llu interrupts, %llu bytes of exceptions, %llu resets\n",
                static_cast<unsigned long long>(all_), static_cast<unsigned long long>(translated_),
                static_cast<unsigned long long>(interrupts_), static_cast<unsigned long long>(logged_),
                static_cast<unsigned long long>(twins_.fast.vcpu.cpu().translator->resets()));
    EXPECT_GT(finished_ * 10, programs * 2 * 9) << "programs should come to their end";
    EXPECT_GT(translated_ * 2, all_) << "most should run translated";
    if (programs < 20) return;
    EXPECT_GT(interrupts_, 0u);
    EXPECT_GT(logged_, 0u);
  }

 private:
  // The program as it was at the beginning, by address from 0, for a disassembler.
  static void dump(const Program& program, const std::string& path) {
    std::vector<u8> image(place::TABLES);
    for (const Program::Chunk& c : program.code)
      if (c.at < image.size())
        std::copy(c.bytes.begin(), c.bytes.end(), image.begin() + static_cast<std::ptrdiff_t>(c.at));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
  }
  static void begin(TestMachine& m, const Program& program) {
    m.vcpu.set_debug({});
    m.platform.interrupts.clear();
    m.vcpu.exit_flag() = 0;
    program.load(m);
    m.vcpu.cpu().instructions = m.vcpu.cpu().translated.instructions = 0;
  }

  // In the steps that the program's OUTs and the disturber make, comparing after each.
  std::string run_disturbed(const Disturber& disturber) {
    Watchdog watchdog(twins_);
    for (u64 n = 0; n < MOST_RUNS; ++n) {
      if (n + 30 > MOST_RUNS) twins_.both([](TestMachine& m) { m.vcpu.set_debug({}); });
      const RunResult interpreted = twins_.plain.vcpu.run();
      if (watchdog.barked()) return "  does not come to its end, even interpreted\n";
      const RunResult translated = twins_.fast.vcpu.run();
      std::string wrong = twins_.difference(n % 16 == 15 ? TestMachine::RAM : u64{2} << 20);
      if (interpreted != translated) wrong += "  run() ended otherwise\n";
      if (!wrong.empty()) return "  run " + std::to_string(n) + ":\n" + wrong;
      if (interpreted == RunResult::halted) ++finished_;
      if (interpreted == RunResult::halted || interpreted == RunResult::shutdown) return {};
      twins_.both([&](TestMachine& m) { disturber.between_runs(m, n); });
    }
    return {};
  }

  Twins twins_;
  u64 all_ = 0, finished_ = 0, translated_ = 0, logged_ = 0, interrupts_ = 0;
};

// Interrupts from another thread come to the translator whenever they like. Their handler leaves no trace but a count,
// so the program has to come to the same end as without them.
std::string run_interrupted(Twins& twins, bool long_mode, u64 seed, u64& delivered) {
  const Program program = ProgramBuilder(long_mode, seed).build();
  twins.both([&](TestMachine& m) {
    m.platform.on_pending = nullptr;
    m.platform.interrupts.clear();
    program.load(m);
  });
  std::atomic<bool> wanted{false}, done{false};
  TestMachine& fast = twins.fast;
  fast.platform.on_pending = [&] {
    if (wanted.exchange(false)) fast.platform.interrupts.push_back(0x55);
  };
  std::thread device([&] {
    while (!done) {
      wanted = true;
      fast.vcpu.exit_flag() |= Vcpu::LOOK;
      std::this_thread::yield();
    }
  });
  const RunResult interpreted = twins.plain.vcpu.run(), translated = fast.vcpu.run();
  done = true;
  device.join();
  fast.vcpu.exit_flag() = 0;
  if (interpreted != RunResult::halted || translated != RunResult::halted) return "  no end";
  delivered += fast.get<u32>(place::INTERRUPTS);
  // What the handler leaves: its count, what lies below the stacks' ends, and how much was executed.
  twins.both([](TestMachine& m) {
    m.put<u32>(place::INTERRUPTS, 0);
    for (const u64 stack : {place::STACK0, place::STACK}) std::memset(m.at(stack - 0x4000), 0, 0x4000);
    m.vcpu.cpu().instructions = m.vcpu.cpu().translated.instructions = 0;
  });
  return twins.difference();
}

TEST(RandomPrograms, DoNotNoticeInterruptsAtAnyPlace) {
  Twins twins;
  twins.both([](TestMachine& m) { m.platform.record = false; });
  u64 delivered = 0;
  for (u64 seed = 500; seed < 530; ++seed)
    for (const bool long_mode : {true, false})
      ASSERT_EQ(run_interrupted(twins, long_mode, seed, delivered), "") << seed;
  EXPECT_GT(delivered, 0u);
}

TEST(RandomPrograms, DoTheSameTranslated) { RandomPrograms(translating()).expect_agreement(60); }
TEST(RandomPrograms, DoTheSameWhenTranslatedLater) { RandomPrograms(translating(3)).expect_agreement(60); }

} // namespace
} // namespace transom::soft
