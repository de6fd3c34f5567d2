#include "piix.hpp"

VDEV_PLUGIN(piix::Piix);
