/* vdev.host.block/1: drives behind the device, read and written asynchronously. vdev.block-done/1: the completions. */
#ifndef VDEV_EXT_BLOCK_H
#define VDEV_EXT_BLOCK_H
#include "../vdev.h"
#define VDEV_HOST_BLOCK          "vdev.host.block/1"
#define VDEV_SECTOR_BYTES        512u
#define VDEV_BLOCK_MAX_SEGMENTS  64u
#define VDEV_BLOCK_MAX_IN_FLIGHT 32u /* a device, all its drives together; beyond it: VDEV_BUSY */

#define VDEV_BLOCK_READ    1u
#define VDEV_BLOCK_WRITE   2u
#define VDEV_BLOCK_FLUSH   3u /* every write completed before it was submitted is durable when it completes */
#define VDEV_BLOCK_DISCARD 4u
#define VDEV_BLOCK_FUA     0x100u /* flag on WRITE: durable at completion */

#define VDEV_SEGMENT_GUEST 0u /* address: guest-physical. RAM only */
#define VDEV_SEGMENT_BULK  1u /* address: buffer index << 32 | byte offset in the device's bulk memory */
typedef struct vdev_segment {
  uint64_t address;
  uint32_t length; /* bytes, a multiple of 2 */
  uint32_t kind;
} vdev_segment;

typedef struct vdev_block_request {
  uint32_t size;
  uint32_t op;  /* VDEV_BLOCK_*, with flags */
  uint64_t tag; /* the device's own; comes back with the completion */
  uint64_t sector;
  uint64_t bytes; /* multiple of VDEV_SECTOR_BYTES; the segments' lengths add up to it (READ, WRITE) */
  const vdev_segment* segments;
  uint32_t segment_count; /* <= VDEV_BLOCK_MAX_SEGMENTS */
  uint32_t reserved;
} vdev_block_request;

#define VDEV_DRIVE_ABSENT 0u
#define VDEV_DRIVE_DISK   1u
#define VDEV_DRIVE_CDROM  2u
#define VDEV_DRIVE_FLOPPY 3u
typedef struct vdev_block_info {
  uint32_t size;
  uint32_t kind; /* VDEV_DRIVE_* */
  uint64_t sectors;
  uint32_t read_only;
  uint32_t write_cache; /* 1: a completed write may be lost by power failure until a flush */
  uint32_t medium;      /* 0: empty tray */
  uint32_t synchronous; /* 1: the device shall complete transfers before it returns to the guest (an experiment) */
  char serial[20];      /* not NUL-terminated when full */
} vdev_block_info;

typedef struct vdev_host_block {
  vdev_status (*info)(const vdev_host* host, uint32_t drive, vdev_block_info* info); /* [dispatch], [control] */
  /* [dispatch] The request is copied. Completion comes in a later entry, never inside this call. */
  vdev_status (*submit)(const vdev_host* host, uint32_t drive, const vdev_block_request* request);
  /* [dispatch] Completions of everything submitted so far to `drive` will not be delivered any more. The requests
   * themselves may still finish, but memory is not touched after the host has confirmed the cancellation. */
  void (*cancel)(const vdev_host* host, uint32_t drive);
} vdev_host_block;

#define VDEV_BLOCK_DONE "vdev.block-done/1"
typedef struct vdev_block_done {
  void (*done)(const vdev_device* device, uint32_t drive, uint64_t tag, vdev_status status,
               uint64_t bytes);                                      /* [dispatch] */
  void (*medium_changed)(const vdev_device* device, uint32_t drive); /* [dispatch] info() has changed; may be null */
} vdev_block_done;
#endif
