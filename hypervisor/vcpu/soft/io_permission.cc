// Who may use which port (SDM 1 19.5): IOPL, then the bitmap in the TSS.
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {

void check_io_permission(Cpu& cpu, u16 port, unsigned width) {
  if (real_mode(cpu) || (!vm86(cpu) && cpu.cpl <= iopl(cpu))) return;
  constexpr u32 BITMAP_POINTER = 0x66; // in the 32- and the 64-bit TSS alike
  const Segment& tss = cpu.tr;
  if (!tss.present() || !(tss.attr & 8) || tss.limit < BITMAP_POINTER + 1) raise(cpu, GP, 0);
  const u32 bitmap = read_system<u16>(cpu, table_address(cpu, tss.base + BITMAP_POINTER));
  // Always two bytes, so that an access across a byte boundary needs no second thought.
  const u32 at = bitmap + port / 8;
  if (at + 1 > tss.limit) raise(cpu, GP, 0);
  const u32 forbidden = read_system<u16>(cpu, table_address(cpu, tss.base + at));
  if (forbidden >> (port & 7) & ((1u << width) - 1)) raise(cpu, GP, 0);
}

} // namespace transom::soft
