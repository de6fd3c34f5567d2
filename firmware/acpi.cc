#include "firmware/acpi.hpp"

#include <algorithm>
#include <string_view>

#include "firmware/dsdt_aml.hpp" // generated from dsdt.asl: DSDT_AML
#include "firmware/table_loader.hpp"

namespace transom::firmware {
namespace {

constexpr u64 HEADER_LENGTH = 4;   // offset of a table's length (ACPI 1.0b, 5.2.3)
constexpr u64 HEADER_CHECKSUM = 9; // offset of its checksum
constexpr u64 FACS_SIZE = 64;      // also its alignment
constexpr std::string_view OEM_ID = "TRNSOM", OEM_TABLE_ID = "TRANSOM", CREATOR = "TRSM";

// Bits of DEVS in dsdt.asl.
enum Device : u32 { COM1 = 1, COM2 = 2, PS2 = 4, FLOPPY = 8, PVPANIC = 16 };

u32 devices_of(const MachineDescription& machine) {
  return (machine.serial[0] ? COM1 : 0u) | (machine.serial[1] ? COM2 : 0u) | (machine.ps2 ? PS2 : 0u) |
         (machine.floppy_present() ? FLOPPY : 0u) | (machine.pvpanic ? PVPANIC : 0u);
}

// Replaces the marker in Name (NAME, DWord): NameOp 08h, the name, DWordPrefix 0Ch, four bytes.
void patch_name(Bytes& aml, std::string_view name, u32 value) {
  Bytes pattern{0x08};
  append(pattern, name);
  pattern.push_back(0x0c);
  const auto at = std::search(aml.begin(), aml.end(), pattern.begin(), pattern.end());
  set_le(aml, static_cast<u64>(at - aml.begin()) + pattern.size(), 4, value);
}

class TablesBuilder {
 public:
  explicit TablesBuilder(const MachineDescription& machine) : machine_(machine) {}

  AcpiFiles build() {
    script_.allocate(ACPI_RSDP_FILE, 16, LoaderZone::f_segment);
    script_.allocate(ACPI_TABLES_FILE, FACS_SIZE, LoaderZone::high);
    const u32 facs = add_facs();
    const u32 dsdt = add_dsdt();
    const u32 fadt = add_fadt(facs, dsdt);
    const u32 madt = add_madt();
    const u32 rsdt = add_rsdt({fadt, madt});
    Bytes rsdp = make_rsdp(rsdt);
    return {std::move(rsdp), std::move(tables_), script_.bytes()};
  }

 private:
  u32 here() const { return static_cast<u32>(tables_.size()); }

  // Appends a header whose length and checksum end_table() fills in.
  u32 begin_table(std::string_view signature, u8 revision) {
    const u32 start = here();
    append(tables_, signature);
    append_le(tables_, 4, 0);
    append_le(tables_, 1, revision);
    append_le(tables_, 1, 0);
    append_field(tables_, OEM_ID, 6);
    append_field(tables_, OEM_TABLE_ID, 8);
    append_le(tables_, 4, 1);
    append_field(tables_, CREATOR, 4);
    append_le(tables_, 4, 1);
    return start;
  }
  // The checksum is the firmware's work, after all pointers inside the table.
  void end_table(u32 start) {
    const u32 length = here() - start;
    set_le(tables_, start + HEADER_LENGTH, 4, length);
    tables_[start + HEADER_CHECKSUM] = 0;
    script_.add_checksum(ACPI_TABLES_FILE, start + HEADER_CHECKSUM, start, length);
  }
  // A 32-bit field that will point at `target` inside the same file.
  void append_pointer(u32 target) {
    script_.add_pointer(ACPI_TABLES_FILE, here(), 4, ACPI_TABLES_FILE);
    append_le(tables_, 4, target);
  }

  u32 add_facs() {
    const u32 start = here();
    append(tables_, "FACS");
    append_le(tables_, 4, FACS_SIZE);
    tables_.resize(start + FACS_SIZE);
    return start;
  }

  u32 add_dsdt() {
    const u32 start = here();
    Bytes aml(std::begin(DSDT_AML), std::end(DSDT_AML));
    patch_name(aml, "RAMT", static_cast<u32>(machine_.low_ram));
    patch_name(aml, "CPUS", machine_.cpus);
    patch_name(aml, "DEVS", devices_of(machine_));
    append(tables_, aml);
    end_table(start);
    return start;
  }

