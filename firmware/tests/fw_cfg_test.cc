// fw_cfg as firmware uses it: keys and bytes by port, requests by DMA, both on one offset, and what a hostile guest
// does.
#include "firmware/fw_cfg.hpp"

#include <gtest/gtest.h>

namespace transom::firmware {
namespace {

constexpr u64 RAM = 1 << 20;
constexpr u64 REQUEST = 0x1000, BUFFER = 0x2000;

class FwCfgTest : public ::testing::Test {
 protected:
  FwCfgTest() : host_(RAM, 0xcc), ram_(host_.data(), RAM), map_(CodePages::bytes_for(RAM / PAGE_SIZE)) {
    code_ = CodePages(map_.data(), RAM / PAGE_SIZE);
    device_ = FwCfg(ram_, &code_, [this](u8) { ++code_kicks_; });
    device_.set(0x0005, Bytes{2, 0});
    device_.add_file("etc/numbers", Bytes{10, 11, 12, 13, 14, 15, 16, 17});
    device_.add_file("etc/writable", Bytes(8, 0xee), true);
  }

  void select(u16 key) { device_.write(0x510, 2, key); }
  Bytes port_bytes(u32 count) {
    Bytes bytes;
    for (u32 i = 0; i < count; ++i) bytes.push_back(static_cast<u8>(device_.read(0x511, 1)));
    return bytes;
  }
  void place_request(u32 control, u32 length, u64 address, u64 at = REQUEST) {
    u8 request[16];
    set_be(request, 0, 4, control);
    set_be(request, 4, 4, length);
    set_be(request, 8, 8, address);
    ASSERT_TRUE(ram_.write(at, request, sizeof request));
  }
  // The value that a little-endian OUT carries for a big-endian register.
  static u32 out_value(u32 value) { return __builtin_bswap32(value); }
  // Runs a request and returns what its control word became.
  u32 dma(u32 control, u32 length, u64 address) {
    place_request(control, length, address);
    device_.write(0x518, 4, out_value(REQUEST));
    return control_word();
  }
  u32 control_word(u64 at = REQUEST) { return static_cast<u32>(be_at({host_.data() + at, 4}, 0, 4)); }
  Bytes ram_bytes(u64 at, u64 count) {
    return Bytes(host_.begin() + static_cast<i64>(at), host_.begin() + static_cast<i64>(at + count));
  }
  u16 key_of(std::string_view name) {
    select(FwCfg::KEY_DIRECTORY);
    const u64 count = be_at(port_bytes(4), 0, 4);
    for (u64 i = 0; i < count; ++i) {
      const Bytes entry = port_bytes(64);
      if (name == reinterpret_cast<const char*>(entry.data() + 8)) return static_cast<u16>(be_at(entry, 4, 2));
    }
    return 0;
  }

