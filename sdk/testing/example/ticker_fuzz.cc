#include "vdev/testing/fuzz.hpp"

VDEV_FUZZ("ticker.so", "org.transom.example.ticker")
