// 8259A: every command word, priorities, end of interrupt, cascade. Through the shipping library.
#include "pic_pit_bench.hpp"

namespace pic_pit {
namespace {

enum : u8 { EOI = 0x20, SPECIFIC = 0x60, ROTATE_EOI = 0xa0, ROTATE_SPECIFIC = 0xe0, SET_PRIORITY = 0xc0 };

TEST(I8259, NothingPassesBeforeInitialization) {
  PicPitBench b;
  b.edge(3);
  EXPECT_FALSE(b.irq("intr"));
  b.initialize();
  EXPECT_FALSE(b.irq("intr")) << "ICW1 clears the edge sense circuit: the input must rise anew";
  b.edge(3);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.acknowledge(), 0x23);
}

// How many ICWs follow ICW1: ICW3 unless SNGL, ICW4 if IC4. A write too many goes to OCW1.
TEST(I8259, Icw1SaysWhichWordsFollow) {
  struct {
    u8 icw1;
    int words;
  } const table[] = {{0x10, 2}, {0x11, 3}, {0x12, 1}, {0x13, 2}};
  for (const auto& row : table) {
    PicPitBench b;
    b.write(MASTER, 0, row.icw1);
    for (int i = 0; i < row.words; i++) {
      EXPECT_NE(b.field("master.step"), u64{i8259::READY});
      b.write(MASTER, 1, 0);
    }
    EXPECT_EQ(b.field("master.step"), u64{i8259::READY}) << u32(row.icw1);
    b.write(MASTER, 1, 0x5a);
    EXPECT_EQ(b.imr(MASTER), 0x5a);
  }
}

TEST(I8259, Icw1ClearsWhatTheDatasheetListsAndKeepsTheElcr) {
  PicPitBench b;
  b.initialize(0x1f);
  b.write(ELCR, 0, 0xff);
  b.edge(0);
  b.acknowledge();
  for (const u32 word : {0x80u, 0x68u, 0x0bu, u32{SET_PRIORITY} | 3}) b.write(MASTER, 0, word);
  b.write(MASTER, 1, 0xa5);
  b.write(MASTER, 0, 0x10);
  for (const char* name :
       {"imr", "isr", "edges", "icw2", "icw3", "icw4", "read_isr", "poll", "special_mask", "rotate_on_aeoi"}) {
    EXPECT_EQ(b.field(std::string("master.") + name), 0u) << name;
  }
  EXPECT_EQ(b.field("master.lowest"), 7u);
  EXPECT_EQ(b.in(ELCR, 0, 1), 0xf8u);
}

TEST(I8259, AnyOrderOfCommandWordsIsHarmless) {
  PicPitBench b;
  for (u32 i = 0; i < 4096; i++) { // a walk over ports and values, with inputs and acknowledges between
    b.write(i & 1, i >> 1 & 1, i * 73 & 0xff);
    b.irq_in(i % 16, i >> 4 & 1);
    if (i % 7 == 0) b.acknowledge();
    b.in(i & 1, i >> 2 & 1, 1);
  }
  b.initialize();
  b.edge(1);
  EXPECT_EQ(b.acknowledge(), 0x21);
}

TEST(I8259, AnOcwInTheMiddleOfInitializationDoesNotEndIt) {
  PicPitBench b;
  b.write(MASTER, 0, 0x11);
  b.write(MASTER, 1, 0x40);
  b.write(MASTER, 0, EOI);
  b.write(MASTER, 0, 0x0b);
  b.write(MASTER, 1, 0x04);
  b.write(MASTER, 1, 0x01);
  b.edge(5);
  EXPECT_EQ(b.acknowledge(), 0x45);
}

TEST(I8259, VectorsOf8086ModeAreIcw2sUpperBitsAndTheLevel) {
  for (u32 base = 0; base < 256; base += 7) {
    PicPitBench b;
    b.initialize();
    b.write(MASTER, 0, 0x13);
    b.write(MASTER, 1, base);
    b.write(MASTER, 1, 0x01);
    b.edge(6);
    EXPECT_EQ(b.acknowledge(), (base & 0xf8) | 6);
  }
}

TEST(I8259, Mcs80ModeGivesTheLowByteOfTheCallAddress) { // [Figure 5]
  for (const auto& [icw1, level4] : {std::pair<u8, u32>{0xb6, 0xa0 | 3 << 2}, {0xb2, 0x80 | 3 << 3}}) {
    PicPitBench b;
    b.write(MASTER, 0, icw1); // single, no ICW4
    b.write(MASTER, 1, 0x20);
    b.edge(3);
    EXPECT_EQ(b.acknowledge(), level4);
  }
}

TEST(I8259, WithSnglInput2HasAVectorOfItsOwn) {
  PicPitBench b;
  b.initialize();
  b.write(MASTER, 0, 0x13);
  b.write(MASTER, 1, 0x20);
  b.write(MASTER, 1, 0x01);
  b.edge(9);
  EXPECT_EQ(b.acknowledge(), 0x22);
}

TEST(I8259, AnEdgeCountsOnceAndOnlyWhileItsLineStaysHigh) {
  PicPitBench b;
  b.initialize();
  b.irq_in(4, true);
  EXPECT_EQ(b.acknowledge(), 0x24);
  b.write(MASTER, 0, EOI);
  EXPECT_FALSE(b.irq("intr")) << "the line is still high, but there was no new edge";
  b.edge(4);
  EXPECT_TRUE(b.irq("intr"));
  b.irq_in(4, false);
  EXPECT_FALSE(b.irq("intr"));
}

TEST(I8259, ARequestThatWentAwayIsSpuriousLevel7) {
  PicPitBench b;
  b.initialize();
  b.irq_in(4, true);
  b.irq_in(4, false);
  EXPECT_EQ(b.acknowledge(), 0x27);
  EXPECT_EQ(b.isr(MASTER), 0);
}

// The slave's INT is the master's line: when it falls, the master is left with nothing, not with a spurious IRQ 15.
TEST(I8259, ARequestThatTheSlaveWithdrawsIsSpuriousOnTheMaster) {
  PicPitBench b;
  b.initialize();
  b.edge(10);
  EXPECT_TRUE(b.irq("intr"));
  b.write(SLAVE, 1, 0xff);
  EXPECT_FALSE(b.irq("intr"));
  EXPECT_EQ(b.acknowledge(), 0x27);
  EXPECT_EQ(b.isr(MASTER), 0);
  EXPECT_EQ(b.isr(SLAVE), 0);
}

TEST(I8259, PollingTheSlaveWithdrawsItsRequestFromTheMaster) {
  PicPitBench b;
  b.initialize();
  b.edge(10);
  b.write(SLAVE, 0, 0x0c);
  EXPECT_EQ(b.in(SLAVE, 0, 1), 0x82u);
  EXPECT_FALSE(b.irq("intr"));
  EXPECT_EQ(b.irr(MASTER), 0);
}

TEST(I8259, LevelInputsRequestUntilTheyFall) {
  for (const bool by_elcr : {true, false}) {
    PicPitBench b;
    b.initialize(0x01, by_elcr ? 0x11 : 0x19); // LTIM
    if (by_elcr) b.write(ELCR, 1, 0x0c);
    b.irq_in(11, true);
    EXPECT_EQ(b.acknowledge(), 0x2b);
    EXPECT_EQ(b.irr(SLAVE), 0x08);
    b.write(SLAVE, 0, EOI);
    b.write(MASTER, 0, EOI);
    EXPECT_TRUE(b.irq("intr"));
    b.irq_in(11, false);
    EXPECT_FALSE(b.irq("intr"));
    EXPECT_EQ(b.irr(SLAVE), 0);
  }
}

TEST(I8259, ElcrBitsOfTheEdgeOnlyInputsCannotBeSet) {
  PicPitBench b;
  b.write(ELCR, 0, 0xff);
  b.write(ELCR, 1, 0xff);
  EXPECT_EQ(b.in(ELCR, 0, 2), 0xdef8u);
}

// Fully nested mode, for every rotation: of two requests the higher wins, and only a higher one interrupts a service.
TEST(I8259, PrioritiesNestForEveryRotation) {
  for (u32 lowest = 0; lowest < 8; lowest++) {
    for (u32 a = 0; a < 8; a++) {
      for (u32 c = 0; c < 8; c++) {
        if (a == 2 || c == 2 || a == c) continue;
        const auto rank = [&](u32 level) { return (level + 7 - lowest) & 7; };
        PicPitBench b;
        b.initialize();
        b.write(MASTER, 0, SET_PRIORITY | lowest);
        b.write(MASTER, 1, 0xff);
        b.edge(a), b.edge(c);
        b.write(MASTER, 1, 0);
        const u32 first = rank(a) < rank(c) ? a : c;
        EXPECT_EQ(b.acknowledge(), 0x20 + first);
        EXPECT_FALSE(b.irq("intr"));
        b.edge(first == a ? c : a);
        EXPECT_FALSE(b.irq("intr")) << "lower than the one in service";
        b.write(MASTER, 0, SPECIFIC | first);
        EXPECT_TRUE(b.irq("intr"));
        b.acknowledge();
        b.edge(first);
        EXPECT_TRUE(b.irq("intr")) << "higher than the one in service";
      }
    }
  }
}

// Every OCW2 on every level, with levels 1, 4 and 6 in service: which service bit it clears and which level is lowest
// then.
TEST(I8259, EveryOcw2ClearsAndRotatesAsItsTableSays) { // [Figure 8, OCW2]
  for (u32 command = 0; command < 8; command++) {
    for (u32 level = 0; level < 8; level++) {
      PicPitBench b;
      b.initialize();
      for (const u32 input : {6, 4, 1}) b.edge(input), b.acknowledge();
      ASSERT_EQ(b.isr(MASTER), 0x52);
      b.write(MASTER, 0, command << 5 | level);
      u32 isr = 0x52, lowest = 7;
      if (command == 1 || command == 5) isr &= ~0x02u;         // non-specific: the highest, 1
      if (command == 3 || command == 7) isr &= ~(1u << level); // specific
      if (command == 5) lowest = 1;
      if (command == 7 || command == 6) lowest = level;
      EXPECT_EQ(b.isr(MASTER), isr) << command << " " << level;
      EXPECT_EQ(b.field("master.lowest"), lowest) << command << " " << level;
      EXPECT_EQ(b.field("master.rotate_on_aeoi"), command == 4 ? 1u : 0u);
    }
  }
}

TEST(I8259, NonSpecificEoiWithNothingInServiceChangesNothing) {
  PicPitBench b;
  b.initialize();
  b.write(MASTER, 0, ROTATE_EOI);
  EXPECT_EQ(b.field("master.lowest"), 7u);
}

TEST(I8259, AutomaticEoiLeavesNothingInServiceAndMayRotate) {
  PicPitBench b;
  b.initialize(0x03);
  b.edge(3);
  EXPECT_EQ(b.acknowledge(), 0x23);
  EXPECT_EQ(b.isr(MASTER), 0);
  EXPECT_EQ(b.field("master.lowest"), 7u);
  b.write(MASTER, 0, 0x80); // rotate in automatic EOI mode: set
  b.edge(3);
  b.acknowledge();
  EXPECT_EQ(b.field("master.lowest"), 3u);
  b.write(MASTER, 0, 0x00); // clear
  b.edge(5);
  b.acknowledge();
  EXPECT_EQ(b.field("master.lowest"), 3u);
}

TEST(I8259, SpecialMaskModeEnablesLowerLevelsThanAMaskedOneInService) {
  PicPitBench b;
  b.initialize();
  b.edge(1);
  b.acknowledge();
  b.edge(5);
  b.write(MASTER, 1, 0x02);
  EXPECT_FALSE(b.irq("intr"));
  b.write(MASTER, 0, 0x68);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.acknowledge(), 0x25);
  b.write(MASTER, 0, EOI); // leaves the masked service bit alone, takes the next
  EXPECT_EQ(b.isr(MASTER), 0x02);
  b.write(MASTER, 0, 0x08); // ESMM = 0: no change
  EXPECT_EQ(b.field("master.special_mask"), 1u);
  b.write(MASTER, 0, 0x48);
  EXPECT_EQ(b.field("master.special_mask"), 0u);
}

