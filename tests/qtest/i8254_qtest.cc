// 8254 and port 61h against QEMU's, at a standing clock: access forms, latches, read-back, gate.
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

enum : u32 { CONTROL = 0x43, PORT_61 = 0x61 };

// QEMU loads a count when it is written; a chip with the next CLK pulse, which comes within this time.
constexpr Op CLK = step(839);

struct Ours : BenchMachine {
  Ours() : BenchMachine("pic_pit.so") {}
};

// A counter's control word and count, and reads in every form. Status without null count; OUT only in modes 0 and 3.
Dialogue program(u32 counter, u32 rw, u32 mode, u32 bcd, u32 count) {
  const u32 port = 0x40 + counter;
  Dialogue d = {out(CONTROL, counter << 6 | rw << 4 | mode << 1 | bcd)};
  if (rw & 1) d.push_back(out(port, count & 0xff));
  if (rw & 2) d.push_back(out(port, count >> 8));
  return d;
}

TEST(I8254Qtest, ALoadedCountReadsTheSameInEveryFormAndModeThatLoadsOnWriting) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu;
  for (u32 counter = 0; counter < 3; counter++) {
    for (u32 rw = 1; rw <= 3; rw++) {
      for (const u32 mode : {0, 2, 3, 4, 6, 7}) {
        for (const u32 count : {0x1234, 0x4000, 0x00fe, 0x9998}) {
          Ours ours;
          if (counter == 2) {
            ours.out(PORT_61, 1), qemu.out(PORT_61, 1);
          }
          const u32 port = 0x40 + counter, mask = mode == 0 || mode == 3 ? 0xbf : 0x3f;
          Dialogue d = program(counter, rw, mode, 0, count);
          d.push_back(CLK);
          for (int i = 0; i < 3; i++) d.push_back(in(port)); // live
          if (rw == 3) d.push_back(in(port));
          for (const u32 latch : {counter << 6, 0xd0 | 2u << counter}) { // both latch commands
            d.push_back(out(CONTROL, latch));
            for (int i = 0; i < 4; i++) d.push_back(in(port));
          }
          for (const u32 read_back : {0xe0, 0xc0}) { // status; count and status
            d.push_back(out(CONTROL, read_back | 2u << counter));
            d.push_back(in(port, mask));
            for (int i = 0; i < 2; i++) d.push_back(in(port));
          }
          expect_same_answers(ours, qemu, d);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(I8254Qtest, EveryReadBackCommandLatchesTheSame) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu;
  for (u32 command = 0xc0; command < 0x100; command += 2) {
    Ours ours;
    Dialogue d;
    for (u32 counter = 0; counter < 3; counter++) {
      const Dialogue p = program(counter, 3, 0, 0, 0x1122u * (counter + 1));
      d.insert(d.end(), p.begin(), p.end());
    }
    d.insert(d.begin(), out(PORT_61, 0)); // and counter 2 does not count
    d.push_back(CLK);
    d.push_back(out(CONTROL, command));
    d.push_back(out(CONTROL, 0xe0)); // names no counter
    for (u32 counter = 0; counter < 3; counter++) {
      const bool status = !(command & 0x10) && command >> (counter + 1) & 1;
      d.push_back(in(0x40 + counter, status ? 0xbf : 0xff));
      for (int i = 0; i < 4; i++) d.push_back(in(0x40 + counter));
    }
    expect_same_answers(ours, qemu, d);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(I8254Qtest, Port61KeepsItsBitsAndShowsCounter2) {
  TRANSOM_NEEDS_QEMU();
  QemuMachine qemu;
  Ours ours;
  for (u32 value = 0; value < 256; value++) {
    expect_same_answers(ours, qemu,
                        {out(CONTROL, 0xb0), out(0x42, 0x10), out(0x42, 0x10), out(PORT_61, value), in(PORT_61, 0xe3)});
  }
}

const Accepted ACCEPTED[] = {
    {"null count",
     "231164, Figure 13: null count is 1 from the control word until the count is loaded",
     {out(CONTROL, 0xb0), out(CONTROL, 0xe8), in(0x42, 0x40)},
     {0x40},
     {0x00}},
    {"OUT in mode 2 and mode 4",
     "231164, Modes 2 and 4: OUT is initially high",
     {out(PORT_61, 1), out(CONTROL, 0xb4), out(0x42, 9), out(0x42, 9), out(CONTROL, 0xe8), in(0x42, 0x80),
      out(CONTROL, 0xb8), out(0x42, 9), out(0x42, 9), out(CONTROL, 0xe8), in(0x42, 0x80)},
     {0x80, 0x80},
     {0x00, 0x00}},
    {"modes 110 and 111",
     "231164, Figure 7: bit 2 of the mode is don't care in modes 2 and 3",
     {out(PORT_61, 1), out(CONTROL, 0xbe), out(0x42, 9), out(0x42, 9), CLK, out(CONTROL, 0xe8), in(0x42)},
     {0xbe},
     {0x3e}},
    {"an odd count in mode 3",
     "231164, Mode 3: the initial count minus one is loaded",
     {out(PORT_61, 1), out(CONTROL, 0xb6), out(0x42, 0x35), out(0x42, 0x12), CLK, in(0x42), in(0x42)},
     {0x34, 0x12},
     {0x35, 0x12}},
    {"the control word address read",
     "231164, Figure 4: no operation, the data bus is not driven",
     {in(CONTROL)},
     {0xff},
     {0x00}},
    {"bits 2 and 3 of port 61h",
     "290550, NMI Status and Control: PCI SERR# and IOCHK# enable are read/write",
     {out(PORT_61, 0x0c), in(PORT_61, 0x0f)},
     {0x0c},
     {0x00}},
};

TEST(I8254Qtest, AcceptedDifferencesAreAsTheirReasonsSay) {
  TRANSOM_NEEDS_QEMU();
  for (const Accepted& row : ACCEPTED) {
    QemuMachine qemu;
    Ours ours;
    EXPECT_EQ(speak(ours, row.dialogue), row.ours) << row.what << ": " << row.reason;
    EXPECT_EQ(speak(qemu, row.dialogue), row.qemu) << row.what << ": QEMU has changed, take the row out";
  }
}

} // namespace
} // namespace transom::qtest
