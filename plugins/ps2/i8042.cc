#include "i8042.hpp"

namespace ps2 {

namespace {

// Scan code set 2 to set 1, for the bytes a keyboard without keys can send: its ID and the number of its set.
u8 translate(u8 byte) {
  switch (byte) {
    case 0x01: return 0x43;
    case 0x02: return 0x41;
    case 0x03: return 0x3f;
    case 0x83: return 0x41;
    default: return byte; // answers (AAh, ABh, EEh, FAh, FEh) pass
  }
}

} // namespace

void I8042::reset() {
  state = State{};
  a20_shown_ = -1; // the board's other sources have been reset too: say it again
}

u64 I8042::read(u32 region, u64, u32) {
  if (region != DATA) return status();
  const u8 value = read_data();
  fill_output_buffer();
  return value;
}

u64 I8042::peek(u32 region, u64, u32) const { return region == DATA ? state.data : status(); }

void I8042::write(u32 region, u64, u32, u64 value) {
  state.cd = region == STATUS_COMMAND;
  if (region == DATA) {
    write_data(u8(value));
  } else {
    command(u8(value));
  }
  fill_output_buffer();
}

u8 I8042::status() const {
  return u8(status::OBF.of(state.obf) | status::SYS.of(state.sys) | status::CD.of(state.cd) | status::KEYLOCK.of(1) |
            status::AUX.of(state.obf && state.aux));
}

u8 I8042::read_data() {
  state.obf = false;
  irq1_.set(false); // a next byte that follows at once makes a new edge
  irq12_.set(false);
  return state.data;
}

void I8042::write_data(u8 value) {
  const u8 awaiting = state.awaiting;
  state.awaiting = 0;
  if (awaiting != 0) return parameter(awaiting, value);
  ctr::KBD_DISABLE.set(state.ctr, 0); // sending to the keyboard opens its line
  kbd::receive(state.kbd, value);
}

void I8042::command(u8 value) {
  state.awaiting = 0;
  switch (value) {
    case READ_CTR: return respond(state.ctr);
    case AUX_DISABLE: return ctr::AUX_DISABLE.set(state.ctr, 1);
    case AUX_ENABLE: return ctr::AUX_DISABLE.set(state.ctr, 0);
    case AUX_TEST: return respond(LINE_TEST_OK);
    case SELF_TEST: state.sys = true; return respond(SELF_TEST_OK);
    case KBD_TEST: return respond(LINE_TEST_OK);
    case KBD_DISABLE: return ctr::KBD_DISABLE.set(state.ctr, 1);
    case KBD_ENABLE: return ctr::KBD_DISABLE.set(state.ctr, 0);
    case READ_INPORT: return respond(INPORT);
    case READ_OUTPORT: return respond(read_outport());
    case WRITE_OUTPORT:
    case WRITE_KBD_OBUF:
    case WRITE_AUX_OBUF:
    case WRITE_AUX: state.awaiting = value; return;
    case DISABLE_A20: state.a20 = false; return;
    case ENABLE_A20: state.a20 = true; return;
    case READ_TEST_INPUTS: return respond(0);
    default: break;
  }
  if (value >= WRITE_CTR && value <= WRITE_RAM_LAST) state.awaiting = value;
  if (value >= PULSE && !outport::RESET_N(value)) wire_.reset(VDEV_RESET_INIT);
}

void I8042::parameter(u8 command, u8 value) {
  switch (command) {
    case WRITE_CTR:
      state.ctr = value & ctr::WRITABLE;
      // Observed on Linux 6.1: status is 3Dh, SYS set, after a command byte of 70h. So a zero does not clear it.
      if (ctr::SYS(value)) state.sys = true;
      return;
    case WRITE_OUTPORT: return write_outport(value);
    case WRITE_KBD_OBUF: return respond(value);
    case WRITE_AUX_OBUF: return respond(value, true);
    case WRITE_AUX: ctr::AUX_DISABLE.set(state.ctr, 0); return mouse::receive(state.mouse, value);
    default: return; // the rest of controller RAM
  }
}

// One byte deep: a newer answer replaces one that nobody has read.
void I8042::respond(u8 value, bool aux) {
  state.answer = value;
  state.answering = true;
  state.answer_aux = aux;
}

u8 I8042::read_outport() const {
  return u8(outport::PULLED_UP | outport::RESET_N.of(1) | outport::A20.of(state.a20) |
            outport::KBD_OBF.of(state.obf && !state.aux) | outport::AUX_OBF.of(state.obf && state.aux));
}

void I8042::write_outport(u8 value) {
  state.a20 = outport::A20(value) != 0;
  if (!outport::RESET_N(value)) wire_.reset(VDEV_RESET_INIT);
}

void I8042::fill_output_buffer() {
  if (state.obf) return;
  if (state.answering) {
    state.answering = false;
    state.data = state.answer;
    state.aux = state.answer_aux;
  } else if (!ctr::KBD_DISABLE(state.ctr) && !state.kbd.out.empty()) {
    const u8 byte = state.kbd.out.pop();
    state.data = ctr::TRANSLATE(state.ctr) ? translate(byte) : byte;
    state.aux = false;
  } else if (!ctr::AUX_DISABLE(state.ctr) && !state.mouse.out.empty()) {
    state.data = state.mouse.out.pop();
    state.aux = true;
  } else {
    return;
  }
  state.obf = true;
}

void I8042::sync() {
  irq1_.set(state.obf && !state.aux && ctr::KBD_INT(state.ctr));
  irq12_.set(state.obf && state.aux && ctr::AUX_INT(state.ctr));
  if (a20_shown_ != int(state.a20)) wire_.a20(state.a20);
  a20_shown_ = state.a20;
}

} // namespace ps2
