#include "elf_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "vdev/manifest_file.hpp"

namespace vdev::detail {

namespace {

using std::uint32_t;
using std::uint64_t;
template <class T>
using Result = tl::expected<T, std::string>;

#if defined(__x86_64__)
constexpr uint32_t MACHINE = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t MACHINE = EM_AARCH64;
#else
#error "name the ELF machine of this host"
#endif

tl::unexpected<std::string> refuse(std::string why) { return tl::unexpected<std::string>(std::move(why)); }
std::string text(uint64_t number) { return std::to_string(number); }

class File {
 public:
  File(int fd, uint64_t size) : fd_(fd), size_(size) {}
  uint64_t size() const { return size_; }
  bool holds(uint64_t offset, uint64_t length) const { return offset <= size_ && length <= size_ - offset; }

  // All of it, or why not. `length` has been bounded by the caller.
  Result<std::string> read(uint64_t offset, uint64_t length, const char* what) const {
    if (!holds(offset, length)) {
      return refuse("truncated at " + text(size_) + " bytes: its " + what + " would end at " +
                    (offset > ~uint64_t{0} - length ? "beyond 2^64" : text(offset + length)));
    }
    std::string bytes(length, '\0');
    for (uint64_t done = 0; done < length;) {
      const ssize_t got = pread(fd_, bytes.data() + done, length - done, off_t(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return refuse(std::string("cannot be read: ") + std::strerror(errno));
      if (got == 0) return refuse("became shorter while it was read");
      done += uint64_t(got);
    }
    return bytes;
  }

 private:
  int fd_;
  uint64_t size_;
};

template <class Record>
Record record_at(const std::string& bytes, uint64_t index) {
  Record record;
  std::memcpy(&record, bytes.data() + index * sizeof record, sizeof record);
  return record;
}

Result<Elf64_Ehdr> read_header(const File& file) {
  const Result<std::string> magic = file.read(0, std::min<uint64_t>(file.size(), EI_NIDENT), "ELF identification");
  if (!magic) return refuse(magic.error());
  if (magic->size() < SELFMAG || std::memcmp(magic->data(), ELFMAG, SELFMAG) != 0) return refuse("not an ELF file");
  const Result<std::string> bytes = file.read(0, sizeof(Elf64_Ehdr), "ELF header");
  if (!bytes) return refuse(bytes.error());
  const auto header = record_at<Elf64_Ehdr>(*bytes, 0);
  if (header.e_ident[EI_CLASS] != ELFCLASS64) {
    return refuse("ELF class " + text(header.e_ident[EI_CLASS]) + "; 2 (64 bit) is accepted");
  }
  if (header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return refuse("ELF data encoding " + text(header.e_ident[EI_DATA]) + "; 1 (little-endian) is accepted");
  }
  if (header.e_ident[EI_VERSION] != EV_CURRENT || header.e_version != EV_CURRENT) {
    return refuse("ELF version " + text(header.e_version) + "; 1 is accepted");
  }
  if (header.e_type != ET_DYN) return refuse("ELF type " + text(header.e_type) + "; 3 (shared library) is accepted");
  if (header.e_machine != MACHINE) {
    return refuse("for ELF machine " + text(header.e_machine) + "; this host is " + text(MACHINE));
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_shentsize != sizeof(Elf64_Shdr)) {
    return refuse("program or section headers of " + text(header.e_phentsize) + " and " + text(header.e_shentsize) +
                  " bytes; 56 and 64 are accepted");
  }
  return header;
}

// A segment beyond the end of the file would be mapped all the same, and kill whoever touches it.
std::string check_segments(const File& file, const Elf64_Ehdr& header) {
  if (header.e_phnum == 0 || header.e_phnum > limits::SEGMENTS) {
    return text(header.e_phnum) + " program headers; 1 to " + text(limits::SEGMENTS) + " are accepted";
  }
  const Result<std::string> table = file.read(header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr), "program headers");
  if (!table) return table.error();
  bool loads = false;
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    const auto segment = record_at<Elf64_Phdr>(*table, i);
    loads = loads || segment.p_type == PT_LOAD;
    if (segment.p_type == PT_NULL || segment.p_filesz == 0) continue;
    if (!file.holds(segment.p_offset, segment.p_filesz)) {
      return "truncated at " + text(file.size()) + " bytes: segment " + text(i) + " has " + text(segment.p_filesz) +
             " bytes at " + text(segment.p_offset);
    }
    if (segment.p_type == PT_LOAD && segment.p_memsz < segment.p_filesz) {
      return "segment " + text(i) + " is larger in the file than in memory";
    }
  }
  return loads ? "" : "no segment to load";
}

Result<std::string> read_section_table(const File& file, const Elf64_Ehdr& header) {
  if (header.e_shoff == 0 || header.e_shnum == 0)
    return refuse("no section headers, so no .vdev.manifest: not a vdev plugin");
  if (header.e_shnum > limits::SECTIONS) {
    return refuse(text(header.e_shnum) + " sections; at most " + text(limits::SECTIONS) + " are accepted");
  }
  if (header.e_shstrndx >= header.e_shnum) return refuse("the section of section names is none of its sections");
  return file.read(header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr), "section headers");
}

Result<std::string> read_names(const File& file, const Elf64_Shdr& section) {
  if (section.sh_type != SHT_STRTAB) return refuse("the section of section names is no string table");
  if (section.sh_size > limits::SECTION_NAMES_BYTES) {
    return refuse(text(section.sh_size) + " bytes of section names; at most " + text(limits::SECTION_NAMES_BYTES) +
                  " are accepted");
  }
  return file.read(section.sh_offset, section.sh_size, "section names");
}

bool has_name(const std::string& names, uint64_t at, const std::string& wanted) {
  return at < names.size() && names.size() - at > wanted.size() &&
         std::memcmp(names.data() + at, wanted.c_str(), wanted.size() + 1) == 0;
}

bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) { // both lie inside the file
  return a < b + b_size && b < a + a_size;
}

} // namespace

