#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("pic_pit.so", "org.transom.pic-pit")
