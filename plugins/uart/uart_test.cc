// 16550A, through the shipping library. "[8.n]" = section of the PC16550D datasheet.
#include "uart_regs.hpp"
#include "vdev/testing/properties.hpp"

namespace uart {
namespace {

using vdev::testing::Bench;

struct UartBench : Bench {
  UartBench() : Bench("uart.so") {
    out(MCR, 0x0b); // DTR, RTS, OUT2
  }
  void fifos(u8 trigger = 0) { out(IIR_FCR, 0x07 | trigger << 6); }
  u8 iir() { return u8(in(IIR_FCR)&0x0f); }
  u8 lsr() { return u8(in(LSR)); }
  void rate(u16 divisor, u8 lcr = 0x03) {
    out(LCR, 0x80), out(RBR_THR_DLL, divisor & 0xff), out(IER_DLM, divisor >> 8), out(LCR, lcr);
  }
  std::string drain(u32 n) {
    std::string s;
    for (u32 i = 0; i < n; i++) s += char(in(RBR_THR_DLL));
    return s;
  }
};

void set_up(Bench& b) { b.out(MCR, 0x0b), b.out(IIR_FCR, 0x01), b.out(IER_DLM, 0x0f); }

VDEV_PROPERTIES(Uart, "uart.so", "org.transom.uart16550", .prepare = set_up, .read_only = {{0, LSR}, {0, MSR}},
                .schema = "uart.schema");

TEST(Uart, RegistersHaveTheirResetValues) { // [Table I]
  Bench b("uart.so");
  const std::pair<u64, u64> table[] = {{IER_DLM, 0}, {IIR_FCR, 1}, {LCR, 0}, {MCR, 0},
                                       {LSR, 0x60},  {MSR, 0xb0},  {SCR, 0}};
  for (const auto& [offset, value] : table) EXPECT_EQ(b.in(offset), value) << offset;
  EXPECT_FALSE(b.irq("intr"));
}

TEST(Uart, WritableBitsReadBack) {
  Bench b("uart.so");
  const std::pair<u64, u64> table[] = {{IER_DLM, 0x0f}, {LCR, 0x7f}, {MCR, 0x1f}, {SCR, 0xff}};
  for (const auto& [offset, mask] : table) {
    for (const u64 v : {0x55u, 0xaau, 0xffu, 0x00u}) {
      b.out(offset, v & ~u64{offset == LCR ? 0x80u : 0u});
      EXPECT_EQ(b.in(offset), v & mask) << offset;
    }
  }
}

TEST(Uart, TheDivisorLatchHidesTheFirstTwoRegisters) {
  UartBench b;
  b.out(IER_DLM, 0x01);
  b.out(LCR, 0x83);
  b.out(RBR_THR_DLL, 0x34), b.out(IER_DLM, 0x12);
  EXPECT_EQ(b.in(RBR_THR_DLL), 0x34u);
  EXPECT_EQ(b.in(IER_DLM), 0x12u);
  b.out(LCR, 0x03);
  EXPECT_EQ(b.in(IER_DLM), 0x01u);
  EXPECT_EQ(b.field("divisor"), 0x1234u);
  EXPECT_EQ(b.take_sent(), "") << "DLL is not THR";
}

TEST(Uart, ThreInterruptIsClearedByReadingIirNotLsr) { // [8.6, Table IV]
  UartBench b;
  b.out(IER_DLM, 0x02);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.lsr(), 0x60);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.iir(), iir::THR_EMPTY);
  EXPECT_FALSE(b.irq("intr"));
  EXPECT_EQ(b.iir(), iir::NONE);
  EXPECT_EQ(b.lsr(), 0x60);
}

TEST(Uart, ThreInterruptComesBackWithEveryByteSentAsAnEdge) {
  UartBench b;
  b.out(IER_DLM, 0x02);
  b.clear_events();
  b.out(RBR_THR_DLL, 'x'); // IIR was not read: INTR is high, falls while the byte is sent, and rises
  EXPECT_EQ(b.rising_edges("intr"), 1u);
  b.in(IIR_FCR);
  EXPECT_FALSE(b.irq("intr"));
  b.out(RBR_THR_DLL, 'y');
  EXPECT_EQ(b.rising_edges("intr"), 2u);
  EXPECT_EQ(b.take_sent(), "xy");
}

