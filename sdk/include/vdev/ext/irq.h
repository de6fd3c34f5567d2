/* Interrupt outputs, inputs, and the acknowledge cycle.
 * vdev.host.irq/1: levels on the descriptor's interrupt outputs. An edge is two calls; the order is kept. */
#ifndef VDEV_EXT_IRQ_H
#define VDEV_EXT_IRQ_H
#include "../vdev.h"
#define VDEV_HOST_IRQ "vdev.host.irq/1"
typedef struct vdev_host_irq {
  void (*set_level)(const vdev_host* host, uint32_t irq, uint32_t level); /* [dispatch] level 0 or 1 */
} vdev_host_irq;

/* vdev.irq-in/1: an interrupt controller's inputs. */
#define VDEV_IRQ_IN "vdev.irq-in/1"
typedef struct vdev_irq_in {
  uint32_t (*count)(const vdev_device* device);                                 /* [any] */
  void (*set_level)(const vdev_device* device, uint32_t input, uint32_t level); /* [dispatch] */
} vdev_irq_in;

/* vdev.intack/1: the acknowledge cycle of an 8259-style controller. */
#define VDEV_INTACK "vdev.intack/1"
typedef struct vdev_intack {
  uint8_t (*acknowledge)(
      const vdev_device* device); /* [dispatch] the vector; a request that went away: the spurious one */
} vdev_intack;
#endif
