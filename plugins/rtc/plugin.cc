#include "mc146818.hpp"

VDEV_PLUGIN(rtc::Mc146818);
