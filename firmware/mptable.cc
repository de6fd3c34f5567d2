#include "firmware/mptable.hpp"

namespace transom::firmware {
namespace {

enum Entry : u8 { PROCESSOR = 0, BUS = 1, IOAPIC = 2, IO_INTERRUPT = 3, LOCAL_INTERRUPT = 4 };
enum InterruptType : u8 { INT = 0, NMI = 1, EXTINT = 3 };
constexpr u8 PCI_BUS = 0, ISA_BUS = 1, ALL_CPUS = 0xff;
constexpr u16 BUS_DEFAULT = 0, HIGH_LEVEL = 0xd;
constexpr u64 FLOATING = 16;

struct Table {
  Bytes bytes;
  u16 entries = 0;

  void processor(u8 apic_id) {
    const u8 flags = apic_id == 0 ? 3 : 1; // enabled; the first is the boot processor
    add(Bytes{PROCESSOR, apic_id, 0x14, flags});
    append_le(bytes, 4, 0x600);       // family 6; CPUID says better
    append_le(bytes, 4, 0x0000'0201); // FPU and APIC
    append_le(bytes, 8, 0);
  }
  void bus(u8 id, std::string_view name) {
    add(Bytes{BUS, id});
    append_field(bytes, name, 6, ' ');
  }
  void ioapic() {
    add(Bytes{IOAPIC, 0, 0x11, 1});
    append_le(bytes, 4, IOAPIC_BASE);
  }
  void interrupt(Entry kind, InterruptType type, u16 flags, u8 bus, u8 bus_irq, u8 apic, u8 pin) {
    add(Bytes{kind, type});
    append_le(bytes, 2, flags);
    append(bytes, Bytes{bus, bus_irq, apic, pin});
  }

 private:
  void add(const Bytes& head) {
    append(bytes, head);
    ++entries;
  }
};

// PCI: slot and pin lead to one of four links as dsdt.asl's _PRT says; the routes are those of direct_boot_ports().
void add_pci_interrupts(Table& table) {
  static constexpr u8 LINK_IRQ[4] = {11, 10, 10, 11}; // D, A, B, C
  for (u8 slot = 0; slot < 32; ++slot) {
    for (u8 pin = 0; pin < 4; ++pin) {
      const bool power_management = slot == 1 && pin == 0;
      const u8 irq = power_management ? u8{SCI_IRQ} : LINK_IRQ[(slot + pin) % 4];
      table.interrupt(IO_INTERRUPT, INT, HIGH_LEVEL, PCI_BUS, static_cast<u8>(slot << 2 | pin), 0, irq);
    }
  }
}

// ISA IRQ n is pin n, but the timer comes by pin 2; IRQs 5, 9, 10 and 11 belong to PCI.
void add_interrupts(Table& table) {
  for (u8 irq = 0; irq < 16; ++irq) {
    if (irq == 2 || irq == 5 || (irq >= 9 && irq <= 11)) continue;
    table.interrupt(IO_INTERRUPT, INT, BUS_DEFAULT, ISA_BUS, irq, 0, irq == 0 ? u8{2} : irq);
  }
  table.interrupt(LOCAL_INTERRUPT, EXTINT, BUS_DEFAULT, ISA_BUS, 0, ALL_CPUS, 0);
  table.interrupt(LOCAL_INTERRUPT, NMI, BUS_DEFAULT, ISA_BUS, 0, ALL_CPUS, 1);
}

} // namespace

Bytes build_mptable(const MachineDescription& machine, u32 address) {
  Table table;
  append(table.bytes, "PCMP");
  append_le(table.bytes, 2, 0);     // length
  append(table.bytes, Bytes{4, 0}); // revision 1.4, checksum
  append_field(table.bytes, "TRANSOM", 8, ' ');
  append_field(table.bytes, "i440FX", 12, ' ');
  append_le(table.bytes, 4, 0); // no OEM table
  append_le(table.bytes, 2, 0);
  append_le(table.bytes, 2, 0); // entries
  append_le(table.bytes, 4, LAPIC_BASE);
  append_le(table.bytes, 4, 0); // no extension
  for (u32 cpu = 0; cpu < machine.cpus; ++cpu) table.processor(static_cast<u8>(cpu));
  table.bus(PCI_BUS, "PCI");
  table.bus(ISA_BUS, "ISA");
  table.ioapic();
  add_pci_interrupts(table);
  add_interrupts(table);
  set_le(table.bytes, 4, 2, table.bytes.size());
  set_le(table.bytes, 34, 2, table.entries);
  table.bytes[7] = checksum_of(table.bytes);

  Bytes all;
  append(all, "_MP_");
  append_le(all, 4, address + FLOATING);
  append(all, Bytes{1, 4, 0, 0, 0, 0, 0, 0}); // 16 bytes, 1.4, checksum, features: configuration present, no IMCR
  all[10] = checksum_of(all);
  append(all, table.bytes);
  return all;
}

} // namespace transom::firmware
