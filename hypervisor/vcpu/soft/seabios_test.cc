// The stock SeaBIOS image, from the reset vector: real mode, big real mode, the way into protected mode and back.
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>

#include "hypervisor/vcpu/soft/test_machine.hpp"

namespace transom::soft {
namespace {

TEST(SeaBios, SaysItsVersionOnTheDebugPort) {
  std::ifstream file("/usr/share/seabios/bios-256k.bin", std::ios::binary);
  ASSERT_TRUE(file) << "no /usr/share/seabios/bios-256k.bin: install Debian's package seabios";
  std::vector<u8> rom((std::istreambuf_iterator<char>(file)), {});
  ASSERT_EQ(rom.size(), 256u << 10);

  TestMachine m;
  std::memcpy(m.at(0xe0000), &rom[rom.size() - 0x20000], 0x20000); // already shadowed: this platform has no PAM
  m.platform.record = false;
  m.platform.on_page = [&](u64 gpa) -> PhysPage {
    const u64 base = (u64{4} << 30) - rom.size();
    if (gpa < base || gpa >= u64{4} << 30) return {};
    return {&rom[gpa - base], nullptr, ~u64{0}};
  };
  std::string log;
  u64 accesses = 0;
  const auto budget = [&] {
    if (++accesses > 200'000) m.vcpu.exit_flag() |= Vcpu::LEAVE;
  };
  m.platform.on_in = [&](u16 port, u32) {
    budget();
    return port == 0x402 ? 0xe9 : ~u32{0};
  };
  m.platform.on_out = [&](u16 port, u32, u32 value) {
    budget();
    if (port == 0x402) log += static_cast<char>(value);
  };
  m.vcpu.reset();
  m.vcpu.run();
  EXPECT_EQ(log.substr(0, 17), "SeaBIOS (version ") << log;
  EXPECT_NE(log.find("BUILD: "), std::string::npos) << log;
  if (getenv("TRANSOM_SHOW_LOG")) fputs(log.c_str(), stderr);
}

} // namespace
} // namespace transom::soft
