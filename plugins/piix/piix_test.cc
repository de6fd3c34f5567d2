#include <gtest/gtest.h>

#include "host_bridge_regs.hpp"
#include "isa_bridge_regs.hpp"
#include "power_regs.hpp"
#include "vdev/cpp/time.hpp"
#include "vdev/testing/properties.hpp"

namespace piix {
namespace {

using namespace vdev::testing;

enum Function : u32 { HOST, ISA, POWER };
constexpr u32 SMI_FREE_DEVACTB = 0x02000000;
constexpr u64 SECOND = 1'000'000'000;

struct Chipset : Bench {
  Chipset() : Bench("piix.so") {}
  u32 PORT92 = region("port92"), CF9 = region("cf9"), APM = region("apm"), PM = region("pm"), GPE0 = region("gpe0");

  void put(u32 reg, u64 offset, u8 value) { out(reg, offset, 1, value); }
  u8 get(u32 reg, u64 offset = 0) { return u8(in(reg, offset, 1)); }

  // The PM block as firmware and the kernel leave it: mapped, ACPI enabled.
  void enable_acpi() {
    cfg_write(POWER, power::PMBA, 4, 0x601);
    cfg_write(POWER, power::PMREGMISC, 1, 0x01);
    put(APM, isa_bridge::apm::APMC, isa_bridge::apm::ACPI_ENABLE);
  }
  u16 pm16(u32 offset) { return u16(in(PM, offset, 2)); }
  void pm16(u32 offset, u16 value) { out(PM, offset, 2, value); }

  // Read and write enable of the shadow area at `base` as last told: 2 = read, 1 = write.
  int shadow(u64 base) const {
    int found = -1;
    for (const Event& e : host.events) {
      if (e.kind == EventKind::Shadow && base >= e.a && base < e.a + e.b) found = int(e.c);
    }
    return found;
  }
  std::vector<u64> wire_values(u32 wire) const {
    std::vector<u64> values;
    for (const Event& e : host.events) {
      if (e.kind == EventKind::Wire && e.a == wire) values.push_back(e.b);
    }
    return values;
  }
};

using Values = std::vector<u64>;

// With the PM block mapped and ACPI on, random actions reach SCI.
VDEV_PROPERTIES(
    Piix, "piix.so", "org.transom.piix",
    .prepare =
        [](Bench& b) {
          b.cfg_write(POWER, power::PMBA, 4, 0x601);
          b.cfg_write(POWER, power::PMREGMISC, 1, 0x01);
          b.out(b.region("apm"), isa_bridge::apm::APMC, 1, isa_bridge::apm::ACPI_ENABLE);
        },
    .read_only = {{3, power::PMTMR, 4}, {3, power::PMTMR + 1, 1}, {3, 0x0c, 2}, {3, 0x18, 2}, {4, 0, 1}},
    .schema = "piix.schema");

// --- configuration space ---

TEST(HostBridge, IsAnI440fxThatFirmwareRecognises) {
  Chipset b;
  EXPECT_EQ(b.cfg_read(HOST, 0x00, 4), 0x12378086u);
  EXPECT_EQ(b.cfg_read(HOST, 0x08, 4), 0x06000002u);
  EXPECT_EQ(b.cfg_read(HOST, 0x2c, 4), 0x11001af4u);
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::SMRAM, 1), 0x02u);
}

TEST(IsaBridge, IsAMultifunctionPiix3WithItsResetValues) {
  Chipset b;
  EXPECT_EQ(b.cfg_read(ISA, 0x00, 4), 0x70008086u);
  EXPECT_EQ(b.cfg_read(ISA, 0x0e, 1), 0x80u);
  EXPECT_EQ(b.cfg_read(ISA, 0x04, 4) >> 16, 0x0200u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::PIRQRCA, 4), 0x80808080u);
  EXPECT_EQ(b.cfg_read(ISA, 0x4c, 4), 0x0003004du);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::TOM, 1), 0x02u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::MBIRQ0, 1), 0x80u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::MBDMA0, 2), 0x0c0cu);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::PCSC, 2), 0x0002u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::DLC, 1), 0x00u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::SMICNTL, 1), 0x08u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::FTMR, 1), 0x0fu);
}

