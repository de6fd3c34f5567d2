#include "firmware/table_loader.hpp"

#include <algorithm>

namespace transom::firmware {
namespace {

constexpr u64 ENTRY = 128, NAME = 56;
enum Command : u32 { UNUSED = 0, ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };

struct Placed {
  u64 gpa;
  u64 size;
};

class Interpreter {
 public:
  Interpreter(const GuestMemory& ram, const LoaderHost& host) : ram_(ram), host_(host) {}

  Result<std::map<std::string, u64>> run(ByteView script) {
    for (u64 at = 0; at + ENTRY <= script.size(); at += ENTRY) {
      const auto done = step(script.subspan(at, ENTRY));
      if (!done) return error("table-loader entry " + std::to_string(at / ENTRY) + ": " + done.error().text);
    }
    std::map<std::string, u64> addresses;
    for (const auto& [name, placed] : files_) addresses[name] = placed.gpa;
    return addresses;
  }

 private:
  Result<void> step(ByteView entry) {
    switch (le32_at(entry, 0)) {
      case UNUSED: return {};
      case ALLOCATE: return allocate(entry);
      case ADD_POINTER: return add_pointer(entry);
      case ADD_CHECKSUM: return add_checksum(entry);
      default: return error("command " + std::to_string(le32_at(entry, 0)) + "; known are 1, 2 and 3");
    }
  }

  Result<void> allocate(ByteView entry) {
    const std::string name = name_at(entry, 4);
    const Bytes* bytes = host_.file(name);
    if (bytes == nullptr) return error("no file " + name);
    const u64 gpa = host_.allocate(bytes->size(), le32_at(entry, 0x3c), static_cast<LoaderZone>(entry[0x40]));
    if (gpa == 0 || !ram_.write(gpa, bytes->data(), bytes->size()))
      return error("no room for the " + std::to_string(bytes->size()) + " bytes of " + name);
    files_[name] = {gpa, bytes->size()};
    return {};
  }

  Result<void> add_pointer(ByteView entry) {
    const auto dest = files_.find(name_at(entry, 4));
    const auto source = files_.find(name_at(entry, 0x3c));
    const u64 offset = le32_at(entry, 0x74);
    const u32 width = entry[0x78];
    if (dest == files_.end() || source == files_.end()) return error("a pointer between files that were not placed");
    if ((width != 1 && width != 2 && width != 4 && width != 8) || offset + width > dest->second.size)
      return error("a pointer outside " + dest->first);
    u8* field = ram_.at(dest->second.gpa + offset, width);
    set_le({field, width}, 0, width, le_at({field, width}, 0, width) + source->second.gpa);
    return {};
  }

  Result<void> add_checksum(ByteView entry) {
    const auto file = files_.find(name_at(entry, 4));
    const u64 result = le32_at(entry, 0x3c), start = le32_at(entry, 0x40), length = le32_at(entry, 0x44);
    if (file == files_.end()) return error("a checksum in a file that was not placed");
    if (start + length > file->second.size || result >= file->second.size)
      return error("a checksum outside " + file->first);
    u8* bytes = ram_.at(file->second.gpa, file->second.size);
    bytes[result] = static_cast<u8>(bytes[result] + checksum_of({bytes + start, length}));
    return {};
  }

  static std::string name_at(ByteView entry, u64 offset) {
    const auto begin = entry.begin() + static_cast<i64>(offset);
    return std::string(begin, std::find(begin, begin + NAME, 0));
  }

  const GuestMemory& ram_;
  const LoaderHost& host_;
  std::map<std::string, Placed> files_;
};

} // namespace

void LoaderScript::allocate(std::string_view file, u32 alignment, LoaderZone zone) {
  const u64 begin = script_.size();
  append_le(script_, 4, ALLOCATE);
  append_field(script_, file, NAME);
  append_le(script_, 4, alignment);
  append_le(script_, 1, static_cast<u8>(zone));
  finish(begin);
}

void LoaderScript::add_pointer(std::string_view dest, u32 offset, u8 width, std::string_view source) {
  const u64 begin = script_.size();
  append_le(script_, 4, ADD_POINTER);
  append_field(script_, dest, NAME);
  append_field(script_, source, NAME);
  append_le(script_, 4, offset);
  append_le(script_, 1, width);
  finish(begin);
}

void LoaderScript::add_checksum(std::string_view file, u32 result, u32 start, u32 length) {
  const u64 begin = script_.size();
  append_le(script_, 4, ADD_CHECKSUM);
  append_field(script_, file, NAME);
  append_le(script_, 4, result);
  append_le(script_, 4, start);
  append_le(script_, 4, length);
  finish(begin);
}

void LoaderScript::finish(u64 begin) { script_.resize(begin + ENTRY); }

Result<std::map<std::string, u64>> run_table_loader(const GuestMemory& ram, ByteView script, const LoaderHost& host) {
  return Interpreter(ram, host).run(script);
}

} // namespace transom::firmware
