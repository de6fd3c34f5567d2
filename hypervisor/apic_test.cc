// Local APIC against the Intel SDM volume 3A chapter 10 ("[10.n]"), I/O APIC against the 82093AA datasheet ("[n]").
#include <gtest/gtest.h>

#include "hypervisor/ioapic.hpp"
#include "hypervisor/lapic.hpp"

using namespace transom;

namespace {

constexpr u32 TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100, TMR = 0x180,
              IRR = 0x200, ESR = 0x280, ICR_LOW = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LVT_LINT0 = 0x350,
              LVT_ERROR = 0x370, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0;

class LapicTest : public testing::Test {
 protected:
  LapicTest()
      : apic(3, true,
             {[this] { return now += step; },
              [this](const InterruptMessage& m, u32 shorthand) { sent.emplace_back(m, shorthand); },
              [this](u8 vector) { eois.push_back(vector); }, [] {}, [this] { ++nmis; }, [this] { ++inits; },
              [this](u8 vector) { start_ups.push_back(vector); }}) {
    apic.write(SVR, 0x1ff);
  }
  void fixed(u8 vector, bool level = false) { apic.deliver({vector, DeliveryMode::fixed, level, false, 3}); }
  bool bit(u32 bank, u8 vector) { return (apic.read(bank + vector / 32 * 16) >> (vector % 32) & 1) != 0; }
  void run_to(u64 time) { // as the device thread: each deadline once, on time
    while (apic.deadline() <= time) {
      now = apic.deadline();
      apic.expire(now);
    }
    now = time;
  }

  u64 now = 1'000'000, step = 0; // `step`: how far the clock runs from one look to the next
  std::vector<std::pair<InterruptMessage, u32>> sent;
  std::vector<u8> eois;
  int nmis = 0, inits = 0;
  std::vector<u8> start_ups;
  Lapic apic;
};

} // namespace

// ---------------------------------------------------------------------------------------------------- priorities

TEST_F(LapicTest, TheHighestVectorOfTheHighestClassComesFirst) { // [10.8.3]
  for (const u8 vector : {0x31, 0x62, 0x60, 0x35}) fixed(vector);
  EXPECT_EQ(apic.acknowledge(), 0x62);
  EXPECT_EQ(apic.pending_vector(), -1) << "0x60 is of the class in service";
  apic.write(EOI, 0);
  EXPECT_EQ(apic.acknowledge(), 0x60);
  fixed(0x75);
  EXPECT_EQ(apic.acknowledge(), 0x75) << "a higher class interrupts";
  apic.write(EOI, 0);
  EXPECT_FALSE(bit(ISR, 0x75));
  EXPECT_TRUE(bit(ISR, 0x60));
  apic.write(EOI, 0);
  EXPECT_EQ(apic.acknowledge(), 0x35);
}

TEST_F(LapicTest, InitAndStartUpReachTheCoreEvenWhenSoftwareDisabledTheApic) { // [10.4.7.2]
  apic.write(SVR, 0xff);
  apic.deliver({0, DeliveryMode::init, false, false, 3});
  apic.deliver({0x9a, DeliveryMode::startup, false, false, 3});
  fixed(0x40);
  EXPECT_EQ(inits, 1);
  EXPECT_EQ(start_ups, std::vector<u8>{0x9a});
  EXPECT_FALSE(bit(IRR, 0x40)) << "unlike a fixed interrupt";
}