TEST(Power, IsAPiix4WhoseFirmwareNeedNotSetUpSmm) {
  Chipset b;
  EXPECT_EQ(b.cfg_read(POWER, 0x00, 4), 0x71138086u);
  EXPECT_EQ(b.cfg_read(POWER, 0x08, 4), 0x06800003u);
  EXPECT_EQ(b.cfg_read(POWER, 0x3d, 1), 0x01u);
  EXPECT_EQ(b.cfg_read(POWER, power::PMBA, 4), 0x00000001u);
  EXPECT_EQ(b.cfg_read(POWER, power::DEVACTB, 4), SMI_FREE_DEVACTB);
  EXPECT_EQ(b.cfg_read(POWER, 0x5f, 1), 0x10u);
  EXPECT_EQ(b.cfg_read(POWER, 0x63, 1), 0x60u);
  EXPECT_EQ(b.cfg_read(POWER, 0x67, 1), 0x08u);
}

TEST(Config, ReservedBitsAndRegistersTakeNoWrite) {
  Chipset b;
  for (u32 function : {HOST, ISA, POWER}) {
    for (u32 offset = 0x40; offset < 0x100; offset += 4) b.cfg_write(function, offset, 4, 0xffffffff);
  }
  EXPECT_EQ(b.cfg_read(HOST, 0x58, 4), 0x333330ffu); // PAM
  EXPECT_EQ(b.cfg_read(HOST, 0x5c, 4), 0x33333333u);
  EXPECT_EQ(b.cfg_read(HOST, 0x40, 4), 0u);
  EXPECT_EQ(b.cfg_read(HOST, 0x94, 4), 0u);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::PIRQRCA, 4), 0x8f8f8f8fu);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::DLC, 1), 0x0fu);
  EXPECT_EQ(b.cfg_read(ISA, 0xb0, 4), 0u);
  EXPECT_EQ(b.cfg_read(POWER, power::PMBA, 4), 0x0000ffc1u);
  EXPECT_EQ(b.cfg_read(POWER, power::SMBBA, 4), 0x0000fff1u);
  EXPECT_EQ(b.cfg_read(POWER, power::PMREGMISC, 4), 0x00000001u);
}

TEST(Config, AByteWriteTouchesOnlyItsByte) {
  Chipset b;
  b.cfg_write(ISA, isa_bridge::PIRQRCA + 1, 1, 0x0b);
  EXPECT_EQ(b.cfg_read(ISA, isa_bridge::PIRQRCA, 4), 0x80800b80u);
}

TEST(HostBridge, SmramLocksUntilReset) {
  Chipset b;
  b.cfg_write(HOST, host_bridge::SMRAM, 1, 0x4a);
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::SMRAM, 1), 0x4au);
  b.cfg_write(HOST, host_bridge::SMRAM, 1, 0x5a);
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::SMRAM, 1), 0x1au); // D_LCK shuts D_OPEN
  b.cfg_write(HOST, host_bridge::SMRAM, 1, 0x4a);
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::SMRAM, 1), 0x1au);
  b.reset();
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::SMRAM, 1), 0x02u);
}

// --- PAM ---

TEST(Pam, ResetLeavesRomEverywhere) {
  Chipset b;
  for (u64 base = 0xc0000; base < 0x100000; base += 0x4000) EXPECT_EQ(b.shadow(base), 0) << base;
}

TEST(Pam, SeabiosOpensEverythingThenLocksIt) {
  Chipset b;
  EXPECT_EQ(b.cfg_read(HOST, host_bridge::PAM0, 1), 0x00u);
  b.cfg_write(HOST, 0x58, 4, 0x33333000);
  b.cfg_write(HOST, 0x5c, 4, 0x33333333);
  for (u64 base = 0xc0000; base < 0x100000; base += 0x4000) EXPECT_EQ(b.shadow(base), 3) << base;
  b.cfg_write(HOST, 0x58, 4, 0x11111000);
  b.cfg_write(HOST, 0x5c, 4, 0x33111111);
  for (u64 base = 0xc0000; base < 0xe8000; base += 0x4000) EXPECT_EQ(b.shadow(base), 2) << base;
  EXPECT_EQ(b.shadow(0xe8000), 3);
  EXPECT_EQ(b.shadow(0xec000), 3);
  EXPECT_EQ(b.shadow(0xf0000), 2);
}

