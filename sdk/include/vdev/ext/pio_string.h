/* vdev.pio-string/1: a run of REP INS/OUTS on one port in one call. Where a device lacks it, the host loops. */
#ifndef VDEV_EXT_PIO_STRING_H
#define VDEV_EXT_PIO_STRING_H
#include "../vdev.h"
#define VDEV_PIO_STRING "vdev.pio-string/1"
typedef struct vdev_pio_string {
  /* [dispatch] `data` holds count * width bytes. The same effect as `count` single accesses at `offset`. */
  vdev_status (*read_run)(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint32_t count,
                          uint8_t* data);
  vdev_status (*write_run)(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint32_t count,
                           const uint8_t* data);
} vdev_pio_string;
#endif
