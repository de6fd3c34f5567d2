/* vdev.host.memory-map/1: what a chipset changes in the address map. Takes effect before the guest's next instruction.
 */
#ifndef VDEV_EXT_MEMORY_MAP_H
#define VDEV_EXT_MEMORY_MAP_H
#include "../vdev.h"
#define VDEV_HOST_MEMORY_MAP "vdev.host.memory-map/1"
typedef struct vdev_host_memory_map {
  /* [dispatch] Shadow RAM (PAM) over [base, base + length), page-aligned, within C0000h–FFFFFh.
   * read: 1 = reads reach RAM, 0 = ROM or nothing. write: 1 = writes reach RAM, 0 = they vanish. */
  void (*set_shadow)(const vdev_host* host, uint64_t base, uint64_t length, uint32_t read, uint32_t write);
  /* [dispatch] Moves one of the device's own regions (not a BAR), or takes it off the bus. */
  void (*map_region)(const vdev_host* host, uint32_t region, uint64_t base, uint32_t enabled);
} vdev_host_memory_map;
#endif
