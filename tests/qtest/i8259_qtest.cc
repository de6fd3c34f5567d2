// 8259A pair against QEMU's. The processor never runs, so requests are acknowledged by poll.
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

enum : u32 { M0 = 0x20, M1 = 0x21, S0 = 0xa0, S1 = 0xa1 };

const Dialogue INITIALIZE = {out(M0, 0x11), out(M1, 0x20), out(M1, 0x04), out(M1, 0x01),
                             out(S0, 0x11), out(S1, 0x28), out(S1, 0x02), out(S1, 0x01)};

Dialogue with(Dialogue first, const Dialogue& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}
Dialogue look() { // IRR, ISR, IMR of both
  return {out(M0, 0x0a), in(M0), out(M0, 0x0b), in(M0), in(M1), out(S0, 0x0a), in(S0), out(S0, 0x0b), in(S0), in(S1)};
}

TEST(I8259Qtest, TheDialoguesOfFirmwareAndLinuxGetTheSameAnswers) {
  TRANSOM_NEEDS_QEMU();
  const Dialogue recorded[] = {
      // SeaBIOS
      {out(M0, 0x11), out(S0, 0x11), out(M1, 0x08), out(S1, 0x70), out(M1, 0x04),    out(S1, 0x02),    out(M1, 0x01),
       out(S1, 0x01), out(M1, 0xfb), out(S1, 0xff), in(M1),        in(S1),           out(S1, 0xdf),    in(S1),
       out(M1, 0xb8), out(S1, 0x8e), in(M1),        in(S1),        out(0x4d0, 0x00), out(0x4d1, 0x0c), in(0x4d0),
       in(0x4d1),     irq(6, true),  in(M0),        irq(14, true), in(S0),           in(M0),           out(M0, 0x0c),
       in(M0),        out(S0, 0x0c), in(S0),        out(S0, 0x20), out(M0, 0x20),    out(M0, 0x0b),    in(M0),
       irq(6, false), irq(14, false)},
      // Linux, first with normal and then with automatic end of interrupt
      {out(M1, 0xff), out(M0, 0x11), out(M1, 0x30), out(M1, 0x04), out(M1, 0x01), out(S0, 0x11), out(S1, 0x38),
       out(S1, 0x02), out(S1, 0x01), out(M1, 0xff), out(S1, 0xff), in(M1),        out(M1, 0xfb), irq(1, true),
       in(M0),        out(M1, 0xf9), out(M0, 0x0c), in(M0),        out(M1, 0xff), out(M0, 0x61), out(M0, 0x0b),
       in(M0),        irq(1, false), out(M0, 0x11), out(M1, 0x30), out(M1, 0x04), out(M1, 0x03), out(S0, 0x11),
       out(S1, 0x38), out(S1, 0x02), out(S1, 0x01), out(M1, 0xff), out(S1, 0xff), irq(4, true),  in(M0),
       irq(12, true), in(S0),        irq(12, false)},
  };
  QemuMachine qemu;
  BenchMachine ours("pic_pit.so");
  for (const Dialogue& dialogue : recorded) expect_same_answers(ours, qemu, dialogue);
}