  Bytes host_;
  GuestMemory ram_;
  Bytes map_;
  CodePages code_;
  int code_kicks_ = 0;
  FwCfg device_;
};

TEST_F(FwCfgTest, SignatureAndFeaturesAreThoseOfQemu) {
  select(0);
  EXPECT_EQ(port_bytes(4), (Bytes{'Q', 'E', 'M', 'U'}));
  select(1);
  EXPECT_EQ(port_bytes(4), (Bytes{3, 0, 0, 0}));
}

TEST_F(FwCfgTest, SelectingAgainStartsOver) {
  select(5);
  EXPECT_EQ(port_bytes(1), (Bytes{2}));
  select(5);
  EXPECT_EQ(port_bytes(2), (Bytes{2, 0}));
}

TEST_F(FwCfgTest, BytesPastTheEndAndOfUnknownKeysAreZero) {
  select(5);
  EXPECT_EQ(port_bytes(5), (Bytes{2, 0, 0, 0, 0}));
  select(0x7777 & 0x3fff);
  EXPECT_EQ(port_bytes(3), (Bytes{0, 0, 0}));
}

TEST_F(FwCfgTest, TheWriteChannelBitOfASelectorIsIgnored) {
  select(0x4005);
  EXPECT_EQ(port_bytes(1), (Bytes{2}));
}

TEST_F(FwCfgTest, PortsAnswerOnlyTheirOwnWidths) {
  select(5);
  EXPECT_EQ(device_.read(0x511, 2), 0xffffu);
  EXPECT_EQ(device_.read(0x511, 4), 0xffff'ffffu);
  EXPECT_EQ(device_.read(0x510, 1), 0xffu);
  EXPECT_EQ(device_.read(0x513, 4), 0xffff'ffffu);
  EXPECT_EQ(device_.read(0x51b, 2), 0xffffu);
  device_.write(0x510, 1, 0);    // no byte selector
  device_.write(0x510, 4, 0);    // nor a dword one
  device_.write(0x511, 1, 0xaa); // data is read only
  EXPECT_EQ(port_bytes(2), (Bytes{2, 0})) << "none of those moved the offset or the key";
}

TEST_F(FwCfgTest, DmaRegistersReadAsTheirSignature) {
  EXPECT_EQ(device_.read(0x514, 4), 0x554d4551u); // "QEMU" in address order
  EXPECT_EQ(device_.read(0x518, 4), 0x47464320u); // " CFG"
  EXPECT_EQ(device_.read(0x514, 1), u32{'Q'});
  EXPECT_EQ(device_.read(0x51a, 2), u32{'F'} | u32{'G'} << 8);
}

TEST_F(FwCfgTest, DirectoryListsEveryFileWithItsSizeAndAKeyFrom20h) {
  select(FwCfg::KEY_DIRECTORY);
  const Bytes directory = port_bytes(4 + 2 * 64);
  EXPECT_EQ(be_at(directory, 0, 4), 2u);
  EXPECT_EQ(be_at(directory, 4, 4), 8u);
  EXPECT_EQ(be_at(directory, 8, 2), 0x20u);
  EXPECT_EQ(be_at(directory, 10, 2), 0u);
  EXPECT_STREQ(reinterpret_cast<const char*>(directory.data() + 12), "etc/numbers");
  EXPECT_EQ(be_at(directory, 68 + 4, 2), 0x21u);
  EXPECT_STREQ(reinterpret_cast<const char*>(directory.data() + 68 + 8), "etc/writable");
}

TEST_F(FwCfgTest, AFileAddedTwiceKeepsItsKeyAndGetsItsNewSize) {
  const u16 key = key_of("etc/numbers");
  EXPECT_TRUE(device_.add_file("etc/numbers", Bytes(3, 1)));
  EXPECT_EQ(key_of("etc/numbers"), key);
  EXPECT_EQ(device_.file("etc/numbers")->size(), 3u);
  EXPECT_EQ(device_.file_names().size(), 2u);
}

TEST_F(FwCfgTest, NamesThatDoNotFitTheDirectoryAreRefused) {
  EXPECT_TRUE(device_.add_file(std::string(55, 'n'), {}));
  EXPECT_FALSE(device_.add_file(std::string(56, 'n'), {}));
  EXPECT_FALSE(device_.add_file("", {}));
}

TEST_F(FwCfgTest, DmaSelectsAndReadsInOneRequest) {
  const u32 key = key_of("etc/numbers");
  EXPECT_EQ(dma(key << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ, 4, BUFFER), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 5), (Bytes{10, 11, 12, 13, 0xcc}));
}

// SeaBIOS selects etc/e820 by port, then reads it by DMA without the select bit.
TEST_F(FwCfgTest, PortsAndDmaShareOneOffset) {
  select(key_of("etc/numbers"));
  EXPECT_EQ(port_bytes(2), (Bytes{10, 11}));
  EXPECT_EQ(dma(FwCfg::CONTROL_READ, 2, BUFFER), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 2), (Bytes{12, 13}));
  EXPECT_EQ(dma(FwCfg::CONTROL_SKIP, 2, 0), 0u);
  EXPECT_EQ(dma(FwCfg::CONTROL_READ, 1, BUFFER), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 1), (Bytes{16}));
  EXPECT_EQ(port_bytes(2), (Bytes{17, 0}));
}

TEST_F(FwCfgTest, DmaPastTheEndAndOfUnknownKeysFillsWithZeros) {
  EXPECT_EQ(dma(u32{key_of("etc/numbers")} << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_SKIP, 6, 0), 0u);
  EXPECT_EQ(dma(FwCfg::CONTROL_READ, 4, BUFFER), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 5), (Bytes{16, 17, 0, 0, 0xcc}));
  EXPECT_EQ(dma(0x1234u << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ, 4, BUFFER), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 4), (Bytes{0, 0, 0, 0}));
}

