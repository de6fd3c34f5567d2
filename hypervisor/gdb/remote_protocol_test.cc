#include "hypervisor/gdb/remote_protocol.hpp"

#include <gtest/gtest.h>

namespace transom::gdb {
namespace {

using Event = PacketReader::Event;

Event feed(PacketReader& reader, std::string_view bytes) {
  Event last = Event::none;
  for (const char c : bytes) {
    if (const Event e = reader.put(static_cast<u8>(c)); e != Event::none) last = e;
  }
  return last;
}

TEST(Packet, IsDataBetweenDollarAndItsSum) {
  PacketReader reader;
  EXPECT_EQ(feed(reader, "$OK#9a"), Event::packet);
  EXPECT_EQ(reader.data(), "OK");
  EXPECT_EQ(feed(reader, "$#00"), Event::packet);
  EXPECT_EQ(reader.data(), "");
  EXPECT_EQ(packet("OK"), "$OK#9a");
  EXPECT_EQ(packet(""), "$#00");
}

TEST(Packet, WithAnotherSumIsRefused) {
  PacketReader reader;
  EXPECT_EQ(feed(reader, "$OK#9b"), Event::bad_checksum);
  EXPECT_EQ(feed(reader, "$OK#zz"), Event::bad_checksum);
  EXPECT_EQ(feed(reader, "$OK#9A"), Event::packet);
}

TEST(Packet, CarriesAnyByte) {
  std::string all;
  for (int n = 0; n < 256; ++n) all += static_cast<char>(n);
  PacketReader reader;
  EXPECT_EQ(feed(reader, packet(all)), Event::packet);
  EXPECT_EQ(reader.data(), all);
}

TEST(Packet, ThatBeginsAnewForgetsItsFirstHalf) {
  PacketReader reader;
  EXPECT_EQ(feed(reader, "$Xhalf$OK#9a"), Event::packet);
  EXPECT_EQ(reader.data(), "OK");
}

TEST(Packet, MayHaveNoiseAroundAndSingleBytesBetween) {
  PacketReader reader;
  EXPECT_EQ(feed(reader, "x\n"), Event::none);
  EXPECT_EQ(feed(reader, "+"), Event::acknowledged);
  EXPECT_EQ(feed(reader, "-"), Event::refused);
  EXPECT_EQ(feed(reader, "\x03"), Event::interrupt);
  EXPECT_EQ(feed(reader, "$a\x03+#8f"), Event::packet); // inside, they are data
}

TEST(Packet, HasALimit) {
  PacketReader reader;
  EXPECT_EQ(feed(reader, packet(std::string(MAX_PACKET, 'a'))), Event::packet);
  EXPECT_EQ(feed(reader, "$" + std::string(MAX_PACKET, 'a')), Event::none);
  EXPECT_EQ(reader.put('a'), Event::too_long);
}

TEST(Scanner, TakesNumbersOfAtMost64Bits) {
  Scanner all("1F,ffffffffffffffff:");
  EXPECT_EQ(all.number(), 0x1fu);
  EXPECT_TRUE(all.skip(","));
  EXPECT_EQ(all.number(), ~u64{0});
  EXPECT_FALSE(all.done());
  EXPECT_EQ(Scanner("10000000000000000").number(), std::nullopt);
  EXPECT_EQ(Scanner("").number(), std::nullopt);
  EXPECT_EQ(Scanner(",1").number(), std::nullopt);
}

TEST(Hex, RefusesWhatIsNone) {
  EXPECT_EQ(unhex("00fF"), std::string("\0\xff", 2));
  EXPECT_EQ(unhex("0"), std::nullopt);
  EXPECT_EQ(unhex("0g"), std::nullopt);
}

} // namespace
} // namespace transom::gdb
