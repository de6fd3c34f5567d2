/* vdev.posted/1: writes that nobody waits for. Such a write may change no wire, no memory map and no memory that the
 * guest can see before the queue is drained; the host drains it, in order, before any other access to the device. */
#ifndef VDEV_EXT_POSTED_H
#define VDEV_EXT_POSTED_H
#include "../vdev.h"
#define VDEV_POSTED          "vdev.posted/1"
#define VDEV_POSTED_DOORBELL 1u /* wakes the host; without it the write waits for the next access */
typedef struct vdev_posted_range {
  uint32_t size;
  uint32_t region;
  uint64_t offset, length;
  uint32_t flags;
  uint32_t reserved;
} vdev_posted_range;
typedef struct vdev_posted {
  uint32_t range_count;
  const vdev_posted_range* ranges;
} vdev_posted;
#endif
