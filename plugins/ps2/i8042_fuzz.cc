#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("ps2.so", "org.transom.ps2")
