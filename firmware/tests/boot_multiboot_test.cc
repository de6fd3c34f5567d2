// Multiboot 1: images by address and by ELF, the information structure, and hostile headers.
#include "firmware/tests/boot_fixture.hpp"
#include "firmware/tests/elf_builder.hpp"

namespace transom::firmware {
namespace {

using ::testing::HasSubstr;

class BootMultibootTest : public BootTest {
 protected:
  static constexpr u64 HEADER = 0x40; // offset in the file

  BootMultibootTest() {
    boot.cmdline = "one two";
    by_addresses(0x10003, 0x200000 + HEADER, 0x200000, 0x200100, 0x200200, 0x200080);
  }
  static Bytes header(u32 flags, std::initializer_list<u64> addresses = {}) {
    Bytes h;
    append_le(h, 4, 0x1badb002);
    append_le(h, 4, flags);
    append_le(h, 4, 0u - 0x1badb002u - flags);
    for (const u64 address : addresses) append_le(h, 4, address);
    return h;
  }
  void by_addresses(u32 flags, u64 at, u64 load, u64 load_end, u64 bss_end, u64 entry) {
    boot.kernel = Bytes(0x100, 0x90);
    const Bytes h = header(flags, {at, load, load_end, bss_end, entry});
    std::copy(h.begin(), h.end(), boot.kernel.begin() + HEADER);
  }
};

TEST_F(BootMultibootTest, ImageByAddressesIsLoadedAndItsBssCleared) {
  const u8 dirt = 0xff;
  guest.ram.write(0x2001ff, &dirt, 1);
  const BootState state = loaded();
  expect_flat_32(state);
  EXPECT_EQ(state.rip, 0x200080u);
  EXPECT_EQ(state.gpr[RAX], 0x2badb002u);
  EXPECT_EQ(guest.bytes(0x200000, 0x100), boot.kernel);
  EXPECT_EQ(guest.bytes(0x200100, 0x100), Bytes(0x100, 0));
}

TEST_F(BootMultibootTest, InformationIsComplete) {
  boot.initrd = Bytes(5001, 6);
  const u64 info = loaded().gpr[RBX];
  EXPECT_EQ(guest.number(info, 4), 0x24du) << "memory, command line, modules, map, name";
  EXPECT_EQ(guest.number(info + 4, 4), 639u);
  EXPECT_EQ(guest.number(info + 8, 4), (512 * MIB - MIB - 0x10000) / 1024);
  EXPECT_EQ(c_string(guest.number(info + 16, 4)), "one two");
  ASSERT_EQ(guest.number(info + 20, 4), 1u);
  const u64 modules = guest.number(info + 24, 4);
  const u64 start = guest.number(modules, 4);
  EXPECT_EQ(guest.number(modules + 4, 4) - start, 5001u);
  EXPECT_EQ(start % PAGE_SIZE, 0u);
  EXPECT_EQ(guest.bytes(start, 5001), boot.initrd);
  EXPECT_EQ(c_string(guest.number(info + 64, 4)), "Transom");
  u64 at = guest.number(info + 48, 4);
  const u64 end = at + guest.number(info + 44, 4);
  for (const E820Entry& entry : tables.e820) {
    EXPECT_EQ(guest.number(at + 4, 8), entry.base);
    EXPECT_EQ(guest.number(at + 12, 8), entry.length);
    EXPECT_EQ(guest.number(at + 20, 4), static_cast<u32>(entry.type));
    at += guest.number(at, 4) + 4;
  }
  EXPECT_EQ(at, end);
}

TEST_F(BootMultibootTest, ZeroEndsMeanTheWholeFileAndNoBss) {
  by_addresses(0x10000, 0x200000 + HEADER, 0x200000, 0, 0, 0x200000);
  EXPECT_EQ(loaded().rip, 0x200000u);
  EXPECT_EQ(guest.bytes(0x200000, 0x100), boot.kernel);
}

TEST_F(BootMultibootTest, TextMayBeginAfterTheStartOfTheFile) {
  by_addresses(0x10000, 0x200000, 0x200000, 0x200010, 0, 0x200004);
  EXPECT_EQ(loaded().rip, 0x200004u);
  EXPECT_EQ(guest.number(0x200000, 4), 0x1badb002u);
}

TEST_F(BootMultibootTest, ElfFilesAreLoadedByTheirSegments) {
  for (const bool is_64 : {false, true}) {
    ElfBuilder elf;
    elf.is_64 = is_64;
    elf.machine = is_64 ? 62 : 3;
    Bytes text = header(3);
    text.resize(0x100, 0x90);
    elf.segments = {{0x300000, 0x300000, text, 0x400}};
    elf.entry = 0x300010;
    boot.kernel = elf.build();
    const BootState state = loaded();
    expect_flat_32(state);
    EXPECT_EQ(state.rip, 0x300010u);
    EXPECT_EQ(state.gpr[RAX], 0x2badb002u);
    EXPECT_EQ(guest.bytes(0x300000, 0x100), text);
  }
}

TEST_F(BootMultibootTest, APvhEntryIsPreferred) {
  ElfBuilder elf;
  Bytes text = header(3);
  text.resize(0x100, 0x90);
  elf.segments = {{0x300000, 0x300000, text, 0x400}};
  elf.entry = 0x300010;
  elf.pvh_entry = 0x300020;
  boot.kernel = elf.build();
  EXPECT_EQ(loaded().rip, 0x300020u);
}

TEST_F(BootMultibootTest, TheHeaderIsLookedForInTheFirst8KiBAtMultiplesOfFour) {
  Bytes image(9000, 0);
  const Bytes h = header(0x10000, {0, 0, 0, 0, 0});
  const auto at = [&](u64 offset) {
    Bytes copy = image;
    std::copy(h.begin(), h.end(), copy.begin() + static_cast<i64>(offset));
    return find_multiboot_header(copy);
  };
  EXPECT_EQ(at(0), 0u);
  EXPECT_EQ(at(8192 - 12), 8192u - 12);
  EXPECT_EQ(at(8192 - 8), std::nullopt);
  EXPECT_EQ(at(2), std::nullopt);
  EXPECT_EQ(find_multiboot_header(ByteView(h).subspan(0, 11)), std::nullopt);
}

TEST_F(BootMultibootTest, HeadersThatCannotBeServedSayWhy) {
  const auto with = [&](u32 flags, u64 at, u64 load, u64 load_end, u64 bss_end, u64 entry) {
    by_addresses(flags, at, load, load_end, bss_end, entry);
    return refusal();
  };
  constexpr u64 B = 0x200000;
  EXPECT_THAT(with(0x10004, B, B, 0, 0, B), HasSubstr("a video mode"));
  EXPECT_THAT(with(0x10020, B, B, 0, 0, B), HasSubstr("requires features 20h"));
  EXPECT_THAT(with(0, B, B, 0, 0, B), HasSubstr("not ELF"));
  EXPECT_THAT(with(0x10000, B, B + 4, 0, 0, B), HasSubstr("does not fit a header"));
  EXPECT_THAT(with(0x10000, B + HEADER + 1, B, 0, 0, B), HasSubstr("does not fit a header"));
  EXPECT_THAT(with(0x10000, B + HEADER, B, B + 0x101, 0, B), HasSubstr("load end"));
  EXPECT_THAT(with(0x10000, B + HEADER, B, B - 1, 0, B), HasSubstr("load end"));
  EXPECT_THAT(with(0x10000, B + HEADER, B, 0, 0, B + 0x100), HasSubstr("entry point 200100h lies outside"));
  EXPECT_THAT(with(0x10000, B + HEADER, B, B, 0, B), HasSubstr("no bytes"));
  EXPECT_THAT(with(0x10000, B + HEADER, B, 0, 0xffffffff, B), HasSubstr("does not lie in the guest's RAM"));
  EXPECT_THAT(with(0x10000, 0xa0000 + HEADER, 0xa0000, 0, 0, 0xa0000), HasSubstr("does not lie in the guest's RAM"));
  boot.kernel = header(0x10000, {B, B});
  EXPECT_THAT(refusal(), HasSubstr("cut off"));
  boot.kernel = header(0x10000);
  boot.kernel[8] ^= 1;
  EXPECT_THAT(refusal(), HasSubstr("not a kernel")) << "a wrong checksum is no header";
}

} // namespace
} // namespace transom::firmware
