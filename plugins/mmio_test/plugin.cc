#include "mmio_test.hpp"

VDEV_PLUGIN(mmio_test::MmioTest);
