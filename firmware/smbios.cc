#include "firmware/smbios.hpp"

#include <algorithm>

namespace transom::firmware {
namespace {

constexpr u64 MIB = 1 << 20, GIB = 1 << 30;

// One structure after another: formatted part, then its strings, numbered from 1, then an empty string.
class Structures {
 public:
  void begin(u8 type, u16 handle) {
    start_ = bytes_.size();
    strings_.clear();
    append(bytes_, Bytes{type, 0});
    append_le(bytes_, 2, handle);
  }
  void number(u32 width, u64 value) { append_le(bytes_, width, value); }
  void raw(ByteView bytes) { append(bytes_, bytes); }
  void text(std::string_view text) {
    if (text.empty()) return number(1, 0);
    append(strings_, text);
    strings_.push_back(0);
    number(1, static_cast<u64>(std::count(strings_.begin(), strings_.end(), 0)));
  }
  void end() {
    const u64 length = bytes_.size() - start_;
    bytes_[start_ + 1] = static_cast<u8>(length);
    append(bytes_, strings_);
    if (strings_.empty()) bytes_.push_back(0);
    bytes_.push_back(0);
    largest_ = std::max(largest_, bytes_.size() - start_);
    ++count_;
  }

  const Bytes& bytes() const { return bytes_; }
  u64 count() const { return count_; }
  u64 largest() const { return largest_; }

