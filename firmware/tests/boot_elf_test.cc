// ELF kernels: a PVH entry checked against Xen's public structures, Linux's 64-bit entry, and hostile files.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/xen.h>

#include "firmware/elf_image.hpp"
#include "firmware/tests/boot_fixture.hpp"
#include "firmware/tests/debian_kernel.hpp"
#include "firmware/tests/elf_builder.hpp"

namespace transom::firmware {
namespace {

using ::testing::HasSubstr;

class BootElfTest : public BootTest {
 protected:
  BootElfTest() {
    elf.segments = {{0x100000, 0xffffffff80100000, Bytes(0x100, 0xc1), 0x300},
                    {0x200000, 0x200000, Bytes(0x80, 0xc2), 0x80}};
    elf.entry = 0x100010;
    boot.cmdline = "hello";
  }
  Result<BootState> build_and_load() {
    boot.kernel = elf.build();
    return load();
  }
  std::string build_and_refuse() {
    boot.kernel = elf.build();
    return refusal();
  }
  template <class T>
  T structure(u64 gpa) const {
    T value;
    guest.ram.read(gpa, &value, sizeof value);
    return value;
  }

  ElfBuilder elf;
};

TEST_F(BootElfTest, PvhKernelFindsXensStructures) {
  elf.pvh_entry = 0x100020;
  boot.initrd = Bytes(5000, 9);
  const BootState state = build_and_load().value();
  expect_flat_32(state);
  EXPECT_EQ(state.rip, 0x100020u);
  EXPECT_EQ(state.rflags, 2u);

  const auto info = structure<hvm_start_info>(state.gpr[RBX]);
  EXPECT_EQ(info.magic, u32{XEN_HVM_START_MAGIC_VALUE});
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.rsdp_paddr, tables.rsdp);
  EXPECT_EQ(c_string(info.cmdline_paddr), "hello");
  ASSERT_EQ(info.nr_modules, 1u);
  const auto module = structure<hvm_modlist_entry>(info.modlist_paddr);
  EXPECT_EQ(module.size, 5000u);
  EXPECT_EQ(guest.bytes(module.paddr, 5000), boot.initrd);
  ASSERT_EQ(info.memmap_entries, tables.e820.size());
  for (u64 i = 0; i < info.memmap_entries; ++i) {
    const auto entry = structure<hvm_memmap_table_entry>(info.memmap_paddr + i * sizeof(hvm_memmap_table_entry));
    EXPECT_EQ(entry.addr, tables.e820[i].base);
    EXPECT_EQ(entry.size, tables.e820[i].length);
    EXPECT_EQ(entry.type, static_cast<u32>(tables.e820[i].type));
  }
}

TEST_F(BootElfTest, WithoutAnInitrdThereAreNoModules) {
  elf.pvh_entry = 0x100020;
  const auto info = structure<hvm_start_info>(build_and_load().value().gpr[RBX]);
  EXPECT_EQ(info.nr_modules, 0u);
  EXPECT_EQ(info.modlist_paddr, 0u);
}

TEST_F(BootElfTest, SegmentsGoToTheirPhysicalAddressesAndBssIsCleared) {
  const u8 dirt = 0xff;
  guest.ram.write(0x1002ff, &dirt, 1);
  elf.pvh_entry = 0x100020;
  ASSERT_TRUE(build_and_load());
  EXPECT_EQ(guest.bytes(0x100000, 0x100), Bytes(0x100, 0xc1));
  EXPECT_EQ(guest.bytes(0x100100, 0x200), Bytes(0x200, 0));
  EXPECT_EQ(guest.bytes(0x200000, 0x80), Bytes(0x80, 0xc2));
}

TEST_F(BootElfTest, A32BitFileMayHaveAPvhEntryToo) {
  elf.is_64 = false;
  elf.segments[0].linear = 0xc0100000;
  elf.pvh_entry = 0x100020;
  EXPECT_EQ(build_and_load().value().rip, 0x100020u);
}

TEST_F(BootElfTest, WithoutThatEntryA64BitFileStartsByLinuxsProtocol) {
  boot.initrd = Bytes(100, 3);
  const BootState state = build_and_load().value();
  expect_long(state);
  EXPECT_EQ(state.rip, 0x100010u);
  const u64 params = state.gpr[RSI];
  EXPECT_EQ(guest.number(params + 0x1fe, 2), 0xaa55u);
  EXPECT_EQ(guest.number(params + 0x202, 4), 0x53726448u);
  EXPECT_EQ(c_string(guest.number(params + 0x228, 4)), "hello");
  EXPECT_EQ(guest.number(guest.number(params + 0x218, 4), 1), 3u);
  EXPECT_EQ(guest.bytes(params + 0x2d0, 20 * tables.e820.size()), e820_bytes(tables.e820));
}

TEST_F(BootElfTest, ALinearEntryPointBecomesPhysical) {
  elf.entry = 0xffffffff80100010;
  EXPECT_EQ(build_and_load().value().rip, 0x100010u);
}

TEST_F(BootElfTest, FilesThatCannotBeStartedSayWhy) {
  const ElfBuilder good = elf;
  const auto with = [&](auto&& change) {
    elf = good;
    change(elf);
    return build_and_refuse();
  };
  EXPECT_EQ(with([](ElfBuilder&) {}), "accepted");
  EXPECT_THAT(with([](ElfBuilder& e) { e.is_64 = false; }), HasSubstr("neither a PVH entry note nor a Multiboot"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.entry = 0x5000000; }), HasSubstr("entry point 5000000h lies in no"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.pvh_entry = 0x5000000; }), HasSubstr("entry point 5000000h lies in no"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.segments.clear(); }), HasSubstr("without program headers"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.machine = 183; }), HasSubstr("ELF machine 183"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.type = 1; }), HasSubstr("ELF type 1"));
  EXPECT_THAT(with([](ElfBuilder& e) {
                e.pvh_entry = 0x200010;
                e.segments[0].physical = 0x1000;
              }),
              HasSubstr("overlaps the loader's own"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.segments[1].physical = 0x1002f0; }), HasSubstr("overlaps an ELF segment"));
  EXPECT_THAT(with([](ElfBuilder& e) {
                e.pvh_entry = 0x200010;
                e.segments[0].physical = 0x9f000;
                e.segments[0].memory_size = 0x2000;
              }),
              HasSubstr("does not lie in the guest's RAM"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.segments[1].memory_size = ~u64{0}; }), HasSubstr("does not lie"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.segments[1].physical = ~u64{0} - 4; }), HasSubstr("does not lie"));
  EXPECT_THAT(with([](ElfBuilder& e) { e.segments[1].memory_size = 4; }), HasSubstr("larger in the file"));
}

