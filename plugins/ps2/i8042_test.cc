#include <gtest/gtest.h>

#include "i8042_regs.hpp"
#include "keyboard.hpp"
#include "mouse.hpp"
#include "vdev/testing/properties.hpp"

namespace ps2 {
namespace {

using namespace vdev::testing;
using Bytes = std::vector<u8>;

struct Controller : Bench {
  Controller() : Bench("ps2.so") {}
  u8 status_port() { return u8(in(STATUS_COMMAND, 0, 1)); }
  u8 data_port() { return u8(in(DATA, 0, 1)); }
  void command(u8 value) { out(STATUS_COMMAND, 0, 1, value); }
  void data(u8 value) { out(DATA, 0, 1, value); }

  u8 ask(u8 value) { // a controller command with one byte of answer
    command(value);
    EXPECT_TRUE(status::OBF(status_port()));
    return data_port();
  }
  void write_ctr(u8 value) {
    command(WRITE_CTR);
    data(value);
  }
  // Everything there is to read, with a bound.
  Bytes drain() {
    Bytes bytes;
    while (status::OBF(status_port()) && bytes.size() < 100) bytes.push_back(data_port());
    return bytes;
  }
  Bytes to_keyboard(std::initializer_list<u8> bytes) {
    Bytes all;
    for (const u8 byte : bytes) {
      data(byte);
      for (const u8 reply : drain()) all.push_back(reply);
    }
    return all;
  }
  Bytes to_mouse(std::initializer_list<u8> bytes) {
    Bytes all;
    for (const u8 byte : bytes) {
      command(WRITE_AUX);
      data(byte);
      while (status::OBF(status_port()) && all.size() < 100) {
        EXPECT_TRUE(status::AUX(status_port()));
        all.push_back(data_port());
      }
    }
    return all;
  }
};

VDEV_PROPERTIES(I8042, "ps2.so", "org.transom.ps2", .schema = "ps2.schema");

// --- whole dialogues, as observed ---

TEST(I8042, SeabiosFindsControllerAndKeyboard) {
  Controller b;
  EXPECT_FALSE(status::OBF(b.status_port()));
  b.command(KBD_DISABLE);
  b.command(AUX_DISABLE);
  EXPECT_EQ(b.drain(), Bytes{});
  EXPECT_EQ(b.ask(SELF_TEST), 0x55);
  EXPECT_EQ(b.ask(KBD_TEST), 0x00);
  b.write_ctr(0x30);
  EXPECT_EQ(b.to_keyboard({0xff}), (Bytes{0xfa, 0xaa}));
  EXPECT_EQ(b.to_keyboard({0xf5}), Bytes{0xfa});
  EXPECT_EQ(b.to_keyboard({0xf0, 0x02}), (Bytes{0xfa, 0xfa}));
  EXPECT_EQ(b.to_keyboard({0xf4}), Bytes{0xfa});
  b.write_ctr(0x61);
  EXPECT_EQ(b.ask(READ_CTR), 0x61);
}

TEST(I8042, LinuxProbesAuxByLoopbackAndItsEnableBits) {
  Controller b;
  b.ask(SELF_TEST);
  b.write_ctr(0x61);
  EXPECT_EQ(b.ask(READ_CTR), 0x61);
  b.write_ctr(0x70);
  b.command(WRITE_AUX_OBUF);
  b.data(0x5a);
  EXPECT_EQ(b.status_port() & 0xf7, 0x35); // 3Dh observed, but for C/D, which says that 60h was written last
  EXPECT_EQ(b.data_port(), 0x5a);
  b.command(AUX_DISABLE);
  EXPECT_EQ(b.ask(READ_CTR), 0x70);
  b.command(AUX_ENABLE);
  EXPECT_EQ(b.ask(READ_CTR), 0x50);
}

TEST(I8042, LoopbackWithAuxInterruptArmedRaisesIrq12) {
  Controller b;
  b.write_ctr(0x52);
  b.command(WRITE_AUX_OBUF);
  b.data(0xa5);
  EXPECT_TRUE(b.irq("irq12"));
  EXPECT_FALSE(b.irq("irq1"));
  EXPECT_EQ(b.data_port(), 0xa5);
  EXPECT_FALSE(b.irq("irq12"));
}

TEST(I8042, IsNoMultiplexer) {
  Controller b;
  for (const u8 byte : {0xf0, 0x56, 0xa4}) {
    b.command(WRITE_AUX_OBUF);
    b.data(byte);
    EXPECT_TRUE(status::AUX(b.status_port()));
    EXPECT_EQ(b.data_port(), byte); // a multiplexer would answer with its version
  }
}

TEST(I8042, LinuxIdentifiesTheTranslatedKeyboardByInterrupts) {
  Controller b;
  b.write_ctr(0x61);
  b.clear_events();
  EXPECT_EQ(b.to_keyboard({kbd::IDENTIFY}), (Bytes{0xfa, 0xab, 0x41}));
  EXPECT_EQ(b.rising_edges("irq1"), 3u); // one a byte
  EXPECT_EQ(b.to_keyboard({kbd::DISABLE, kbd::SET_LEDS, 0x00, kbd::SET_TYPEMATIC, 0x00, kbd::ENABLE}),
            (Bytes(6, reply::ACK)));
}

TEST(I8042, LinuxIdentifiesTheMouse) {
  Controller b;
  b.write_ctr(0x43);
  b.clear_events();
  EXPECT_EQ(b.to_mouse({mouse::IDENTIFY}), (Bytes{0xfa, 0x00}));
  EXPECT_EQ(b.rising_edges("irq12"), 2u);
  EXPECT_EQ(b.rising_edges("irq1"), 0u);
}

// --- controller ---

TEST(I8042, StatusSaysWhoSpokeAndWhatWasWrittenLast) {
  Controller b;
  EXPECT_EQ(b.status_port(), 0x10);
  b.command(SELF_TEST);
  EXPECT_EQ(b.status_port(), 0x1d); // OBF, SYS, C/D, not locked
  b.data_port();
  EXPECT_EQ(b.status_port(), 0x1c);
  b.data(kbd::ECHO);
  EXPECT_EQ(b.status_port(), 0x15);
  EXPECT_EQ(b.data_port(), 0xee);
  EXPECT_EQ(b.data_port(), 0xee); // an empty buffer keeps its byte
}

TEST(I8042, EveryTestCommandPasses) {
  Controller b;
  EXPECT_EQ(b.ask(SELF_TEST), 0x55);
  EXPECT_EQ(b.ask(KBD_TEST), 0x00);
  EXPECT_EQ(b.ask(AUX_TEST), 0x00);
  EXPECT_EQ(b.ask(READ_INPORT), 0x80);
  EXPECT_EQ(b.ask(READ_TEST_INPUTS), 0x00);
}

TEST(I8042, CommandByteKeepsSevenBits) {
  Controller b;
  EXPECT_EQ(b.ask(READ_CTR), ctr::RESET);
  b.write_ctr(0xff);
  EXPECT_EQ(b.ask(READ_CTR), 0x7f);
}

TEST(I8042, SysBitOfTheCommandByteSetsTheStatusAndNeverClearsIt) {
  Controller b;
  b.write_ctr(0x00);
  EXPECT_FALSE(status::SYS(b.status_port()));
  b.write_ctr(0x04);
  EXPECT_TRUE(status::SYS(b.status_port()));
  b.write_ctr(0x00);
  EXPECT_TRUE(status::SYS(b.status_port()));
}

TEST(I8042, OtherControllerRamSwallowsItsByteAndAnswersNothing) {
  Controller b;
  b.command(0x61);
  b.data(0xf2); // not for the keyboard
  EXPECT_EQ(b.drain(), Bytes{});
  b.command(0x21);
  EXPECT_EQ(b.drain(), Bytes{});
}

TEST(I8042, InterruptsFollowTheCommandByte) {
  for (const u8 enabled : {0, 1, 2, 3}) {
    Controller b;
    b.write_ctr(enabled);
    b.data(kbd::ECHO);
    EXPECT_EQ(b.irq("irq1"), (enabled & 1) != 0);
    b.drain();
    b.command(WRITE_AUX);
    b.data(mouse::ENABLE);
    EXPECT_EQ(b.irq("irq12"), (enabled & 2) != 0);
  }
}

TEST(I8042, ADisabledLineKeepsItsBytesUntilItIsEnabled) {
  Controller b;
  b.data(kbd::IDENTIFY);
  b.command(KBD_DISABLE);
  EXPECT_EQ(b.drain(), Bytes{0xfa}); // was in the output buffer already
  b.command(KBD_ENABLE);
  EXPECT_EQ(b.drain(), (Bytes{0xab, 0x83}));
}

TEST(I8042, SendingToADeviceOpensItsLine) {
  Controller b;
  b.write_ctr(0x30);
  EXPECT_EQ(b.to_keyboard({kbd::ECHO}), Bytes{0xee});
  EXPECT_EQ(b.ask(READ_CTR), 0x20);
  EXPECT_EQ(b.to_mouse({mouse::IDENTIFY}), (Bytes{0xfa, 0x00}));
  EXPECT_EQ(b.ask(READ_CTR), 0x00);
}

TEST(I8042, ControllerAnswersGoBeforeDeviceBytes) {
  Controller b;
  b.data(kbd::IDENTIFY);
  b.command(READ_CTR);
  EXPECT_EQ(b.drain(), (Bytes{0xfa, ctr::RESET, 0xab, 0x83}));
}

TEST(I8042, WriteKeyboardOutputBufferComesBackAsTheKeyboards) {
  Controller b;
  b.write_ctr(0x03);
  b.command(WRITE_KBD_OBUF);
  b.data(0x1c);
  EXPECT_TRUE(b.irq("irq1"));
  EXPECT_FALSE(status::AUX(b.status_port()));
  EXPECT_EQ(b.data_port(), 0x1c);
}

// --- output port ---

TEST(OutputPort, A20FollowsItsThreeCommandsAndReadsBack) {
  Controller b;
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
  b.command(DISABLE_A20);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 0u);
  EXPECT_EQ(b.ask(READ_OUTPORT) & 0x03, 0x01);
  b.command(ENABLE_A20);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
  b.command(WRITE_OUTPORT);
  b.data(0xdd);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 0u);
  b.command(WRITE_OUTPORT);
  b.data(0xdf);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
  EXPECT_EQ(b.ask(READ_OUTPORT) & 0x03, 0x03);
  b.command(DISABLE_A20);
  b.reset();
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
  b.host.wires[VDEV_WIRE_A20] = 0; // as if the board had gone elsewhere meanwhile
  b.reset();
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
}

