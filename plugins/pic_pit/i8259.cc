#include "i8259.hpp"

namespace i8259 {

// Edge-triggered inputs request by their latched edge, level-triggered ones by their line. An edge counts only while
// its line stays high: "the IR inputs must remain high until after the falling edge of the first INTA" ["Edge and Level
// Triggered Modes"].
u8 Pic::irr() const {
  const u8 level = icw1::LTIM(state.icw1) ? 0xff : state.elcr;
  return u8((state.lines & level) | (state.edges & ~level));
}

void Pic::set_input(u32 input, bool level) {
  const u8 bit = u8(1u << (input & 7));
  if (!level) {
    state.lines &= u8(~bit);
    state.edges &= u8(~bit);
  } else if (!(state.lines & bit)) {
    state.lines |= bit;
    state.edges |= bit;
  }
}

i32 Pic::highest(u8 inputs) const {
  for (u32 i = 1; i <= 8; i++) {
    const u32 input = (state.lowest + i) & 7;
    if (inputs >> input & 1) return i32(input);
  }
  return -1;
}

i32 Pic::request() const {
  if (state.step != READY) return -1;
  const i32 asks = highest(u8(irr() & ~state.imr));
  if (asks < 0) return -1;
  const u8 blocking = state.special_mask ? u8(state.isr & ~state.imr) : state.isr; // ["Special Mask Mode"]
  const i32 served = highest(blocking);
  if (served < 0 || rank(u32(asks)) < rank(u32(served))) return asks;
  // A slave in service may interrupt again for a higher input of its own ["Special Fully Nested Mode"].
  const bool slave_again = asks == served && icw4::SFNM(state.icw4) && (state.icw3 >> asks & 1);
  return slave_again ? asks : -1;
}

u8 Pic::vector(u32 input) const {
  if (icw4::UPM(state.icw4)) return u8((state.icw2 & icw2::T7_T3) | input); // [Figure 4, 8086 system]
  // The low byte of the CALL address, which is what the second INTA cycle carries [Figure 5].
  return icw1::ADI(state.icw1) ? u8((state.icw1 & icw1::A7_A5) | input << 2)
                               : u8((state.icw1 & icw1::A7_A5 & 0xc0) | input << 3);
}

// INTA freezes the request, moves it into the in-service register, and with AEOI takes it out again at the end.
void Pic::take(u32 input) {
  const u8 bit = u8(1u << input);
  state.edges &= u8(~bit);
  if (!icw4::AEOI(state.icw4)) {
    state.isr |= bit;
  } else if (state.rotate_on_aeoi) {
    state.lowest = u8(input);
  }
}

Pic::Acknowledged Pic::acknowledge() {
  const i32 input = request();
  if (input < 0) return {vector(7), -1}; // the request went away: "default IR7", no in-service bit
  take(u32(input));
  const bool slave = !icw1::SNGL(state.icw1) && (state.icw3 >> input & 1);
  return {vector(u32(input)), slave ? input : -1};
}

u8 Pic::read(u64 a0) {
  if (state.poll) return read_poll();
  if (a0 == DATA) return state.imr;
  return state.read_isr ? state.isr : irr();
}

// "The 8259A treats the next RD pulse as an interrupt acknowledge" ["Poll Command"], whichever address is read.
u8 Pic::read_poll() {
  state.poll = false;
  const i32 input = request();
  if (input < 0) return 0;
  take(u32(input));
  return u8(POLL_REQUEST | input);
}

void Pic::write(u64 a0, u8 value) {
  if (a0 == DATA) return state.step == READY || state.step == POWERED_UP ? void(state.imr = value) : write_icw(value);
  if (icw1::ICW1(value)) return write_icw1(value);
  return ocw3::OCW3(value) ? write_ocw3(value) : write_ocw2(value);
}

// ["Initialization Command Words 1 and 2", a-f] The state goes back to its reset value, but for the pins and the ELCR.
void Pic::write_icw1(u8 value) {
  State fresh;
  fresh.step = EXPECT_ICW2;
  fresh.icw1 = value;
  fresh.lines = state.lines; // and no edges: each input must rise anew
  fresh.elcr = state.elcr;
  state = fresh;
}

void Pic::write_icw(u8 value) {
  const bool single = icw1::SNGL(state.icw1), needs_icw4 = icw1::IC4(state.icw1);
  const u8 after_icw3 = needs_icw4 ? u8(EXPECT_ICW4) : u8(READY);
  switch (state.step) {
    case EXPECT_ICW2: state.icw2 = value, state.step = single ? after_icw3 : u8(EXPECT_ICW3); break;
    case EXPECT_ICW3: state.icw3 = value, state.step = after_icw3; break;
    case EXPECT_ICW4: state.icw4 = value & icw4::WRITABLE, state.step = READY; break;
  }
}

void Pic::end_of_interrupt(i32 input, bool rotate) {
  if (input < 0) return;
  state.isr &= u8(~(1u << input));
  if (rotate) state.lowest = u8(input);
}

void Pic::write_ocw2(u8 value) {
  const i32 level = i32(ocw2::L(value));
  // "An IS bit that is masked by an IMR bit will not be cleared by a non-specific EOI" in special mask mode.
  const i32 served = highest(state.special_mask ? u8(state.isr & ~state.imr) : state.isr);
  switch (ocw2::COMMAND(value)) { // [Figure 8]
    case ocw2::ROTATE_AEOI_CLEAR: state.rotate_on_aeoi = false; break;
    case ocw2::ROTATE_AEOI_SET: state.rotate_on_aeoi = true; break;
    case ocw2::NONSPECIFIC_EOI: end_of_interrupt(served, false); break;
    case ocw2::ROTATE_NONSPECIFIC_EOI: end_of_interrupt(served, true); break;
    case ocw2::SPECIFIC_EOI: end_of_interrupt(level, false); break;
    case ocw2::ROTATE_SPECIFIC_EOI: end_of_interrupt(level, true); break;
    case ocw2::SET_PRIORITY: state.lowest = u8(level); break;
    case ocw2::NO_OPERATION: break;
  }
}

void Pic::write_ocw3(u8 value) {
  if (ocw3::ESMM(value)) state.special_mask = ocw3::SMM(value);
  if (ocw3::RR(value)) state.read_isr = ocw3::RIS(value);
  if (ocw3::P(value)) state.poll = true;
}

} // namespace i8259
