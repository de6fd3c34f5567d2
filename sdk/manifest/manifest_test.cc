#include <cstddef>
#include <cstring>
#include <elf.h>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <iterator>
#include <random>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vdev/manifest_file.hpp"

using testing::HasSubstr;
using vdev::Manifest;

namespace {

constexpr const char* GOOD = TRANSOM_PLUGIN_DIR "/ticker.so";

std::string good_file() {
  std::ifstream file(GOOD, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What the reader says of a file with these contents.
tl::expected<Manifest, std::string> read_bytes(std::string_view bytes) {
  static const int fd = memfd_create("manifest_test", MFD_CLOEXEC);
  EXPECT_EQ(ftruncate(fd, 0), 0);
  EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), 0), ssize_t(bytes.size()));
  return vdev::read_manifest(fd, "file");
}
std::string error_of(const tl::expected<Manifest, std::string>& manifest) {
  return manifest ? "accepted" : manifest.error();
}

template <class Record>
Record get(const std::string& bytes, std::size_t at) {
  Record record;
  std::memcpy(&record, bytes.data() + at, sizeof record);
  return record;
}
template <class Record>
void put(std::string& bytes, std::size_t at, const Record& record) {
  std::memcpy(bytes.data() + at, &record, sizeof record);
}
template <class Record>
void change(std::string& bytes, std::size_t at, const std::function<void(Record&)>& how) {
  auto record = get<Record>(bytes, at);
  how(record);
  put(bytes, at, record);
}

// Where in the file the section header of .vdev.manifest lies.
std::size_t manifest_section(const std::string& bytes) {
  const auto header = get<Elf64_Ehdr>(bytes, 0);
  const auto names = get<Elf64_Shdr>(bytes, header.e_shoff + header.e_shstrndx * sizeof(Elf64_Shdr));
  for (std::size_t i = 0; i < header.e_shnum; ++i) {
    const std::size_t at = header.e_shoff + i * sizeof(Elf64_Shdr);
    if (std::strcmp(bytes.data() + names.sh_offset + get<Elf64_Shdr>(bytes, at).sh_name, ".vdev.manifest") == 0)
      return at;
  }
  ADD_FAILURE() << "the good file has no manifest";
  return 0;
}
std::size_t load_segment(const std::string& bytes) {
  const auto header = get<Elf64_Ehdr>(bytes, 0);
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    const std::size_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
    if (get<Elf64_Phdr>(bytes, at).p_type == PT_LOAD) return at;
  }
  return 0;
}

TEST(Manifest, OfAGoodLibraryIsReadWhole) {
  const auto manifest = vdev::read_manifest(GOOD);
  ASSERT_TRUE(manifest) << manifest.error();
  EXPECT_EQ(manifest->abi_major, VDEV_ABI_MAJOR);
  ASSERT_EQ(manifest->devices.size(), 1u);
  const vdev::ManifestDevice& device = manifest->devices[0];
  EXPECT_EQ(device.id, "org.transom.example.ticker");
  EXPECT_EQ(device.stream_count, 1u);
  ASSERT_EQ(device.regions.size(), 2u);
  EXPECT_EQ(device.regions[1].name, "period");
  EXPECT_EQ(device.regions[1].default_base, 0x504u);
  EXPECT_EQ(device.regions[1].widths, VDEV_WIDTH_4);
  EXPECT_EQ(manifest->find("org.transom.example.ticker"), &device);
  EXPECT_EQ(manifest->find("other"), nullptr);
}

TEST(Manifest, OfAFileTruncatedAnywhereIsRefused) {
  const std::string bytes = good_file();
  ASSERT_TRUE(read_bytes(bytes));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string error = error_of(read_bytes(std::string_view(bytes).substr(0, size)));
    ASSERT_THAT(error, HasSubstr(size < 4 ? "not an ELF file" : "truncated at " + std::to_string(size))) << size;
  }
}

TEST(Manifest, NamesThePathAndTheReasonOfWhatCannotBeOpened) {
  EXPECT_EQ(error_of(vdev::read_manifest("/no/such/file")),
            "/no/such/file: cannot be opened: No such file or directory");
  EXPECT_EQ(error_of(vdev::read_manifest("/dev/null")), "/dev/null: not a regular file");
  EXPECT_EQ(error_of(vdev::read_manifest("/")), "/: not a regular file");
  EXPECT_EQ(error_of(vdev::read_manifest("/etc/passwd")), "/etc/passwd: not an ELF file");
  const std::string fifo = testing::TempDir() + "manifest_fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(error_of(vdev::read_manifest(fifo)), fifo + ": not a regular file"); // and does not wait for a writer
  unlink(fifo.c_str());
}

