// The MC146818 against QEMU's, without time passing (the client's clocks stand still).
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

constexpr u16 INDEX = 0x70, DATA = 0x71;
constexpr u8 REGISTER_A = 0x0a, REGISTER_B = 0x0b, REGISTER_C = 0x0c, REGISTER_D = 0x0d, CENTURY = 0x32,
             PS2_CENTURY = 0x37;

void set(Dialogue& d, u8 address, u8 value) {
  d.push_back(out(INDEX, address));
  d.push_back(out(DATA, value));
}
void get(Dialogue& d, u8 address, u8 mask = 0xff) {
  d.push_back(out(INDEX, address));
  d.push_back(in(DATA, mask));
}

struct RtcQtest : ::testing::Test {
  void SetUp() override { TRANSOM_NEEDS_QEMU(); }
};

// The bench's calendar at its first nanosecond.
QemuMachine qemu() { return QemuMachine({"-rtc", "base=2001-09-09T01:46:40,clock=vm"}); }

TEST_F(RtcQtest, ClockAndRegistersAreTheSameAtReset) {
  BenchMachine ours("rtc.so");
  QemuMachine theirs = qemu();
  Dialogue d = {in(INDEX)};
  for (u8 address = 0; address <= REGISTER_D; ++address) get(d, address);
  get(d, CENTURY);
  expect_same_answers(ours, theirs, d);
}

TEST_F(RtcQtest, EveryValueOfRegistersAAndBReadsBackTheSame) {
  BenchMachine ours("rtc.so");
  QemuMachine theirs = qemu();
  Dialogue d;
  for (u32 value = 0; value < 256; ++value) {
    set(d, REGISTER_A, u8(value));
    get(d, REGISTER_A, 0x7f); // UIP: time was moved by divider resets
    set(d, REGISTER_B, u8(value));
    get(d, REGISTER_B);
  }
  expect_same_answers(ours, theirs, d);
}

TEST_F(RtcQtest, RegistersCAndDTakeNoWrite) {
  BenchMachine ours("rtc.so");
  QemuMachine theirs = qemu();
  Dialogue d;
  for (const u8 value : {0x00, 0xff, 0x55}) {
    set(d, REGISTER_C, value);
    set(d, REGISTER_D, value);
    get(d, REGISTER_C);
    get(d, REGISTER_D);
  }
  expect_same_answers(ours, theirs, d);
}

TEST_F(RtcQtest, TimesAndAlarmsWrittenUnderSetReadBackTheSame) {
  BenchMachine ours("rtc.so");
  QemuMachine theirs = qemu();
  std::mt19937 random(1);
  const auto bcd = [&](u32 least, u32 greatest) {
    const u32 value = least + u32(random() % (greatest - least + 1));
    return u8(value / 10 << 4 | value % 10);
  };
  for (int round = 0; round < 50; ++round) {
    Dialogue d;
    set(d, REGISTER_B, 0x82);
    for (const auto& [address, least, greatest] : {std::array<u32, 3>{0, 0, 59},
                                                   {1, 0, 59},
                                                   {2, 0, 59},
                                                   {3, 0, 59},
                                                   {4, 0, 23},
                                                   {5, 0, 23},
                                                   {7, 1, 28},
                                                   {8, 1, 12},
                                                   {9, 0, 99},
                                                   {CENTURY, 20, 20}}) {
      set(d, u8(address), bcd(least, greatest));
    }
    for (u8 address = 0; address <= 9; ++address) {
      if (address != 6) get(d, address);
    }
    get(d, CENTURY);
    set(d, REGISTER_B, 0x02);
    for (u8 address = 0; address <= 9; ++address) {
      if (address != 6) get(d, address); // the weekday, which we count on its own and QEMU works out
    }
    expect_same_answers(ours, theirs, d);
  }
}

TEST_F(RtcQtest, MemoryCellsAreTheSame) {
  BenchMachine ours("rtc.so");
  QemuMachine theirs = qemu();
  std::mt19937 random(2);
  Dialogue d;
  for (u8 address = 0x0e; address < 0x80; ++address) {
    if (address != CENTURY && address != PS2_CENTURY) set(d, address, u8(random()));
  }
  for (u8 address = 0x0e; address < 0x80; ++address) {
    if (address == CENTURY || address == PS2_CENTURY) continue;
    get(d, address);
    get(d, address | 0x80); // the NMI mask is no address bit
  }
  expect_same_answers(ours, theirs, d);
}

const std::vector<Accepted> ACCEPTED = {
    {"a change of DM converts nothing",
     "MC146818, register B: after DM or 24/12 changes, the ten bytes must be written anew; QEMU converts them",
     {out(INDEX, REGISTER_B), out(DATA, 0x06), out(INDEX, 2), in(DATA)},
     {0x46},
     {46}},
    {"cell 37h is memory",
     "only 32h is the century here; QEMU shows it at the PS/2's 37h too",
     {out(INDEX, PS2_CENTURY), in(DATA)},
     {0x00},
     {0x20}},
};

TEST_F(RtcQtest, AcceptedDifferencesAreStillThere) {
  for (const Accepted& a : ACCEPTED) {
    BenchMachine ours("rtc.so");
    QemuMachine theirs = qemu();
    EXPECT_EQ(speak(ours, a.dialogue), a.ours) << a.what;
    EXPECT_EQ(speak(theirs, a.dialogue), a.qemu) << a.what << ": " << a.reason;
  }
}

} // namespace
} // namespace transom::qtest
