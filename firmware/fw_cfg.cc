#include "firmware/fw_cfg.hpp"

#include <algorithm>
#include <utility>

namespace transom::firmware {
namespace {

constexpr u32 FEATURE_PORTS = 1, FEATURE_DMA = 2;
constexpr std::string_view DMA_SIGNATURE = "QEMU CFG"; // what 514h–51Bh read as, in address order

u32 all_ones(u32 width) { return width >= 4 ? ~u32{0} : (u32{1} << (8 * width)) - 1; }

// A 32-bit register that is big endian on a little-endian bus.
u32 swap32(u32 value) { return __builtin_bswap32(value); }

} // namespace

FwCfg::FwCfg(GuestMemory ram, CodePages* code, std::function<void(u8)> code_written)
    : ram_(ram), code_(code), code_written_(std::move(code_written)) {
  const std::string_view signature = "QEMU";
  set(KEY_SIGNATURE, Bytes(signature.begin(), signature.end()));
  set_number(KEY_FEATURES, 4, FEATURE_PORTS | FEATURE_DMA);
  rebuild_directory();
}

void FwCfg::set(u16 key, Bytes bytes) { items_[key & ~KEY_WRITE_CHANNEL].bytes = std::move(bytes); }

bool FwCfg::add_file(std::string_view name, Bytes bytes, bool writable) {
  if (name.empty() || name.size() > NAME_LENGTH) return false;
  const File* known = find(name);
  if (known == nullptr) {
    const u64 key = KEY_FIRST_FILE + files_.size();
    if (key > KEY_LAST_FILE) return false;
    files_.push_back({std::string(name), static_cast<u16>(key)});
    known = &files_.back();
  }
  items_[known->key] = {std::move(bytes), writable};
  rebuild_directory();
  return true;
}

// Directory: BE32 count, then 64 bytes a file: BE32 size, BE16 key, BE16 0, char name[56].
void FwCfg::rebuild_directory() {
  Bytes directory;
  append_be(directory, 4, files_.size());
  for (const File& file : files_) {
    append_be(directory, 4, items_[file.key].bytes.size());
    append_be(directory, 2, file.key);
    append_be(directory, 2, 0);
    append_field(directory, file.name, NAME_LENGTH + 1);
  }
  set(KEY_DIRECTORY, std::move(directory));
}

const FwCfg::File* FwCfg::find(std::string_view name) const {
  const auto at = std::find_if(files_.begin(), files_.end(), [&](const File& file) { return file.name == name; });
  return at == files_.end() ? nullptr : &*at;
}

const Bytes* FwCfg::item(u16 key) const {
  const auto at = items_.find(key);
  return at == items_.end() ? nullptr : &at->second.bytes;
}

const Bytes* FwCfg::file(std::string_view name) const {
  const File* known = find(name);
  return known == nullptr ? nullptr : item(known->key);
}

std::vector<std::string> FwCfg::file_names() const {
  std::vector<std::string> names;
  for (const File& file : files_) names.push_back(file.name);
  return names;
}

void FwCfg::select(u16 key) {
  state_.key = key & static_cast<u16>(~KEY_WRITE_CHANNEL);
  state_.offset = 0;
}

u64 FwCfg::remaining() const {
  const Bytes* bytes = item(state_.key);
  return bytes == nullptr || state_.offset >= bytes->size() ? 0 : bytes->size() - state_.offset;
}

// The next bytes of the item, then zeros. The offset stops at the item's end.
void FwCfg::read_data(std::span<u8> to) {
  const u64 taken = std::min<u64>(to.size(), remaining());
  if (taken != 0) {
    std::memcpy(to.data(), item(state_.key)->data() + state_.offset, taken);
    state_.offset += static_cast<u32>(taken);
  }
  if (taken < to.size()) std::memset(to.data() + taken, 0, to.size() - taken);
}

u32 FwCfg::read(u16 port, u32 width) {
  if (port == PORT_DATA && width == 1) {
    u8 byte = 0;
    read_data({&byte, 1});
    return byte;
  }
  if (port >= PORT_DMA_HIGH && port + width <= PORT_LAST + 1u)
    return static_cast<u32>(le_at(view(DMA_SIGNATURE), port - PORT_DMA_HIGH, width));
  return all_ones(width);
}

void FwCfg::write(u16 port, u32 width, u32 value) {
  if (port == PORT_SELECTOR && width == 2) {
    select(static_cast<u16>(value));
  } else if (port == PORT_DMA_HIGH && width == 4) {
    state_.dma_high = swap32(value);
  } else if (port == PORT_DMA_LOW && width == 4) {
    const u64 control_gpa = u64{std::exchange(state_.dma_high, 0)} << 32 | swap32(value);
    dma(control_gpa);
  }
}

// The control structure: BE32 control, BE32 length, BE64 address. Copied once; its control word is then set to 0, or to
// the error bit. Where that word is not RAM there is nobody to tell.
void FwCfg::dma(u64 control_gpa) {
  u8 request[16];
  if (!ram_.read(control_gpa, request, sizeof request)) {
    u8 error[4];
    set_be(error, 0, 4, CONTROL_ERROR);
    if (ram_.write(control_gpa, error, sizeof error)) dma_landed(control_gpa, sizeof error);
    return;
  }
  const u32 control = static_cast<u32>(be_at(request, 0, 4));
  const u32 length = static_cast<u32>(be_at(request, 4, 4));
  const u64 gpa = be_at(request, 8, 8);

  if (control & CONTROL_SELECT) select(static_cast<u16>(control >> 16));
  u8 result[4];
  set_be(result, 0, 4, dma_transfer(control, length, gpa) ? 0u : u32{CONTROL_ERROR});
  ram_.write(control_gpa, result, sizeof result);
  dma_landed(control_gpa, sizeof result);
}

// Read wins over write, write over skip, as in QEMU.
bool FwCfg::dma_transfer(u32 control, u32 length, u64 gpa) {
  if (control & CONTROL_READ) {
    if (length == 0) return true;
    u8* to = ram_.at(gpa, length);
    if (to == nullptr) return false;
    read_data({to, length});
    dma_landed(gpa, length);
    return true;
  }
  if (control & CONTROL_WRITE) {
    const auto at = items_.find(state_.key);
    if (at == items_.end() || !at->second.writable || length > remaining()) return false;
    if (length != 0 && !ram_.read(gpa, at->second.bytes.data() + state_.offset, length)) return false;
    state_.offset += length;
    return true;
  }
  if (control & CONTROL_SKIP) state_.offset += static_cast<u32>(std::min<u64>(length, remaining()));
  return true;
}

void FwCfg::dma_landed(u64 gpa, u64 length) {
  if (code_ == nullptr) return;
  if (const u8 vcpus = code_->wrote(gpa, length); vcpus != 0 && code_written_) code_written_(vcpus);
}

} // namespace transom::firmware
