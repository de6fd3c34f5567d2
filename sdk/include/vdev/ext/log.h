/* vdev.host.log/1: text for the operator, rate-limited by the host. */
#ifndef VDEV_EXT_LOG_H
#define VDEV_EXT_LOG_H
#include "../vdev.h"
#define VDEV_HOST_LOG    "vdev.host.log/1"
#define VDEV_LOG_ERROR   1u
#define VDEV_LOG_WARNING 2u
#define VDEV_LOG_INFO    3u
#define VDEV_LOG_DEBUG   4u
typedef struct vdev_host_log {
  void (*write)(const vdev_host* host, uint32_t level, const char* text); /* [any] one line, without newline */
} vdev_host_log;
#endif
