// PC16550D UART with FIFOs, as a PC wires it to a serial line that is a byte stream.
// Models:  both FIFOs, trigger levels, character timeout, every interrupt source and its clearing, divisor latch,
// overrun,
//          modem outputs and inputs with their deltas, loopback; OUT2 gates the interrupt, as on every PC board.
// Missing: parity, framing and break errors (a byte stream has none). The line's peer holds DCD, DSR and CTS active.
// Time:    a byte leaves in the moment it is written, for as long as the stream takes it; then the XMIT FIFO fills, and
//          THRE waits for the stream. Only the character timeout [8.5] runs at the programmed rate.
// Ignored bits: LCR 4-6 (parity kind, break: stored), FCR 3 (DMA mode: stored).
// Source:  National Semiconductor TL/C/8652, PC16550D (June 1995).
#pragma once

#include "uart_regs.hpp"

namespace uart {

inline constexpr Rate BAUD_CLOCK = hertz(1'843'200); // the PC's crystal; a bit lasts 16 * divisor of its periods
inline constexpr u32 FIFO_BYTES = 16;

struct State {
  u8 ier = 0, fcr = 0, lcr = 0, mcr = 0, scr = 0;
  u8 msr_deltas = 0;
  u16 divisor = 12;     // 9600 baud; "undefined" after reset
  bool overrun = false; // LSR.OE
  bool thre = false;    // THR empty interrupt, latched; reading IIR or writing THR clears it, LSR.THRE stays [8.6]
  bool timeout = false; // character timeout
  u64 timeout_at = VDEV_NEVER; // when it comes, if RCVR FIFO and line stay as they are
  Fifo<u8, FIFO_BYTES> rx, tx;

  bool valid() const { return rx.valid() && tx.valid(); }
  friend bool operator==(const State&, const State&) = default;
  static void fields(auto& s, auto&& f) {
    auto& [ier, fcr, lcr, mcr, scr, msr_deltas, divisor, overrun, thre, timeout, timeout_at, rx, tx] = s;
    f(1, "ier", ier, ier::WRITABLE), f(2, "fcr", fcr, fcr::KEPT), f(3, "lcr", lcr);
    f(4, "mcr", mcr, mcr::WRITABLE), f(5, "scr", scr), f(6, "msr_deltas", msr_deltas, msr::DELTAS);
    f(7, "divisor", divisor), f(8, "overrun", overrun), f(9, "thre", thre), f(10, "timeout", timeout);
    f(11, "timeout_at", timeout_at), f(12, "rx", rx), f(13, "tx", tx);
  }
};

class Uart {
 public:
  using State = uart::State;
  State& state;
  static constexpr vdev_region regions[] = {{sizeof(vdev_region), VDEV_SPACE_PIO, "regs", 0x3f8, 8, VDEV_WIDTH_1, 0}};
  static constexpr const char* irqs[] = {"intr"};
  static constexpr vdev_descriptor descriptor = {
      sizeof(vdev_descriptor), 1, "org.transom.uart16550", "16550A UART", "Transom", "1.0.0", regions, 1, 1, irqs};
  static constexpr u32 stream_count = 1;

  Uart(State& s, const Host& host) : state(s), intr_(host.irq()), line_(host.stream()), clock_(host.clock()) {}

  u8 read(u64 offset);
  void write(u64 offset, u8 value);
  u8 peek(u64 offset) const;
  u32 room() const; // bytes the receiver takes
  void receive(u8 byte);
  void writable();
  u64 next_event() const { return state.timeout_at; }
  void expire(u64 now);
  void sync() { intr_.set(interrupt()); }

 private:
  bool fifos() const { return fcr::FIFO_ENABLE(state.fcr); }
  u8 line_status() const;
  u8 modem_status() const;
  u8 modem_inputs() const;
  u8 pending() const;
  u8 iir() const { return u8(pending() | (fifos() ? iir::FIFOS_ENABLED : 0)); }
  bool interrupt() const;
  u8 read_rbr();
  u8 read_iir();
  u8 read_lsr();
  u8 read_msr();
  void write_thr(u8 byte);
  void write_ier(u8 value);
  void write_fcr(u8 value);
  void write_mcr(u8 value);
  void push_rx(u8 byte);
  void drain_tx();
  void restart_timeout();
  void check_timeout();

  Irq intr_;
  Stream line_;
  Clock clock_;
};

} // namespace uart
