#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("debug.so", "org.transom.debug")
