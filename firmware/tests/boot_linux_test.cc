// bzImage: Debian's own kernel, and images that are odd or hostile.
#include "firmware/tests/boot_fixture.hpp"
#include "firmware/tests/debian_kernel.hpp"

namespace transom::firmware {
namespace {

using ::testing::HasSubstr;

// A small image of boot protocol 2.15: setup code of `setup_sects` + 1 sectors, then a payload.
Bytes small_image(u64 payload = 0x3000) {
  Bytes image(5 * 512 + payload, 0x90);
  std::fill(image.begin(), image.begin() + 5 * 512, 0);
  image[0x1f1] = 4;
  set_le(image, 0x1f4, 4, payload / 16);
  set_le(image, 0x1fe, 2, 0xaa55);
  set_le(image, 0x200, 2, 0x6aeb); // jump over the header: it ends at 26Ch
  set_le(image, 0x202, 4, 0x53726448);
  set_le(image, 0x206, 2, 0x020f);
  image[0x211] = 1;
  set_le(image, 0x214, 4, 0x100000);
  set_le(image, 0x22c, 4, 0x7fffffff);
  set_le(image, 0x230, 4, 0x200000);
  image[0x234] = 1;
  set_le(image, 0x236, 2, 1);
  set_le(image, 0x238, 4, 2047);
  set_le(image, 0x258, 8, 0x1000000);
  set_le(image, 0x260, 4, 0x100000);
  return image;
}

class BootLinuxTest : public BootTest {
 protected:
  BootLinuxTest() {
    boot.kernel = small_image();
    boot.cmdline = "console=ttyS0";
  }
};

TEST_F(BootLinuxTest, DebiansKernelStartsInLongModeWhereItWantsToRun) {
  boot = read_direct_boot(debian_vmlinuz(), "", "console=ttyS0 panic=-1").value();
  boot.initrd = Bytes(0x12345, 0x77);
  const BootState state = loaded();
  expect_long(state);
  EXPECT_EQ(state.rip, 0x1000200u);
  const u64 params = state.gpr[RSI];
  const u64 setup = (boot.kernel[0x1f1] + 1u) * 512;
  EXPECT_EQ(guest.bytes(0x1000000, 0x1000), Bytes(boot.kernel.begin() + static_cast<i64>(setup),
                                                  boot.kernel.begin() + static_cast<i64>(setup + 0x1000)));
  EXPECT_EQ(guest.number(params + 0x202, 4), 0x53726448u);
  EXPECT_EQ(guest.number(params + 0x210, 1), 0xffu);
  EXPECT_EQ(guest.number(params + 0x214, 4), 0x1000000u);
  EXPECT_EQ(c_string(guest.number(params + 0x228, 4)), "console=ttyS0 panic=-1");
  EXPECT_EQ(guest.number(params + 0x070, 8), tables.rsdp);
  const u64 initrd = guest.number(params + 0x218, 4);
  EXPECT_EQ(guest.number(params + 0x21c, 4), 0x12345u);
  EXPECT_EQ(guest.bytes(initrd, 0x12345), boot.initrd);
  EXPECT_EQ(initrd % PAGE_SIZE, 0u);
}

TEST_F(BootLinuxTest, TheMemoryMapIsInTheZeroPage) {
  const u64 params = loaded().gpr[RSI];
  ASSERT_EQ(guest.number(params + 0x1e8, 1), tables.e820.size());
  EXPECT_EQ(guest.bytes(params + 0x2d0, 20 * tables.e820.size()), e820_bytes(tables.e820));
}

TEST_F(BootLinuxTest, FieldsThatAreTheLoadersAreClean) {
  set_le(boot.kernel, 0x250, 8, 0xdead0000); // setup_data in the file
  const u64 params = loaded().gpr[RSI];
  EXPECT_EQ(guest.number(params + 0x250, 8), 0u);
  EXPECT_EQ(guest.bytes(params, 0x70), Bytes(0x70, 0)) << "no video mode is claimed";
  EXPECT_EQ(guest.number(params + 0x218, 8), 0u) << "no initrd";
}

TEST_F(BootLinuxTest, AKernelWithout64BitEntryStartsInProtectedMode) {
  set_le(boot.kernel, 0x236, 2, 0);
  const BootState state = loaded();
  expect_flat_32(state);
  EXPECT_EQ(state.rip, 0x1000000u);
  EXPECT_EQ(state.gpr[RSI], BOOT_INFO);
  for (const u32 zero : {RBX, RBP, RDI}) EXPECT_EQ(state.gpr[zero], 0u);
}

TEST_F(BootLinuxTest, AKernelThatCannotMoveIsLoadedAtOneMegabyte) {
  boot.kernel[0x234] = 0;
  EXPECT_EQ(loaded().rip, 0x100200u);
  EXPECT_EQ(guest.number(0x100000, 4), 0x90909090u);
}

TEST_F(BootLinuxTest, OldProtocolsHaveTheDefaultsOfTheirTime) {
  set_le(boot.kernel, 0x206, 2, 0x0202);
  boot.initrd = Bytes(0x1000, 1);
  const BootState state = loaded();
  EXPECT_EQ(state.rip, 0x100000u) << "not relocatable, no 64-bit entry";
  EXPECT_LT(guest.number(BOOT_INFO + 0x218, 4), 0x38000000u);
  boot.cmdline = std::string(256, 'x');
  EXPECT_THAT(refusal(), HasSubstr("256 characters; this kernel takes 255"));
}

TEST_F(BootLinuxTest, InitrdStaysBelowItsLimitAndOffTheTables) {
  boot.initrd = Bytes(3 * PAGE_SIZE + 1, 5);
  loaded();
  const u64 high = guest.number(BOOT_INFO + 0x218, 4);
  EXPECT_EQ(high, 512 * MIB - 0x10000 - 4 * PAGE_SIZE) << "directly below the ACPI tables";
  set_le(boot.kernel, 0x22c, 4, 0x2ffffff);
  loaded();
  EXPECT_EQ(guest.number(BOOT_INFO + 0x218, 4), 0x3000000 - 4 * PAGE_SIZE);
}

TEST_F(BootLinuxTest, InitrdAvoidsTheRunningKernel) {
  set_le(boot.kernel, 0x22c, 4, 0x10fffff); // exactly the end of the kernel's init_size
  boot.initrd = Bytes(0x1000, 5);
  loaded();
  EXPECT_EQ(guest.number(BOOT_INFO + 0x218, 4), 0x1000000u - PAGE_SIZE) << "below the kernel then";
}

TEST_F(BootLinuxTest, WhatDoesNotFitMemoryIsRefused) {
  boot.initrd = Bytes(600 * MIB, 0);
  EXPECT_THAT(refusal(), HasSubstr("no room for the initrd"));
  boot.initrd.clear();
  set_le(boot.kernel, 0x260, 4, 0x40000000);
  EXPECT_THAT(refusal(), HasSubstr("give the guest more memory"));
  set_le(boot.kernel, 0x258, 8, ~u64{0} - 0x1000);
  EXPECT_THAT(refusal(), HasSubstr("below 4 GiB"));
  set_le(boot.kernel, 0x258, 8, 0xfee00000);
  EXPECT_THAT(refusal(), HasSubstr("does not lie in the guest's RAM"));
}

TEST_F(BootLinuxTest, DamagedImagesAreNamedForWhatTheyAre) {
  const Bytes good = boot.kernel;
  const auto with = [&](u64 offset, u32 width, u64 value) {
    boot.kernel = good;
    set_le(boot.kernel, offset, width, value);
    return refusal();
  };
  EXPECT_THAT(with(0x1fe, 2, 0), HasSubstr("55 AA at 1FEh"));
  EXPECT_THAT(with(0x202, 4, 0), HasSubstr("no \"HdrS\" at 202h"));
  EXPECT_THAT(with(0x206, 2, 0x0201), HasSubstr("boot protocol 2.1"));
  EXPECT_THAT(with(0x211, 1, 0), HasSubstr("zImage"));
  EXPECT_THAT(with(0x1f1, 1, 0xff), HasSubstr("cut off"));
  EXPECT_THAT(with(0x1f4, 4, 0xffffffff), HasSubstr("cut off"));
  EXPECT_THAT(with(0x201, 1, 0), HasSubstr("setup header ends at"));
  EXPECT_EQ(with(0x201, 1, 0xff), "accepted") << "a longer header of a later protocol is cut where boot_params ends";
  boot.kernel = good;
  boot.kernel.resize(0x2000);
  EXPECT_THAT(refusal(), HasSubstr("cut off"));
  boot.kernel.resize(0x100);
  EXPECT_THAT(refusal(), HasSubstr("image: not a kernel"));
  boot.kernel.clear();
  EXPECT_THAT(refusal(), HasSubstr("0h bytes"));
  boot.kernel = Bytes{0x1f, 0x8b, 8, 0, 0, 0, 0, 0};
  EXPECT_THAT(refusal(), HasSubstr("compressed"));
}

TEST_F(BootLinuxTest, EveryTruncationIsRefused) {
  const Bytes good = boot.kernel;
  for (u64 size = 0; size + 15 < good.size(); size += 97) { // the last paragraph may be partial
    boot.kernel.assign(good.begin(), good.begin() + static_cast<i64>(size));
    EXPECT_NE(refusal(), "accepted") << size;
  }
}

TEST_F(BootLinuxTest, CommandLinesThatCannotBePassedAreRefused) {
  boot.cmdline = std::string(2048, 'x');
  EXPECT_THAT(refusal(), HasSubstr("takes 2047"));
  boot.cmdline = std::string("a\0b", 3);
  EXPECT_THAT(refusal(), HasSubstr("NUL"));
  set_le(boot.kernel, 0x238, 4, 0xffffffff);
  boot.cmdline = std::string(BOOT_CMDLINE_MAX, 'x');
  EXPECT_THAT(refusal(), HasSubstr("takes 65535"));
  boot.cmdline.pop_back();
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(BootLinuxTest, FilesThatAreNotThereAreNamed) {
  EXPECT_THAT(read_direct_boot("/nonexistent/vmlinuz", "", "").error().text,
              HasSubstr("/nonexistent/vmlinuz: No such file"));
  EXPECT_THAT(read_direct_boot("/dev/null", "/nonexistent/initrd", "").error().text, HasSubstr("/nonexistent/initrd"));
}

class SmallMachineTest : public BootTest {
 protected:
  SmallMachineTest() : BootTest(32 * MIB) {}
};

TEST_F(SmallMachineTest, DebiansKernelSaysHowMuchMemoryItNeeds) {
  boot = read_direct_boot(debian_vmlinuz(), "", "").value();
  EXPECT_THAT(refusal(), HasSubstr("the kernel with the memory it needs to start"));
}

class LargeMachineTest : public BootTest {
 protected:
  LargeMachineTest() : BootTest(u64{6} << 30) {}
};

TEST_F(LargeMachineTest, TheInitrdStaysBelowFourGigabytes) {
  boot.kernel = small_image();
  set_le(boot.kernel, 0x22c, 4, 0xffffffff);
  boot.initrd = Bytes(PAGE_SIZE, 1);
  loaded();
  EXPECT_EQ(guest.number(BOOT_INFO + 0x218, 4), GuestMemory::LOW_LIMIT - 0x10000 - PAGE_SIZE);
}

} // namespace
} // namespace transom::firmware