TEST_F(LapicTest, InitLeavesIdBaseAndEnableAndResetsTheRest) { // [10.4.7.3]
  apic.write(0x20, 0x0500'0000);
  ASSERT_TRUE(apic.set_base(0xfee1'0900));
  apic.write(SVR, 0x1ff);
  apic.write(TPR, 0x20);
  apic.write(LVT_TIMER, 0x40);
  fixed(0x60);
  apic.init();
  EXPECT_EQ(apic.read(0x20), 0x0500'0000u);
  EXPECT_EQ(apic.base(), 0xfee1'0900u);
  EXPECT_EQ(apic.read(SVR), 0xffu);
  EXPECT_EQ(apic.read(TPR), 0u);
  EXPECT_EQ(apic.read(LVT_TIMER), 0x10000u);
  EXPECT_FALSE(bit(IRR, 0x60));
}

// The host may take the processor away between two looks at the clock.
TEST_F(LapicTest, AOneShotTimerComesHoweverLateItIsArmed) {
  apic.write(LVT_TIMER, 0x40);
  apic.write(DIVIDE, 0xb);
  step = 5'000'000;
  apic.write(INITIAL, 1000); // a microsecond
  step = 0;
  run_to(now + 1'000'000);
  EXPECT_EQ(apic.acknowledge(), 0x40);
  apic.write(EOI, 0);
  apic.write(INITIAL, 4'000'000);
  step = 3'000'000;
  apic.write(DIVIDE, 0xb); // starts it again
  step = 0;
  run_to(now + 10'000'000);
  EXPECT_EQ(apic.acknowledge(), 0x40);
  apic.write(EOI, 0);
  apic.write(INITIAL, 4'000'000);
  step = 3'000'000;
  apic.write(LVT_TIMER, 0x41); // one look before it is due, the next one after it
  step = 0;
  run_to(now + 10'000'000);
  EXPECT_EQ(apic.acknowledge(), 0x41);
}

TEST_F(LapicTest, TaskPriorityMasksItsClassAndBelow) { // [10.8.3.1]
  struct {
    u8 tpr, vector;
    bool taken;
  } const table[] = {{0, 0x20, true},    {0x1f, 0x20, true},  {0x20, 0x2f, false},
                     {0x2f, 0x30, true}, {0xf0, 0xff, false}, {0x00, 0x10, true}};
  for (const auto& row : table) {
    apic.write(TPR, row.tpr);
    fixed(row.vector);
    EXPECT_EQ(apic.pending_vector() >= 0, row.taken) << std::hex << int(row.tpr) << " " << int(row.vector);
    apic.write(TPR, 0);
    apic.acknowledge();
    apic.write(EOI, 0);
  }
}

TEST_F(LapicTest, ProcessorPriorityIsTheHigherOfTaskAndService) { // [10.8.3.1]
  struct {
    u8 tpr, in_service, ppr;
  } const table[] = {{0, 0x51, 0x50}, {0x4f, 0x51, 0x50}, {0x53, 0x51, 0x53}, {0x63, 0x51, 0x63}};
  fixed(0x51);
  ASSERT_EQ(apic.acknowledge(), 0x51);
  for (const auto& row : table) {
    apic.write(TPR, row.tpr);
    EXPECT_EQ(apic.read(PPR), row.ppr);
  }
}

TEST_F(LapicTest, OnlyLevelTriggeredVectorsBroadcastTheirEoi) { // [10.8.5]
  fixed(0x41, true);
  EXPECT_TRUE(bit(TMR, 0x41));
  apic.acknowledge();
  apic.write(EOI, 0);
  EXPECT_EQ(eois, std::vector<u8>{0x41});
  fixed(0x41, false);
  apic.acknowledge();
  apic.write(EOI, 0);
  EXPECT_EQ(eois.size(), 1u);
  apic.write(EOI, 0); // nothing in service: nothing happens
  EXPECT_EQ(eois.size(), 1u);
}

// ---------------------------------------------------------------------------------------------------- messages

TEST_F(LapicTest, PhysicalAndLogicalDestinations) { // [10.6.2]
  const auto hears = [&](bool logical, u8 destination) {
    return apic.addressed({0x40, DeliveryMode::fixed, false, logical, destination});
  };
  EXPECT_TRUE(hears(false, 3));
  EXPECT_FALSE(hears(false, 2));
  EXPECT_TRUE(hears(false, 0xff));
  apic.write(LDR, 0x04000000); // flat: one bit a processor
  EXPECT_TRUE(hears(true, 0x06));
  EXPECT_FALSE(hears(true, 0x0b));
  apic.write(DFR, 0x0fffffff); // cluster model: cluster 5, member 1
  apic.write(LDR, 0x52000000);
  EXPECT_TRUE(hears(true, 0x52));
  EXPECT_TRUE(hears(true, 0xf2));
  EXPECT_FALSE(hears(true, 0x42));
  EXPECT_FALSE(hears(true, 0x51));
}

TEST_F(LapicTest, SoftwareDisabledItTakesNoFixedMessageButNmi) { // [10.4.7.2]
  apic.write(SVR, 0xff);
  EXPECT_FALSE(apic.addressed({0x40, DeliveryMode::fixed, true, false, 3}));
  fixed(0x40);
  EXPECT_FALSE(bit(IRR, 0x40));
  apic.deliver({0, DeliveryMode::nmi, false, false, 3});
  EXPECT_EQ(nmis, 1);
  apic.write(LVT_TIMER, 0x40);
  EXPECT_EQ(apic.read(LVT_TIMER), 0x10040u) << "LVTs stay masked";
  apic.set_base(Lapic::DEFAULT_BASE); // off altogether
  apic.deliver({0, DeliveryMode::nmi, false, false, 3});
  EXPECT_EQ(nmis, 1);
}

TEST_F(LapicTest, TheCommandRegisterSendsWhatItSays) { // [10.6.1]
  apic.write(ICR_HIGH, 0x07000000);
  apic.write(ICR_LOW, 0x00000831);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].first.vector, 0x31);
  EXPECT_EQ(sent[0].first.destination, 7);
  EXPECT_TRUE(sent[0].first.logical);
  EXPECT_EQ(sent[0].second, 0u);
  apic.write(ICR_LOW, 0x000c0432);
  EXPECT_EQ(sent[1].first.mode, DeliveryMode::nmi);
  EXPECT_EQ(sent[1].second, 3u);
  EXPECT_EQ(apic.read(ICR_LOW) & 0x1000, 0u) << "never pending";
  apic.write(ICR_LOW, 0x00008500); // INIT level de-assert
  EXPECT_EQ(sent.size(), 2u);
}

// ---------------------------------------------------------------------------------------------------- errors

TEST_F(LapicTest, ErrorsAreLatchedByAWriteAndInterrupt) { // [10.5.3]
  apic.write(LVT_ERROR, 0xe1);
  apic.write(ICR_LOW, 0x05); // vector 5
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(bit(IRR, 0xe1));
  EXPECT_EQ(apic.read(ESR), 0u);
  apic.write(ESR, 0);
  EXPECT_EQ(apic.read(ESR), 0x20u);
  fixed(3);
  apic.read(0x3f0);
  apic.write(ESR, 0);
  EXPECT_EQ(apic.read(ESR), 0xc0u);
  apic.write(ESR, 0);
  EXPECT_EQ(apic.read(ESR), 0u);
}

TEST_F(LapicTest, AnErrorVectorThatIsItselfIllegalDoesNotRecurse) {
  apic.write(LVT_ERROR, 0x05);
  apic.write(ICR_LOW, 0x00);
  fixed(0);
  apic.write(ESR, 0);
  EXPECT_EQ(apic.read(ESR), 0x60u);
  EXPECT_EQ(apic.pending_vector(), -1);
}

// ---------------------------------------------------------------------------------------------------- timer

TEST_F(LapicTest, EveryDivideConfigurationCountsExactly) { // [10.5.4, figure 10-10]
  struct {
    u32 code;
    u64 divisor;
  } const table[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
  for (const auto& row : table) {
    apic.write(DIVIDE, row.code);
    apic.write(LVT_TIMER, 0x50);
    apic.write(INITIAL, 1000);
    const u64 start = now;
    EXPECT_EQ(apic.deadline(), start + 1000 * row.divisor);
    now = start + 300 * row.divisor + row.divisor - 1;
    EXPECT_EQ(apic.read(CURRENT), 700u) << row.divisor;
    run_to(start + 1000 * row.divisor - 1);
    EXPECT_FALSE(bit(IRR, 0x50));
    run_to(start + 1000 * row.divisor);
    EXPECT_TRUE(bit(IRR, 0x50));
    EXPECT_EQ(apic.read(CURRENT), 0u);
    EXPECT_EQ(apic.deadline(), ~u64{0}) << "one-shot";
    apic.acknowledge();
    apic.write(EOI, 0);
  }
}

TEST_F(LapicTest, PeriodicKeepsItsGridHoweverLateItIsServed) {
  apic.write(DIVIDE, 11);
  apic.write(LVT_TIMER, 0x20050);
  const u64 start = now;
  apic.write(INITIAL, 1'000'000);
  now = start + 3'400'000; // two and a half periods late
  apic.expire(now);
  EXPECT_TRUE(bit(IRR, 0x50));
  EXPECT_EQ(apic.deadline(), start + 4'000'000);
  EXPECT_EQ(apic.read(CURRENT), 600'000u);
}

TEST_F(LapicTest, AMaskedTimerCountsAndStaysSilent) { // [10.5.1]
  apic.write(DIVIDE, 11);
  apic.write(LVT_TIMER, 0x10050);
  apic.write(INITIAL, 1000);
  now += 400;
  EXPECT_EQ(apic.read(CURRENT), 600u);
  run_to(now + 600);
  EXPECT_FALSE(bit(IRR, 0x50));
  apic.write(INITIAL, 0);
  EXPECT_EQ(apic.deadline(), ~u64{0});
}

TEST_F(LapicTest, RewritingTheTimerLosesNoExpiryThatWasDue) {
  apic.write(DIVIDE, 11);
  for (const u32 reg : {LVT_TIMER, INITIAL, DIVIDE}) {
    apic.write(LVT_TIMER, 0x50);
    apic.write(INITIAL, 1000);
    now += 1001; // nobody called expire() yet
    apic.write(reg, reg == LVT_TIMER ? 0x10050 : reg == INITIAL ? 5000 : 11);
    EXPECT_TRUE(bit(IRR, 0x50)) << reg;
    apic.acknowledge();
    apic.write(EOI, 0);
    apic.write(INITIAL, 0);
  }
}

TEST_F(LapicTest, APeriodOfOneTickDoesNotKeepTheHostBusy) {
  apic.write(DIVIDE, 11);
  apic.write(LVT_TIMER, 0x20050);
  apic.write(INITIAL, 1);
  const u64 end = now + 1'000'000;
  int expirations = 0;
  for (; apic.deadline() <= end; ++expirations) {
    now = apic.deadline();
    apic.expire(now);
  }
  EXPECT_LE(expirations, 60);
  EXPECT_GE(expirations, 10) << "and yet it runs";
}

// ---------------------------------------------------------------------------------------------------- PIC, base

TEST_F(LapicTest, ThePicReachesTheCoreThroughLint0InExtIntModeOnly) { // [10.5.1]
  EXPECT_TRUE(apic.accepts_pic()) << "virtual wire at reset";
  apic.write(LVT_LINT0, 0x10700);
  EXPECT_FALSE(apic.accepts_pic());
  apic.set_ext_int(true); // an I/O APIC pin in ExtINT mode
  EXPECT_TRUE(apic.accepts_pic());
  apic.set_ext_int(false);
  apic.write(LVT_LINT0, 0x00045);
  EXPECT_FALSE(apic.accepts_pic());
  apic.set_lint0(true);
  EXPECT_TRUE(bit(IRR, 0x45)) << "fixed mode: an edge of its own";
  apic.set_base(Lapic::DEFAULT_BASE);
  EXPECT_TRUE(apic.accepts_pic()) << "off: the INTR pin";
}

TEST_F(LapicTest, TheBaseRegisterRefusesReservedBits) { // [10.4.4]
  EXPECT_FALSE(apic.set_base(Lapic::DEFAULT_BASE | 1 << 10 | 1 << 11)) << "x2APIC is not offered";
  EXPECT_FALSE(apic.set_base(Lapic::DEFAULT_BASE | 1));
  EXPECT_TRUE(apic.set_base(0xfec1'0000 | 1 << 11));
  EXPECT_EQ(apic.base(), 0xfec1'0000u | 1 << 11 | 1 << 8);
}

// ---------------------------------------------------------------------------------------------------- I/O APIC

namespace {
class IoapicTest : public testing::Test {
 protected:
  IoapicTest()
      : ioapic([this](const InterruptMessage& m) {
          if (accept) sent.push_back(m);
          return accept;
        }) {}
  void program(u32 pin, u64 entry) {
    write(0x10 + 2 * pin, static_cast<u32>(entry));
    write(0x11 + 2 * pin, static_cast<u32>(entry >> 32));
  }
  void write(u32 index, u32 value) {
    ioapic.write(0, index);
    ioapic.write(0x10, value);
  }
  u32 read(u32 index) {
    ioapic.write(0, index);
    return ioapic.read(0x10);
  }
  bool remote_irr(u32 pin) { return (read(0x10 + 2 * pin) & 0x4000) != 0; }
  bool accept = true;
  std::vector<InterruptMessage> sent;
  Ioapic ioapic;
};
constexpr u64 LEVEL = 0x8000, MASK = 0x10000;
} // namespace

TEST_F(IoapicTest, RegistersAfterReset) { // [3.2]
  EXPECT_EQ(read(1), 0x0017'0020u);
  for (u32 pin = 0; pin < 24; ++pin) EXPECT_EQ(read(0x10 + 2 * pin), 0x10000u);
  write(0, 0xffffffff);
  EXPECT_EQ(read(0), 0x0f00'0000u);
  write(0x10, 0xffffffff);
  EXPECT_EQ(read(0x10) & 0x5000, 0u) << "delivery status and remote IRR are read-only";
  EXPECT_EQ(read(0x40), 0u);
}

TEST_F(IoapicTest, AnEdgeIsSentOnceAndLostWhileMasked) { // [2.3]
  program(4, 0x0300'0000'0000'0831);
  ioapic.set_pin(4, true);
  ioapic.set_pin(4, true);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].vector, 0x31);
  EXPECT_TRUE(sent[0].logical);
  EXPECT_EQ(sent[0].destination, 3);
  EXPECT_FALSE(sent[0].level);
  ioapic.set_pin(4, false);
  program(4, MASK | 0x31);
  ioapic.set_pin(4, true);
  program(4, 0x31);
  EXPECT_EQ(sent.size(), 1u) << "lost";
  ioapic.set_pin(4, false);
  ioapic.set_pin(4, true);
  EXPECT_EQ(sent.size(), 2u);
}

TEST_F(IoapicTest, ALevelWaitsForTheUnmaskAndForTheEoi) { // [2.3, 3.2.4]
  program(9, MASK | LEVEL | 0x52);
  ioapic.set_pin(9, true);
  EXPECT_TRUE(sent.empty());
  program(9, LEVEL | 0x52);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(sent[0].level);
  EXPECT_TRUE(remote_irr(9));
  ioapic.set_pin(9, false);
  ioapic.set_pin(9, true);
  EXPECT_EQ(sent.size(), 1u) << "not before the EOI";
  ioapic.end_of_interrupt(0x51);
  EXPECT_EQ(sent.size(), 1u) << "another vector's EOI";
  ioapic.end_of_interrupt(0x52);
  EXPECT_EQ(sent.size(), 2u) << "still asserted";
  ioapic.set_pin(9, false);
  ioapic.end_of_interrupt(0x52);
  EXPECT_EQ(sent.size(), 2u);
  EXPECT_FALSE(remote_irr(9));
}

TEST_F(IoapicTest, TheEoiRegisterOfVersion20EndsAVectorToo) {
  program(9, LEVEL | 0x52);
  ioapic.set_pin(9, true);
  ioapic.set_pin(9, false);
  ASSERT_TRUE(remote_irr(9));
  ioapic.write(0x40, 0x52);
  EXPECT_FALSE(remote_irr(9));
}

TEST_F(IoapicTest, SwitchingToEdgeClearsRemoteIrr) {
  program(9, LEVEL | 0x52);
  ioapic.set_pin(9, true);
  ASSERT_TRUE(remote_irr(9));
  program(9, MASK | 0x52);
  EXPECT_FALSE(remote_irr(9));
}

TEST_F(IoapicTest, ALevelThatNobodyTookIsSentAgainAndAnEdgeIsNot) {
  accept = false;
  program(9, LEVEL | 0x52);
  program(4, 0x31);
  ioapic.set_pin(9, true);
  ioapic.set_pin(4, true);
  EXPECT_FALSE(remote_irr(9));
  accept = true;
  ioapic.retry();
  ioapic.retry();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].vector, 0x52);
  EXPECT_TRUE(remote_irr(9));
}

TEST_F(IoapicTest, ExtIntPinsSendNothingAndAreActiveWhileHigh) {
  program(0, 0x700);
  EXPECT_FALSE(ioapic.ext_int_active());
  ioapic.set_pin(0, true);
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(ioapic.ext_int_active());
  program(0, MASK | 0x700);
  EXPECT_FALSE(ioapic.ext_int_active());
}