TEST(I8259, SpecialFullyNestedModeLetsAHigherSlaveInputInterruptALower) {
  for (const bool sfnm : {true, false}) {
    PicPitBench b;
    b.initialize();
    b.write(MASTER, 0, 0x11);
    b.write(MASTER, 1, 0x20);
    b.write(MASTER, 1, 0x04);
    b.write(MASTER, 1, sfnm ? 0x11 : 0x01);
    b.edge(12);
    EXPECT_EQ(b.acknowledge(), 0x2c);
    b.edge(9);
    EXPECT_EQ(b.irq("intr"), sfnm);
    b.edge(3); // an input of the master itself, below the slave's: never
    if (sfnm) {
      EXPECT_EQ(b.acknowledge(), 0x29);
    }
    EXPECT_FALSE(b.irq("intr"));
  }
}

TEST(I8259, PollAcknowledgesAndNamesTheLevel) {
  PicPitBench b;
  b.initialize();
  b.edge(5);
  b.write(MASTER, 0, 0x0c);
  EXPECT_EQ(b.in(MASTER, 0, 1), 0x85u);
  EXPECT_EQ(b.isr(MASTER), 0x20);
  EXPECT_FALSE(b.irq("intr"));
  b.write(MASTER, 0, 0x0c);
  EXPECT_EQ(b.in(MASTER, 1, 1), 0x00u) << "no request; the next read is a poll at either address";
  EXPECT_EQ(b.imr(MASTER), 0x00);
}

