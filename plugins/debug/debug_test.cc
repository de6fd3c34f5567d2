#include "vdev/testing/properties.hpp"

namespace {

using vdev::u8;
using vdev::testing::Bench;
using vdev::testing::Options;
enum : vdev::u32 { EXIT, CONSOLE, FIRMWARE_LOG };

Options with(std::map<std::string, std::string> config) {
  Options options;
  options.config = std::move(config);
  return options;
}

VDEV_PROPERTIES(Debug, "debug.so", "org.transom.debug", .bench = with({{"exit", "true"}}), .schema = "debug.schema");

TEST(Debug, WritingTheExitPortEndsTheRunWithTheValue) {
  Bench b("debug.so", with({{"exit", "true"}}));
  b.out(EXIT, 0, 1, 0x10);
  EXPECT_EQ(b.host.wires.at(VDEV_WIRE_EXIT), 0x10u);
  b.out(EXIT, 0, 4, 0x12345678);
  EXPECT_EQ(b.host.wires.at(VDEV_WIRE_EXIT), 0x12345678u);
  EXPECT_EQ(b.in(EXIT, 0, 1), 0u);
}

TEST(Debug, OnlyItsFirstByteIsTheExitPort) {
  Bench b("debug.so", with({{"exit", "true"}}));
  b.out(EXIT, 1, 1, 0x10);
  EXPECT_EQ(b.host.wires.count(VDEV_WIRE_EXIT), 0u);
}

TEST(Debug, TheExitPortIsOffUnlessConfigured) {
  Bench b("debug.so");
  b.out(EXIT, 0, 1, 0x10);
  EXPECT_EQ(b.host.wires.count(VDEV_WIRE_EXIT), 0u);
  EXPECT_EQ(b.in(EXIT, 0, 4), 0xffffffffu);
}

TEST(Debug, TheConsolePortsAnswerE9AndWriteTheirStreams) {
  Bench b("debug.so");
  EXPECT_EQ(b.in(CONSOLE, 0, 1), 0xe9u);
  EXPECT_EQ(b.in(FIRMWARE_LOG, 0, 1), 0xe9u);
  for (const char c : std::string("test")) b.out(CONSOLE, 0, 1, u8(c));
  for (const char c : std::string("SeaBIOS")) b.out(FIRMWARE_LOG, 0, 1, u8(c));
  EXPECT_EQ(b.take_sent(0), "test");
  EXPECT_EQ(b.take_sent(1), "SeaBIOS");
}

TEST(Debug, AStringGoesOutAsItsBytesDo) {
  Bench b("debug.so");
  const std::string text = "a run of OUTSB";
  b.out_run(CONSOLE, 0, 1, {reinterpret_cast<const u8*>(text.data()), text.size()});
  EXPECT_EQ(b.take_sent(0), text);
  const u8 bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
  b.out_run(EXIT, 0, 4, bytes);
  EXPECT_EQ(b.host.wires.count(VDEV_WIRE_EXIT), 0u);
}

TEST(Debug, APortThatIsTurnedOffAnswersLikeNobody) {
  Bench b("debug.so", with({{"e9", "false"}, {"firmware_log", "false"}}));
  for (const vdev::u32 port : {CONSOLE, FIRMWARE_LOG}) {
    EXPECT_EQ(b.in(port, 0, 1), 0xffu);
    b.out(port, 0, 1, 'x');
  }
  EXPECT_TRUE(b.events().empty());
}

} // namespace