TEST_F(BootElfTest, EveryTruncationIsRefused) {
  elf.pvh_entry = 0x100020;
  const Bytes good = elf.build();
  for (u64 size = 0; size < good.size(); ++size) {
    boot.kernel.assign(good.begin(), good.begin() + static_cast<i64>(size));
    ASSERT_NE(refusal(), "accepted") << size;
  }
}

TEST_F(BootElfTest, HostileHeadersAndNotesAreBounded) {
  elf.pvh_entry = 0x100020;
  const Bytes good = elf.build();
  // Every 32-bit field of headers and notes, at extreme values: nothing may read outside the file (ASan watches).
  for (u64 at = 4; at + 4 <= std::min<u64>(good.size(), 0x200); at += 2) {
    for (const u32 value : {0u, 0x7fffffffu, 0x80000000u, 0xffffffffu, 0xfffffff4u}) {
      boot.kernel = good;
      set_le(boot.kernel, at, 4, value);
      load();
    }
  }
}

// The vmlinux inside Debian's bzImage, as the unpacker would see it.
TEST_F(BootElfTest, DebiansKernelUnpackedHasAPvhEntry) {
  boot.kernel = debian_vmlinux();
  const BootState state = loaded();
  expect_flat_32(state);
  EXPECT_GE(state.rip, 0x1000000u);
  EXPECT_EQ(structure<hvm_start_info>(state.gpr[RBX]).magic, u32{XEN_HVM_START_MAGIC_VALUE});
}

} // namespace
} // namespace transom::firmware
