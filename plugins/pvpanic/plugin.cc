#include "pvpanic.hpp"

VDEV_PLUGIN(pvpanic::Pvpanic);