TEST(Pam, EachNibbleIsItsArea) {
  struct Case {
    u32 offset, value;
    u64 base, end;
  };
  for (const Case& c :
       {Case{0x59, 0x20, 0xf0000, 0x100000}, Case{0x5a, 0x02, 0xc0000, 0xc4000}, Case{0x5a, 0x20, 0xc4000, 0xc8000},
        Case{0x5b, 0x02, 0xc8000, 0xcc000}, Case{0x5c, 0x20, 0xd4000, 0xd8000}, Case{0x5d, 0x02, 0xd8000, 0xdc000},
        Case{0x5e, 0x02, 0xe0000, 0xe4000}, Case{0x5f, 0x20, 0xec000, 0xf0000}}) {
    Chipset b;
    b.clear_events();
    b.cfg_write(HOST, c.offset, 1, c.value);
    ASSERT_EQ(b.events().size(), 1u);
    EXPECT_EQ(b.events()[0].a, c.base);
    EXPECT_EQ(b.events()[0].b, c.end - c.base);
    EXPECT_EQ(b.events()[0].c, 1u); // write only
  }
}

// --- PIRQ ---

TEST(Pirq, RoutesFollowTheRegistersAndReservedLinesAreNone) {
  Chipset b;
  EXPECT_EQ(b.host.routes[0], VDEV_ROUTE_NONE);
  b.cfg_write(ISA, isa_bridge::PIRQRCA, 4, 0x0b0b0a0a);
  EXPECT_EQ(b.host.routes, (std::array<u32, 4>{10, 10, 11, 11}));
  b.cfg_write(ISA, isa_bridge::PIRQRCA, 4, 0x8b8b8a8a); // _DIS
  EXPECT_EQ(b.host.routes[3], VDEV_ROUTE_NONE);
  for (u32 irq = 0; irq < 16; ++irq) {
    b.cfg_write(ISA, isa_bridge::PIRQRCD, 1, irq);
    const bool reserved = irq <= 2 || irq == 8 || irq == 13;
    EXPECT_EQ(b.host.routes[3], reserved ? VDEV_ROUTE_NONE : irq);
  }
}

TEST(Reset, TellsTheBoardEverythingAgain) {
  Chipset b;
  b.host.routes = {5, 5, 5, 5}; // as if the board had gone elsewhere meanwhile
  b.host.wires[VDEV_WIRE_A20] = 1;
  b.reset();
  EXPECT_EQ(b.host.routes[2], VDEV_ROUTE_NONE);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 0u);
}

// --- ports ---

TEST(Port92, Bit1IsA20AndReadsBack) {
  Chipset b;
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 0u);
  b.put(b.PORT92, 0, 0x02);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 1u);
  EXPECT_EQ(b.get(b.PORT92), 0x02);
  b.put(b.PORT92, 0, 0x00);
  EXPECT_EQ(b.host.wires[VDEV_WIRE_A20], 0u);
}

TEST(Port92, Bit0GoingHighIsOneInit) {
  Chipset b;
  b.put(b.PORT92, 0, 0x01);
  b.put(b.PORT92, 0, 0x03);
  EXPECT_EQ(b.wire_values(VDEV_WIRE_RESET), Values{VDEV_RESET_INIT});
  b.put(b.PORT92, 0, 0x02);
  b.put(b.PORT92, 0, 0x03);
  EXPECT_EQ(b.wire_values(VDEV_WIRE_RESET), (Values{VDEV_RESET_INIT, VDEV_RESET_INIT}));
}

TEST(ResetControl, OnlyRcpuGoingHighResetsAndSrstSaysHow) {
  struct Case {
    std::vector<u8> writes;
    Values resets;
  };
  for (const Case& c : {Case{{0x02}, {}}, Case{{0x02, 0x06}, {VDEV_RESET_SYSTEM}}, Case{{0x06}, {VDEV_RESET_SYSTEM}},
                        Case{{0x04}, {VDEV_RESET_INIT}}, Case{{0x04, 0x06}, {VDEV_RESET_INIT}},
                        Case{{0x04, 0x00, 0x06}, {VDEV_RESET_INIT, VDEV_RESET_SYSTEM}}, Case{{0xf9}, {}}}) {
    Chipset b;
    for (const u8 value : c.writes) b.put(b.CF9, 0, value);
    EXPECT_EQ(b.wire_values(VDEV_WIRE_RESET), c.resets);
    EXPECT_EQ(b.get(b.CF9), c.writes.back() & 0x06);
  }
}