TEST(OutputPort, PulsingBit0LowIsInitAndOtherPulsesAreNothing) {
  const auto resets = [](const Bench& b) {
    u32 count = 0;
    for (const Event& e : b.events()) count += e.kind == EventKind::Wire && e.a == VDEV_WIRE_RESET;
    return count;
  };
  for (u32 value = 0xf0; value <= 0xff; ++value) {
    Controller b;
    b.command(u8(value));
    EXPECT_EQ(resets(b), value & 1 ? 0u : 1u) << value;
  }
  Controller b;
  b.command(WRITE_OUTPORT);
  b.data(0x03);
  EXPECT_EQ(resets(b), 0u);
  b.command(WRITE_OUTPORT);
  b.data(0x02);
  EXPECT_EQ(resets(b), 1u);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_RESET], VDEV_RESET_INIT);
}

// --- keyboard ---

TEST(Keyboard, AnswersEveryCommandAsTheManualSays) {
  struct Case {
    Bytes sent, answered;
  };
  for (const Case& c :
       {Case{{kbd::ECHO}, {0xee}}, Case{{kbd::RESET}, {0xfa, 0xaa}}, Case{{kbd::IDENTIFY}, {0xfa, 0xab, 0x83}},
        Case{{kbd::SET_LEDS, 0x07}, {0xfa, 0xfa}}, Case{{kbd::SET_DEFAULTS}, {0xfa}},
        Case{{kbd::ALL_TYPEMATIC}, {0xfa}}, Case{{kbd::ALL_MAKE_BREAK_TYPEMATIC}, {0xfa}}, Case{{0xfb}, {0xfe}},
        Case{{0xec}, {0xfe}}, Case{{0x12}, {0xfe}}, Case{{kbd::ECHO, kbd::RESEND}, {0xee, 0xee}},
        Case{{kbd::SCAN_CODE_SET, 0x00}, {0xfa, 0xfa, 0x02}},
        Case{{kbd::SCAN_CODE_SET, 0x03, kbd::SCAN_CODE_SET, 0x00}, {0xfa, 0xfa, 0xfa, 0xfa, 0x03}},
        Case{{kbd::SCAN_CODE_SET, 0x04}, {0xfa, 0xfe}}, Case{{kbd::SET_LEDS, 0x07, 0x07}, {0xfa, 0xfa, 0xfe}},
        Case{{kbd::SET_LEDS, kbd::ECHO}, {0xfa, 0xee}}}) { // a command ends the wait for a parameter
    Controller b;
    Bytes answered;
    for (const u8 byte : c.sent) {
      for (const u8 reply : b.to_keyboard({byte})) answered.push_back(reply);
    }
    EXPECT_EQ(answered, c.answered) << "first byte " << int(c.sent[0]);
  }
}

