/* vdev.lifecycle/1: the domain is paused or goes on. vdev.inspect/1: look without touching. */
#ifndef VDEV_EXT_LIFECYCLE_H
#define VDEV_EXT_LIFECYCLE_H
#include "../vdev.h"
#define VDEV_LIFECYCLE "vdev.lifecycle/1"
typedef struct vdev_lifecycle {
  void (*pause)(const vdev_device* device);  /* [dispatch] */
  void (*resume)(const vdev_device* device); /* [dispatch] */
} vdev_lifecycle;
#define VDEV_INSPECT "vdev.inspect/1"
typedef struct vdev_inspect {
  /* [dispatch] What read() would answer, without its side effects. */
  vdev_status (*peek)(const vdev_device* device, uint32_t region, uint64_t offset, uint32_t width, uint64_t* value);
} vdev_inspect;
#endif