  // ACPI 1.0b, 5.2.5.
  u32 add_fadt(u32 facs, u32 dsdt) {
    constexpr u32 WBINVD = 1 << 0, PROC_C1 = 1 << 2, SLP_BUTTON_IS_CONTROL = 1 << 5;
    const u32 start = begin_table("FACP", 1);
    append_pointer(facs);
    append_pointer(dsdt);
    append_le(tables_, 1, 1); // interrupt model: two 8259s present
    append_le(tables_, 1, 0);
    append_le(tables_, 2, SCI_IRQ);
    append_le(tables_, 4, 0xb2); // SMI_CMD
    append_le(tables_, 1, 0xf1); // ACPI enable
    append_le(tables_, 1, 0xf0); // ACPI disable
    append_le(tables_, 2, 0);    // no S4BIOS
    append_le(tables_, 4, PM_BASE);
    append_le(tables_, 4, 0); // PM1b event
    append_le(tables_, 4, PM_BASE + 4);
    append_le(tables_, 4, 0); // PM1b control
    append_le(tables_, 4, 0); // PM2 control
    append_le(tables_, 4, PM_BASE + 8);
    append_le(tables_, 4, 0xafe0);                  // GPE0
    append_le(tables_, 4, 0);                       // GPE1
    append(tables_, Bytes{4, 2, 0, 4, 4, 0, 0, 0}); // lengths: PM1 event, control, PM2, timer, GPE0, GPE1; GPE1 base
    append_le(tables_, 2, 0xfff);                   // C2 and C3 latency: not supported
    append_le(tables_, 2, 0xfff);
    append_le(tables_, 2, 0); // flush size and stride: WBINVD works
    append_le(tables_, 2, 0);
    append(tables_, Bytes{0, 0}); // duty offset, width
    append(tables_, Bytes{0, 0}); // day and month alarm: the MC146818 has neither
    append_le(tables_, 1, 0x32);  // century
    append_le(tables_, 3, 0);
    append_le(tables_, 4, WBINVD | PROC_C1 | SLP_BUTTON_IS_CONTROL); // the power button is the fixed one
    end_table(start);
    return start;
  }

  // ACPI 1.0 with the MADT of 2.0, 5.2.10.4.
  u32 add_madt() {
    constexpr u8 LOCAL_APIC = 0, IO_APIC = 1, OVERRIDE = 2, LOCAL_NMI = 4;
    constexpr u16 BUS_DEFAULT = 0, HIGH_LEVEL = 0xd;
    const u32 start = begin_table("APIC", 1);
    append_le(tables_, 4, LAPIC_BASE);
    append_le(tables_, 4, 1); // PCAT_COMPAT: the 8259s are there too
    for (u32 cpu = 0; cpu < machine_.cpus; ++cpu) {
      append(tables_, Bytes{LOCAL_APIC, 8, static_cast<u8>(cpu), static_cast<u8>(cpu)});
      append_le(tables_, 4, 1); // enabled
    }
    append(tables_, Bytes{IO_APIC, 12, 0, 0});
    append_le(tables_, 4, IOAPIC_BASE);
    append_le(tables_, 4, 0);
    const auto interrupt = [&](u8 irq, u32 gsi, u16 flags) {
      append(tables_, Bytes{OVERRIDE, 10, 0, irq});
      append_le(tables_, 4, gsi);
      append_le(tables_, 2, flags);
    };
    interrupt(0, 2, BUS_DEFAULT);
    for (const u8 irq : {u8{5}, u8{9}, u8{10}, u8{11}}) interrupt(irq, irq, HIGH_LEVEL); // PCI links and the SCI
    append(tables_, Bytes{LOCAL_NMI, 6, 0xff, 0, 0, 1});                                 // all CPUs, LINT1
    end_table(start);
    return start;
  }

  u32 add_rsdt(std::initializer_list<u32> entries) {
    const u32 start = begin_table("RSDT", 1);
    for (const u32 entry : entries) append_pointer(entry);
    end_table(start);
    return start;
  }

  // ACPI 1.0b, 5.2.1: revision 0, 20 bytes.
  Bytes make_rsdp(u32 rsdt) {
    Bytes rsdp;
    append(rsdp, "RSD PTR ");
    append_le(rsdp, 1, 0);
    append_field(rsdp, OEM_ID, 6);
    append_le(rsdp, 1, 0);
    script_.add_pointer(ACPI_RSDP_FILE, static_cast<u32>(rsdp.size()), 4, ACPI_TABLES_FILE);
    append_le(rsdp, 4, rsdt);
    script_.add_checksum(ACPI_RSDP_FILE, 8, 0, 20);
    return rsdp;
  }

  const MachineDescription& machine_;
  Bytes tables_;
  LoaderScript script_;
};

} // namespace

AcpiFiles build_acpi(const MachineDescription& machine) { return TablesBuilder(machine).build(); }

} // namespace transom::firmware
