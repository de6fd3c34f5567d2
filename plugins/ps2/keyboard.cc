#include "keyboard.hpp"

namespace ps2::kbd {

namespace {

// A full queue drops: the guest sent commands without reading their answers.
void answer(State& s, u8 byte) {
  if (s.out.push(byte)) s.last = byte;
}

void set_defaults(State& s) {
  s.typematic = TYPEMATIC_DEFAULT;
  s.scan_set = 2;
  s.leds = 0;
}

void parameter(State& s, u8 command, u8 value) {
  switch (command) {
    case SET_LEDS: s.leds = value & 7; break;
    case SET_TYPEMATIC: s.typematic = value & 0x7f; break;
    case SCAN_CODE_SET:
      if (value > 3) return answer(s, reply::RESEND);
      answer(s, reply::ACK);
      if (value == 0) return answer(s, s.scan_set);
      s.scan_set = value;
      return;
    default: break;
  }
  answer(s, reply::ACK);
}

void command(State& s, u8 byte) {
  switch (byte) {
    case ECHO: return answer(s, reply::ECHO);
    case RESEND: return answer(s, s.last);
    case SET_LEDS:
    case SET_TYPEMATIC:
    case SCAN_CODE_SET: s.awaiting = byte; break;
    case IDENTIFY:
      answer(s, reply::ACK);
      answer(s, 0xab); // an MF2 keyboard
      return answer(s, 0x83);
    case ENABLE: s.scanning = true; break;
    case DISABLE:
      set_defaults(s);
      s.scanning = false;
      break;
    case SET_DEFAULTS: set_defaults(s); break;
    case RESET:
      s = State{};
      answer(s, reply::ACK);
      return answer(s, reply::BAT_OK);
    default:
      if (byte < ALL_TYPEMATIC || byte > ALL_MAKE_BREAK_TYPEMATIC) return answer(s, reply::RESEND);
      break;
  }
  answer(s, reply::ACK);
}

} // namespace

void receive(State& s, u8 byte) {
  const u8 awaiting = s.awaiting;
  s.awaiting = 0;
  if (awaiting != 0 && byte < 0x80) return parameter(s, awaiting, byte);
  command(s, byte); // a command in place of the parameter ends the older command
}

} // namespace ps2::kbd
