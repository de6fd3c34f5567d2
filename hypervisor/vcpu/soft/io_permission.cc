// Who may use which port (SDM 1 19.5): IOPL, then the bitmap in the TSS. Who watches it.
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

// Port breakpoints, DR7 type 2 with CR4.DE (SDM 3B 17.2.4): a trap behind the instruction.
void watch_port(Cpu& cpu, u16 port, unsigned width) {
  if (!(cpu.cr4 & CR4_DE)) return;
  for (unsigned n = 0; n < 4; ++n) {
    static constexpr u8 LENGTH[4] = {1, 2, 8, 4};
    const u64 length = LENGTH[cpu.dr[7] >> (18 + 4 * n) & 3], first = cpu.dr[n] & ~(length - 1);
    const bool on = (cpu.dr[7] >> (2 * n) & 3) && (cpu.dr[7] >> (16 + 4 * n) & 3) == 2;
    if (on && port < first + length && first < u64{port} + width) cpu.pending_debug |= u64{1} << n;
  }
}

} // namespace transom::soft
