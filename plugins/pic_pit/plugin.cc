#include "pic_pit.hpp"

VDEV_PLUGIN(pic_pit::PicPit);
