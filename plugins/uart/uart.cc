#include "uart.hpp"

namespace uart {

u8 Uart::read(u64 offset) {
  const bool dlab = lcr::DLAB(state.lcr);
  switch (offset) {
    case RBR_THR_DLL: return dlab ? u8(state.divisor) : read_rbr();
    case IER_DLM: return dlab ? u8(state.divisor >> 8) : state.ier;
    case IIR_FCR: return read_iir();
    case LCR: return state.lcr;
    case MCR: return state.mcr;
    case LSR: return read_lsr();
    case MSR: return read_msr();
    case SCR: return state.scr;
    default: return 0xff;
  }
}

void Uart::write(u64 offset, u8 value) {
  const bool dlab = lcr::DLAB(state.lcr);
  switch (offset) {
    case RBR_THR_DLL: return dlab ? write_masked(state.divisor, value, 0xff) : write_thr(value);
    case IER_DLM: return dlab ? write_masked(state.divisor, u64{value} << 8, 0xff00) : write_ier(value);
    case IIR_FCR: return write_fcr(value);
    case LCR: state.lcr = value; break;
    case MCR: return write_mcr(value);
    case SCR: state.scr = value; break;
    default: break; // LSR and MSR are "intended for read operations only"
  }
}

// The same answer from a copy.
u8 Uart::peek(u64 offset) const {
  State copy = state;
  Uart twin(copy, Host());
  twin.clock_ = clock_;
  return twin.read(offset);
}

u8 Uart::line_status() const {
  const bool empty = state.tx.empty();
  return u8(lsr::DR.of(!state.rx.empty()) | lsr::OE.of(state.overrun) | lsr::THRE.of(empty) | lsr::TEMT.of(empty));
}

u8 Uart::read_lsr() {
  const u8 v = line_status();
  state.overrun = false;
  return v;
}

// In loopback the modem outputs are the modem inputs [8.8, LOOP].
u8 Uart::modem_inputs() const {
  if (!mcr::LOOP(state.mcr)) return u8(msr::CTS.of(1) | msr::DSR.of(1) | msr::DCD.of(1));
  const u8 m = state.mcr;
  return u8(msr::CTS.of(mcr::RTS(m)) | msr::DSR.of(mcr::DTR(m)) | msr::RI.of(mcr::OUT1(m)) | msr::DCD.of(mcr::OUT2(m)));
}

u8 Uart::modem_status() const { return u8(modem_inputs() | state.msr_deltas); }

u8 Uart::read_msr() {
  const u8 v = modem_status();
  state.msr_deltas = 0;
  return v;
}

void Uart::write_mcr(u8 value) {
  const u8 before = modem_inputs();
  state.mcr = value & mcr::WRITABLE;
  const u8 now = modem_inputs(), changed = before ^ now;
  state.msr_deltas |= u8(msr::DCTS.of(msr::CTS(changed)) | msr::DDSR.of(msr::DSR(changed)) |
                         msr::TERI.of(msr::RI(changed) && !msr::RI(now)) | msr::DDCD.of(msr::DCD(changed)));
}

// In order of priority [8.6, Table IV].
u8 Uart::pending() const {
  static constexpr u8 TRIGGER[] = {1, 4, 8, 14}; // [8.5]
  if (ier::ELSI(state.ier) && state.overrun) return iir::LINE_STATUS;
  if (ier::ERBFI(state.ier)) {
    const u32 trigger = fifos() ? TRIGGER[fcr::RCVR_TRIGGER(state.fcr)] : 1;
    if (state.rx.size() >= trigger) return iir::RX_DATA;
    if (state.timeout) return iir::CHARACTER_TIMEOUT;
  }
  if (ier::ETBEI(state.ier) && state.thre) return iir::THR_EMPTY;
  if (ier::EDSSI(state.ier) && state.msr_deltas) return iir::MODEM_STATUS;
  return iir::NONE;
}

// A PC's board lets INTR through only while OUT2 is active, and loopback makes the outputs inactive [8.8].
bool Uart::interrupt() const { return pending() != iir::NONE && mcr::OUT2(state.mcr) && !mcr::LOOP(state.mcr); }

u8 Uart::read_iir() {
  check_timeout();
  const u8 v = iir();
  if (pending() == iir::THR_EMPTY) state.thre = false; // only as the source it names [Table IV]
  return v;
}

void Uart::write_ier(u8 value) {
  const bool enabled = !ier::ETBEI(state.ier) && ier::ETBEI(value);
  state.ier = value & ier::WRITABLE;
  if (enabled) state.thre = state.tx.empty(); // enabling it with THR empty interrupts at once; drivers rely on it
}

// "Bit 0 must be a 1 when other FCR bits are written to or they will not be programmed"; changing it clears both FIFOs.
void Uart::write_fcr(u8 value) {
  const bool enable = fcr::FIFO_ENABLE(value), changed = enable != fifos();
  if (changed || (enable && fcr::RCVR_FIFO_RESET(value))) {
    state.rx.clear();
    restart_timeout();
  }
  if (changed || (enable && fcr::XMIT_FIFO_RESET(value))) {
    state.tx.clear();
    state.thre = true; // "the first transmitter interrupt after changing FCR0 will be immediate" [8.5]
  }
  state.fcr = enable ? value & fcr::KEPT : 0;
}

// An interrupt for the byte before falls while this one is in the transmitter, so the next is an edge.
void Uart::write_thr(u8 byte) {
  if (state.thre) {
    state.thre = false;
    sync();
  }
  if (mcr::LOOP(state.mcr)) {
    push_rx(byte);
  } else if (!state.tx.empty() || !line_.put(byte)) {
    if (!fifos()) state.tx.clear(); // THR is overwritten
    state.tx.push(byte);            // and a full FIFO loses the byte
  }
  state.thre = state.tx.empty();
}

void Uart::writable() {
  if (!state.tx.empty()) drain_tx();
}

void Uart::drain_tx() {
  while (!state.tx.empty() && line_.put(state.tx.front())) state.tx.pop();
  state.thre = state.tx.empty();
}

u32 Uart::room() const {
  if (mcr::LOOP(state.mcr)) return 0; // the receiver is disconnected from SIN
  return fifos() ? state.rx.room() : state.rx.empty();
}

void Uart::receive(u8 byte) { push_rx(byte); }

// Without FIFOs a new byte replaces the old one; with them it is the new one that is lost [8.4, OE].
void Uart::push_rx(u8 byte) {
  if (!fifos() && !state.rx.empty()) {
    state.overrun = true;
    state.rx.clear();
  }
  if (!state.rx.push(byte)) state.overrun = true;
  restart_timeout();
}

u8 Uart::read_rbr() {
  const u8 byte = state.rx.pop();
  restart_timeout();
  return byte;
}

// Four character times after the last arrival or read, if a byte is left [8.5, "FIFO Interrupt Mode Operation"].
void Uart::restart_timeout() {
  state.timeout = false;
  state.timeout_at = VDEV_NEVER;
  if (!fifos() || state.rx.empty()) return;
  const u64 bits = 1 + 5 + lcr::WLS(state.lcr) + lcr::PEN(state.lcr) + 1 + lcr::STB(state.lcr);
  const u64 divisor = state.divisor ? state.divisor : 65536;
  state.timeout_at = time_add(clock_.now(), BAUD_CLOCK.ns(4 * bits * 16 * divisor));
}

void Uart::check_timeout() {
  if (state.timeout_at != VDEV_NEVER) expire(clock_.now());
}

void Uart::expire(u64 now) {
  if (now < state.timeout_at) return;
  state.timeout = true;
  state.timeout_at = VDEV_NEVER;
}

} // namespace uart
