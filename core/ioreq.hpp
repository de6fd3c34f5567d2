// One I/O request of a vCPU, in the layout of Xen's public hvm/ioreq.h (`struct ioreq`, 32 bytes):
//
//   vCPU: fill in, STATE_IOREQ_READY → notify      server: INPROCESS → device → STATE_IORESP_READY → notify
//   vCPU: take the answer, STATE_IOREQ_NONE
//
// Xen puts state, data_is_ptr, dir and df into one byte; here that byte is one atomic and has named bits. What Xen's
// record has no room for (which device and region the router found, and an id for tracing) lies in IoreqSide, at the
// same index.
#pragma once

#include <atomic>

#include "core/types.hpp"

namespace transom {

enum class IoreqState : u8 { none = 0, ready = 1, in_process = 2, response_ready = 3 };

enum class IoreqType : u8 {
  pio = 0,        // IOREQ_TYPE_PIO
  mmio = 1,       // IOREQ_TYPE_COPY
  pci_config = 2, // IOREQ_TYPE_PCI_CONFIG
  // Transom's own:
  intack = 0x40,  // the acknowledge cycle of a PIC that lives in the server; the answer is the vector
  control = 0x41, // Control in `addr`; from the hypervisor's device thread only
};

enum class Control : u64 { reset = 1, pause = 2, resume = 3, drain = 4 };

struct Ioreq {
  static constexpr u8 DATA_IS_PTR = 0x10, READ = 0x20, BACKWARD = 0x40; // bits of `bits`, above the state

  u64 addr = 0;  // port, guest-physical address, or segment:bus:device:function:offset as in Xen
  u64 data = 0;  // value, or with DATA_IS_PTR the guest-physical address of the data
  u32 count = 0; // elements of a string instruction, else 1
  u32 size = 0;  // bytes of an element
  u32 vp_eport = 0;
  u16 pad = 0;
  std::atomic<u8> bits{0};
  u8 type = 0;

  IoreqState state(std::memory_order order = std::memory_order_acquire) const {
    return static_cast<IoreqState>(bits.load(order) & 0x0f);
  }
  void set_state(IoreqState state, u8 flags, std::memory_order order = std::memory_order_release) {
    bits.store(static_cast<u8>(static_cast<u8>(state) | (flags & 0xf0)), order);
  }
};
static_assert(sizeof(Ioreq) == 32);

struct IoreqSide {
  u64 request_id = 0; // counts up over all vCPUs of the domain; 0: never used
  u64 offset = 0;     // within the region (or the function's configuration space)
  u16 device = 0;     // index into the server's device table
  u16 region = 0;     // of the device; pci_config: which of its functions
  u32 reserved = 0;
};
static_assert(sizeof(IoreqSide) == 24);

// A write that nobody waits for, or news for a device that needs no answer. In order, 16 bytes each.
struct PostedRecord {
  enum Kind : u8 {
    write = 1,
    irq_in = 2, // offset: input; value: level
  };
  u8 kind = 0;
  u8 width = 0;
  u8 device = 0;
  u8 region = 0;
  u32 offset = 0;
  u64 value = 0;
};
static_assert(sizeof(PostedRecord) == 16);

} // namespace transom
