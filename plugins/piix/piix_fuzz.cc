#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("piix.so", "org.transom.piix")
