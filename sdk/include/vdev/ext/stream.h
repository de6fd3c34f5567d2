/* vdev.host.stream/1: byte streams (a serial line, a debug console). vdev.stream/1: the device's receiving end. */
#ifndef VDEV_EXT_STREAM_H
#define VDEV_EXT_STREAM_H
#include "../vdev.h"
#define VDEV_HOST_STREAM "vdev.host.stream/1"
typedef struct vdev_host_stream {
  uint32_t (*write)(const vdev_host* host, uint32_t stream, const uint8_t* bytes,
                    uint32_t length);                            /* [dispatch] how many were taken */
  uint32_t (*connected)(const vdev_host* host, uint32_t stream); /* [dispatch] 0: bytes go nowhere */
} vdev_host_stream;
#define VDEV_STREAM "vdev.stream/1"
typedef struct vdev_stream {
  uint32_t (*room)(const vdev_device* device, uint32_t stream); /* [dispatch] how many bytes receive() takes now */
  void (*receive)(const vdev_device* device, uint32_t stream, const uint8_t* bytes,
                  uint32_t length); /* [dispatch] length <= room() */
  void (*writable)(const vdev_device* device,
                   uint32_t stream); /* [dispatch] after a short write: try again; may be null */
} vdev_stream;
#endif
