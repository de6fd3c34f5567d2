#include "hypervisor/lapic.hpp"

#include <bit>
#include <utility>

namespace transom {

namespace {
constexpr u32 MASKED = 1 << 16;
constexpr u32 VERSION = 0x0005'0014; // integrated APIC, six LVT entries [10.4.8]
constexpr u32 ESR_SEND_ILLEGAL = 1 << 5, ESR_RECEIVE_ILLEGAL = 1 << 6, ESR_ILLEGAL_REGISTER = 1 << 7; // [10.5.3]
enum : u32 {
  ID = 0x020,
  VERSION_REG = 0x030,
  TPR = 0x080,
  APR = 0x090,
  PPR = 0x0a0,
  EOI = 0x0b0,
  LDR = 0x0d0,
  DFR = 0x0e0,
  SVR = 0x0f0,
  ISR = 0x100,
  TMR = 0x180,
  IRR = 0x200,
  ESR = 0x280,
  ICR_LOW = 0x300,
  ICR_HIGH = 0x310,
  LVT_TIMER = 0x320,
  LVT_ERROR = 0x370,
  INITIAL_COUNT = 0x380,
  CURRENT_COUNT = 0x390,
  DIVIDE = 0x3e0
}; // [table 10-1]
// Writable bits of each LVT register [figure 10-8], from 320h in steps of 10h.
constexpr u32 LVT_WRITABLE[] = {0x0003'00ff, 0, 0x0001'07ff, 0x0001'a7ff, 0x0001'a7ff, 0x0001'00ff};
constexpr u32 LVT_PERIODIC = 1 << 17;
constexpr u64 MIN_PERIOD_NS = 20'000; // between two expirations of a periodic timer
} // namespace

Lapic::Lapic(u8 id, bool bootstrap, Wiring wiring)
    : wiring_(std::move(wiring)), hardware_id_(id), bootstrap_(bootstrap) {
  reset();
}

// Power-up and RESET state [10.4.7.1]. The bootstrap processor gets LINT0 in ExtINT mode ("virtual wire"), as board
// firmware that never touches the APIC expects its 8259s to work.
void Lapic::reset() {
  base_ = DEFAULT_BASE | (1 << 11) | (bootstrap_ ? 1 << 8 : 0);
  id_ = u32{hardware_id_} << 24;
  tpr_ = ldr_ = esr_ = esr_pending_ = icr_low_ = icr_high_ = 0;
  dfr_ = 0xffff'ffff;
  svr_ = 0xff;
  isr_ = tmr_ = irr_ = {};
  lvt_.fill(MASKED);
  if (bootstrap_) lvt_[LINT0] = static_cast<u32>(DeliveryMode::ext_int) << 8;
  initial_count_ = divide_ = 0;
  deadline_ = ~u64{0};
  ext_int_ = false;
}

void Lapic::init() {
  const u64 base = base_;
  const u32 id = id_;
  reset();
  base_ = base;
  id_ = id;
  wiring_.changed();
}

// ---------------------------------------------------------------------------------------------------- registers

u32 Lapic::read(u32 offset) {
  if (offset >= ISR && offset < ISR + 0x80) return isr_[(offset - ISR) >> 4];
  if (offset >= TMR && offset < TMR + 0x80) return tmr_[(offset - TMR) >> 4];
  if (offset >= IRR && offset < IRR + 0x80) return irr_[(offset - IRR) >> 4];
  if (offset >= LVT_TIMER && offset <= LVT_ERROR) {
    const u32 n = (offset - LVT_TIMER) >> 4;
    return n == 1 ? 0 : lvt_[n];
  }
  switch (offset) {
    case ID: return id_;
    case VERSION_REG: return VERSION;
    case TPR: return tpr_;
    case APR: return 0; // arbitration priority: not on xAPIC buses
    case PPR: return ppr();
    case LDR: return ldr_;
    case DFR: return dfr_;
    case SVR: return svr_;
    case ESR: return esr_;
    case ICR_LOW: return icr_low_;
    case ICR_HIGH: return icr_high_;
    case INITIAL_COUNT: return initial_count_;
    case CURRENT_COUNT: return current_count();
    case DIVIDE: return divide_;
    default: raise_error(ESR_ILLEGAL_REGISTER); return 0;
  }
}

void Lapic::write(u32 offset, u32 value) {
  if (offset >= LVT_TIMER && offset <= LVT_ERROR) {
    const u32 n = (offset - LVT_TIMER) >> 4;
    if (n == 1) return; // thermal sensor: absent
    const u64 now = wiring_.now();
    if (n == TIMER) expire(now); // what is due already is due by the old mode
    lvt_[n] = (value & LVT_WRITABLE[n]) | (software_enabled() ? 0 : MASKED);
    if (n == TIMER) arm_timer(timer_start_, now);
    wiring_.changed();
    return;
  }
  switch (offset) {
    case ID: id_ = value & 0xff00'0000; break;
    case TPR: set_tpr(static_cast<u8>(value)); break;
    case EOI: end_of_interrupt(); break;
    case LDR: ldr_ = value & 0xff00'0000; break;
    case DFR: dfr_ = value | 0x0fff'ffff; break;
    case SVR:
      svr_ = value & 0x1ff;
      if (!software_enabled()) // [10.4.7.2]: LVT entries stay masked
        for (u32& lvt : lvt_) lvt |= MASKED;
      wiring_.changed();
      break;
    case ESR: esr_ = std::exchange(esr_pending_, 0); break;
    case ICR_LOW: write_icr(value); break;
    case ICR_HIGH: icr_high_ = value & 0xff00'0000; break;
    case INITIAL_COUNT:
    case DIVIDE: {
      const u64 now = wiring_.now();
      expire(now);
      if (offset == DIVIDE)
        divide_ = value & 0xb;
      else
        initial_count_ = value;
      arm_timer(now, now);
      wiring_.changed();
      break;
    }
    case VERSION_REG:
    case PPR:
    case APR:
    case CURRENT_COUNT: break; // read-only
    default:
      if (offset < ISR || offset >= IRR + 0x80) raise_error(ESR_ILLEGAL_REGISTER);
  }
}

void Lapic::set_tpr(u8 value) {
  tpr_ = value;
  wiring_.changed();
}

bool Lapic::set_base(u64 value) {
  constexpr u64 WRITABLE = 0xf'ffff'f000 | (1 << 11); // base and global enable; no x2APIC bit
  if ((value & ~(WRITABLE | (1 << 8))) != 0) return false;
  base_ = (value & WRITABLE) | (bootstrap_ ? 1 << 8 : 0);
  if (!enabled()) { // [10.4.3]: as after power-up when it is enabled again
    const u64 keep = base_;
    reset();
    base_ = keep;
  }
  wiring_.changed();
  return true;
}

// ---------------------------------------------------------------------------------------------------- priorities

int Lapic::highest(const Bits& bits) {
  for (int word = 7; word >= 0; --word)
    if (bits[static_cast<u32>(word)] != 0) return word * 32 + 31 - std::countl_zero(bits[static_cast<u32>(word)]);
  return -1;
}

void Lapic::assign(Bits& bits, u8 vector, bool value) {
  const u32 bit = 1u << (vector % 32);
  bits[vector / 32] = value ? bits[vector / 32] | bit : bits[vector / 32] & ~bit;
}

u8 Lapic::ppr() const { // [10.8.3.1]
  const int in_service = highest(isr_);
  const u32 isrv = in_service < 0 ? 0 : static_cast<u32>(in_service) & 0xf0;
  return static_cast<u8>((tpr_ & 0xf0) >= isrv ? tpr_ : isrv);
}

int Lapic::pending_vector() const {
  if (!enabled() || !software_enabled()) return -1;
  const int vector = highest(irr_);
  return vector >= 0 && (vector & 0xf0) > (ppr() & 0xf0) ? vector : -1;
}

int Lapic::acknowledge() {
  const int vector = pending_vector();
  if (vector < 0) return -1;
  assign(irr_, static_cast<u8>(vector), false);
  assign(isr_, static_cast<u8>(vector), true);
  wiring_.changed();
  return vector;
}

void Lapic::end_of_interrupt() { // [10.8.5]
  const int vector = highest(isr_);
  if (vector < 0) return;
  assign(isr_, static_cast<u8>(vector), false);
  const bool level = (tmr_[static_cast<u32>(vector) / 32] >> (vector % 32) & 1) != 0;
  if (level) wiring_.broadcast_eoi(static_cast<u8>(vector));
  wiring_.changed();
}

// ---------------------------------------------------------------------------------------------------- messages

// Off, it hears nothing; disabled by software, it still hears NMI, INIT, SMI and SIPI [10.4.3, 10.4.7.2].
bool Lapic::accepts(DeliveryMode mode) const {
  if (!enabled()) return false;
  return software_enabled() || (mode != DeliveryMode::fixed && mode != DeliveryMode::lowest);
}

bool Lapic::addressed(const InterruptMessage& m) const {
  if (!accepts(m.mode)) return false;
  if (!m.logical) return m.destination == 0xff || m.destination == id();
  if ((dfr_ >> 28) == 0xf) return (m.destination & (ldr_ >> 24)) != 0;      // flat [10.6.2.2]
  return (m.destination >> 4 == 0xf || m.destination >> 4 == ldr_ >> 28) && // cluster
         (m.destination & (ldr_ >> 24) & 0xf) != 0;
}

void Lapic::deliver(const InterruptMessage& m) {
  if (!accepts(m.mode)) return;
  switch (m.mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest:
      if (m.vector < 16) return raise_error(ESR_RECEIVE_ILLEGAL);
      assign(irr_, m.vector, true);
      assign(tmr_, m.vector, m.level);
      break;
    case DeliveryMode::nmi: wiring_.nmi(); break;
    case DeliveryMode::init: wiring_.init(); break;
    case DeliveryMode::startup: wiring_.start_up(m.vector); break;
    case DeliveryMode::ext_int:    // a level, which set_lint0() and set_ext_int() follow
    case DeliveryMode::smi: break; // no SMM
  }
  wiring_.changed();
}

void Lapic::fire_lvt(u32 lvt) {
  if ((lvt & MASKED) != 0) return;
  deliver({static_cast<u8>(lvt), static_cast<DeliveryMode>(lvt >> 8 & 7), false, false, 0});
}

// [10.5.3]. An error vector below 16 is one more illegal vector, not one more interrupt.
void Lapic::raise_error(u32 bit) {
  esr_pending_ |= bit;
  if ((lvt_[ERROR_LVT] & MASKED) != 0) return;
  const u8 vector = static_cast<u8>(lvt_[ERROR_LVT]);
  if (vector < 16)
    esr_pending_ |= ESR_RECEIVE_ILLEGAL;
  else
    deliver({vector, DeliveryMode::fixed, false, false, 0});
}

void Lapic::write_icr(u32 low) {
  icr_low_ = low & 0x000c'cfff; // delivery status reads 0: sent at once
  const auto mode = static_cast<DeliveryMode>(low >> 8 & 7);
  if ((mode == DeliveryMode::fixed || mode == DeliveryMode::lowest) && (low & 0xff) < 16) {
    return raise_error(ESR_SEND_ILLEGAL);
  }
  if (mode == DeliveryMode::init && (low & 0xc000) == 0x8000) return; // INIT level de-assert: no effect since the P4
  wiring_.send_ipi({static_cast<u8>(low), mode, false, (low & 0x800) != 0, static_cast<u8>(icr_high_ >> 24)},
                   low >> 18 & 3);
}

void Lapic::set_lint0(bool level) {
  const bool rising = level && !lint0_;
  lint0_ = level;
  const u32 lvt = lvt_[LINT0];
  if (rising && static_cast<DeliveryMode>(lvt >> 8 & 7) != DeliveryMode::ext_int && enabled()) fire_lvt(lvt);
  wiring_.changed();
}

bool Lapic::accepts_pic() const {
  if (!enabled() || ext_int_) return true;
  return (lvt_[LINT0] & (MASKED | 0x700)) == static_cast<u32>(DeliveryMode::ext_int) << 8;
}

// ---------------------------------------------------------------------------------------------------- timer [10.5.4]

u64 Lapic::tick_ns() const { // divide configuration: bits 3, 1, 0 = log2(divisor) − 1, 7 wraps to 1
  const u32 code = (divide_ & 3) | (divide_ >> 1 & 4);
  return BUS_NS << ((code + 1) & 7);
}

// One look at the clock for a whole change: a count that runs out between two would be lost.
void Lapic::arm_timer(u64 from, u64 now) {
  timer_start_ = from;
  const u64 period = u64{initial_count_} * tick_ns();
  if (initial_count_ == 0 || period == 0) {
    deadline_ = ~u64{0};
    return;
  }
  deadline_ = from + period;
  // A mode change may find the count long over: the next period of a periodic timer, nothing for a one-shot.
  if (deadline_ <= now)
    deadline_ = (lvt_[TIMER] & LVT_PERIODIC) != 0 ? from + ((now - from) / period + 1) * period : ~u64{0};
}

u32 Lapic::current_count() const {
  if (initial_count_ == 0) return 0;
  const u64 ticks = (wiring_.now() - timer_start_) / tick_ns();
  if ((lvt_[TIMER] & LVT_PERIODIC) != 0) return initial_count_ - static_cast<u32>(ticks % initial_count_);
  return ticks >= initial_count_ ? 0 : initial_count_ - static_cast<u32>(ticks);
}

// Late is late: periods that passed unnoticed are one interrupt, and the next one comes on the old grid, but not so
// soon that a guest could keep the host busy with nothing else.
void Lapic::expire(u64 now) {
  if (now < deadline_) return;
  const u64 period = u64{initial_count_} * tick_ns();
  if ((lvt_[TIMER] & LVT_PERIODIC) != 0 && period != 0)
    deadline_ += ((now + (period < MIN_PERIOD_NS ? MIN_PERIOD_NS : 0) - deadline_) / period + 1) * period;
  else
    deadline_ = ~u64{0};
  if (software_enabled()) fire_lvt((lvt_[TIMER] & ~0x700u)); // the timer's delivery mode is always fixed
}

} // namespace transom
