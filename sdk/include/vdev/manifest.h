/* manifest.h: what a library promises, readable from its file without opening it.
 *
 * Section ".vdev.manifest" holds plain records, back to back, without pointers: first one vdev_manifest_header, then
 * record_count records that each start with {size, kind}. Unknown kinds are skipped by their size. Strings are
 * NUL-terminated within their array. All integers are little-endian. */
#ifndef VDEV_MANIFEST_H
#define VDEV_MANIFEST_H

#include <stdint.h>

#define VDEV_MANIFEST_SECTION ".vdev.manifest"
#define VDEV_MANIFEST_MAGIC   "VDEVMAN1"

typedef struct vdev_manifest_header {
  char magic[8];
  uint32_t size; /* of header and records together */
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t record_count;
  uint32_t reserved;
} vdev_manifest_header;

#define VDEV_MANIFEST_DEVICE 1u /* starts a device; the records after it belong to it */
#define VDEV_MANIFEST_REGION 2u
#define VDEV_MANIFEST_CONFIG 3u

typedef struct vdev_manifest_device {
  uint32_t size, kind;
  char id[64];
  char name[64];
  char vendor[32];
  char version[16];
  uint32_t state_version;
  uint32_t irq_count;
  uint32_t drive_count;  /* block drives it may ask for */
  uint32_t stream_count; /* byte streams it may ask for */
  uint32_t state_bytes;  /* limit of vdev.host.state-memory/1 */
  uint32_t pci_functions;
  uint64_t bulk_bytes; /* limit of vdev.host.bulk-memory/1, all buffers together */
} vdev_manifest_device;

typedef struct vdev_manifest_region {
  uint32_t size, kind;
  char name[32];
  uint32_t space, flags;
  uint64_t default_base, length;
  uint32_t widths, reserved;
} vdev_manifest_region;

/* Types of configuration values. */
#define VDEV_CONFIG_STRING  1u
#define VDEV_CONFIG_INTEGER 2u /* 0 … 2^63-1 */
#define VDEV_CONFIG_BOOLEAN 3u

typedef struct vdev_manifest_config {
  uint32_t size, kind;
  char key[32];
  uint32_t type; /* VDEV_CONFIG_* */
  uint32_t required;
  char default_value[64];    /* as text; empty: none */
  char help[128];            /* one sentence */
  uint64_t minimum, maximum; /* integers */
} vdev_manifest_config;

#endif
