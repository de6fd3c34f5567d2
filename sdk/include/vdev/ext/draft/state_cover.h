/* vdev.state-cover/1: for tests. The offset of the first byte of the state that counts and is not among the saved
 * fields, or -1. */
#ifndef VDEV_EXT_DRAFT_STATE_COVER_H
#define VDEV_EXT_DRAFT_STATE_COVER_H
#include "../../vdev.h"
#define VDEV_STATE_COVER "vdev.state-cover/1"
typedef struct vdev_state_cover {
  int64_t (*first_unlisted)(void); /* [any] */
} vdev_state_cover;
#endif
