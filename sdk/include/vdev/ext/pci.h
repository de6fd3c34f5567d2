/* vdev.pci/1: a device with PCI functions. The host owns the header (00h–3Fh: IDs, command, status, BARs, interrupt
 * line and pin) and maps BARs; the device owns 40h–FFh. */
#ifndef VDEV_EXT_PCI_H
#define VDEV_EXT_PCI_H
#include "../vdev.h"
#define VDEV_PCI              "vdev.pci/1"
#define VDEV_PCI_ANY_SLOT     0xffffffffu
#define VDEV_BAR_IO           1u
#define VDEV_BAR_MEM32        2u
#define VDEV_BAR_PREFETCHABLE 0x100u
typedef struct vdev_pci_bar {
  uint32_t size;
  uint32_t index;  /* 0–5 */
  uint32_t region; /* of the descriptor, flagged VDEV_REGION_BAR; its length is a power of two */
  uint32_t type;   /* VDEV_BAR_* */
} vdev_pci_bar;
typedef struct vdev_pci_function {
  uint32_t size;
  uint32_t slot; /* a board chip's own place, or VDEV_PCI_ANY_SLOT */
  uint32_t function;
  uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
  uint32_t class_code; /* base << 16 | sub << 8 | interface */
  uint8_t revision, header_type, interrupt_pin /* 0 none, 1 INTA# */, reserved;
  uint16_t status; /* bits of the status register that read as one */
  uint16_t reserved2;
  uint32_t irq; /* which interrupt output drives the pin */
  const vdev_pci_bar* bars;
  uint32_t bar_count;
} vdev_pci_function;
typedef struct vdev_pci {
  uint32_t function_count;
  const vdev_pci_function* functions;
  /* [dispatch] `function` is an index into functions; offset 40h–FFh, naturally aligned, width 1, 2 or 4. */
  uint32_t (*read_config)(const vdev_device* device, uint32_t function, uint32_t offset, uint32_t width);
  void (*write_config)(const vdev_device* device, uint32_t function, uint32_t offset, uint32_t width, uint32_t value);
} vdev_pci;
#endif
