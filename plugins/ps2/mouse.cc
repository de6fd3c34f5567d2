#include "mouse.hpp"

namespace ps2::mouse {

namespace {

// A full queue drops: the guest sent commands without reading their answers.
void answer(State& s, u8 byte) {
  if (s.out.push(byte)) s.last = byte;
}

void set_defaults(State& s) {
  const Fifo<u8, 16> out = s.out;
  const u8 last = s.last;
  s = State{};
  s.out = out;
  s.last = last;
}

void answer_status(State& s) {
  answer(s, u8(status::SCALING_2_1.of(s.scaling_2_1) | status::ENABLED.of(s.enabled) | status::REMOTE.of(s.remote)));
  answer(s, s.resolution);
  answer(s, s.sample_rate);
}

void answer_packet(State& s) {
  answer(s, packet::ALWAYS_ONE);
  answer(s, 0); // no movement
  answer(s, 0);
}

void parameter(State& s, u8 command, u8 value) {
  if (command == SET_RESOLUTION) {
    if (value > 3) return answer(s, reply::RESEND);
    s.resolution = value;
  } else {
    s.sample_rate = value;
  }
  answer(s, reply::ACK);
}

void command(State& s, u8 byte) {
  switch (byte) {
    case RESEND: return answer(s, s.last);
    case RESET:
      s = State{};
      answer(s, reply::ACK);
      answer(s, reply::BAT_OK);
      return answer(s, DEVICE_ID);
    case IDENTIFY: answer(s, reply::ACK); return answer(s, DEVICE_ID);
    case STATUS_REQUEST: answer(s, reply::ACK); return answer_status(s);
    case READ_DATA: answer(s, reply::ACK); return answer_packet(s);
    case SET_RESOLUTION:
    case SET_SAMPLE_RATE: s.awaiting = byte; break;
    case SCALING_1_1: s.scaling_2_1 = false; break;
    case SCALING_2_1: s.scaling_2_1 = true; break;
    case STREAM_MODE: s.remote = false; break;
    case REMOTE_MODE: s.remote = true; break;
    case WRAP_MODE: s.wrap = true; break;
    case RESET_WRAP_MODE: s.wrap = false; break;
    case ENABLE: s.enabled = true; break;
    case DISABLE: s.enabled = false; break;
    case SET_DEFAULTS: set_defaults(s); break;
    default: return answer(s, reply::RESEND);
  }
  answer(s, reply::ACK);
}

} // namespace

void receive(State& s, u8 byte) {
  if (s.wrap && byte != RESET && byte != RESET_WRAP_MODE) return answer(s, byte);
  const u8 awaiting = s.awaiting;
  s.awaiting = 0;
  if (awaiting != 0 && byte < SCALING_1_1) return parameter(s, awaiting, byte);
  command(s, byte); // a command in place of the parameter ends the older command
}

} // namespace ps2::mouse
