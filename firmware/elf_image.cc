#include "firmware/elf_image.hpp"

namespace transom::firmware {
namespace {

constexpr u32 PT_LOAD = 1, PT_NOTE = 4;
constexpr u16 ET_EXEC = 2, ET_DYN = 3, EM_386 = 3, EM_X86_64 = 62;
constexpr u32 XEN_ELFNOTE_PHYS32_ENTRY = 18;
constexpr u64 MAX_HEADERS = 256;

// Where the two classes keep the fields that matter (System V ABI, gABI chapters 4 and 5).
struct Layout {
  u32 word; // bytes of an address
  u64 header_size, entry, phoff, phentsize, phnum;
  u64 ph_size, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz;
};
constexpr Layout ELF32{4, 52, 24, 28, 42, 44, 32, 4, 8, 12, 16, 20};
constexpr Layout ELF64{8, 64, 24, 32, 54, 56, 56, 8, 16, 24, 32, 40};

bool inside(u64 offset, u64 length, u64 size) { return offset <= size && length <= size - offset; }

// Notes are {name size, description size, type, name, description}, the latter two padded to four bytes.
std::optional<u64> find_pvh_entry(ByteView notes) {
  constexpr std::string_view XEN("Xen\0", 4);
  for (u64 at = 0; inside(at, 12, notes.size());) {
    const u64 name_size = le32_at(notes, at), desc_size = le32_at(notes, at + 4);
    const u64 name = at + 12, desc = name + align_up(name_size, 4), end = desc + align_up(desc_size, 4);
    if (!inside(desc, desc_size, notes.size())) return std::nullopt;
    const bool xen =
        name_size == XEN.size() && std::equal(XEN.begin(), XEN.end(), notes.begin() + static_cast<i64>(name));
    if (xen && le32_at(notes, at + 8) == XEN_ELFNOTE_PHYS32_ENTRY && (desc_size == 4 || desc_size == 8))
      return le_at(notes, desc, static_cast<u32>(desc_size));
    at = end;
  }
  return std::nullopt;
}

Result<Layout> check_header(ByteView image) {
  if (image.size() < ELF32.header_size) return error("an ELF file cut off in its header");
  const u8 file_class = image[4], encoding = image[5];
  if ((file_class != 1 && file_class != 2) || encoding != 1)
    return error("ELF class " + std::to_string(file_class) + ", byte order " + std::to_string(encoding) +
                 ": 32 or 64 bits, little endian are accepted");
  const Layout& layout = file_class == 2 ? ELF64 : ELF32;
  if (image.size() < layout.header_size) return error("an ELF file cut off in its header");
  const u16 type = le16_at(image, 16), machine = le16_at(image, 18);
  if (type != ET_EXEC && type != ET_DYN)
    return error("ELF type " + std::to_string(type) + ": an executable is needed, not an object or a core file");
  if (machine != EM_386 && machine != EM_X86_64)
    return error("ELF machine " + std::to_string(machine) + ": x86 (3) and x86-64 (62) are accepted");
  return layout;
}

} // namespace

bool is_elf(ByteView image) { return image.size() >= 6 && le32_at(image, 0) == 0x464c457f; }

Result<ElfImage> parse_elf(ByteView image) {
  const auto layout = check_header(image);
  if (!layout) return tl::unexpected(layout.error());
  const auto word = [&](u64 offset) { return le_at(image, offset, layout->word); };

  ElfImage elf;
  elf.is_64 = layout->word == 8;
  elf.entry = word(layout->entry);
  const u64 headers = word(layout->phoff), count = le16_at(image, layout->phnum);
  if (count == 0) return error("an ELF file without program headers: nothing to load");
  if (count > MAX_HEADERS || le16_at(image, layout->phentsize) != layout->ph_size ||
      !inside(headers, count * layout->ph_size, image.size()))
    return error("ELF program headers that do not fit the file");

  for (u64 i = 0; i < count; ++i) {
    const u64 at = headers + i * layout->ph_size;
    const u32 type = le32_at(image, at);
    const ElfSegment segment{word(at + layout->p_offset), word(at + layout->p_filesz), word(at + layout->p_paddr),
                             word(at + layout->p_vaddr), word(at + layout->p_memsz)};
    if (type != PT_LOAD && type != PT_NOTE) continue;
    if (!inside(segment.offset, segment.file_size, image.size()))
      return error("ELF segment " + std::to_string(i) + " reaches beyond the file: the file is cut off");
    if (type == PT_NOTE) {
      if (!elf.pvh_entry) elf.pvh_entry = find_pvh_entry(image.subspan(segment.offset, segment.file_size));
      continue;
    }
    if (segment.file_size > segment.memory_size)
      return error("ELF segment " + std::to_string(i) + " is larger in the file than in memory");
    if (segment.memory_size != 0) elf.segments.push_back(segment);
  }
  if (elf.segments.empty()) return error("an ELF file without loadable segments");
  return elf;
}

std::optional<u64> physical_entry(const ElfImage& elf) {
  for (const ElfSegment& s : elf.segments)
    if (elf.entry >= s.physical && elf.entry - s.physical < s.memory_size) return elf.entry;
  for (const ElfSegment& s : elf.segments)
    if (elf.entry >= s.linear && elf.entry - s.linear < s.memory_size) return elf.entry - s.linear + s.physical;
  return std::nullopt;
}

} // namespace transom::firmware
