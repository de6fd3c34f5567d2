// Any sequence of accesses, completions, faults, resets and moves. The disks are small, so that addresses hit them.
#include "vdev/testing/fuzz.hpp"

namespace {

vdev::testing::Options rig() {
  vdev::testing::Options options;
  options.drives = {vdev::testing::blank_disk(300), vdev::testing::blank_disk(64), vdev::testing::blank_disk(600)};
  options.drives[0].write_cache = true;
  options.drives[1].read_only = true;
  return options;
}

void prepare(vdev::testing::Bench& b) {
  b.cfg_write(0, 0x20, 4, 0xc000);
  b.cfg_write(0, 0x40, 4, 0x80008000);
  b.cfg_write(0, 0x04, 2, 0x0107);
}

const vdev::testing::Options options = rig();

} // namespace

VDEV_FUZZ("ide.so", "org.transom.piix-ide", options, prepare)