TEST(Keyboard, TranslationTurnsSetNumbersAndItsIdIntoSet1) {
  Controller b;
  b.write_ctr(0x40);
  for (const auto& [set, shown] : {std::pair<u8, u8>{1, 0x43}, {2, 0x41}, {3, 0x3f}}) {
    b.to_keyboard({kbd::SCAN_CODE_SET, set});
    EXPECT_EQ(b.to_keyboard({kbd::SCAN_CODE_SET, 0}), (Bytes{0xfa, 0xfa, shown}));
  }
}

TEST(Keyboard, KeepsItsParametersWithoutTheirReservedBits) {
  Controller b;
  b.to_keyboard({kbd::SET_LEDS, 0x7d, kbd::SET_TYPEMATIC, 0x12});
  EXPECT_EQ(b.field("kbd.leds"), 5u);
  EXPECT_EQ(b.field("kbd.typematic"), 0x12u);
  b.to_keyboard({kbd::SET_DEFAULTS});
  EXPECT_EQ(b.field("kbd.leds"), 0u);
  EXPECT_EQ(b.field("kbd.typematic"), kbd::TYPEMATIC_DEFAULT);
}

TEST(Keyboard, AFullQueueDropsAnswersAndNothingElse) {
  Controller b;
  for (int i = 0; i < 1000; ++i) b.data(kbd::IDENTIFY);
  EXPECT_EQ(b.field("kbd.out.count"), 16u);
  EXPECT_EQ(b.drain().size(), 17u); // and the one in the output buffer
  EXPECT_EQ(b.to_keyboard({kbd::ECHO}), Bytes{0xee});
}