TEST(I8259, ReadSelectsIrrAfterIcw1AndKeepsWhatOcw3Chose) {
  PicPitBench b;
  b.initialize();
  b.write(MASTER, 1, 0xff);
  b.edge(3);
  EXPECT_EQ(b.in(MASTER, 0, 1), 0x08u) << "IRR, and masks do not hide a request in it";
  b.write(MASTER, 1, 0);
  b.acknowledge();
  b.write(MASTER, 0, 0x0b);
  EXPECT_EQ(b.in(MASTER, 0, 1), 0x08u);
  b.write(MASTER, 0, 0x08); // RR = 0: no change
  EXPECT_EQ(b.in(MASTER, 0, 1), 0x08u);
  b.write(MASTER, 0, 0x0a);
  EXPECT_EQ(b.in(MASTER, 0, 1), 0x00u);
}

TEST(I8259, ASlaveRequestIsServedOnBothChips) {
  PicPitBench b;
  b.initialize();
  b.edge(14);
  EXPECT_EQ(b.irr(MASTER), 0x04);
  EXPECT_EQ(b.acknowledge(), 0x2e);
  EXPECT_EQ(b.isr(MASTER), 0x04);
  EXPECT_EQ(b.isr(SLAVE), 0x40);
  b.edge(8); // higher within the slave, but the master is serving that input
  EXPECT_FALSE(b.irq("intr"));
  b.write(SLAVE, 0, EOI);
  b.write(MASTER, 0, EOI);
  EXPECT_EQ(b.acknowledge(), 0x28);
}

