#include "hypervisor/memory_map.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file_descriptor.hpp"

namespace transom {

namespace {
constexpr u64 FOUR_GIB = 0x1'0000'0000;
constexpr u64 LEGACY_ROM = 0x2'0000; // of the image's end, under 1 MiB
} // namespace

MemoryMap::~MemoryMap() {
  if (rom_ != nullptr) ::munmap(rom_, rom_size_);
}

Result<void> MemoryMap::load_firmware(const std::string& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0) return error(fmt::format("firmware {}: {}", path, std::strerror(errno)));
  const u64 size = static_cast<u64>(st.st_size);
  if (!S_ISREG(st.st_mode) || size < 0x1'0000 || size > 0x100'0000 || size % PAGE_SIZE != 0)
    return error(
        fmt::format("firmware {}: has {} bytes; a PC firmware image is 64 KiB to 16 MiB in whole pages", path, size));
  void* const p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return error(fmt::format("firmware {}: no memory for {} bytes", path, size));
  rom_ = static_cast<u8*>(p);
  rom_size_ = size;
  for (u64 done = 0; done < size;) {
    const ssize_t n = ::pread(fd.get(), rom_ + done, size - done, static_cast<off_t>(done));
    if (n <= 0) return error(fmt::format("firmware {}: read {} of {} bytes", path, done, size));
    done += static_cast<u64>(n);
  }
  return {};
}

void MemoryMap::reset() {
  for (auto& segment : shadow_) segment.store(0, std::memory_order_relaxed);
}

void MemoryMap::set_shadow(u64 base, u64 length, bool read, bool write) {
  const u8 bits = static_cast<u8>((read ? READ_RAM : 0) | (write ? WRITE_RAM : 0));
  const u64 end = std::min(base + length, SHADOW_END);
  for (u64 at = std::max(base, SHADOW_BASE); at < end; at += SEGMENT)
    shadow_[(at - SHADOW_BASE) / SEGMENT].store(bits, std::memory_order_release);
}

u8* MemoryMap::rom_at(u64 gpa) const {
  if (rom_ == nullptr) return nullptr;
  if (gpa >= FOUR_GIB - rom_size_ && gpa < FOUR_GIB) return rom_ + (gpa - (FOUR_GIB - rom_size_));
  const u64 legacy = std::min(LEGACY_ROM, rom_size_);
  if (gpa >= SHADOW_END - legacy && gpa < SHADOW_END) return rom_ + rom_size_ - (SHADOW_END - gpa);
  return nullptr;
}

PhysPage MemoryMap::page(u64 gpa) const {
  gpa &= PAGE_MASK;
  const u64 index = gpa >> PAGE_SHIFT;
  u8* const ram = ram_.at(gpa, PAGE_SIZE);
  if (gpa >= VGA_WINDOW && gpa < SHADOW_BASE) return {}; // the display's window; RAM behind it is SMM's
  if (gpa < SHADOW_BASE || gpa >= SHADOW_END) {
    if (ram != nullptr) return {ram, ram, index};
    return {rom_at(gpa), nullptr, ~u64{0}};
  }
  const u8 bits = shadow_[(gpa - SHADOW_BASE) / SEGMENT].load(std::memory_order_acquire);
  const bool reads = (bits & READ_RAM) != 0;
  return {reads ? ram : rom_at(gpa), (bits & WRITE_RAM) != 0 ? ram : nullptr, reads ? index : ~u64{0}};
}

} // namespace transom