 private:
  Bytes bytes_, strings_;
  u64 start_ = 0, count_ = 0, largest_ = 0;
};

void add_bios(Structures& s) { // type 0
  s.begin(0, 0x0000);
  s.text("Transom");
  s.text("direct boot");
  s.number(2, 0xf000);
  s.text("01/01/2026");
  s.number(1, 0);                       // ROM size: 64 KiB
  s.number(8, 1 << 3);                  // characteristics: not supported
  s.raw(Bytes{0x00, 0x14});             // extension 2, bits 2 and 4: targeted content, virtual machine
  s.raw(Bytes{0xff, 0xff, 0xff, 0xff}); // no release numbers
  s.end();
}

void add_system(Structures& s, const MachineDescription& machine) { // type 1
  s.begin(1, 0x0100);
  s.text("Transom");
  s.text(machine.name);
  s.text("i440FX + PIIX");
  s.text("");
  // From version 2.6 on the first three fields of the UUID are little endian.
  static constexpr u8 ORDER[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  for (const u8 from : ORDER) s.number(1, machine.uuid[from]);
  s.number(1, 6); // wake-up: power switch
  s.text("");
  s.text("");
  s.end();
}

void add_chassis(Structures& s) { // type 3
  s.begin(3, 0x0300);
  s.text("Transom");
  s.number(1, 1); // other
  s.text("");
  s.text("");
  s.text("");
  s.raw(Bytes{3, 3, 3, 2});    // boot-up, power supply and thermal state: safe; security: unknown
  s.number(4, 0);              // OEM
  s.raw(Bytes{0, 0, 0, 0, 0}); // height, power cords, contained elements, their length, SKU
  s.end();
}

void add_processor(Structures& s, u32 cpu) { // type 4
  s.begin(4, static_cast<u16>(0x0400 + cpu));
  s.text("CPU " + std::to_string(cpu));
  s.raw(Bytes{3, 1}); // central processor, family: other
  s.text("Transom");
  s.number(8, 0); // CPUID says better
  s.text("");
  s.raw(Bytes{0, 0, 0, 0, 0}); // voltage, external clock, maximum speed: unknown
  s.raw(Bytes{0, 0, 0x41, 1}); // current speed; populated and enabled; upgrade: other
  for (int cache = 0; cache < 3; ++cache) s.number(2, 0xffff);
  s.text("");
  s.text("");
  s.text("");
  s.raw(Bytes{1, 1, 1}); // cores, enabled cores, threads
  s.number(2, 2);        // characteristics: unknown
  s.number(2, 1);        // family 2
  s.end();
}

void add_memory(Structures& s, const MachineDescription& machine) { // types 16, 17, 19
  const u64 total = machine.low_ram + machine.high_ram;
  s.begin(16, 0x1000);
  s.raw(Bytes{1, 3, 3}); // other location, system memory, no error correction
  const bool extended = total >= 2048 * GIB;
  s.number(4, extended ? 0x8000'0000 : total / 1024);
  s.number(2, 0xfffe); // no error information
  s.number(2, 1);      // devices
  s.number(8, extended ? total : 0);
  s.end();

  s.begin(17, 0x1100);
  s.number(2, 0x1000);
  s.number(2, 0xfffe);
  s.number(2, 0xffff); // widths: unknown
  s.number(2, 0xffff);
  const u64 mib = total / MIB;
  s.number(2, std::min<u64>(mib, 0x7fff));
  s.raw(Bytes{9, 0}); // DIMM, no set
  s.text("DIMM 0");
  s.text("");
  s.number(1, 7); // RAM
  s.number(2, 2); // other
  s.number(2, 0);
  s.text("Transom");
  s.text("");
  s.text("");
  s.text("");
  s.number(1, 0);
  s.number(4, mib >= 0x7fff ? mib : 0);
  s.number(2, 0); // speed and voltages: unknown
  s.number(6, 0);
  s.end();

  const auto mapped = [&](u16 handle, u64 base, u64 length) {
    s.begin(19, handle);
    const bool wide = (base + length - 1) / 1024 >= 0xffff'ffff;
    s.number(4, wide ? 0xffff'ffff : base / 1024);
    s.number(4, wide ? 0xffff'ffff : (base + length - 1) / 1024);
    s.number(2, 0x1000);
    s.number(1, 1);
    s.number(8, wide ? base : 0);
    s.number(8, wide ? base + length - 1 : 0);
    s.end();
  };
  mapped(0x1300, 0, machine.low_ram);
  if (machine.high_ram != 0) mapped(0x1301, GuestMemory::HIGH_BASE, machine.high_ram);
}

void add_boot_and_end(Structures& s) { // types 32, 127
  s.begin(32, 0x2000);
  s.number(6, 0);
  s.number(1, 0); // no errors
  s.end();
  s.begin(127, 0x7f00);
  s.end();
}

Bytes make_anchor(const Structures& s) {
  Bytes anchor;
  append(anchor, "_SM_");
  append_le(anchor, 1, 0); // checksum
  append(anchor, Bytes{31, 2, 8});
  append_le(anchor, 2, s.largest());
  append_le(anchor, 1, 0); // entry point revision
  append_le(anchor, 5, 0);
  append(anchor, "_DMI_");
  append_le(anchor, 1, 0); // checksum of what follows "_DMI_"
  append_le(anchor, 2, s.bytes().size());
  append_le(anchor, 4, 0); // address
  append_le(anchor, 2, s.count());
  append_le(anchor, 1, 0x28); // BCD revision
  return anchor;
}

} // namespace

Smbios build_smbios(const MachineDescription& machine, SmbiosBios bios) {
  Structures s;
  if (bios == SmbiosBios::direct) add_bios(s);
  add_system(s, machine);
  add_chassis(s);
  for (u32 cpu = 0; cpu < machine.cpus; ++cpu) add_processor(s, cpu);
  add_memory(s, machine);
  add_boot_and_end(s);
  Smbios smbios{make_anchor(s), s.bytes()};
  smbios_place(smbios.anchor, 0);
  return smbios;
}

void smbios_place(Bytes& anchor, u32 tables_address) {
  set_le(anchor, 0x18, 4, tables_address);
  anchor[0x15] = 0;
  anchor[0x15] = checksum_of(ByteView(anchor).subspan(0x10, 15));
  anchor[4] = 0;
  anchor[4] = checksum_of(anchor);
}

} // namespace transom::firmware
