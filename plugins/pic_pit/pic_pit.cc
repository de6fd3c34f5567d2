#include "pic_pit.hpp"

namespace pic_pit {

PicPit::PicPit(State& s, const Host& host)
    : state(s),
      master_(s.master),
      slave_(s.slave),
      pit_(s.counter),
      intr_(host.irq(INTR)),
      irq0_(host.irq(IRQ0)),
      clock_(host.clock()) {}

u64 PicPit::read(u32 region, u64 offset, u32) {
  switch (region) {
    case MASTER: return master_.read(offset);
    case SLAVE: return slave_.read(offset);
    case ELCR: return offset ? slave_.elcr() : master_.elcr();
    case PIT: catch_up(clock_.now()); return pit_.read(offset);
    case PORT_61: catch_up(clock_.now()); return read_port61();
    default: return 0xff;
  }
}

void PicPit::write(u32 region, u64 offset, u32, u64 value) {
  const u8 v = u8(value);
  switch (region) {
    case MASTER: master_.write(offset, v); break;
    case SLAVE: slave_.write(offset, v); break;
    case ELCR: (offset ? slave_ : master_).write_elcr(v & ELCR_WRITABLE[offset & 1]); break;
    case PIT: catch_up(clock_.now()), pit_.write(offset, v); break;
    case PORT_61: catch_up(clock_.now()), write_port61(v); break;
    default: break;
  }
}

// The same answer from a copy.
u64 PicPit::peek(u32 region, u64 offset, u32 width) const {
  State copy = state;
  PicPit twin(copy, Host());
  twin.clock_ = clock_;
  return twin.read(region, offset, width);
}

u8 PicPit::read_port61() const {
  u8 v = state.port61;
  port61::REF_TOGGLE.set(v, state.counter[2].tick / REFRESH_TICKS & 1);
  port61::TMR2_OUT_STS.set(v, state.counter[2].out);
  return v;
}

void PicPit::write_port61(u8 value) {
  state.port61 = value & port61::WRITABLE;
  pit_.counter(2).set_gate(port61::TIM_CNT2_EN(value));
}

// Brings the counters to now. If OUT0 rose meanwhile, however often, IRQ 0 sees one rising edge, in its place before
// whatever this entry does next.
void PicPit::catch_up(u64 now) {
  const i8254::CounterState& timer = state.counter[0];
  const u64 rise = timer.rise;
  const bool was_high = timer.out;
  pit_.advance(PIT_RATE.ticks(now));
  if (timer.rise == rise) return;
  if (was_high) irq0_.set(false);
  irq0_.set(true);
}

// A guest may program OUT0 as fast as 600 kHz: its edges are still delivered, no more often than SHORTEST_PERIOD.
u64 PicPit::next_event() const {
  const u64 edge = pit_.counter(0).next_edge();
  if (edge == VDEV_NEVER) return VDEV_NEVER;
  const u64 paced = state.counter[0].rise + SHORTEST_PERIOD;
  return PIT_RATE.ns(edge > paced ? edge : paced);
}

void PicPit::expire(u64 now) { catch_up(now); }

void PicPit::irq_in(u32 input, bool level) {
  if (input >= irq_inputs || input == CASCADE_INPUT) return;
  input < 8 ? master_.set_input(input, level) : slave_.set_input(input - 8, level);
}

// Two INTA cycles [8259A, Figure 6]: the first freezes both chips and puts the slave's number on CAS0-2, in the second
// the chip it names gives the vector. The slave's INT falls in between, so its next request is an edge on the master.
u8 PicPit::acknowledge() {
  const i8259::Pic::Acknowledged master = master_.acknowledge();
  if (master.cascade < 0) return master.vector;
  if (master.cascade != CASCADE_INPUT || !slave_.answers(CASCADE_INPUT)) return 0xff; // nobody drives the bus
  const u8 vector = slave_.acknowledge().vector;
  master_.set_input(CASCADE_INPUT, false);
  return vector;
}

// The input pins keep their levels.
void PicPit::reset() {
  const u8 master_lines = state.master.lines, slave_lines = state.slave.lines;
  state = State{};
  state.master.lines = master_lines, state.slave.lines = slave_lines;
}

void PicPit::sync() {
  master_.set_input(CASCADE_INPUT, slave_.interrupt());
  irq0_.set(state.counter[0].out);
  intr_.set(master_.interrupt());
}

} // namespace pic_pit
