#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("uart.so", "org.transom.uart16550")
