/* vdev.h: the device-model ABI. A device model is a shared library with one exported symbol, `vdev_entry`; a host loads
 * it, creates devices from it, and talks to them through the tables below.
 *
 * How it grows: vtables by extension id, records by their leading `size`; nothing else ever changes.
 *
 * Rules (a host checks them in debug builds):
 *  1. Three symbolic threads: [control], [dispatch] (never two at once for one device, may be any OS thread), [any].
 *  2. No re-entry: a host call made inside a device call never calls back into that device and never waits for another
 *     process. Its effect is queued and commits together with the device's state when the device call returns.
 *  3. The caller owns memory. Pointers live until the call returns, descriptors as long as the library. Arrays of
 *     records are walked by the element's own `size`; missing trailing fields read as zero.
 *  4. Guest memory only by copying (vdev.host.dma/1), or by naming guest addresses in a request that the host fulfils.
 *     DMA reaches RAM only, never device RAM or registers.
 *  5. The host legalises width, alignment and range against vdev_region.widths; no device sees a straddling access.
 *  6. Fixed-width integers only: no bool, enum, size_t, bit-field, errno, FILE, exception or C++ type crosses.
 *  7. A guest's nonsense is no status: the device answers as the chip would. A negative status means that the device
 *     itself is broken; the host quarantines it.
 *  8. State is saved as tagged integers with a maximum, never by memcpy of a struct.
 *  9. Every asynchronous operation carries {generation, tag}. Reset bumps the generation; the host drops stale
 *     completions.
 * 10. Every entry has a step budget; what remains is rescheduled. Every queue has a fixed size.
 */
#ifndef VDEV_VDEV_H
#define VDEV_VDEV_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VDEV_ABI_MAJOR 1u
#define VDEV_ABI_MINOR 0u

typedef int32_t
    vdev_status; /* 0 ok, < 0 from this list; an unknown negative is read as VDEV_FAILED. Text goes to the log */
#define VDEV_OK          0
#define VDEV_FAILED      (-1) /* anything else */
#define VDEV_INVALID     (-2) /* an argument or a configuration value is outside what is accepted */
#define VDEV_UNSUPPORTED (-3) /* a needed extension or feature is missing */
#define VDEV_NO_MEMORY   (-4)
#define VDEV_BUS_ERROR   (-5) /* DMA outside RAM, or bus mastering is off */
#define VDEV_BUSY        (-6) /* queue full; try again after the next completion */
#define VDEV_NOT_FOUND   (-7) /* no such key, field or drive */
#define VDEV_IO_ERROR    (-8) /* the medium failed; nothing or part was transferred */
#define VDEV_NO_SPACE    (-9) /* the backing store is full */
#define VDEV_READ_ONLY   (-10)

/* Address spaces of a region. */
#define VDEV_SPACE_PIO  1u
#define VDEV_SPACE_MMIO 2u

/* Access widths in bytes, a mask. A wider access is split into the largest accepted width, in ascending order. A
 * narrower read takes its bytes from the aligned accepted read around it; a narrower write is dropped and counted. */
#define VDEV_WIDTH_1 1u
#define VDEV_WIDTH_2 2u
#define VDEV_WIDTH_4 4u
#define VDEV_WIDTH_8 8u

/* Region flags. */
#define VDEV_REGION_BAR      1u /* has no base until a PCI BAR maps it (vdev.pci/1) */
#define VDEV_REGION_DISABLED 2u /* not mapped until the device maps it (vdev.host.memory-map/1) */

typedef struct vdev_region {
  uint32_t size;         /* of this record */
  uint32_t space;        /* VDEV_SPACE_* */
  const char* name;      /* unique within the device */
  uint64_t default_base; /* a host may place it elsewhere; the device sees offsets only */
  uint64_t length;       /* bytes */
  uint32_t widths;       /* VDEV_WIDTH_* mask */
  uint32_t flags;        /* VDEV_REGION_* */
} vdev_region;

typedef struct vdev_descriptor {
  uint32_t size;
  uint32_t state_version; /* of the saved state; raised when a field changes its meaning */
  const char* id;         /* reverse domain name, unique: "org.transom.uart16550" */
  const char* name;
  const char* vendor;
  const char* version;
  const vdev_region* regions;
  uint32_t region_count;
  uint32_t irq_count;
  const char* const* irq_names; /* interrupt outputs; the board decides where they lead */
} vdev_descriptor;

typedef struct vdev_host {
  void* host_data;
  const void* (*get_extension)(const struct vdev_host* host, const char* id); /* [any] null: not offered */
} vdev_host;

typedef struct vdev_device {
  void* device_data;
  /* [control] The host may be used from here on. It counts as [dispatch] too: the device sets its outputs here. */
  vdev_status (*init)(const struct vdev_device* device);
  void (*destroy)(const struct vdev_device* device); /* [control] no call into the host after it returns */
  void (*reset)(const struct vdev_device* device);   /* [dispatch] */
  vdev_status (*read)(const struct vdev_device* device, uint32_t region, uint64_t offset, uint32_t width,
                      uint64_t* value); /* [dispatch] */
  vdev_status (*write)(const struct vdev_device* device, uint32_t region, uint64_t offset, uint32_t width,
                       uint64_t value);                                           /* [dispatch] */
  const void* (*get_extension)(const struct vdev_device* device, const char* id); /* [any] null: not supported */
} vdev_device;

#define VDEV_FACTORY "vdev.factory/1"
typedef struct vdev_factory {
  uint32_t (*count)(void);                                             /* [any] */
  const vdev_descriptor* (*descriptor)(uint32_t index);                /* [any] null past the end */
  const vdev_device* (*create)(const vdev_host* host, const char* id); /* [control] null: unknown id or no memory */
} vdev_factory;

typedef struct vdev_entry_t {
  uint32_t abi_major; /* must equal the host's */
  uint32_t abi_minor;
  vdev_status (*init)(const char* path); /* [control] once, before anything else; the library's own path */
  void (*deinit)(void);                  /* [control] once, after the last device is destroyed */
  const void* (*get_factory)(const char* factory_id);
} vdev_entry_t;

#if defined(__GNUC__)
#define VDEV_EXPORT __attribute__((visibility("default")))
#else
#define VDEV_EXPORT
#endif

/* The only exported symbol. Opening a library runs its constructors, so a host reads ABI version and manifest from the
 * ELF file (manifest.h) before it opens it. */
extern VDEV_EXPORT const vdev_entry_t vdev_entry;

#ifdef __cplusplus
}
#endif
#endif
