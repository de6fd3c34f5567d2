#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("rtc.so", "org.transom.rtc")
