// The board's chipset: i440FX host bridge (00:00.0), PIIX3 ISA bridge (00:01.0), PIIX4 power management (00:01.3).
//
// Models: PAM shadowing, PIRQ steering, ports 92h, CF9h, B2h–B3h, PM1 events with SCI, the PM timer, S5, power button.
// Missing: SMM and SMRAM's window, the SMBus host (its base is stored, nothing answers there), sleep states but S5,
// DRAM
//   geometry, ISA chip selects, device monitors and activity timers, GPE0 sources, the turbo reset register 93h.
// Ignored bits: everything the *_regs.hpp tables call stored without effect.
// Source: Intel data sheets 290549 (82441FX), 290550 (82371SB), 290562 (82371AB), from memory; "Observed on" lines say
//   where firmware or a kernel was the source.
#pragma once

#include "host_bridge_regs.hpp"
#include "isa_bridge_regs.hpp"
#include "power.hpp"

namespace piix {

struct State {
  std::array<u8, host_bridge::BANK.SIZE> host = host_bridge::BANK.reset();
  std::array<u8, isa_bridge::BANK.SIZE> isa = isa_bridge::BANK.reset();
  u8 port92 = 0, rcr = 0, apmc = 0, apms = 0;
  power::State power;

  bool valid() const { return host_bridge::BANK.valid(host) && isa_bridge::BANK.valid(isa) && power.valid(); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [host, isa, port92, rcr, apmc, apms, power] = s;
    f(1, "host", host);
    f(2, "isa", isa);
    f(3, "port92", port92, isa_bridge::port92::WRITABLE);
    f(4, "rcr", rcr, isa_bridge::rcr::WRITABLE);
    f(5, "apmc", apmc);
    f(6, "apms", apms);
    f(7, "power", power);
  }
};

enum Region : u32 { PORT92, CF9, APM, PM, GPE0 };
enum Function : u32 { HOST_BRIDGE, ISA_BRIDGE, POWER };

class Piix {
 public:
  using State = piix::State;
  State& state; // the host's memory

  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "port92", 0x92, 1, VDEV_WIDTH_1, 0},
                                            {sizeof(vdev_region), VDEV_SPACE_PIO, "cf9", 0xcf9, 1, VDEV_WIDTH_1, 0},
                                            {sizeof(vdev_region), VDEV_SPACE_PIO, "apm", 0xb2, 2, VDEV_WIDTH_1, 0},
                                            {sizeof(vdev_region), VDEV_SPACE_PIO, "pm", 0x600, power::IO_LENGTH,
                                             VDEV_WIDTH_1 | VDEV_WIDTH_2 | VDEV_WIDTH_4, VDEV_REGION_DISABLED},
                                            {sizeof(vdev_region), VDEV_SPACE_PIO, "gpe0", 0xafe0, 4, VDEV_WIDTH_1, 0}};
  static constexpr const char* irqs[] = {"sci"};
  static constexpr vdev_descriptor descriptor{
      sizeof(vdev_descriptor), 1, "org.transom.piix", "i440FX and PIIX", "Transom", "1.0.0", regions, 5, 1, irqs};

  // The subsystem ID is one that firmware knows the board by. Observed on SeaBIOS 1.16: without it, no fw_cfg.
  static constexpr u16 SUBSYSTEM_VENDOR = 0x1af4, SUBSYSTEM = 0x1100;
  static constexpr u32 NO_IRQ = ~0u; // SCI has a pin of its own; function 3 drives no INTA#
  static constexpr vdev_pci_function pci_functions[] = {
      {sizeof(vdev_pci_function), 0, 0, 0x8086, 0x1237, SUBSYSTEM_VENDOR, SUBSYSTEM, 0x060000, 2, 0x00, 0, 0, 0x0280, 0,
       NO_IRQ, nullptr, 0},
      {sizeof(vdev_pci_function), 1, 0, 0x8086, 0x7000, SUBSYSTEM_VENDOR, SUBSYSTEM, 0x060100, 0, 0x80, 0, 0, 0x0200, 0,
       NO_IRQ, nullptr, 0},
      {sizeof(vdev_pci_function), 1, 3, 0x8086, 0x7113, SUBSYSTEM_VENDOR, SUBSYSTEM, 0x068000, 3, 0x00, 1, 0, 0x0280, 0,
       NO_IRQ, nullptr, 0}};
  static constexpr u32 irq_inputs = 1; // 0: the power button, high while pressed

  Piix(State& s, const Host& host);
  void reset();
  u64 read(u32 region, u64 offset, u32 width);
  u64 peek(u32 region, u64 offset, u32 width) const;
  void write(u32 region, u64 offset, u32 width, u64 value);
  u32 read_config(u32 function, u32 offset, u32 width) const;
  void write_config(u32 function, u32 offset, u32 width, u32 value);
  void irq_in(u32 input, bool level);
  u64 next_event() const { return power::next_event(state.power); }
  void expire(u64 now) { power::advance(state.power, now); }
  void sync();

 private:
  void write_port92(u8 value);
  void write_rcr(u8 value);
  void write_apm(u64 offset, u8 value);
  void write_pm(u32 offset, u32 width, u32 value);
  void write_host_bridge(u32 offset, u8 value);
  void show_shadow();
  void show_routes();
  void show_pm_block();

  Clock clock_;
  Irq sci_;
  Wire wire_;
  MemoryMap memory_map_;
  IrqRoute irq_route_;
  Log log_;

  // What the board was last told, so that only changes go out. UNTOLD: nothing yet.
  static constexpr u32 UNTOLD = 0xfffffffe;
  struct Shown {
    std::array<u32, host_bridge::SHADOW.size()> shadow;
    std::array<u32, 4> routes;
    u32 pm_block, a20;
    Shown() : pm_block(UNTOLD), a20(UNTOLD) {
      shadow.fill(UNTOLD);
      routes.fill(UNTOLD);
    }
  } shown_;
};

} // namespace piix