TEST(Manifest, OfAFileThatIsShorterThanItSaysIsRefused) {
  const char* shrinking = "/sys/devices/system/cpu/online"; // says 4096 bytes, has a few
  struct stat status;
  if (stat(shrinking, &status) != 0 || status.st_size < 64) GTEST_SKIP() << "no such file here";
  EXPECT_THAT(error_of(vdev::read_manifest(shrinking)), HasSubstr("became shorter while it was read"));
}

struct Damage {
  const char* error;
  std::function<void(std::string&)> inflict;
};

template <class Member>
std::function<void(std::string&)> header(Member Elf64_Ehdr::*member, std::uint64_t value) {
  return [=](std::string& bytes) { change<Elf64_Ehdr>(bytes, 0, [&](Elf64_Ehdr& h) { h.*member = Member(value); }); };
}
template <class Member>
std::function<void(std::string&)> section(Member Elf64_Shdr::*member, std::uint64_t value) {
  return [=](std::string& bytes) {
    change<Elf64_Shdr>(bytes, manifest_section(bytes), [&](Elf64_Shdr& s) { s.*member = Member(value); });
  };
}
template <class Member>
std::function<void(std::string&)> segment(Member Elf64_Phdr::*member, std::uint64_t value) {
  return [=](std::string& bytes) {
    change<Elf64_Phdr>(bytes, load_segment(bytes), [&](Elf64_Phdr& s) { s.*member = Member(value); });
  };
}
std::function<void(std::string&)> ident(int at, char value) {
  return [=](std::string& bytes) { bytes[std::size_t(at)] = value; };
}

TEST(Manifest, SaysWhatIsWrongWithTheElfFile) {
  constexpr std::uint64_t HUGE = ~std::uint64_t{0};
  const Damage damages[] = {
      {"not an ELF file", ident(1, 'X')},
      {"ELF class 1; 2 (64 bit) is accepted", ident(EI_CLASS, 1)},
      {"ELF data encoding 2; 1 (little-endian) is accepted", ident(EI_DATA, 2)},
      {"ELF version 0; 1 is accepted", header(&Elf64_Ehdr::e_version, 0)},
      {"ELF type 2; 3 (shared library) is accepted", header(&Elf64_Ehdr::e_type, ET_EXEC)},
      {"for ELF machine 8; this host is", header(&Elf64_Ehdr::e_machine, EM_MIPS)},
      {"program or section headers of 32 and 64 bytes", header(&Elf64_Ehdr::e_phentsize, 32)},
      {"program or section headers of 56 and 0 bytes", header(&Elf64_Ehdr::e_shentsize, 0)},
      {"65535 program headers; 1 to 256 are accepted", header(&Elf64_Ehdr::e_phnum, 0xffff)},
      {"0 program headers", header(&Elf64_Ehdr::e_phnum, 0)},
      {"program headers would end at beyond 2^64", header(&Elf64_Ehdr::e_phoff, HUGE)},
      {"65535 sections; at most 16384 are accepted", header(&Elf64_Ehdr::e_shnum, 0xffff)},
      {"no section headers, so no .vdev.manifest", header(&Elf64_Ehdr::e_shnum, 0)},
      {"no section headers, so no .vdev.manifest", header(&Elf64_Ehdr::e_shoff, 0)},
      {"section headers would end at", header(&Elf64_Ehdr::e_shoff, HUGE - 100)},
      {"section headers would end at", header(&Elf64_Ehdr::e_shoff, 1u << 30)},
      {"the section of section names is none of its sections", header(&Elf64_Ehdr::e_shstrndx, 0xff00)},
      {"the section of section names is no string table", header(&Elf64_Ehdr::e_shstrndx, 0)},
      {"segment 0 has 18446744073709551615 bytes", segment(&Elf64_Phdr::p_filesz, HUGE)},
      {"segment 0 has", segment(&Elf64_Phdr::p_offset, HUGE - 4095)},
      {"segment 0 is larger in the file than in memory", segment(&Elf64_Phdr::p_memsz, 1)},
      {"no .vdev.manifest section: not a vdev plugin", section(&Elf64_Shdr::sh_name, 0)},
      {"no .vdev.manifest section: not a vdev plugin", section(&Elf64_Shdr::sh_name, 0xffffffff)},
      {"section .vdev.manifest has type 8; 1 is accepted", section(&Elf64_Shdr::sh_type, SHT_NOBITS)},
      {"at most 1048576 are accepted", section(&Elf64_Shdr::sh_size, HUGE)},
      {"manifest section would end at", section(&Elf64_Shdr::sh_size, 1 << 20)},
      {"manifest section would end at", section(&Elf64_Shdr::sh_offset, HUGE)},
      {"section .vdev.manifest overlaps the file's headers", section(&Elf64_Shdr::sh_offset, 0)},
      {"its manifest has 0 bytes; its header needs 24", section(&Elf64_Shdr::sh_size, 0)},
      {"its manifest says it has 384 bytes; its section has 100", section(&Elf64_Shdr::sh_size, 100)},
      {"2 sections .vdev.manifest; one is accepted",
       [](std::string& bytes) {
         const auto elf = get<Elf64_Ehdr>(bytes, 0);
         put(bytes, elf.e_shoff, get<Elf64_Shdr>(bytes, manifest_section(bytes)));
       }},
  };
  for (const Damage& damage : damages) {
    std::string bytes = good_file();
    damage.inflict(bytes);
    EXPECT_THAT(error_of(read_bytes(bytes)), HasSubstr(damage.error));
  }
}

