#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("pvpanic.so", "org.transom.pvpanic")
