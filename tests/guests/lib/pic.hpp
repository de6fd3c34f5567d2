// The 8259A pair, as guests program it (Intel 231468-003).
#pragma once

#include "tests/guests/lib/guest.hpp"

namespace pic {

inline constexpr u16 MASTER = 0x20, SLAVE = 0xa0, ELCR = 0x4d0;
inline constexpr u8 BASE = 0x20; // vectors 20h–2Fh
enum : u8 { ICW1 = 0x10, IC4 = 1, SNGL = 2, LTIM = 8 };
enum : u8 { UPM = 1, AEOI = 2, SFNM = 0x10 }; // ICW4
enum : u8 { NONSPECIFIC = 0x20, SPECIFIC = 0x60, ROTATE = 0xa0, ROTATE_SPECIFIC = 0xe0, SET_PRIORITY = 0xc0 };
enum : u8 { ROTATE_AEOI_SET = 0x80, ROTATE_AEOI_CLEAR = 0x00 };
enum : u8 { READ_IRR = 0x0a, READ_ISR = 0x0b, POLL = 0x0c, SMM_SET = 0x68, SMM_CLEAR = 0x48 };

inline void start(u8 icw4_master = UPM, u8 icw4_slave = UPM) { // everything masked
  out8(MASTER, ICW1 | IC4), out8(SLAVE, ICW1 | IC4);
  out8(MASTER + 1, BASE), out8(SLAVE + 1, BASE + 8);
  out8(MASTER + 1, 4), out8(SLAVE + 1, 2);
  out8(MASTER + 1, icw4_master), out8(SLAVE + 1, icw4_slave);
  out8(MASTER + 1, 0xff), out8(SLAVE + 1, 0xff);
}
inline void mask(u16 irqs) { // 1: masked
  out8(MASTER + 1, static_cast<u8>(irqs)), out8(SLAVE + 1, static_cast<u8>(irqs >> 8));
}
inline void open(u16 irqs) { // only these, and the cascade where needed
  mask(static_cast<u16>(~(irqs | (irqs & 0xff00 ? 4 : 0))));
}
inline u8 irr(u16 chip) { return out8(chip, READ_IRR), in8(chip); }
inline u8 isr(u16 chip) { return out8(chip, READ_ISR), in8(chip); }
inline u8 poll(u16 chip) { return out8(chip, POLL), in8(chip); }
inline void end(u8 irq) { // of an interrupt that came by the normal way
  if (irq >= 8) out8(SLAVE, NONSPECIFIC);
  out8(MASTER, NONSPECIFIC);
}
inline void level_triggered(u16 irqs) { out8(ELCR, static_cast<u8>(irqs)), out8(ELCR + 1, static_cast<u8>(irqs >> 8)); }

// Counts interrupts by IRQ; the handler ends each one and keeps their order.
struct Log {
  volatile u32 count[16];
  volatile u8 order[64];
  volatile u32 total;
  void clear() {
    for (auto& c : count) c = 0;
    total = 0;
  }
};
inline Log log;
inline void (*before_end)(u8 irq) = nullptr; // quiets the device before the EOI

inline void on_irq(Frame& frame) {
  const u8 irq = static_cast<u8>(frame.vector - BASE);
  log.count[irq] = log.count[irq] + 1;
  if (log.total < sizeof log.order) log.order[log.total] = irq;
  log.total = log.total + 1;
  if (before_end != nullptr) before_end(irq);
  end(irq);
}
inline void handle_all() {
  for (u8 irq = 0; irq < 16; ++irq) handle(static_cast<u8>(BASE + irq), on_irq);
}
// Lets what is pending in. A line that went up may still be on its way to a PIC in another process; an access to that
// PIC comes behind it, so what was raised before let_in() is in before it returns.
inline void let_in() {
  for (u32 i = 0; i < 20; ++i) {
    in8(MASTER + 1);
    enable();
    disable();
  }
}

} // namespace pic
