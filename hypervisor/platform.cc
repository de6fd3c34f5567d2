#include "hypervisor/platform.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "vdev/ext/posted.h"

namespace transom {

namespace {
constexpr u64 ones(u32 width) { return width >= 8 ? ~u64{0} : (u64{1} << (width * 8)) - 1; }
bool is_pci_port(u16 port) { return (port & ~7u) == 0xcf8; }
} // namespace

Platform::Platform(u32 vcpu, const DomainMemory& memory, Board& board, firmware::FwCfg& fw_cfg, Turns* turns)
    : vcpu_(vcpu),
      memory_(memory),
      clock_(memory.clock()),
      board_(board),
      fw_cfg_(fw_cfg),
      turns_(turns),
      shared_(memory.page().vcpus[vcpu]),
      event_(memory.vcpu_event(vcpu)) {}

// ---------------------------------------------------------------------------------------------------- devices

// The effects of the call, and of anything else that this server committed meanwhile, before the next instruction.
void Platform::after_call(u32 server) {
  if (board_.link(server).effects_waiting()) {
    const auto held = board_.lock();
    board_.settle();
  }
  board_.finish_deasserts();
}

// The board lock, at a moment when the device (placed here) may be entered.
Board::Lock Platform::lock_for(u16 local_device) {
  auto held = board_.lock();
  while (board_.local().draining(local_device) && memory_.page().state.load() != DomainState::stopped) {
    held.unlock();
    std::this_thread::yield();
    held.lock();
  }
  return held;
}

u64 Platform::device_read(const Claim& claim, IoreqType type, u64 address, u32 width) {
  const u64 offset = address - claim.base.load(std::memory_order_relaxed);
  if (claim.server == SERVER_HYPERVISOR) {
    u64 value = 0;
    {
      const auto held = lock_for(claim.device);
      board_.local().page().devices[claim.device].counters.local.fetch_add(1, std::memory_order_relaxed);
      value = board_.local().read(claim.device, claim.region, offset, width);
      board_.settle();
    }
    board_.finish_deasserts();
    return value;
  }
  const u64 value =
      board_.link(claim.server)
          .call(vcpu_, {type, claim.device, claim.region, offset, address, width, 1, 0, Ioreq::READ}, event_);
  after_call(claim.server);
  return value & ones(width);
}

// What was posted to a device comes before the EOI of its interrupt.
void Platform::flush_posted() {
  for (u32 s = 0; s < board_.server_count(); ++s) board_.link(s).flush_posted();
}

void Platform::device_write(const Claim& claim, IoreqType type, u64 address, u32 width, u64 value) {
  const u64 offset = address - claim.base.load(std::memory_order_relaxed);
  if (claim.server == SERVER_HYPERVISOR) {
    if (board_.is_pic(claim.server, claim.device)) flush_posted(); // it may be an EOI
    {
      const auto held = lock_for(claim.device);
      board_.local().page().devices[claim.device].counters.local.fetch_add(1, std::memory_order_relaxed);
      board_.local().write(claim.device, claim.region, offset, width, value);
      board_.settle();
    }
    return board_.finish_deasserts();
  }
  if (post(claim, offset, width, value)) return;
  board_.link(claim.server)
      .call(vcpu_, {type, claim.device, claim.region, offset, address, width, 1, value, 0}, event_);
  after_call(claim.server);
}

// A write that its device declared as one that nobody waits for (vdev.posted/1).
bool Platform::post(const Claim& claim, u64 offset, u32 width, u64 value) {
  const DeviceSheet& sheet = memory_.server(claim.server).devices[claim.device].sheet;
  const u32 count = std::min(sheet.posted_count, SHEET_POSTED);
  for (u32 i = 0; i < count; ++i) {
    const SheetPosted& range = sheet.posted[i];
    if (range.region != claim.region || offset < range.offset || offset + width > range.offset + range.length) continue;
    board_.link(claim.server)
        .post({PostedRecord::write, static_cast<u8>(width), static_cast<u8>(claim.device),
               static_cast<u8>(claim.region), static_cast<u32>(offset), value},
              (range.flags & VDEV_POSTED_DOORBELL) != 0);
    return true;
  }
  return false;
}

// ---------------------------------------------------------------------------------------------------- ports

u32 Platform::fw_cfg_read(u16 port, u32 width) {
  const auto held = board_.lock();
  return fw_cfg_.read(port, width);
}

void Platform::fw_cfg_write(u16 port, u32 width, u32 value) {
  const auto held = board_.lock();
  fw_cfg_.write(port, width, value);
}

u32 Platform::byte_read(u16 port) {
  const Claim* claim = board_.router().port(port, 1);
  if (claim == nullptr) {
    count(ExitCause::unclaimed_read);
    return 0xff;
  }
  if (claim->owner == Claim::Owner::fw_cfg) return fw_cfg_read(port, 1);
  return static_cast<u32>(device_read(*claim, IoreqType::pio, port, 1));
}

void Platform::byte_write(u16 port, u8 value) {
  const Claim* claim = board_.router().port(port, 1);
  if (claim == nullptr) return count(ExitCause::unclaimed_write);
  if (claim->owner == Claim::Owner::fw_cfg) return fw_cfg_write(port, 1, value);
  device_write(*claim, IoreqType::pio, port, 1, value);
}

u32 Platform::pio_read(u16 port, u32 width) {
  count(ExitCause::pio_read);
  if (is_pci_port(port)) return pci_read(port, width);
  if (const Claim* claim = board_.router().port(port, width)) {
    if (claim->owner == Claim::Owner::fw_cfg) return fw_cfg_read(port, width);
    return static_cast<u32>(device_read(*claim, IoreqType::pio, port, width));
  }
  u32 value = 0; // over the border of a region: byte by byte, as an ISA bus would
  for (u32 i = 0; i < width; ++i) value |= byte_read(static_cast<u16>(port + i)) << (8 * i);
  return value;
}

void Platform::pio_write(u16 port, u32 width, u32 value) {
  count(ExitCause::pio_write);
  if (is_pci_port(port)) return pci_write(port, width, value);
  if (const Claim* claim = board_.router().port(port, width)) {
    if (claim->owner == Claim::Owner::fw_cfg) return fw_cfg_write(port, width, value);
    return device_write(*claim, IoreqType::pio, port, width, value);
  }
  for (u32 i = 0; i < width; ++i) byte_write(static_cast<u16>(port + i), static_cast<u8>(value >> (8 * i)));
}

// ---------------------------------------------------------------------------------------------------- string I/O

void Platform::pio_run(const PioRun& run) {
  count(ExitCause::pio_run);
  const Claim* claim = is_pci_port(run.port) ? nullptr : board_.router().port(run.port, run.width);
  const u64 first = run.backward ? run.gpa - u64{run.count - 1} * run.width : run.gpa;
  const PhysPage page = board_.memory_map().page(first);
  // The device host reads and writes RAM by guest-physical address, so that must be what the guest sees there.
  const bool in_ram = page.ram_page != ~u64{0} && (!run.in || page.write == page.read);
  if (claim == nullptr || !in_ram || claim->owner != Claim::Owner::device) return run_by_elements(run);
  device_run(*claim, run);
}

void Platform::device_run(const Claim& claim, const PioRun& run) {
  const u64 offset = run.port - claim.base.load(std::memory_order_relaxed);
  if (claim.server == SERVER_HYPERVISOR) {
    const auto held = lock_for(claim.device);
    const DeviceHost::Run r{run.width, run.count, run.gpa, run.backward};
    board_.local().page().devices[claim.device].counters.runs.fetch_add(1, std::memory_order_relaxed);
    if (run.in)
      board_.local().read_run(claim.device, claim.region, offset, r);
    else
      board_.local().write_run(claim.device, claim.region, offset, r);
    board_.settle();
    return;
  }
  const u8 flags =
      static_cast<u8>(Ioreq::DATA_IS_PTR | (run.in ? Ioreq::READ : 0) | (run.backward ? Ioreq::BACKWARD : 0));
  board_.link(claim.server)
      .call(vcpu_, {IoreqType::pio, claim.device, claim.region, offset, run.port, run.width, run.count, run.gpa, flags},
            event_);
  after_call(claim.server);
}

void Platform::run_by_elements(const PioRun& run) {
  CodePages code = memory_.code();
  for (u32 i = 0; i < run.count; ++i) {
    const u64 gpa = run.backward ? run.gpa - u64{i} * run.width : run.gpa + u64{i} * run.width;
    const PhysPage page = board_.memory_map().page(gpa);
    const u64 within = gpa % PAGE_SIZE;
    if (run.in) {
      const u32 value = pio_read(run.port, run.width);
      if (page.write == nullptr) {
        mmio_write(gpa, run.width, value);
      } else {
        std::memcpy(page.write + within, &value, run.width);
        memory_.page().memory_written(code, gpa, run.width);
      }
    } else {
      u32 value = 0;
      if (page.read == nullptr)
        value = static_cast<u32>(mmio_read(gpa, run.width));
      else
        std::memcpy(&value, page.read + within, run.width);
      pio_write(run.port, run.width, value);
    }
  }
}

// ---------------------------------------------------------------------------------------------------- PCI
// configuration

u32 Platform::pci_read(u16 port, u32 width) {
  if (port == 0xcf8 && width == 4) {
    const auto held = board_.lock();
    return board_.pci().address();
  }
  if (port < 0xcfc) { // CF9h is the chipset's reset control; nothing else is narrower than the address register
    u32 value = 0;
    for (u32 i = 0; i < width; ++i) value |= byte_read(static_cast<u16>(port + i)) << (8 * i);
    return value;
  }
  count(ExitCause::pci_config);
  auto held = board_.lock();
  const PciFunction* f = board_.pci().selected();
  const u32 offset = board_.pci().register_offset(port);
  if (f == nullptr || (offset & 3) + width > 4) return static_cast<u32>(ones(width));
  if (offset < 0x40) return board_.pci().header_read(*f, offset, width);
  if (f->server == SERVER_HYPERVISOR) {
    const u32 value = board_.local().config_read(f->device, f->index, offset, width);
    board_.settle();
    return value;
  }
  const PciFunction function = *f;
  held.unlock();
  const u64 value = board_.link(function.server)
                        .call(vcpu_,
                              {IoreqType::pci_config, function.device, function.index, offset,
                               u64{function.slot << 3 | function.function} << 32 | offset, width, 1, 0, Ioreq::READ},
                              event_);
  after_call(function.server);
  return static_cast<u32>(value & ones(width));
}

void Platform::pci_write(u16 port, u32 width, u32 value) {
  if (port == 0xcf8 && width == 4) {
    const auto held = board_.lock();
    board_.pci().set_address(value);
    return;
  }
  if (port < 0xcfc) {
    for (u32 i = 0; i < width; ++i) byte_write(static_cast<u16>(port + i), static_cast<u8>(value >> (8 * i)));
    return;
  }
  count(ExitCause::pci_config);
  auto held = board_.lock();
  const PciFunction* f = board_.pci().selected();
  const u32 offset = board_.pci().register_offset(port);
  if (f == nullptr || (offset & 3) + width > 4) return;
  if (offset < 0x40) {
    board_.pci().header_write(*f, offset, width, value);
    return board_.settle();
  }
  if (f->server == SERVER_HYPERVISOR) {
    board_.local().config_write(f->device, f->index, offset, width, value);
    return board_.settle();
  }
  const PciFunction function = *f;
  held.unlock();
  board_.link(function.server)
      .call(vcpu_,
            {IoreqType::pci_config, function.device, function.index, offset,
             u64{function.slot << 3 | function.function} << 32 | offset, width, 1, value, 0},
            event_);
  after_call(function.server);
}

// ---------------------------------------------------------------------------------------------------- memory-mapped
// I/O

// The APIC pages take aligned dwords; what else they are asked reads as zero [SDM 3A 10.4.1].
u64 Platform::apic_read(u64 gpa, u32 width, bool& mine) {
  const auto held = board_.lock();
  Lapic& lapic = board_.lapic(vcpu_);
  mine = true;
  if (board_.has_apics() && lapic.enabled() && (gpa & PAGE_MASK) == (lapic.base() & PAGE_MASK)) {
    const u32 offset = static_cast<u32>(gpa % PAGE_SIZE);
    const u64 value = u64{lapic.read(offset & ~15u)} >> (offset % 16 * 8 & 31);
    board_.settle(); // a register that does not exist is an error, which may interrupt
    return offset % 16 < 4 ? value & ones(width) : 0;
  }
  if ((gpa & PAGE_MASK) == Ioapic::BASE) return board_.ioapic().read(gpa % PAGE_SIZE) & ones(width);
  mine = false;
  return 0;
}

bool Platform::apic_write(u64 gpa, u32 width, u64 value) {
  constexpr u32 EOI = 0xb0;
  auto held = board_.lock();
  Lapic& lapic = board_.lapic(vcpu_);
  if (board_.has_apics() && lapic.enabled() && (gpa & PAGE_MASK) == (lapic.base() & PAGE_MASK)) {
    if (gpa % PAGE_SIZE == EOI) { // what was posted to a device comes before the EOI of its interrupt
      held.unlock();
      flush_posted();
      held.lock();
      board_.settle();
    }
    if (width == 4 && gpa % 16 == 0) lapic.write(static_cast<u32>(gpa % PAGE_SIZE), static_cast<u32>(value));
  } else if ((gpa & PAGE_MASK) == Ioapic::BASE) {
    board_.write_ioapic(gpa % PAGE_SIZE, static_cast<u32>(value));
  } else {
    return false;
  }
  board_.settle();
  return true;
}

u64 Platform::mmio_read(u64 gpa, u32 width) {
  count(ExitCause::mmio_read);
  bool apic = false;
  const u64 value = apic_read(gpa, width, apic);
  if (apic) return value;
  const Claim* claim = nullptr;
  {
    const auto held = board_.lock();
    claim = board_.router().mmio(gpa, width);
  }
  if (claim != nullptr) return device_read(*claim, IoreqType::mmio, gpa, width);
  count(ExitCause::unclaimed_read);
  return ones(width);
}

void Platform::mmio_write(u64 gpa, u32 width, u64 value) {
  count(ExitCause::mmio_write);
  if (apic_write(gpa, width, value)) return;
  const Claim* claim = nullptr;
  {
    const auto held = board_.lock();
    claim = board_.router().mmio(gpa, width);
  }
  if (claim != nullptr) return device_write(*claim, IoreqType::mmio, gpa, width, value);
  count(ExitCause::unclaimed_write);
}

// ---------------------------------------------------------------------------------------------------- the core's own

int Platform::interrupt_acknowledge() {
  auto held = board_.lock();
  return board_.acknowledge(vcpu_, held);
}

void Platform::interrupt_ended(u8 vector) {
  flush_posted(); // as before an EOI that comes here itself
  const auto held = board_.lock();
  board_.settle();
  board_.end_of_interrupt(vector);
  board_.settle();
}

u8 Platform::cr8_read() {
  const auto held = board_.lock();
  return board_.lapic(vcpu_).tpr() >> 4;
}

void Platform::cr8_write(u8 value) {
  const auto held = board_.lock();
  board_.lapic(vcpu_).set_tpr(static_cast<u8>(value << 4));
  board_.settle();
}

u64 Platform::apic_base_read() {
  const auto held = board_.lock();
  return board_.lapic(vcpu_).base();
}

bool Platform::apic_base_write(u64 value) {
  const auto held = board_.lock();
  const bool legal = board_.lapic(vcpu_).set_base(value);
  board_.settle();
  return legal;
}

bool Platform::tsc_write(u64 value) {
  tsc_offset_ = value - clock_.now();
  return true;
}

u64 Platform::hypercall(u64, const u64 (&)[6], bool long_mode) {
  count(ExitCause::hypercall);
  const u64 answer = static_cast<u64>(-i64{ENOSYS});
  return long_mode ? answer : static_cast<u32>(answer);
}

} // namespace transom