// A small manifest, to damage.
struct Sample {
  vdev_manifest_header header{{'V', 'D', 'E', 'V', 'M', 'A', 'N', '1'}, sizeof(Sample), VDEV_ABI_MAJOR, 0, 3, 0};
  vdev_manifest_device device{};
  vdev_manifest_region region{};
  vdev_manifest_config config{};

  Sample() {
    device.size = sizeof device;
    device.kind = VDEV_MANIFEST_DEVICE;
    std::strcpy(device.id, "org.example.device");
    region.size = sizeof region;
    region.kind = VDEV_MANIFEST_REGION;
    std::strcpy(region.name, "regs");
    region.space = VDEV_SPACE_PIO;
    region.default_base = 0x3f8;
    region.length = 8;
    region.widths = VDEV_WIDTH_1;
    config.size = sizeof config;
    config.kind = VDEV_MANIFEST_CONFIG;
    std::strcpy(config.key, "rate");
    config.type = VDEV_CONFIG_INTEGER;
    std::strcpy(config.default_value, "9600");
    config.maximum = 115200;
  }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(this), sizeof *this}; }
};

TEST(Manifest, RecordsAreReadWithTheirDefaultsAndLimits) {
  const auto manifest = vdev::parse_manifest(Sample().bytes());
  ASSERT_TRUE(manifest) << manifest.error();
  const vdev::ManifestConfig* rate = manifest->devices[0].find_key("rate");
  ASSERT_NE(rate, nullptr);
  EXPECT_EQ(rate->default_value, "9600");
  EXPECT_EQ(vdev::check_config_value(*rate, "0x1c200"), "");
  EXPECT_EQ(vdev::check_config_value(*rate, "115201"), "'115201'; 0 to 115200 is accepted");
  EXPECT_EQ(vdev::check_config_value(*rate, "fast"), "'fast'; 0 to 115200 is accepted");
}

