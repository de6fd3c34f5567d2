// The 8042 with keyboard and mouse against QEMU's.
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

constexpr u16 DATA = 0x60, STATUS = 0x64;
constexpr u8 OBF = 0x01;
constexpr u32 STATUS_MASK =
    0xf7; // bit 3: QEMU's is always one, ours says which port was written last [status register]

struct Ps2Qtest : ::testing::Test {
  void SetUp() override { TRANSOM_NEEDS_QEMU(); }
};

struct Pair {
  BenchMachine ours{"ps2.so"};
  QemuMachine theirs;
  std::string story;

  Pair() { // QEMU's mouse has its defaults only after a command reset
    write(STATUS, 0xd4), write(DATA, 0xff);
    drain();
  }
  void write(u16 port, u8 value) {
    story += " " + to_text(out(port, value));
    ours.out(port, value), theirs.out(port, value);
  }
  // Reads all there is, from both; false where they differ.
  bool drain() {
    for (int i = 0; i < 64; ++i) {
      const u8 a = ours.in(STATUS)&STATUS_MASK, b = theirs.in(STATUS)&STATUS_MASK;
      EXPECT_EQ(a, b) << "status after" << story;
      if (a != b) return false;
      if (!(a & OBF)) return true;
      const u8 x = ours.in(DATA), y = theirs.in(DATA);
      EXPECT_EQ(x, y) << "data after" << story;
      if (x != y) return false;
    }
    ADD_FAILURE() << "no end of data after" << story;
    return false;
  }
};

using Step = std::vector<std::pair<u16, u8>>;

// What both models know; the rest is in ACCEPTED.
std::vector<Step> steps() {
  std::vector<Step> all;
  for (const u8 command : {0x20, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xad, 0xae, 0xc0, 0xd0, 0xdd, 0xdf}) {
    all.push_back({{STATUS, command}});
  }
  for (const u8 ctr : {0x00, 0x03, 0x30, 0x43, 0x61, 0x70}) all.push_back({{STATUS, 0x60}, {DATA, ctr}});
  for (const u8 byte : {0x00, 0x5a, 0xa5, 0xf0}) {
    all.push_back({{STATUS, 0xd2}, {DATA, byte}});
    all.push_back({{STATUS, 0xd3}, {DATA, byte}});
  }
  all.push_back({{STATUS, 0xd1}, {DATA, 0xcf}});
  all.push_back({{STATUS, 0xd1}, {DATA, 0xcd}});
  for (const u8 command : {0xee, 0xf2, 0xf4, 0xf5, 0xf6, 0xff, 0xfa, 0xfb, 0xec, 0x12})
    all.push_back({{DATA, command}});
  for (const u8 set : {0, 1, 2, 3, 4}) all.push_back({{DATA, 0xf0}, {DATA, set}});
  all.push_back({{DATA, 0xed}, {DATA, 0x05}});
  all.push_back({{DATA, 0xf3}, {DATA, 0x20}});
  const auto mouse = [&](std::initializer_list<u8> bytes) {
    Step step;
    for (const u8 byte : bytes) step.insert(step.end(), {{STATUS, 0xd4}, {DATA, byte}});
    all.push_back(step);
  };
  for (const u8 command : {0xe6, 0xe7, 0xe9, 0xea, 0xeb, 0xf0, 0xf2, 0xf4, 0xf5, 0xf6, 0xff}) mouse({command});
  for (const u8 rate : {10, 40, 60}) mouse({0xf3, rate}); // not the wheel's knock
  for (const u8 resolution : {0, 1, 2, 3}) mouse({0xe8, resolution});
  mouse({0xee, 0x12, 0xf2, 0xec}); // wrap mode
  return all;
}

TEST_F(Ps2Qtest, EveryCommandAloneIsAnsweredTheSame) {
  for (const Step& step : steps()) {
    Pair pair;
    for (const auto& [port, value] : step) {
      pair.write(port, value);
      if (!pair.drain()) break;
    }
  }
}

TEST_F(Ps2Qtest, RandomSequencesOfCommandsAreAnsweredTheSame) {
  const std::vector<Step> all = steps();
  for (u32 seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    Pair pair;
    for (int i = 0; i < 200 && !HasFailure(); ++i) {
      for (const auto& [port, value] : all[random() % all.size()]) {
        pair.write(port, value);
        if (!pair.drain()) break;
      }
    }
  }
}

const std::vector<Accepted> ACCEPTED = {
    {"E0h reads the test inputs",
     "8042 command list; QEMU has no such command",
     {out(STATUS, 0xe0), in(STATUS, OBF)},
     {1},
     {0}},
    {"F7h is a command of set 3 keyboards",
     "IBM, Keyboard: F7h-FAh are acknowledged; QEMU knows F8h-FAh only",
     {out(DATA, 0xf7), in(DATA)},
     {0xfa},
     {0xfe}},
    {"RESEND repeats",
     "IBM, Keyboard: FEh sends the last byte again; QEMU refuses it",
     {out(DATA, 0xee), in(DATA), out(DATA, 0xfe), in(DATA)},
     {0xee, 0xee},
     {0xee, 0xfe}},
    {"a command in place of a parameter is a command",
     "IBM, Keyboard: the older command ends; QEMU takes it as the parameter",
     {out(DATA, 0xed), in(DATA), out(DATA, 0xee), in(DATA)},
     {0xfa, 0xee},
     {0xfa, 0xfa}},
    {"a mouse has four resolutions",
     "IBM, Mouse: an invalid parameter is refused",
     {out(STATUS, 0xd4), out(DATA, 0xe8), in(DATA), out(STATUS, 0xd4), out(DATA, 0x04), in(DATA)},
     {0xfa, 0xfe},
     {0xfa, 0xfa}},
    {"SYS of the command byte is SYS of the status",
     "8042, command byte bit 2; QEMU's follows the self-test only",
     {out(STATUS, 0x60), out(DATA, 0x07), in(STATUS, 0x04)},
     {0x04},
     {0x00}},
    {"a mouse starts with its defaults",
     "IBM, Mouse: resolution 2, rate 100 after power-on; QEMU's are 0 until it is reset by command",
     {out(STATUS, 0xd4), out(DATA, 0xe9), in(DATA), in(DATA), in(DATA), in(DATA)},
     {0xfa, 0, 2, 100},
     {0xfa, 0, 0, 0}},
    {"RESET_WRAP_MODE is always acknowledged",
     "IBM, Mouse: ECh; QEMU answers in wrap mode only",
     {out(STATUS, 0xd4), out(DATA, 0xec), in(STATUS, OBF)},
     {1},
     {0}},
    {"output port bits 4 and 5 are the buffer's state",
     "8042, P24 and P25; QEMU shows what was written there",
     {out(STATUS, 0xd1), out(DATA, 0xdf), out(STATUS, 0xd0), in(DATA)},
     {0xcf},
     {0xdf}},
    {"a mouse refuses what it does not know",
     "IBM, Mouse: invalid commands are answered FEh; QEMU is silent",
     {out(STATUS, 0xd4), out(DATA, 0x12), in(STATUS, OBF)},
     {1},
     {0}},
};

TEST_F(Ps2Qtest, AcceptedDifferencesAreStillThere) {
  for (const Accepted& a : ACCEPTED) {
    BenchMachine ours("ps2.so");
    QemuMachine theirs;
    EXPECT_EQ(speak(ours, a.dialogue), a.ours) << a.what;
    EXPECT_EQ(speak(theirs, a.dialogue), a.qemu) << a.what << ": " << a.reason;
  }
}

} // namespace
} // namespace transom::qtest
