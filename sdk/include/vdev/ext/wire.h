/* vdev.host.wire/1: the board's other wires. Requests take effect after the device call returned. */
#ifndef VDEV_EXT_WIRE_H
#define VDEV_EXT_WIRE_H
#include "../vdev.h"
#define VDEV_HOST_WIRE    "vdev.host.wire/1"
#define VDEV_WIRE_A20     1u /* level: 1 = address bit 20 passes. The board ORs all sources */
#define VDEV_WIRE_RESET   2u /* value: VDEV_RESET_* */
#define VDEV_WIRE_POWER   3u /* value 0: off (S5) */
#define VDEV_WIRE_SMI     4u
#define VDEV_WIRE_NMI     5u
#define VDEV_WIRE_PANIC   6u /* the guest reports that it crashed; value: 1 panicked, 2 crash kernel loaded */
#define VDEV_WIRE_EXIT    7u /* a test guest ends the run; value: what it wrote */
#define VDEV_RESET_SYSTEM 0u /* everything */
#define VDEV_RESET_INIT   1u /* INIT# to the processors, as port 92h and the keyboard controller do */
typedef struct vdev_host_wire {
  void (*set)(const vdev_host* host, uint32_t wire, uint32_t value); /* [dispatch] */
} vdev_host_wire;
#endif
