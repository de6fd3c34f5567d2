#include "debug.hpp"

VDEV_PLUGIN(debug::Debug);
