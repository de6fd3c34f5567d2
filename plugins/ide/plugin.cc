#include "piix_ide.hpp"

VDEV_PLUGIN(ide::PiixIde);