TEST(Manifest, SaysWhatIsWrongWithItsRecords) {
  struct Case {
    const char* error;
    void (*change)(Sample&);
  };
  const Case cases[] = {
      {"does not start with VDEVMAN1", [](Sample& s) { s.header.magic[7] = '2'; }},
      {"ABI major 2, this host speaks 1", [](Sample& s) { s.header.abi_major = 2; }},
      {"its manifest says it has 4294967295 bytes", [](Sample& s) { s.header.size = ~0u; }},
      {"its manifest says it has 23 bytes", [](Sample& s) { s.header.size = 23; }},
      {"4294967295 records; at most 4096 are accepted", [](Sample& s) { s.header.record_count = ~0u; }},
      {"bytes after its last record", [](Sample& s) { s.header.record_count = 2; }},
      {"record 4: a record of 0 bytes, where 0 are left", [](Sample& s) { s.header.record_count = 4; }},
      {"more than one manifest", [](Sample& s) { s.header.size = 24, s.header.record_count = 0; }},
      {"record 1: a record of 0 bytes", [](Sample& s) { s.device.size = 0; }},
      {"record 1: a record of 4294967295 bytes", [](Sample& s) { s.device.size = ~0u; }},
      {"record 2: a region or configuration key before the first device", [](Sample& s) { s.device.kind = 99; }},
      {"a device id is not terminated within its 64 bytes", [](Sample& s) { std::memset(s.device.id, 'a', 64); }},
      {"a device id ''", [](Sample& s) { s.device.id[0] = 0; }},
      {"a device id 'org example'", [](Sample& s) { std::strcpy(s.device.id, "org example"); }},
      {"a device's name holds control characters", [](Sample& s) { std::strcpy(s.device.name, "\x1b[2J"); }},
      {"irq_count is 65; at most 64", [](Sample& s) { s.device.irq_count = 65; }},
      {"drive_count is", [](Sample& s) { s.device.drive_count = ~0u; }},
      {"stream_count is", [](Sample& s) { s.device.stream_count = ~0u; }},
      {"state_bytes is 513; at most 512", [](Sample& s) { s.device.state_bytes = 513; }},
      {"pci_functions is 9", [](Sample& s) { s.device.pci_functions = 9; }},
      {"bulk_bytes is", [](Sample& s) { s.device.bulk_bytes = ~0ull; }},
      {"region 'regs' of org.example.device lies in space 3", [](Sample& s) { s.region.space = 3; }},
      {"has the width mask 16", [](Sample& s) { s.region.widths = 16; }},
      {"does not lie in its space", [](Sample& s) { s.region.default_base = 0xfff9; }},
      {"does not lie in its space", [](Sample& s) { s.region.length = 0; }},
      {"does not lie in its space", [](Sample& s) { s.region.length = ~0ull; }},
      {"'rate' of org.example.device has type 4", [](Sample& s) { s.config.type = 4; }},
      {"a minimum above its maximum", [](Sample& s) { s.config.minimum = 200000; }},
      {"its default: '9600'; 0 to 9599 is accepted", [](Sample& s) { s.config.maximum = 9599; }},
      {"its default: '9600'; true and false", [](Sample& s) { s.config.type = VDEV_CONFIG_BOOLEAN; }},
  };
  for (const Case& c : cases) {
    Sample sample;
    c.change(sample);
    EXPECT_THAT(error_of(vdev::parse_manifest(sample.bytes())), HasSubstr(c.error));
  }
}

TEST(Manifest, SkipsUnknownRecordsAndReadsShorterOnesWithZeros) {
  Sample sample;
  sample.config.kind = 77;
  EXPECT_TRUE(vdev::parse_manifest(sample.bytes()));
  // A device record that ends before bulk_bytes, as an older SDK would write it.
  Sample full;
  full.device.bulk_bytes = 4096;
  full.header.record_count = 1;
  full.header.size = sizeof full.header + offsetof(vdev_manifest_device, bulk_bytes);
  full.device.size = offsetof(vdev_manifest_device, bulk_bytes);
  const auto manifest = vdev::parse_manifest(full.bytes().substr(0, full.header.size));
  ASSERT_TRUE(manifest) << manifest.error();
  EXPECT_EQ(manifest->devices[0].bulk_bytes, 0u);
}

TEST(Manifest, SurvivesEveryFlippedByteOfTheHeadersAndTheSection) {
  const std::string good = good_file();
  const auto elf = get<Elf64_Ehdr>(good, 0);
  const auto own = get<Elf64_Shdr>(good, manifest_section(good));
  std::mt19937 random(1);
  std::uint32_t refused = 0;
  const auto flip_all = [&](std::size_t from, std::size_t size) {
    for (std::size_t at = from; at < from + size; ++at) {
      for (const char flip : {char(0xff), char(0x80), char(1), char(random())}) {
        std::string bytes = good;
        bytes[at] = char(bytes[at] ^ flip);
        refused += !read_bytes(bytes).has_value();
      }
    }
  };
  flip_all(0, sizeof(Elf64_Ehdr) + elf.e_phnum * sizeof(Elf64_Phdr));
  flip_all(elf.e_shoff, elf.e_shnum * sizeof(Elf64_Shdr));
  flip_all(own.sh_offset, own.sh_size);
  EXPECT_GT(refused, 500u); // and none of them crashed
}

} // namespace
