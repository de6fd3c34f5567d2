// i440FX, PIIX3 and PIIX4 power management against QEMU's: configuration space and ports.
#include "dialogue.hpp"

namespace transom::qtest {
namespace {

enum Function : u32 { HOST, ISA, POWER };
constexpr std::array<u32, 3> BDF = {0x0000, 0x0800, 0x0b00}; // 00:00.0, 00:01.0, 00:01.3 as CF8h has them

struct PiixQtest : ::testing::Test {
  void SetUp() override { TRANSOM_NEEDS_QEMU(); }
};

struct Pair {
  BenchMachine ours{"piix.so"};
  QemuMachine theirs;
  explicit Pair(std::vector<std::string> qemu = {"-serial", "null"}) : theirs(qemu) {} // our board has COM1

  void write(Function function, u32 offset, u32 value) {
    ours.bench.cfg_write(function, offset, 4, value);
    theirs.client.outl_config(BDF[function] | offset, value);
  }
  void expect_same(Function function, u32 offset, u32 mask = ~0u) {
    EXPECT_EQ(ours.bench.cfg_read(function, offset, 4) & mask, theirs.client.inl_config(BDF[function] | offset) & mask)
        << "function " << function << ", offset " << std::hex << offset;
  }
  void write_word(u16 port, u16 value) {
    ours.bench.out(ours.bench.region("pm"), port - 0x600u, 2, value);
    theirs.client.outw(port, value);
  }
  void expect_same_word(u16 port, u32 mask = 0xffff) {
    EXPECT_EQ(ours.bench.in(ours.bench.region("pm"), port - 0x600u, 2) & mask, theirs.client.inw(port) & mask)
        << "port " << std::hex << port;
  }
  void map_pm() {
    write(POWER, 0x40, 0x601);
    write(POWER, 0x80, 0x1);
  }
};

TEST_F(PiixQtest, HeadersAreTheSame) {
  Pair pair;
  for (const Function function : {HOST, ISA, POWER}) {
    for (const u32 offset : {0x00, 0x08, 0x0c, 0x2c, 0x3c}) pair.expect_same(function, offset);
  }
  pair.expect_same(ISA, 0x04);
  pair.expect_same(POWER, 0x04);
}

TEST_F(PiixQtest, ResetValuesAreTheSame) {
  Pair pair;
  pair.expect_same(HOST, 0x58);
  pair.expect_same(HOST, 0x5c);
  pair.expect_same(HOST, 0x70, 0x00ff0000); // SMRAM
  for (u32 offset = 0x40; offset < 0x100; offset += 4) pair.expect_same(ISA, offset);
  for (const u32 offset : {0x40, 0x5c, 0x60, 0x64, 0x80}) pair.expect_same(POWER, offset);
  Pair without_smm({"-machine", "smm=off"}); // as our board is
  without_smm.expect_same(POWER, 0x58);
}

TEST_F(PiixQtest, PamAndPirqReadBackTheSame) {
  Pair pair;
  for (const u32 value : {0x33333000u, 0x11111000u, 0x00000000u, 0x21120000u}) {
    pair.write(HOST, 0x58, value);
    pair.write(HOST, 0x5c, value >> 12);
    pair.expect_same(HOST, 0x58);
    pair.expect_same(HOST, 0x5c);
  }
  for (const u32 value : {0x0b0b0a0au, 0x8b8b8a8au, 0x80808080u}) {
    pair.write(ISA, 0x60, value);
    pair.expect_same(ISA, 0x60);
  }
}

TEST_F(PiixQtest, PortsAreTheSame) {
  Pair pair;
  Dialogue d = {in(0x92), in(0xcf9), in(0xb2), in(0xb3)};
  for (const u8 value : {0x02, 0x00, 0x02}) d.insert(d.end(), {out(0x92, value), in(0x92)});
  d.insert(d.end(), {out(0xcf9, 0x02), in(0xcf9), out(0xcf9, 0x00), in(0xcf9)});
  for (const u8 value : {0x00, 0x42, 0xff}) {
    d.insert(d.end(), {out(0xb3, u8(~value)), out(0xb2, value), in(0xb2), in(0xb3)});
  }
  for (u16 port = 0xafe0; port < 0xafe4; ++port) d.insert(d.end(), {in(port), out(port, 0xa5), in(port)});
  expect_same_answers(pair.ours, pair.theirs, d);
}

TEST_F(PiixQtest, AcpiIsEnabledAndDisabledTheSame) {
  Pair pair;
  pair.map_pm();
  for (const u8 value : {0x00, 0xf1, 0x42, 0xf0, 0xf1}) {
    pair.ours.out(0xb2, value), pair.theirs.out(0xb2, value);
    pair.expect_same_word(0x604);
  }
}

// By words, as Linux does it: QEMU answers bytes of these registers from the wrong half.
TEST_F(PiixQtest, Pm1RegistersAreTheSame) {
  Pair pair;
  pair.map_pm();
  pair.expect_same_word(0x600, 0xfffe); // TMROF_STS depends on the clock
  for (const u16 value : {0x0000, 0x0001, 0x0020, 0x0100, 0x0400, 0x0521}) {
    pair.write_word(0x602, value);
    pair.expect_same_word(0x602);
    pair.write_word(0x600, value);
    pair.expect_same_word(0x600, 0xfffe);
  }
  for (const u16 value : {0x0000, 0x0001, 0x0002, 0x0003, 0x0400, 0x1c00}) {
    pair.write_word(0x604, value);
    pair.expect_same_word(0x604);
  }
}

const std::vector<Accepted> ACCEPTED = {
    {"port 92h has two bits",
     "PIIX data sheet, port 92h; QEMU stores all eight",
     {out(0x92, 0xfe), in(0x92)},
     {0x02},
     {0xfe}},
    {"PM1 enables are four", "82371AB, PMEN; QEMU stores all bits", {out(0x602, 0xff), in(0x602)}, {0x21}, {0xff}},
    {"GLBCTL is there", "82371AB, GLBCTL; QEMU leaves the rest of the block unclaimed", {in(0x628)}, {0x00}, {0xff}},
};

TEST_F(PiixQtest, AcceptedDifferencesAreStillThere) {
  for (const Accepted& a : ACCEPTED) {
    Pair pair;
    pair.map_pm();
    EXPECT_EQ(speak(pair.ours, a.dialogue), a.ours) << a.what;
    EXPECT_EQ(speak(pair.theirs, a.dialogue), a.qemu) << a.what << ": " << a.reason;
  }
}

} // namespace
} // namespace transom::qtest
