// PCI configuration mechanism #1 (PCI Local Bus specification 2.1, section 3.7.4.1) and the configuration headers of
// all functions on bus 0. Headers (00h–3Fh) live here, so that BAR sizing, command bits and interrupt line registers
// are done once for every device; 40h–FFh belong to the device and are asked for through `Device` callbacks.
//
// Board lock held for everything but the device's own registers.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "core/server_page.hpp"
#include "core/types.hpp"

namespace transom {

struct PciFunction {
  u32 server = 0;
  u16 device = 0;
  u16 index = 0; // which of the device's functions
  u32 slot = 0, function = 0;
  u8 interrupt_pin = 0;
  u32 irq = 0; // the device's interrupt output behind the pin
  std::array<u8, 64> header{};
  struct Bar {
    u32 region = 0, type = 0;
    u64 length = 0;
  };
  std::array<Bar, SHEET_BARS> bars{};
};

class PciHost {
 public:
  // Called when a BAR's mapping changed: where it is now, and whether it decodes.
  using MapBar = std::function<void(const PciFunction&, u32 region, u64 base, bool enabled)>;
  using SetMaster = std::function<void(const PciFunction&, bool enabled)>;
  PciHost(MapBar map_bar, SetMaster set_master) : map_bar_(std::move(map_bar)), set_master_(std::move(set_master)) {}

  // False: slot and function are taken, or outside the bus.
  bool add(u32 server, u16 device, u16 index, const SheetFunction& sheet, const DeviceSheet& device_sheet);
  void reset();

  // CONFIG_ADDRESS, CF8h: a dword register; anything narrower is not it.
  u32 address() const { return address_; }
  void set_address(u32 value) { address_ = value & 0x80ff'fffc; }

  // What CONFIG_DATA refers to: null when nothing decodes (reads all ones). `offset` is of the access itself.
  const PciFunction* selected() const;
  u32 register_offset(u32 data_port) const { return (address_ & 0xfc) | (data_port & 3); }

  u32 header_read(const PciFunction& f, u32 offset, u32 width) const;
  void header_write(const PciFunction& f, u32 offset, u32 width, u32 value);

 private:
  void remap(PciFunction& f);

  MapBar map_bar_;
  SetMaster set_master_;
  std::vector<PciFunction> functions_;
  std::vector<std::array<u8, 64>> reset_headers_;
  std::array<u16, 256> by_devfn_{}; // index + 1
  u32 address_ = 0;
};

} // namespace transom
