// Writes ELF executables for tests.
#pragma once

#include <optional>

#include "firmware/bytes.hpp"

namespace transom::firmware {

struct ElfBuilder {
  struct Segment {
    u64 physical, linear;
    Bytes bytes;
    u64 memory_size;
  };

  bool is_64 = true;
  u16 type = 2, machine = 62;
  u64 entry = 0;
  std::optional<u32> pvh_entry;
  std::vector<Segment> segments;

  Bytes build() const {
    const u32 word = is_64 ? 8 : 4;
    const u64 header = is_64 ? 64 : 52, ph = is_64 ? 56 : 32;
    const u64 count = segments.size() + (pvh_entry ? 1 : 0);
    Bytes notes;
    if (pvh_entry) {
      note(notes, "GNU", 3, Bytes(5, 0xab)); // others come first and have odd lengths
      note(notes, "Xen", 6, {'L', 'i', 'n', 'u', 'x', 0});
      note(notes, "Xen", 18, le_bytes(is_64 ? 8 : 4, *pvh_entry));
    }

    Bytes out{0x7f, 'E', 'L', 'F', static_cast<u8>(is_64 ? 2 : 1), 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    append_le(out, 2, type);
    append_le(out, 2, machine);
    append_le(out, 4, 1);
    append_le(out, word, entry);
    append_le(out, word, header);
    append_le(out, word, 0);
    append_le(out, 4, 0);
    for (const u64 half : {header, ph, count, u64{0}, u64{0}, u64{0}}) append_le(out, 2, half);

    u64 offset = header + count * ph;
    const auto program_header = [&](u32 kind, const Segment& s) {
      append_le(out, 4, kind);
      if (is_64) append_le(out, 4, 7);
      append_le(out, word, offset);
      append_le(out, word, s.linear);
      append_le(out, word, s.physical);
      append_le(out, word, s.bytes.size());
      append_le(out, word, s.memory_size);
      if (!is_64) append_le(out, 4, 7);
      append_le(out, word, 4);
      offset += s.bytes.size();
    };
    if (pvh_entry) program_header(4, {0, 0, notes, notes.size()});
    for (const Segment& s : segments) program_header(1, s);
    append(out, notes);
    for (const Segment& s : segments) append(out, s.bytes);
    return out;
  }

 private:
  static void note(Bytes& out, std::string_view name, u32 kind, const Bytes& description) {
    append_le(out, 4, name.size() + 1);
    append_le(out, 4, description.size());
    append_le(out, 4, kind);
    append_field(out, name, align_up(name.size() + 1, 4));
    append(out, description);
    out.resize(align_up(out.size(), 4));
  }
};

} // namespace transom::firmware
