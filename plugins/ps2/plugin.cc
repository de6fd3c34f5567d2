#include "i8042.hpp"

VDEV_PLUGIN(ps2::I8042);