TEST_F(FwCfgTest, AHugeSkipStopsAtTheEnd) {
  select(key_of("etc/numbers"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(dma(FwCfg::CONTROL_SKIP, 0xffff'ffff, 0), 0u);
  EXPECT_EQ(device_.state().offset, 8u);
}

TEST_F(FwCfgTest, TheRequestsAddressHas64BitsAndItsHighHalfIsUsedOnce) {
  place_request(5u << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ, 2, BUFFER);
  device_.write(0x514, 4, out_value(1)); // 1'0000'1000h: no RAM there
  device_.write(0x518, 4, out_value(REQUEST));
  EXPECT_NE(control_word(), 0u) << "the request at 1000h was not this one";
  device_.write(0x518, 4, out_value(REQUEST));
  EXPECT_EQ(control_word(), 0u);
  EXPECT_EQ(ram_bytes(BUFFER, 2), (Bytes{2, 0}));
}

TEST_F(FwCfgTest, WritesReachOnlyWritableItemsAndOnlyInside) {
  const u32 writable = u32{key_of("etc/writable")} << 16, constant = u32{key_of("etc/numbers")} << 16;
  const Bytes data{1, 2, 3, 4};
  ram_.write(BUFFER, data.data(), data.size());
  constexpr u32 WRITE = FwCfg::CONTROL_SELECT | FwCfg::CONTROL_WRITE;
  EXPECT_EQ(dma(constant | WRITE, 4, BUFFER), u32{FwCfg::CONTROL_ERROR});
  EXPECT_EQ(device_.file("etc/numbers")->front(), 10);
  EXPECT_EQ(dma(0x1234u << 16 | WRITE, 4, BUFFER), u32{FwCfg::CONTROL_ERROR});
  EXPECT_EQ(dma(writable | WRITE, 9, BUFFER), u32{FwCfg::CONTROL_ERROR}) << "one byte too many";
  EXPECT_EQ(*device_.file("etc/writable"), Bytes(8, 0xee));

  EXPECT_EQ(dma(writable | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_SKIP, 4, 0), 0u);
  EXPECT_EQ(dma(FwCfg::CONTROL_WRITE, 4, BUFFER), 0u);
  EXPECT_EQ(*device_.file("etc/writable"), (Bytes{0xee, 0xee, 0xee, 0xee, 1, 2, 3, 4}));
  EXPECT_EQ(dma(FwCfg::CONTROL_WRITE, 1, BUFFER), u32{FwCfg::CONTROL_ERROR}) << "the item is full";
}

TEST_F(FwCfgTest, RequestsThatLeaveRamFailWithoutTouchingAnything) {
  const u32 read = 5u << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ;
  const Bytes last = ram_bytes(RAM - 4, 4);
  EXPECT_EQ(dma(read, 8, RAM - 4), u32{FwCfg::CONTROL_ERROR});
  EXPECT_EQ(ram_bytes(RAM - 4, 4), last);
  EXPECT_EQ(dma(read, 0xffff'ffff, 0), u32{FwCfg::CONTROL_ERROR});
  EXPECT_EQ(dma(read, 16, ~u64{0} - 3), u32{FwCfg::CONTROL_ERROR});
  EXPECT_EQ(dma(read, 4, RAM - 4), 0u) << "the last RAM bytes themselves are fine";
}

TEST_F(FwCfgTest, AControlStructureOutsideRamIsIgnored) {
  for (const u32 at : {0xffff'fff0u, static_cast<u32>(RAM), static_cast<u32>(RAM - 2)}) {
    device_.write(0x518, 4, out_value(at));
  }
  EXPECT_EQ(ram_bytes(RAM - 4, 4), Bytes(4, 0xcc));
}

TEST_F(FwCfgTest, AControlStructureThatIsCutOffGetsTheErrorBit) {
  device_.write(0x518, 4, out_value(RAM - 8));
  EXPECT_EQ(control_word(RAM - 8), u32{FwCfg::CONTROL_ERROR});
}

TEST_F(FwCfgTest, ARequestThatOverwritesItselfIsRunOnce) {
  EXPECT_EQ(dma(u32{key_of("etc/numbers")} << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ, 16, REQUEST), 0u);
  EXPECT_EQ(ram_bytes(REQUEST + 4, 5), (Bytes{14, 15, 16, 17, 0}));
}

TEST_F(FwCfgTest, DmaIntoDecodedCodeDropsIt) {
  const u32 read = 5u << 16 | FwCfg::CONTROL_SELECT | FwCfg::CONTROL_READ;
  EXPECT_EQ(dma(read, 4, BUFFER), 0u);
  VcpuCodePages cpu(code_, 0);
  EXPECT_FALSE(cpu.pending()) << "no code was there";
  EXPECT_EQ(code_kicks_, 0);
  cpu.mark(BUFFER / PAGE_SIZE + 1);
  EXPECT_EQ(dma(read, 4, BUFFER + PAGE_SIZE - 2), 0u) << "across the page boundary";
  EXPECT_EQ(code_kicks_, 1);
  std::vector<u64> dropped;
  cpu.harvest([&](u64 page) { dropped.push_back(page); });
  EXPECT_EQ(dropped, (std::vector<u64>{BUFFER / PAGE_SIZE + 1}));
  cpu.mark(REQUEST / PAGE_SIZE);
  EXPECT_EQ(dma(FwCfg::CONTROL_SKIP, 0, 0), 0u) << "the control word is a write as well";
  EXPECT_EQ(code_kicks_, 2);
}

TEST_F(FwCfgTest, BulkReadsEqualSingleOnes) {
  select(key_of("etc/numbers"));
  Bytes bulk(10, 0xcc);
  device_.read_data(bulk);
  select(key_of("etc/numbers"));
  EXPECT_EQ(bulk, port_bytes(10));
}

TEST_F(FwCfgTest, ARestoredStateGoesOnWhereItWas) {
  select(key_of("etc/numbers"));
  port_bytes(3);
  const FwCfg::State saved = device_.state();
  device_.reset();
  EXPECT_EQ(port_bytes(1), (Bytes{'Q'})) << "reset selects key 0";
  device_.restore(saved);
  EXPECT_EQ(port_bytes(2), (Bytes{13, 14}));
  device_.restore({0x20, 0xffff'ffff, 0});
  EXPECT_EQ(port_bytes(2), (Bytes{0, 0})) << "an offset past the end reads zeros";
}

} // namespace
} // namespace transom::firmware