TEST(Apm, BothPortsReadBackAndF1F0SwitchAcpi) {
  using namespace isa_bridge::apm;
  Chipset b;
  b.put(b.APM, APMS, 0x01);
  b.put(b.APM, APMC, 0x42);
  EXPECT_EQ(b.get(b.APM, APMC), 0x42);
  EXPECT_EQ(b.get(b.APM, APMS), 0x01);
  EXPECT_EQ(b.pm16(power::PMCNTRL), 0x0000);
  b.put(b.APM, APMC, ACPI_ENABLE);
  EXPECT_EQ(b.pm16(power::PMCNTRL), 0x0001);
  b.put(b.APM, APMC, ACPI_DISABLE);
  EXPECT_EQ(b.pm16(power::PMCNTRL), 0x0000);
}

// --- the PM block ---

TEST(PmBlock, IsMappedWhereAndWhenFirmwareSays) {
  Chipset b;
  b.cfg_write(POWER, power::PMBA, 4, 0x601);
  b.clear_events();
  b.cfg_write(POWER, power::PMREGMISC, 1, 1);
  EXPECT_EQ(b.events(), (std::vector<Event>{{0, EventKind::Map, b.PM, 0x600, 1}}));
  b.clear_events();
  b.cfg_write(POWER, power::PMBA, 4, 0xb001);
  EXPECT_EQ(b.events(), (std::vector<Event>{{0, EventKind::Map, b.PM, 0xb000, 1}}));
  b.clear_events();
  b.reset();
  EXPECT_EQ(b.events().back(), (Event{0, EventKind::Map, b.PM, 0, 0}));
}

TEST(PmTimer, CountsAQuarterOfTheCrystalIn24Bits) {
  Chipset b;
  EXPECT_EQ(b.in(b.PM, power::PMTMR, 4), 0u);
  b.step(SECOND);
  EXPECT_EQ(b.in(b.PM, power::PMTMR, 4), 3'579'545u);
  b.step(21 * SECOND); // 22 s = 78 750 000 ticks exactly
  EXPECT_EQ(b.in(b.PM, power::PMTMR, 4), 78'750'000u % (1u << 24));
  EXPECT_EQ(b.in(b.PM, power::PMTMR + 2, 1), 78'750'000u >> 16 & 0xff);
}

TEST(PmTimer, Bit23TurningSetsItsStatusBothWays) {
  Chipset b;
  const u64 half = ACPI_PM_RATE.ns(1u << 23);
  b.step(half - 1);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
  b.step(1);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0001);
  b.pm16(power::PMSTS, 0x0001);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
  b.step(ACPI_PM_RATE.ns(1u << 24) - half);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0001);
}

TEST(PmTimer, AStatusThatNobodyHasReadIsClearedAllTheSame) {
  Chipset b;
  b.step(ACPI_PM_RATE.ns(1u << 23));
  b.pm16(power::PMSTS, 0x0001);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
}

TEST(PmTimer, ResetDoesNotStopItAndForgetsItsStatus) {
  Chipset b;
  b.step(3 * SECOND);
  b.reset();
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
  EXPECT_EQ(b.in(b.PM, power::PMTMR, 4), u32(ACPI_PM_RATE.ticks(3 * SECOND)));
}

TEST(PmTimer, RaisesSciWhenEnabledAndAsksForNoTimerOtherwise) {
  Chipset b;
  b.enable_acpi();
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.pm16(power::PMEN, 0x0001);
  const u64 half = ACPI_PM_RATE.ns(1u << 23);
  EXPECT_EQ(b.next_event(), half);
  b.step(half - 1);
  EXPECT_FALSE(b.irq("sci"));
  b.step(1);
  EXPECT_TRUE(b.irq("sci"));
  EXPECT_EQ(b.next_event(), VDEV_NEVER);
  b.pm16(power::PMSTS, 0x0001);
  EXPECT_FALSE(b.irq("sci"));
  EXPECT_EQ(b.next_event(), ACPI_PM_RATE.ns(1u << 24));
}

