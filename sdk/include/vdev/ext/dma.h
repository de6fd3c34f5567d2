/* vdev.host.dma/1: copies to and from guest RAM. Anything but RAM, or a PCI function whose bus-master bit is clear, is
 * VDEV_BUS_ERROR and nothing is copied. A copy may be up to 1 MiB. */
#ifndef VDEV_EXT_DMA_H
#define VDEV_EXT_DMA_H
#include "../vdev.h"
#define VDEV_HOST_DMA "vdev.host.dma/1"
typedef struct vdev_host_dma {
  vdev_status (*read)(const vdev_host* host, uint64_t address, void* buffer, uint32_t length);        /* [dispatch] */
  vdev_status (*write)(const vdev_host* host, uint64_t address, const void* buffer, uint32_t length); /* [dispatch] */
} vdev_host_dma;
#endif