tl::expected<std::string, std::string> read_section(int fd, const std::string& name, uint64_t most_bytes) {
  struct stat status;
  if (fstat(fd, &status) != 0) return refuse(std::string("cannot be examined: ") + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return refuse("not a regular file");
  const File file(fd, uint64_t(status.st_size));
  const Result<Elf64_Ehdr> header = read_header(file);
  if (!header) return refuse(header.error());
  if (const std::string wrong = check_segments(file, *header); !wrong.empty()) return refuse(wrong);
  const Result<std::string> table = read_section_table(file, *header);
  if (!table) return refuse(table.error());
  const Result<std::string> names = read_names(file, record_at<Elf64_Shdr>(*table, header->e_shstrndx));
  if (!names) return refuse(names.error());

  std::vector<Elf64_Shdr> found;
  for (uint32_t i = 0; i < header->e_shnum; ++i) {
    const auto section = record_at<Elf64_Shdr>(*table, i);
    if (has_name(*names, section.sh_name, name)) found.push_back(section);
  }
  if (found.empty()) return refuse("no " + name + " section: not a vdev plugin");
  if (found.size() > 1) return refuse(text(found.size()) + " sections " + name + "; one is accepted");
  const Elf64_Shdr& section = found[0];
  if (section.sh_type != SHT_PROGBITS)
    return refuse("section " + name + " has type " + text(section.sh_type) + "; 1 is accepted");
  if (section.sh_size > most_bytes) {
    return refuse("section " + name + " has " + text(section.sh_size) + " bytes; at most " + text(most_bytes) +
                  " are accepted");
  }
  Result<std::string> contents = file.read(section.sh_offset, section.sh_size, "manifest section");
  if (!contents) return contents;
  const bool covers_headers =
      overlaps(section.sh_offset, section.sh_size, 0, sizeof(Elf64_Ehdr)) ||
      overlaps(section.sh_offset, section.sh_size, header->e_shoff, table->size()) ||
      overlaps(section.sh_offset, section.sh_size, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr));
  if (covers_headers) return refuse("section " + name + " overlaps the file's headers");
  return contents;
}

} // namespace vdev::detail
