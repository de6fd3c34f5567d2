// A machine with its tables placed, ready for a kernel; and the images that tests make up.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "firmware/boot_kernel.hpp"
#include "firmware/boot_placer.hpp"
#include "firmware/tests/guest_ram.hpp"

namespace transom::firmware {

class BootTest : public ::testing::Test {
 protected:
  static constexpr u64 MIB = 1 << 20;

  explicit BootTest(u64 memory = 512 * MIB) : guest(memory) {
    machine = MachineDescription(guest.ram);
    tables = place_tables(guest.ram, machine).value();
    boot.name = "image";
  }

  Result<BootState> load() { return load_kernel(guest.ram, boot, tables); }
  BootState loaded() {
    const auto state = load();
    if (!state) throw std::runtime_error(state.error().text);
    return *state;
  }
  std::string refusal() {
    const auto state = load();
    return state ? "accepted" : state.error().text;
  }
  // Text up to its zero.
  std::string c_string(u64 gpa) const {
    std::string text;
    for (char c; (c = static_cast<char>(guest.number(gpa, 1))) != 0; ++gpa) text.push_back(c);
    return text;
  }

  void expect_flat_32(const BootState& state) {
    EXPECT_EQ(state.cr0, 0x11u);
    EXPECT_EQ(state.cr4, 0u);
    EXPECT_EQ(state.efer, 0u);
    EXPECT_EQ(state.cs.attr, 0xc09b);
    for (const BootSegment* segment : {&state.ds, &state.es, &state.ss, &state.fs, &state.gs}) {
      EXPECT_EQ(segment->attr, 0xc093);
      EXPECT_EQ(segment->limit, 0xffff'ffffu);
      EXPECT_EQ(segment->base, 0u);
    }
    expect_gdt_agrees(state);
  }
  void expect_long(const BootState& state) {
    EXPECT_EQ(state.cr0, 0x80000011u);
    EXPECT_EQ(state.cr4, 0x20u);
    EXPECT_EQ(state.efer, 0x500u);
    EXPECT_EQ(state.cs.attr, 0xa09b);
    expect_gdt_agrees(state);
    for (const u64 address : {u64{0}, u64{0x12'3456}, u64{0x7fff'f123}, u64{0xfee0'0020}, u64{0xffff'ffff}})
      EXPECT_EQ(translate(state, address), address);
  }
  // What a CPU loads from the GDT is what the segment registers already hold.
  void expect_gdt_agrees(const BootState& state) {
    for (const BootSegment* segment : {&state.cs, &state.ds, &state.tr}) {
      ASSERT_LE(segment->selector + 7, state.gdtr.limit);
      const u64 d = guest.number(state.gdtr.base + segment->selector, 8);
      EXPECT_EQ((d >> 40) & 0xf0ff, segment->attr);
      EXPECT_EQ((d >> 16 & 0xff'ffff) | (d >> 56) << 24, segment->base);
      const u64 limit = (d & 0xffff) | (d >> 32 & 0xf'0000);
      EXPECT_EQ(segment->attr & 0x8000 ? limit << 12 | 0xfff : limit, segment->limit);
    }
  }
  u64 translate(const BootState& state, u64 linear) {
    u64 table = state.cr3;
    for (const u32 shift : {39u, 30u, 21u}) {
      const u64 entry = guest.number(table + 8 * (linear >> shift & 511), 8);
      if ((entry & 1) == 0) return ~u64{0};
      if (shift == 21) return (entry & ~u64{0x1f'ffff}) | (linear & 0x1f'ffff);
      table = entry & ~u64{0xfff};
    }
    return ~u64{0};
  }

  GuestRam guest;
  MachineDescription machine;
  DirectTables tables;
  DirectBoot boot;
};

} // namespace transom::firmware
