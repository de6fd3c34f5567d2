// The memory map as slots, and what is made of a measurement. No KVM needed.
#include "hypervisor/vcpu/kvm/memory_slots.hpp"

#include <fstream>
#include <gtest/gtest.h>
#include <unistd.h>

#include "hypervisor/vcpu/kvm/calibrate.hpp"

namespace transom {
namespace {

class Layout : public ::testing::Test {
 protected:
  static constexpr u64 RAM = 32 << 20;
  Layout() : ram_(RAM), map_(GuestMemory(ram_.data(), RAM)) {}
  const MemorySlot* at(const std::vector<MemorySlot>& layout, u64 gpa) {
    for (const MemorySlot& s : layout)
      if (gpa >= s.gpa && gpa < s.gpa + s.size) return &s;
    return nullptr;
  }
  void load_firmware() {
    std::string name = ::testing::TempDir() + "transom-rom-XXXXXX";
    const int fd = ::mkstemp(name.data());
    ASSERT_GE(fd, 0);
    const std::vector<char> rom(0x4'0000, 0x5a);
    ASSERT_EQ(::write(fd, rom.data(), rom.size()), static_cast<ssize_t>(rom.size()));
    ::close(fd);
    ASSERT_TRUE(map_.load_firmware(name));
    ::unlink(name.c_str());
  }

  std::vector<u8> ram_;
  MemoryMap map_;
};

TEST_F(Layout, EveryPageIsInASlotExactlyIfTheMapReadsIt) {
  load_firmware();
  map_.set_shadow(0xc'8000, 0x8000, true, false);
  map_.set_shadow(0xf'0000, 0x1'0000, true, true);
  const auto layout = memory_layout(map_, ~u64{0});
  for (u64 gpa = 0; gpa < RAM + 0x10'0000; gpa += PAGE_SIZE) {
    const PhysPage page = map_.page(gpa);
    const MemorySlot* slot = at(layout, gpa);
    ASSERT_EQ(slot != nullptr, page.read != nullptr) << std::hex << gpa;
    if (slot == nullptr) continue;
    EXPECT_EQ(slot->host + (gpa - slot->gpa), page.read) << std::hex << gpa;
    EXPECT_EQ(slot->read_only, page.write != page.read) << std::hex << gpa;
  }
  const MemorySlot* rom = at(layout, 0xffff'fff0);
  ASSERT_NE(rom, nullptr);
  EXPECT_TRUE(rom->read_only);
  EXPECT_EQ(rom->gpa, 0x1'0000'0000u - 0x4'0000u);
  EXPECT_LE(layout.size(), 8u) << "neighbours are one slot";
}

TEST_F(Layout, WithA20OffOddMegabytesShowEvenOnes) {
  const auto layout = memory_layout(map_, ~u64{0x10'0000});
  for (const u64 gpa : {0x10'0000, 0x10'5000, 0x30'0000, 0xf0'0000}) {
    const MemorySlot* slot = at(layout, gpa);
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(slot->host + (gpa - slot->gpa), ram_.data() + (gpa & ~u64{0x10'0000}));
  }
  EXPECT_EQ(at(layout, 0x1a'0000), nullptr) << "the display's window, once more";
}

TEST_F(Layout, SlotsAreInOrderAndDoNotOverlap) {
  load_firmware();
  for (const u64 mask : {~u64{0}, ~u64{0x10'0000}}) {
    u64 end = 0;
    for (const MemorySlot& s : memory_layout(map_, mask)) {
      EXPECT_GE(s.gpa, end);
      EXPECT_EQ(s.gpa % PAGE_SIZE, 0u);
      EXPECT_EQ(s.size % PAGE_SIZE, 0u);
      end = s.gpa + s.size;
    }
  }
}

TEST(LayoutOfLittleRam, EndsWhereTheRamEnds) {
  std::vector<u8> ram(0x21'0000);
  const MemoryMap map(GuestMemory(ram.data(), ram.size()));
  const auto layout = memory_layout(map, ~u64{0x10'0000});
  EXPECT_EQ(layout.back().gpa + layout.back().size, ram.size());
}

TEST(CpuChoice, TakesAFastKvmOnly) {
  EXPECT_TRUE(choose_cpu(KvmSpeed{6000, 1.5}).kvm);
  const CpuChoice emulated = choose_cpu(KvmSpeed{1.6, 9});
  EXPECT_FALSE(emulated.kvm);
  EXPECT_EQ(emulated.why, "KVM here executes 1.6 MIPS (nested emulation)");
  EXPECT_FALSE(choose_cpu(KvmSpeed{6000, 900}).kvm);
  const CpuChoice none = choose_cpu(error("there is no /dev/kvm"));
  EXPECT_FALSE(none.kvm);
  EXPECT_EQ(none.why, "there is no /dev/kvm");
}

TEST(KvmCalibration, MeasuresWhatIsThere) {
  if (const std::string why = kvm_obstacle(); !why.empty()) GTEST_SKIP() << why;
  const auto speed = measure_kvm();
  ASSERT_TRUE(speed) << speed.error().text;
  EXPECT_GT(speed->exit_us, 0);
  EXPECT_GT(speed->mips, 0.01);
  EXPECT_LT(speed->mips, 100'000);
  RecordProperty("mips", std::to_string(speed->mips));
  RecordProperty("exit_us", std::to_string(speed->exit_us));
}

} // namespace
} // namespace transom
