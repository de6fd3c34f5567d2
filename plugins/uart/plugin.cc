#include "uart.hpp"

VDEV_PLUGIN(uart::Uart);
