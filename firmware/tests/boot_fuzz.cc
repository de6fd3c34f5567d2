// libFuzzer target: any bytes as a kernel file, the first of them choosing command line and initrd.
#include "firmware/boot_kernel.hpp"
#include "firmware/tests/guest_ram.hpp"

using namespace transom;
using namespace transom::firmware;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, size_t size) {
  static GuestRam guest(u64{64} << 20);
  static const DirectTables tables = place_tables(guest.ram, MachineDescription(guest.ram)).value();
  if (size == 0) return 0;
  DirectBoot boot;
  boot.kernel.assign(data + 1, data + size);
  boot.initrd.resize((data[0] & 0x0f) * 1000u);
  boot.cmdline.assign((data[0] >> 4) * 200u, 'c');
  const auto state = load_kernel(guest.ram, boot, tables);
  if (state && state->rip >= GuestMemory::HIGH_BASE) __builtin_trap();
  if (!state && state.error().text.empty()) __builtin_trap();
  return 0;
}
