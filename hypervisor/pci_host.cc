#include "hypervisor/pci_host.hpp"

#include <bit>
#include <cstring>

#include "vdev/ext/pci.h"

namespace transom {

namespace {
enum : u32 {
  VENDOR = 0,
  COMMAND = 4,
  STATUS = 6,
  REVISION = 8,
  CLASS = 9,
  CACHE_LINE = 0xc,
  LATENCY = 0xd,
  HEADER_TYPE = 0xe,
  BARS = 0x10,
  SUBSYSTEM = 0x2c,
  ROM_BAR = 0x30,
  INTERRUPT_LINE = 0x3c,
  INTERRUPT_PIN = 0x3d
}; // [PCI 2.1, 6.1]
constexpr u16 COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4;
constexpr u16 COMMAND_WRITABLE = 0x0547; // I/O, memory, master, parity, SERR#, INTx disable [6.2.2; PCI 2.3]

template <class T>
T get(const std::array<u8, 64>& header, u32 offset) {
  T value;
  std::memcpy(&value, header.data() + offset, sizeof value);
  return value;
}
template <class T>
void put(std::array<u8, 64>& header, u32 offset, T value) {
  std::memcpy(header.data() + offset, &value, sizeof value);
}
u32 type_bits(u32 type) {
  if ((type & 0xff) == VDEV_BAR_IO) return 1;
  return (type & VDEV_BAR_PREFETCHABLE) != 0 ? 8 : 0;
}
u32 address_mask(const PciFunction::Bar& bar) {
  if (bar.length == 0) return 0;
  return static_cast<u32>(~(bar.length - 1)) & ((bar.type & 0xff) == VDEV_BAR_IO ? ~3u : ~15u);
}
} // namespace

bool PciHost::add(u32 server, u16 device, u16 index, const SheetFunction& sheet, const DeviceSheet& device_sheet) {
  if (sheet.slot >= 32 || sheet.function >= 8 || by_devfn_[sheet.slot * 8 + sheet.function] != 0) return false;
  PciFunction f;
  f.server = server;
  f.device = device;
  f.index = index;
  f.slot = sheet.slot;
  f.function = sheet.function;
  f.interrupt_pin = sheet.interrupt_pin;
  f.irq = sheet.irq;
  put<u16>(f.header, VENDOR, sheet.vendor_id);
  put<u16>(f.header, VENDOR + 2, sheet.device_id);
  put<u16>(f.header, STATUS, sheet.status);
  put<u32>(f.header, REVISION, sheet.revision | sheet.class_code << 8);
  f.header[HEADER_TYPE] = sheet.header_type;
  put<u16>(f.header, SUBSYSTEM, sheet.subsystem_vendor_id);
  put<u16>(f.header, SUBSYSTEM + 2, sheet.subsystem_id);
  f.header[INTERRUPT_PIN] = sheet.interrupt_pin;
  for (u32 b = 0; b < sheet.bar_count && b < SHEET_BARS; ++b) {
    const SheetBar& bar = sheet.bars[b];
    if (bar.index >= SHEET_BARS || bar.region >= device_sheet.region_count || bar.region >= SHEET_REGIONS) return false;
    const u64 length = device_sheet.regions[bar.region].length;
    if (!std::has_single_bit(length) || length > 0x8000'0000) return false;
    f.bars[bar.index] = {bar.region, bar.type, length};
    put<u32>(f.header, BARS + 4 * bar.index, type_bits(bar.type));
  }
  functions_.push_back(f);
  reset_headers_.push_back(f.header);
  by_devfn_[sheet.slot * 8 + sheet.function] = static_cast<u16>(functions_.size());
  return true;
}

void PciHost::reset() {
  address_ = 0;
  for (size_t i = 0; i < functions_.size(); ++i) {
    functions_[i].header = reset_headers_[i];
    remap(functions_[i]);
  }
}

const PciFunction* PciHost::selected() const {
  if ((address_ & 0x8000'0000) == 0 || (address_ >> 16 & 0xff) != 0) return nullptr;
  const u16 index = by_devfn_[address_ >> 8 & 0xff];
  return index == 0 ? nullptr : &functions_[index - 1u];
}

u32 PciHost::header_read(const PciFunction& f, u32 offset, u32 width) const {
  u32 value = 0;
  std::memcpy(&value, f.header.data() + offset, width);
  return value;
}

void PciHost::header_write(const PciFunction& selected, u32 offset, u32 width, u32 value) {
  PciFunction& f = functions_[static_cast<size_t>(&selected - functions_.data())];
  const u16 command_before = get<u16>(f.header, COMMAND);
  bool bars_changed = false;
  for (u32 i = 0; i < width; ++i, value >>= 8) {
    const u32 at = offset + i;
    const u8 byte = static_cast<u8>(value);
    if (at == COMMAND || at == COMMAND + 1) {
      f.header[at] = byte & static_cast<u8>(COMMAND_WRITABLE >> (8 * (at - COMMAND)));
    } else if (at == STATUS + 1) {
      f.header[at] &= static_cast<u8>(~(byte & 0xf9)); // error bits: write one to clear [6.2.3]
    } else if (at == CACHE_LINE || at == LATENCY || at == INTERRUPT_LINE) {
      f.header[at] = byte;
    } else if (at >= BARS && at < BARS + 4 * SHEET_BARS) {
      const u32 n = (at - BARS) / 4, shift = at % 4 * 8;
      const u8 mask = static_cast<u8>(address_mask(f.bars[n]) >> shift);
      f.header[at] = static_cast<u8>((f.header[at] & ~mask) | (byte & mask));
      bars_changed = true;
    } // everything else is read-only
  }
  const u16 command = get<u16>(f.header, COMMAND);
  if (bars_changed || ((command ^ command_before) & (COMMAND_IO | COMMAND_MEMORY)) != 0) remap(f);
  if (((command ^ command_before) & COMMAND_MASTER) != 0) set_master_(f, (command & COMMAND_MASTER) != 0);
}

void PciHost::remap(PciFunction& f) {
  const u16 command = get<u16>(f.header, COMMAND);
  for (u32 n = 0; n < SHEET_BARS; ++n) {
    const PciFunction::Bar& bar = f.bars[n];
    if (bar.length == 0) continue;
    const bool io = (bar.type & 0xff) == VDEV_BAR_IO;
    const u64 base = get<u32>(f.header, BARS + 4 * n) & address_mask(bar);
    // A BAR at 0 or at its own sizing pattern is being set up, not used.
    const bool on = (command & (io ? COMMAND_IO : COMMAND_MEMORY)) != 0 && base != 0 && base != address_mask(bar) &&
                    (!io || base + bar.length <= 0x1'0000);
    map_bar_(f, bar.region, base, on);
  }
  set_master_(f, (command & COMMAND_MASTER) != 0);
}

} // namespace transom
