// What holds for every device, on this one: with both channels decoded, and drives that make something happen.
#include "ide_bench.hpp"
#include "vdev/testing/properties.hpp"

namespace ide::test {
namespace {

Options rig() {
  Options options = drives({disk(600), disk(64), disk(300)});
  options.drives[1].read_only = true;
  return options;
}

// Firmware's settings, and a descriptor table that the bus masters find.
void prepare(Bench& b) {
  b.cfg_write(0, 0x20, 4, 0xc000);
  b.cfg_write(0, 0x40, 4, 0x80008000);
  b.cfg_write(0, 0x04, 2, 0x0107);
  const Prd regions[] = {{0x2000, 100, 0}, {0x3000, 924, 0}, {0x4000, 0x4000, 0x8000}};
  std::memcpy(b.host.ram.data() + TABLE, regions, sizeof regions);
  for (u64 channel = 0; channel < 2; ++channel) b.out(4, 8 * channel + bm::TABLE, 4, TABLE);
  b.out(0, LBA_HIGH, 1, 0), b.out(0, DEVICE, 1, 0xe0), b.out(2, DEVICE, 1, 0xe0);
}

VDEV_PROPERTIES(PiixIde, "ide.so", "org.transom.piix-ide", .bench = rig(), .prepare = prepare,
                .read_only = {{4, 1}, {4, 3}, {4, 9}, {4, 11}}, .schema = "ide.schema");

} // namespace
} // namespace ide::test
