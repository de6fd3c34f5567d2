/* vdev.host.config/1: the values of the device's configuration keys, as its manifest declares them. */
#ifndef VDEV_EXT_CONFIG_H
#define VDEV_EXT_CONFIG_H
#include "../vdev.h"
#define VDEV_HOST_CONFIG "vdev.host.config/1"
typedef struct vdev_host_config {
  /* [control] VDEV_NOT_FOUND: not given and no default. The text lives until destroy returns. */
  vdev_status (*get_string)(const vdev_host* host, const char* key, const char** value);
  vdev_status (*get_integer)(const vdev_host* host, const char* key, uint64_t* value); /* booleans are 0 or 1 */
} vdev_host_config;
#endif
