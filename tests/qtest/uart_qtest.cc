// 16550A against QEMU's: every register, FIFOs and interrupts in loopback.
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

enum : u32 { RBR_THR = 0x3f8, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };
const std::vector<std::string> SERIAL = {"-chardev", "null,id=line", "-serial", "chardev:line"};
constexpr u32 NO_DELTAS = 0xf0; // of MSR: in the table

Dialogue look() { return {in(IER), in(LCR), in(MCR), in(LSR), in(IIR_FCR), in(MSR, NO_DELTAS), in(SCR)}; }

TEST(UartQtest, ResetValuesAndTheDialoguesOfFirmwareAndLinuxAreTheSame) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu(SERIAL);
  BenchMachine ours("uart.so");
  expect_same_answers(ours, qemu, {in(IER), in(LCR), in(LSR), in(IIR_FCR), in(MSR), in(SCR)}); // MCR: in the table
  // SeaBIOS's and GRUB's probes, Linux's autoconfig
  expect_same_answers(ours, qemu,
                      {out(IER, 0x02),
                       in(IER),
                       in(IIR_FCR),
                       in(IIR_FCR),
                       out(SCR, 0x5a),
                       in(SCR),
                       out(SCR, 0xa5),
                       in(SCR),
                       out(LCR, 0x80),
                       out(RBR_THR, 1),
                       out(IER, 0),
                       in(RBR_THR),
                       in(IER),
                       out(LCR, 0x03),
                       out(IIR_FCR, 7),
                       out(MCR, 3),
                       in(LSR),
                       out(RBR_THR, 'x'),
                       in(LSR),
                       out(IER, 0x00),
                       in(IER, 0x0f),
                       out(IER, 0x0f),
                       in(IER, 0x0f),
                       out(IER, 0),
                       out(MCR, 0x1a),
                       in(MSR, 0xf0),
                       out(MCR, 0),
                       out(LCR, 0xbf),
                       out(IIR_FCR, 0),
                       out(LCR, 0),
                       out(IIR_FCR, 0x01),
                       in(IIR_FCR),
                       out(IIR_FCR, 0),
                       in(IIR_FCR),
                       out(MCR, 0x08),
                       out(IER, 0x05),
                       in(LSR),
                       in(IIR_FCR)});
}

TEST(UartQtest, EveryModemControlInLoopbackReadsBackTheSame) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu(SERIAL);
  BenchMachine ours("uart.so");
  for (u32 mcr = 0; mcr < 256; mcr++) expect_same_answers(ours, qemu, {out(MCR, mcr), in(MCR), in(MSR, NO_DELTAS)});
}

TEST(UartQtest, RandomDialoguesGetTheSameAnswers) {
  TRANSOM_NEEDS_QEMU();
  std::mt19937 random(16550);
  const auto pick = [&](u32 n) { return u32(random() % n); };
  QemuMachine qemu(SERIAL);
  BenchMachine ours("uart.so");
  expect_same_answers(ours, qemu, {out(MCR, 0x10)}); // loopback, mostly
  for (int action = 0; action < 6000 && !testing::Test::HasFatalFailure(); action++) {
    Dialogue d;
    switch (pick(12)) {
      case 0: d = {out(IER, pick(8))}; break; // without modem status
      case 1: d = {out(IIR_FCR, pick(4) ? pick(256) | 1 : 0)}; break;
      case 2: d = {out(LCR, pick(128))}; break;
      case 3: d = {out(MCR, pick(6) ? 0x10 | pick(16) : pick(32))}; break;
      case 4:
        d = {out(LCR, 0x83), out(RBR_THR, 1 + pick(255)), out(IER, pick(256)), in(RBR_THR), in(IER), out(LCR, 0x03)};
        break;
      case 5: d = {out(SCR, pick(256)), in(SCR)}; break;
      case 6: // RBR only while there is data: an empty one is in the table
        if (ours.bench.field("rx.count")) d = {in(RBR_THR), in(LSR)};
        break;
      case 7: d = look(); break;
      default:
        for (u32 n = 1 + pick(6); n > 0; n--) d.push_back(out(RBR_THR, pick(256)));
    }
    expect_same_answers(ours, qemu, d);
  }
}

const Accepted ACCEPTED[] = {
    {"MCR after reset", "TL/C/8652 Table I: all bits low", {in(MCR)}, {0x00}, {0x08}},
    {"modem deltas in loopback",
     "TL/C/8652 8.8: the modem control interrupts are operational, their sources are MCR 0-3",
     {out(MCR, 0x10), in(MSR), out(MCR, 0x12), in(MSR)},
     {0x0b, 0x11},
     {0x00, 0x10}},
    {"FCR bits without the enable bit",
     "TL/C/8652 8.5: bit 0 must be 1 when other bits are written",
     {out(MCR, 0x10), out(RBR_THR, 'a'), out(IIR_FCR, 0x02), in(LSR)},
     {0x61},
     {0x60}},
};

TEST(UartQtest, AcceptedDifferencesAreAsTheirReasonsSay) {
  TRANSOM_NEEDS_QEMU();
  for (const Accepted& row : ACCEPTED) {
    QemuMachine qemu(SERIAL);
    BenchMachine ours("uart.so");
    EXPECT_EQ(speak(ours, row.dialogue), row.ours) << row.what << ": " << row.reason;
    EXPECT_EQ(speak(qemu, row.dialogue), row.qemu) << row.what << ": QEMU has changed, take the row out";
  }
}

} // namespace
} // namespace transom::qtest
