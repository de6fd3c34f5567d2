#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("mmio_test.so", "org.transom.mmio-test")
