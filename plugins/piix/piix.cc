#include "piix.hpp"

namespace piix {

Piix::Piix(State& s, const Host& host)
    : state(s),
      clock_(host.required<Clock>()),
      sci_(host.required<Irq>(0)),
      wire_(host.required<Wire>()),
      memory_map_(host.required<MemoryMap>()),
      irq_route_(host.required<IrqRoute>()),
      log_(host.log()) {
  if (host.fresh()) reset();
}

void Piix::reset() {
  state = State{};
  power::reset(state.power, clock_.now());
  shown_ = Shown{}; // the board's other parts have been reset too: say everything again
}

u64 Piix::read(u32 region, u64 offset, u32 width) {
  if (region == PM) power::advance(state.power, clock_.now());
  return peek(region, offset, width);
}

u64 Piix::peek(u32 region, u64 offset, u32 width) const {
  switch (region) {
    case PORT92: return state.port92;
    case CF9: return state.rcr;
    case APM: return offset == isa_bridge::apm::APMC ? state.apmc : state.apms;
    case PM: {
      const u64 now = clock_.now();
      power::State s = state.power;
      power::advance(s, now);
      return power::read_io(s, u32(offset), width, now);
    }
    case GPE0: return power::read_gpe0(state.power, offset);
    default: return ~u64{0};
  }
}

void Piix::write(u32 region, u64 offset, u32 width, u64 value) {
  switch (region) {
    case PORT92: return write_port92(u8(value));
    case CF9: return write_rcr(u8(value));
    case APM: return write_apm(offset, u8(value));
    case PM: return write_pm(u32(offset), width, u32(value));
    case GPE0: return power::write_gpe0(state.power, offset, u8(value));
    default: return;
  }
}

void Piix::write_port92(u8 value) {
  using namespace isa_bridge::port92;
  if (INIT(value) && !INIT(state.port92)) wire_.reset(VDEV_RESET_INIT);
  state.port92 = value & WRITABLE;
}

void Piix::write_rcr(u8 value) {
  using namespace isa_bridge::rcr;
  if (RCPU(value) && !RCPU(state.rcr)) wire_.reset(SRST(value) ? VDEV_RESET_SYSTEM : VDEV_RESET_INIT);
  state.rcr = value & WRITABLE;
}

void Piix::write_apm(u64 offset, u8 value) {
  using namespace isa_bridge::apm;
  if (offset == APMS) {
    state.apms = value;
    return;
  }
  state.apmc = value;
  if (value == ACPI_ENABLE || value == ACPI_DISABLE) power::set_acpi_enabled(state.power, value == ACPI_ENABLE);
}

void Piix::write_pm(u32 offset, u32 width, u32 value) {
  if (offset < power::PMTMR) power::advance(state.power, clock_.now()); // status and enables judge the present
  const int sleep = power::write_io(state.power, offset, width, value);
  if (sleep == power::pmcntrl::SOFT_OFF) wire_.power_off();
  if (sleep > 0) log_.warning("sleep type %d is not supported, only soft off (0)", sleep);
}

u32 Piix::read_config(u32 function, u32 offset, u32 width) const {
  switch (function) {
    case HOST_BRIDGE: return host_bridge::BANK.word(state.host, offset, width);
    case ISA_BRIDGE: return isa_bridge::BANK.word(state.isa, offset, width);
    case POWER: return power::CONFIG.word(state.power.config, offset, width);
    default: return ~0u;
  }
}

void Piix::write_config(u32 function, u32 offset, u32 width, u32 value) {
  for (u32 i = 0; i < width; ++i) {
    const u8 byte = u8(value >> (8 * i));
    switch (function) {
      case HOST_BRIDGE: write_host_bridge(offset + i, byte); break;
      case ISA_BRIDGE: isa_bridge::BANK.write(state.isa, offset + i, byte); break;
      case POWER: power::CONFIG.write(state.power.config, offset + i, byte); break;
      default: break;
    }
  }
}

void Piix::write_host_bridge(u32 offset, u8 value) {
  using namespace host_bridge;
  if (offset == SMRAM) { // once locked, D_LCK stays and D_OPEN is shut, until reset [SMRAM]
    const u8 now = BANK.read(state.host, SMRAM);
    if (smram::D_LCK(now)) smram::D_LCK.set(value, 1);
    if (smram::D_LCK(value)) smram::D_OPEN.set(value, 0);
  }
  BANK.write(state.host, offset, value);
}

void Piix::irq_in(u32 input, bool level) {
  if (input == 0) power::set_button(state.power, level);
}

void Piix::sync() {
  sci_.set(power::sci(state.power));
  show_shadow();
  show_routes();
  show_pm_block();
  const u32 a20 = isa_bridge::port92::A20(state.port92);
  if (shown_.a20 != a20) wire_.a20(a20 != 0);
  shown_.a20 = a20;
}

void Piix::show_shadow() {
  using namespace host_bridge;
  for (std::size_t i = 0; i < SHADOW.size(); ++i) {
    const ShadowArea& area = SHADOW[i];
    const u32 attributes = (u32{BANK.read(state.host, area.offset)} >> area.shift) & 3u;
    if (shown_.shadow[i] == attributes) continue;
    memory_map_.set_shadow(area.base, area.length, pam::RE(attributes) != 0, pam::WE(attributes) != 0);
    shown_.shadow[i] = attributes;
  }
}

void Piix::show_routes() {
  using namespace isa_bridge;
  for (u32 link = 0; link < 4; ++link) {
    const u8 route = BANK.read(state.isa, PIRQRCA + link);
    const u32 irq = pirqrc::IRQ(route);
    const bool routed = !pirqrc::DISABLED(route) && (pirqrc::ALLOWED >> irq & 1) != 0;
    const u32 line = routed ? irq : VDEV_ROUTE_NONE;
    if (shown_.routes[link] != line) irq_route_.set(link, line);
    shown_.routes[link] = line;
  }
}

void Piix::show_pm_block() {
  using namespace power;
  const u32 base = CONFIG.word(state.power.config, PMBA, 2) & PMBA_MASK;
  const bool enabled = (CONFIG.read(state.power.config, PMREGMISC) & PMIOSE) != 0;
  const u32 wanted = base | enabled;
  if (shown_.pm_block != wanted) memory_map_.map_region(PM, base, enabled);
  shown_.pm_block = wanted;
}

} // namespace piix