TEST(I8259, TwoSlaveRequestsAreTwoEdgesOnTheMasterEvenWithAutomaticEoi) {
  PicPitBench b;
  b.initialize(0x03);
  b.edge(8), b.edge(9);
  EXPECT_EQ(b.acknowledge(), 0x28);
  EXPECT_TRUE(b.irq("intr"));
  EXPECT_EQ(b.acknowledge(), 0x29);
  EXPECT_FALSE(b.irq("intr"));
}

TEST(I8259, ASlaveThatDoesNotKnowItsNumberLeavesTheBusFloating) {
  PicPitBench b;
  b.initialize();
  b.write(SLAVE, 0, 0x11);
  b.write(SLAVE, 1, 0x28);
  b.write(SLAVE, 1, 0x05);
  b.write(SLAVE, 1, 0x01);
  b.edge(9);
  EXPECT_EQ(b.acknowledge(), 0xff);
}

TEST(I8259, TheCascadeInputIsNotConnectedToTheBoard) {
  PicPitBench b;
  b.initialize();
  b.irq_in(2, true);
  EXPECT_FALSE(b.irq("intr"));
}

// The words that firmware and Linux write, and Linux's habit of reading IRR without an OCW3.
TEST(I8259, LinuxFindsAPendingEdgeInIrr) {
  PicPitBench b;
  b.write(MASTER, 1, 0xff);
  for (const auto& [a0, v] : {std::pair{0, 0x11}, {1, 0x30}, {1, 0x04}, {1, 0x03}}) b.write(MASTER, u64(a0), u32(v));
  for (const auto& [a0, v] : {std::pair{0, 0x11}, {1, 0x38}, {1, 0x02}, {1, 0x01}}) b.write(SLAVE, u64(a0), u32(v));
  b.write(MASTER, 1, 0xff), b.write(SLAVE, 1, 0xff);
  b.edge(14);
  EXPECT_EQ(b.in(SLAVE, 0, 1), 0x40u);
  EXPECT_EQ(b.in(MASTER, 0, 1) & ~1u, 0u) << "the slave's masks hold back its INT";
}

} // namespace
} // namespace pic_pit
