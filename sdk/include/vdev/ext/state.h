/* State that the host owns.
 * vdev.host.state-memory/1 and vdev.host.bulk-memory/1: where registers and large buffers live.
 * vdev.state/1: the same registers as tagged integers, for snapshots, moves, upgrades and inspection. */
#ifndef VDEV_EXT_STATE_H
#define VDEV_EXT_STATE_H
#include "../vdev.h"
#define VDEV_STATE_MAX_BYTES   512u
#define VDEV_HOST_STATE_MEMORY "vdev.host.state-memory/1"
typedef struct vdev_host_state_memory {
  /* [control] Once, in create or init. `bytes` <= VDEV_STATE_MAX_BYTES, aligned to 64. *fresh = 1: zeroed, the device
   * puts its reset state there; 0: the value of an earlier incarnation of the same build lies there, already
   * range-checked. Null: refused. */
  void* (*memory)(const vdev_host* host, uint32_t bytes, uint32_t* fresh);
} vdev_host_state_memory;

#define VDEV_HOST_BULK_MEMORY "vdev.host.bulk-memory/1"
typedef struct vdev_host_bulk_memory {
  /* [control] Buffer `index` (0, 1, …) of `bytes`, zeroed when fresh. Within the manifest's bulk_bytes. Null: refused.
   */
  void* (*memory)(const vdev_host* host, uint32_t index, uint64_t bytes);
} vdev_host_bulk_memory;

typedef struct vdev_state_field {
  uint32_t size;
  uint32_t tag;     /* unique within the device, for ever */
  const char* name; /* "lcr", "rx.data" */
  uint32_t width;   /* bytes of an element: 1, 2, 4, 8 */
  uint32_t count;   /* elements */
  uint64_t maximum; /* of an element's value; a bool has 1 */
} vdev_state_field;
typedef struct vdev_state_sink {
  void* sink_data;
  vdev_status (*put)(const struct vdev_state_sink* sink, const vdev_state_field* field, const uint64_t* values);
} vdev_state_sink;
typedef struct vdev_state_source {
  void* source_data;
  /* VDEV_NOT_FOUND: the field keeps its reset value. VDEV_INVALID: a value beyond `maximum`; the load fails. */
  vdev_status (*get)(const struct vdev_state_source* source, const vdev_state_field* field, uint64_t* values);
} vdev_state_source;
#define VDEV_STATE "vdev.state/1"
typedef struct vdev_state {
  vdev_status (*save)(const vdev_device* device, const vdev_state_sink* sink); /* [dispatch] changes nothing */
  /* [dispatch] Parses to a fresh value, checks it, then replaces the state and derives outputs. On failure the state is
   * as before. */
  vdev_status (*load)(const vdev_device* device, uint32_t version, const vdev_state_source* source);
  /* [any] Whether `bytes` at `memory` are a state that load could have produced. */
  vdev_status (*check)(const vdev_device* device, const void* memory, uint32_t bytes);
} vdev_state;
#endif