// --- mouse ---

TEST(Mouse, AnswersEveryCommandAsTheManualSays) {
  using namespace mouse;
  struct Case {
    Bytes sent, answered;
  };
  for (const Case& c :
       {Case{{RESET}, {0xfa, 0xaa, 0x00}}, Case{{IDENTIFY}, {0xfa, 0x00}},
        Case{{SET_SAMPLE_RATE, 40, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0x00, 0x02, 40}},
        Case{{SET_RESOLUTION, 3, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0x00, 0x03, 100}},
        Case{{SET_RESOLUTION, 4}, {0xfa, 0xfe}},
        Case{{ENABLE, SCALING_2_1, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0x30, 0x02, 100}},
        Case{{REMOTE_MODE, STATUS_REQUEST}, {0xfa, 0xfa, 0x40, 0x02, 100}},
        Case{{REMOTE_MODE, STREAM_MODE, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0x00, 0x02, 100}},
        Case{{ENABLE, DISABLE, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0x00, 0x02, 100}},
        Case{{SET_SAMPLE_RATE, 40, SET_DEFAULTS, STATUS_REQUEST}, {0xfa, 0xfa, 0xfa, 0xfa, 0x00, 0x02, 100}},
        Case{{READ_DATA}, {0xfa, 0x08, 0x00, 0x00}},
        Case{{WRAP_MODE, 0x12, IDENTIFY, RESET_WRAP_MODE, IDENTIFY}, {0xfa, 0x12, 0xf2, 0xfa, 0xfa, 0x00}},
        Case{{SET_RESOLUTION, IDENTIFY}, {0xfa, 0xfa, 0x00}}, Case{{SET_RESOLUTION, 3, 3}, {0xfa, 0xfa, 0xfe}},
        Case{{IDENTIFY, RESEND}, {0xfa, 0x00, 0x00}}, Case{{0x12}, {0xfe}}}) {
    Controller b;
    Bytes answered;
    for (const u8 byte : c.sent) {
      for (const u8 reply : b.to_mouse({byte})) answered.push_back(reply);
    }
    EXPECT_EQ(answered, c.answered) << "first byte " << int(c.sent[0]);
  }
}

TEST(Snapshot, WithQueueIndicesOutOfRangeIsRefused) {
  Controller b;
  b.data(kbd::IDENTIFY);
  const Snapshot good = b.save();
  for (const char* field : {"kbd.out.head", "kbd.out.count", "mouse.out.head", "mouse.out.count", "kbd.scan_set"}) {
    for (const u64 value : {u64{17}, u64{0xffff}, ~u64{0}}) {
      Snapshot bad = good;
      bad.at(field).values[0] = value;
      EXPECT_NE(b.restore(bad), VDEV_OK) << field;
    }
  }
  EXPECT_EQ(b.restore(good), VDEV_OK);
  EXPECT_EQ(b.drain(), (Bytes{0xfa, 0xab, 0x83}));
}

} // namespace
} // namespace ps2