TEST(PowerButton, RisingEdgeRaisesSciUntilItsStatusIsCleared) {
  Chipset b;
  b.enable_acpi();
  b.pm16(power::PMEN, 0x0100);
  b.irq_in(0, true);
  EXPECT_TRUE(b.irq("sci"));
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0100);
  b.pm16(power::PMSTS, 0x0100);
  EXPECT_FALSE(b.irq("sci"));
  b.irq_in(0, true); // still held
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
  b.irq_in(0, false);
  b.irq_in(0, true);
  EXPECT_TRUE(b.irq("sci"));
}

TEST(PowerButton, IsSilentWithoutItsEnableOrWithoutAcpi) {
  Chipset b;
  b.pm16(power::PMEN, 0x0100);
  b.irq_in(0, true);
  EXPECT_FALSE(b.irq("sci"));
  b.enable_acpi();
  EXPECT_TRUE(b.irq("sci"));
  b.pm16(power::PMEN, 0x0000);
  EXPECT_FALSE(b.irq("sci"));
}

TEST(Pm1, StatusIsWriteOneToClearAndEnableKeepsItsFourBits) {
  Chipset b;
  b.irq_in(0, true);
  b.pm16(power::PMSTS, 0xfeff); // everything but PWRBTN_STS
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0100);
  b.pm16(power::PMEN, 0xffff);
  EXPECT_EQ(b.pm16(power::PMEN), 0x0521);
  EXPECT_EQ(b.in(b.PM, power::PMSTS, 4), 0x05210100u);
  b.out(b.PM, power::PMSTS + 1, 1, 0x01);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0000);
}

TEST(Pm1, BiosReleaseSetsTheGlobalStatus) {
  Chipset b;
  b.out(b.PM, power::GLBCTL, 4, 0x00000002);
  EXPECT_EQ(b.pm16(power::PMSTS), 0x0020);
  EXPECT_EQ(b.in(b.PM, power::GLBCTL, 4), 0u);
}

TEST(Sleep, SoftOffIsSusEnWithType0AndNothingElseSwitchesOff) {
  Chipset b;
  b.enable_acpi();
  b.pm16(power::PMCNTRL, 0x0001); // as Linux writes it first
  EXPECT_EQ(b.wire_values(VDEV_WIRE_POWER), Values{});
  b.pm16(power::PMCNTRL, 0x2401); // S3's type
  EXPECT_EQ(b.wire_values(VDEV_WIRE_POWER), Values{});
  EXPECT_EQ(b.host.log.size(), 1u);
  EXPECT_EQ(b.pm16(power::PMCNTRL), 0x0401); // SUS_EN reads 0
  b.pm16(power::PMCNTRL, 0x2001);
  EXPECT_EQ(b.wire_values(VDEV_WIRE_POWER), Values{0});
}

TEST(Gpe0, EnablesAreStoredAndStatusIsQuiet) {
  Chipset b;
  b.put(b.GPE0, 0, 0xff);
  b.put(b.GPE0, 2, 0x5a);
  b.put(b.GPE0, 3, 0xa5);
  EXPECT_EQ(b.get(b.GPE0, 0), 0x00);
  EXPECT_EQ(b.get(b.GPE0, 1), 0x00);
  EXPECT_EQ(b.get(b.GPE0, 2), 0x5a);
  EXPECT_EQ(b.get(b.GPE0, 3), 0xa5);
}

TEST(Snapshot, WithReservedBitsSetIsRefused) {
  Chipset b;
  b.cfg_write(ISA, isa_bridge::PIRQRCA, 4, 0x0b0b0a0a);
  const Snapshot good = b.save();
  for (const char* field : {"host", "isa", "power.config", "power.io"}) {
    Snapshot bad = good;
    bad.at(field).values.back() = 0xff;
    EXPECT_NE(b.restore(bad), VDEV_OK) << field;
  }
  EXPECT_EQ(b.save(), good);
  Chipset other;
  EXPECT_EQ(other.restore(good), VDEV_OK);
  EXPECT_EQ(other.host.routes, (std::array<u32, 4>{10, 10, 11, 11}));
}

} // namespace
} // namespace piix