TEST(I8259Qtest, EveryOcw2AfterEverySetOfServicesLeavesTheSameRegisters) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu;
  BenchMachine ours("pic_pit.so");
  for (u32 word = 0; word < 256; word++) {
    if (word & 0x18) continue; // OCW3 and ICW1
    Dialogue dialogue = INITIALIZE;
    for (const u32 input : {6, 4, 1}) {
      dialogue = with(dialogue, {irq(input, true), out(M0, 0x0c), in(M0), irq(input, false)});
    }
    dialogue.push_back(out(M0, word));
    dialogue = with(dialogue, look());
    // Which level is lowest now shows in which of two requests wins.
    for (const u32 input : {0, 3, 5, 7}) dialogue.push_back(irq(input, true));
    for (int i = 0; i < 4; i++) dialogue = with(dialogue, {out(M0, 0x0c), in(M0), out(M0, 0x0b), in(M0)});
    for (const u32 input : {0, 3, 5, 7}) dialogue.push_back(irq(input, false));
    expect_same_answers(ours, qemu, dialogue);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Random words, inputs and polls on one chip at a time, but for what the table below takes out.
TEST(I8259Qtest, RandomDialoguesGetTheSameAnswers) {
  TRANSOM_NEEDS_QEMU();
  std::mt19937 random(8259);
  QemuMachine qemu;
  BenchMachine ours("pic_pit.so");
  const auto pick = [&](u32 n) { return u32(random() % n); };
  for (int round = 0; round < 60; round++) {
    Dialogue start = INITIALIZE;
    const u32 icw4 = pick(2) ? 0x03 : 0x01;
    start[3].value = start[7].value = u8(icw4);
    start.push_back(out(0x4d0, pick(256)));
    start.push_back(out(0x4d1, pick(256)));
    expect_same_answers(ours, qemu, start);
    const u32 chip = pick(2) ? M0 : S0;
    const char* edges = chip == M0 ? "master.edges" : "slave.edges";
    u32 levels = 0;
    bool special_mask = false;
    for (int action = 0; action < 80 && !testing::Test::HasFatalFailure(); action++) {
      Dialogue dialogue;
      switch (pick(8)) {
        case 0: dialogue = {out(chip + 1, pick(256))}; break;
        case 1: { // OCW2; a non-specific EOI in special mask mode is in the table
          const u32 word = pick(256) & ~0x18u;
          if (!(special_mask && (word >> 5 == 1 || word >> 5 == 5))) dialogue = {out(chip, word)};
          break;
        }
        case 2: dialogue = {out(chip, 0x0c), in(chip)}; break;
        case 3: dialogue = {out(chip, 0x0c), in(chip + 1)}; break;
        case 4:
          special_mask = pick(2) != 0;
          dialogue = {out(chip, special_mask ? 0x68 : 0x48)};
          break;
        case 5: dialogue = {out(chip, 0x0a), in(chip), out(chip, 0x0b), in(chip), in(chip + 1)}; break;
        default: {
          const u32 input = pick(8) + (chip == M0 ? 0 : 8);
          if (input == 0 || input == 2) continue; // QEMU's own timer, and the cascade
          const bool level = !(levels >> input & 1);
          // An edge is withdrawn only after it was taken: the table again.
          const bool pending = ours.bench.field(edges) >> (input & 7) & 1;
          if (!level && pending) continue;
          levels ^= 1u << input;
          dialogue = {irq(input, level)};
        }
      }
      expect_same_answers(ours, qemu, dialogue);
    }
    Dialogue end;
    for (u32 input = 0; input < 16; input++) {
      if (levels >> input & 1) end.push_back(irq(input, false));
    }
    expect_same_answers(ours, qemu, end);
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "round " << round;
  }
}

const Accepted ACCEPTED[] = {
    {"an edge whose line falls before it was acknowledged",
     "231468, Edge and Level Triggered Modes: the input must remain high until the first INTA",
     with(INITIALIZE, {irq(3, true), irq(3, false), in(M0)}),
     {0x00},
     {0x08}},
    {"a slave's request that a poll of the slave takes",
     "the same on the cascade wire: the slave's INT falls",
     with(INITIALIZE, {irq(9, true), out(S0, 0x0c), in(S0), in(M0), irq(9, false)}),
     {0x81, 0x00},
     {0x81, 0x04}},
    {"a non-specific EOI in special mask mode, highest service masked",
     "231468, End of Interrupt: an IS bit that is masked is not cleared by a non-specific EOI in special mask mode",
     with(INITIALIZE, {irq(1, true), out(M0, 0x0c), in(M0), out(M1, 0x02), out(M0, 0x68), irq(5, true), out(M0, 0x0c),
                       in(M0), out(M0, 0x20), out(M0, 0x0b), in(M0), irq(1, false), irq(5, false)}),
     {0x81, 0x85, 0x02},
     {0x81, 0x85, 0x20}},
    {"special fully nested mode: a request of the master below a slave in service",
     "231468, Special Fully Nested Mode: only the slave in service is not locked out",
     with(INITIALIZE, {out(M0, 0x11), out(M1, 0x20), out(M1, 0x04), out(M1, 0x11), irq(9, true), out(M0, 0x0c), in(M0),
                       irq(4, true), out(M0, 0x0c), in(M0), irq(4, false), irq(9, false)}),
     {0x82, 0x00},
     {0x82, 0x84}},
    {"a request while the chip is being initialised",
     "231468, Operation Command Words: ready to accept requests after the ICWs are programmed",
     {out(M0, 0x11), out(M1, 0x20), irq(5, true), out(M0, 0x0c), in(M0), out(M1, 0x04), out(M1, 0x01), irq(5, false)},
     {0x00},
     {0x85}},
    {"an input that was high before ICW1 and is driven high again",
     "231468, ICW1: an input must make a low-to-high transition after initialization; QEMU forgets the old level",
     with(with({irq(5, true)}, INITIALIZE), {irq(5, true), in(M0), irq(5, false)}),
     {0x00},
     {0x20}},
};

TEST(I8259Qtest, AcceptedDifferencesAreAsTheirReasonsSay) {
  TRANSOM_NEEDS_QEMU();
  for (const Accepted& row : ACCEPTED) {
    QemuMachine qemu;
    BenchMachine ours("pic_pit.so");
    EXPECT_EQ(speak(ours, row.dialogue), row.ours) << row.what << ": " << row.reason;
    EXPECT_EQ(speak(qemu, row.dialogue), row.qemu) << row.what << ": QEMU has changed, take the row out";
  }
}

} // namespace
} // namespace transom::qtest