TEST(Uart, EnablingEtbeiAgainInterruptsAgain) {
  UartBench b;
  b.out(IER_DLM, 0x02);
  b.in(IIR_FCR);
  b.out(IER_DLM, 0x02); // no change, no interrupt
  EXPECT_FALSE(b.irq("intr"));
  b.out(IER_DLM, 0x00), b.out(IER_DLM, 0x02);
  EXPECT_TRUE(b.irq("intr"));
}

TEST(Uart, ReadingIirForAnotherSourceKeepsTheThreInterrupt) {
  UartBench b;
  b.out(IER_DLM, 0x03);
  b.send("a");
  EXPECT_EQ(b.iir(), iir::RX_DATA);
  b.in(RBR_THR_DLL);
  EXPECT_EQ(b.iir(), iir::THR_EMPTY);
}

TEST(Uart, Out2GatesTheInterruptAndLoopbackShutsIt) {
  UartBench b;
  b.out(IER_DLM, 0x02);
  b.out(MCR, 0x03);
  EXPECT_FALSE(b.irq("intr"));
  b.out(MCR, 0x0b);
  EXPECT_TRUE(b.irq("intr"));
  b.out(MCR, 0x1b);
  EXPECT_FALSE(b.irq("intr"));
}

TEST(Uart, AFullStreamHoldsThreUntilItIsWritable) {
  UartBench b;
  b.fifos();
  b.host.streams[0].accepts = 2;
  b.out(IER_DLM, 0x02);
  b.in(IIR_FCR);
  for (const char c : std::string("abcdefgh")) b.out(RBR_THR_DLL, u8(c));
  EXPECT_EQ(b.take_sent(), "ab");
  EXPECT_EQ(b.lsr(), 0x00);
  b.in(IIR_FCR);
  EXPECT_FALSE(b.irq("intr"));
  b.writable(0, 3);
  EXPECT_EQ(b.lsr(), 0x00) << "three more went, three wait";
  b.writable(0);
  EXPECT_EQ(b.lsr(), 0x60);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.take_sent(), "cdefgh");
}

TEST(Uart, TheXmitFifoHoldsSixteenBytesAndLosesMore) {
  UartBench b;
  b.fifos();
  b.host.streams[0].accepts = 0;
  for (u32 i = 0; i < 20; i++) b.out(RBR_THR_DLL, 'a' + i);
  b.writable(0);
  EXPECT_EQ(b.take_sent(), "abcdefghijklmnop");
}

TEST(Uart, WithoutFifosThrHoldsOneByteAndAnotherReplacesIt) {
  UartBench b;
  b.host.streams[0].accepts = 0;
  b.out(RBR_THR_DLL, 'a'), b.out(RBR_THR_DLL, 'b');
  b.writable(0);
  EXPECT_EQ(b.take_sent(), "b");
}

TEST(Uart, TriggerLevelsAreOneFourEightFourteen) { // [8.5]
  const u32 levels[] = {1, 4, 8, 14};
  for (u32 t = 0; t < 4; t++) {
    UartBench b;
    b.fifos(u8(t));
    b.out(IER_DLM, 0x01);
    for (u32 i = 1; i <= 16; i++) {
      EXPECT_EQ(b.send("x"), 1u);
      EXPECT_EQ(b.irq("intr"), i >= levels[t]) << t << " " << i;
    }
    EXPECT_EQ(b.in(IIR_FCR), 0xc0u | iir::RX_DATA);
    b.drain(16 - levels[t]);
    EXPECT_TRUE(b.irq("intr"));
    b.drain(1);
    EXPECT_FALSE(b.irq("intr"));
  }
}

