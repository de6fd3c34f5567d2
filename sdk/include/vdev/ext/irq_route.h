/* vdev.host.irq-route/1: steering of the four PCI interrupt links (PIRQA#–PIRQD#) to interrupt lines. */
#ifndef VDEV_EXT_IRQ_ROUTE_H
#define VDEV_EXT_IRQ_ROUTE_H
#include "../vdev.h"
#define VDEV_HOST_IRQ_ROUTE "vdev.host.irq-route/1"
#define VDEV_ROUTE_NONE     0xffffffffu
typedef struct vdev_host_irq_route {
  void (*set)(const vdev_host* host, uint32_t link,
              uint32_t line); /* [dispatch] link 0–3; line 0–15 or VDEV_ROUTE_NONE */
} vdev_host_irq_route;
#endif
