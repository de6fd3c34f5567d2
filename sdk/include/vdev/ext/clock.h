/* Time. vdev.host.clock/1: the domain's clock, in nanoseconds; it stands still while the domain is paused.
 * vdev.timer/1: the device's next deadline, as a pure function of its state; the host asks after every entry. */
#ifndef VDEV_EXT_CLOCK_H
#define VDEV_EXT_CLOCK_H
#include "../vdev.h"
#define VDEV_HOST_CLOCK "vdev.host.clock/1"
typedef struct vdev_host_clock {
  uint64_t (*now)(const vdev_host* host); /* [dispatch] ns since the domain's clock started; never goes back */
  int64_t (*calendar)(
      const vdev_host* host); /* [dispatch] ns since 1970-01-01 (UTC, or local time if so configured) at now() */
} vdev_host_clock;

#define VDEV_TIMER "vdev.timer/1"
#define VDEV_NEVER UINT64_MAX
typedef struct vdev_timer {
  uint64_t (*next_event)(const vdev_device* device); /* [dispatch] host clock, or VDEV_NEVER; changes nothing */
  void (*expire)(const vdev_device* device,
                 uint64_t now); /* [dispatch] now >= next_event; may come late, never early */
} vdev_timer;
#endif