TEST(Uart, CharacterTimeoutComesFourCharactersAfterTheLastArrivalOrRead) { // [8.5]
  UartBench b;
  b.rate(1); // 115200 8N1: four characters of ten bits are 347 222.2 ns
  b.fifos(1);
  b.out(IER_DLM, 0x01);
  b.send("ab");
  b.step(347'222);
  EXPECT_FALSE(b.irq("intr"));
  b.step(1);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.iir(), iir::CHARACTER_TIMEOUT);
  EXPECT_EQ(b.in(RBR_THR_DLL), u64{'a'});
  EXPECT_FALSE(b.irq("intr")) << "reading RBR clears it and starts again";
  b.step(347'223);
  EXPECT_EQ(b.iir(), iir::CHARACTER_TIMEOUT);
  b.drain(1);
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.step(10'000'000);
  EXPECT_FALSE(b.irq("intr"));
}

TEST(Uart, TheCharactersLengthFollowsLcr) {
  const std::pair<u8, u64> table[] = {{0x00, 7}, {0x03, 10}, {0x07, 11}, {0x0f, 12}, {0x1a, 10}};
  for (const auto& [lcr, bits] : table) {
    UartBench b;
    b.rate(12, lcr);
    b.fifos(3);
    b.send("a");
    EXPECT_EQ(b.next_event(), (bits * 4 * 16 * 12 * 1'000'000'000 + 1'843'199) / 1'843'200) << u32(lcr);
  }
}

TEST(Uart, APollOfIirSeesATimeoutThatTheHostHasNotDelivered) {
  UartBench b;
  b.rate(1);
  b.fifos(1);
  b.out(IER_DLM, 0x01);
  b.send("a");
  b.host.now += 400'000;
  EXPECT_EQ(*b.peek(0, IIR_FCR, 1) & 0x0f, iir::CHARACTER_TIMEOUT);
  EXPECT_EQ(b.iir(), iir::CHARACTER_TIMEOUT);
}

TEST(Uart, TheReceiverTakesNoMoreThanItHolds) { // hostile host: a flood while the guest never reads
  UartBench b;
  EXPECT_EQ(b.send("abc"), 1u);
  EXPECT_EQ(b.room(), 0u);
  EXPECT_EQ(b.drain(1), "a");
  b.fifos();
  EXPECT_EQ(b.send(std::string(100, 'x')), 16u);
  EXPECT_EQ(b.lsr() & 3, 1);
  b.out(MCR, 0x10);
  b.drain(16);
  EXPECT_EQ(b.room(), 0u) << "loopback disconnects the line";
}

TEST(Uart, QueuedInputArrivesInOrderAsTheGuestReads) {
  UartBench b;
  b.fifos();
  b.queue("the quick brown fox jumps over the lazy dog");
  EXPECT_EQ(b.drain(43), "the quick brown fox jumps over the lazy dog");
}

TEST(Uart, LoopbackReturnsBytesAndOverrunsWithoutFifos) { // [8.8], [8.4]
  UartBench b;
  b.out(MCR, 0x10);
  b.out(RBR_THR_DLL, 'a');
  EXPECT_EQ(b.lsr(), 0x61);
  b.out(RBR_THR_DLL, 'b');
  EXPECT_EQ(b.lsr(), 0x63);
  EXPECT_EQ(b.lsr(), 0x61) << "reading LSR clears OE";
  EXPECT_EQ(b.drain(1), "b");
  EXPECT_EQ(b.take_sent(), "");
}

TEST(Uart, LoopbackOverrunOfTheFifoKeepsItsContents) {
  UartBench b;
  b.fifos();
  b.out(MCR, 0x10);
  b.out(IER_DLM, 0x04);
  for (u32 i = 0; i < 17; i++) b.out(RBR_THR_DLL, 'a' + i);
  EXPECT_EQ(b.iir(), iir::LINE_STATUS);
  EXPECT_EQ(b.lsr(), 0x63);
  EXPECT_EQ(b.iir(), iir::NONE);
  EXPECT_EQ(b.drain(16), "abcdefghijklmnop");
}

TEST(Uart, LoopbackWiresModemOutputsToInputs) { // [8.8]; the four rows and Linux's test (1Ah reads 90h)
  UartBench b;
  const std::pair<u8, u8> table[] = {{0x11, 0x20}, {0x12, 0x10}, {0x14, 0x40},
                                     {0x18, 0x80}, {0x1a, 0x90}, {0x1f, 0xf0}};
  for (const auto& [mcr, msr] : table) {
    b.out(MCR, mcr);
    EXPECT_EQ(b.in(MSR)&0xf0, msr) << u32(mcr);
  }
}

TEST(Uart, ModemDeltasLatchUntilMsrIsRead) { // [8.9]
  UartBench b;
  b.out(MCR, 0x10);
  b.in(MSR);
  struct {
    u8 mcr, deltas;
  } const table[] = {{0x12, 0x01}, {0x10, 0x01}, {0x11, 0x02}, {0x10, 0x02},
                     {0x14, 0x00}, {0x10, 0x04}, {0x18, 0x08}, {0x10, 0x08}}; // RI counts at its trailing edge only
  for (const auto& row : table) {
    b.out(MCR, row.mcr);
    EXPECT_EQ(b.in(MSR)&0x0f, row.deltas) << u32(row.mcr);
    EXPECT_EQ(b.in(MSR)&0x0f, 0u);
  }
}

TEST(Uart, ModemStatusInterruptIsClearedByReadingMsr) {
  UartBench b;
  b.out(MCR, 0x1b), b.out(MCR, 0x1f), b.out(MCR, 0x0b);
  b.in(MSR);
  b.out(IER_DLM, 0x08);
  EXPECT_FALSE(b.irq("intr"));
  b.out(MCR, 0x19), b.out(MCR, 0x0b); // CTS changed twice
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.iir(), iir::MODEM_STATUS);
  EXPECT_TRUE(b.irq("intr"));
  b.in(MSR);
  EXPECT_FALSE(b.irq("intr"));
}

TEST(Uart, SourcesAreReportedInOrderOfPriority) { // [Table IV]
  UartBench b;
  b.out(MCR, 0x10);
  b.in(MSR);
  b.out(IER_DLM, 0x0f);
  b.out(RBR_THR_DLL, 'a'), b.out(RBR_THR_DLL, 'b'); // data, overrun, THR empty
  b.out(MCR, 0x12);                                 // and CTS changed
  EXPECT_EQ(b.iir(), iir::LINE_STATUS);
  b.lsr();
  EXPECT_EQ(b.iir(), iir::RX_DATA);
  b.drain(1);
  EXPECT_EQ(b.iir(), iir::THR_EMPTY);
  EXPECT_EQ(b.iir(), iir::MODEM_STATUS);
  b.in(MSR);
  EXPECT_EQ(b.iir(), iir::NONE);
}

TEST(Uart, FcrTakesNothingWithoutItsEnableBitAndChangingThatClearsBoth) { // [8.5]
  UartBench b;
  b.out(IIR_FCR, 0xc8);
  EXPECT_EQ(b.field("fcr"), 0u);
  b.out(IIR_FCR, 0xc1);
  EXPECT_EQ(b.in(IIR_FCR)&0xc0, 0xc0u);
  b.send("abc");
  b.out(IIR_FCR, 0x00);
  EXPECT_EQ(b.lsr(), 0x60);
  EXPECT_EQ(b.in(IIR_FCR)&0xc0, 0u);
}

TEST(Uart, FcrResetBitsClearOneFifoEach) {
  UartBench b;
  b.fifos();
  b.host.streams[0].accepts = 0;
  b.send("ab");
  b.out(RBR_THR_DLL, 'x');
  b.out(IIR_FCR, 0x03);
  EXPECT_EQ(b.lsr(), 0x00);
  b.send("ab");
  b.out(IIR_FCR, 0x05);
  EXPECT_EQ(b.lsr(), 0x61);
  b.writable(0);
  EXPECT_EQ(b.take_sent(), "");
  EXPECT_EQ(b.drain(2), "ab");
}

// How SeaBIOS finds a port, how GRUB and Linux set it up and print.
TEST(Uart, FirmwareAndLinuxFindASixteenFiftyA) {
  Bench b("uart.so");
  b.out(IER_DLM, 0x02);
  EXPECT_EQ(b.in(IER_DLM), 0x02u);
  EXPECT_EQ(b.in(IIR_FCR), 0x02u);
  b.out(SCR, 0x5a);
  EXPECT_EQ(b.in(SCR), 0x5au);
  for (const u8 ier : {0x00, 0x0f, 0x00}) {
    b.out(IER_DLM, ier);
    EXPECT_EQ(b.in(IER_DLM), ier);
  }
  b.out(IIR_FCR, 0x01);
  EXPECT_EQ(b.in(IIR_FCR) >> 6, 3u);
  b.out(LCR, 0xbf); // the EFR test of later chips: this one has none, so it must not disturb
  b.out(IIR_FCR, 0x01);
  b.out(LCR, 0x03);
  const std::string text = "Linux version 6.1\r\n";
  for (const char c : text) {
    ASSERT_EQ(b.in(LSR)&0x60, 0x60u);
    b.out(RBR_THR_DLL, u8(c));
  }
  EXPECT_EQ(b.take_sent(), text);
}

} // namespace
} // namespace uart
