// Stand-ins until the system handlers are there: every opcode of theirs is #UD and nothing is delivered.
#include "hypervisor/vcpu/soft/handlers_system.hpp"

namespace transom::soft {

Choice system_handler(const SystemOpcode&) { return {}; }
void deliver(Cpu& cpu) {
  cpu.event = {};
  cpu.shutdown = true;
}
void check_io_permission(Cpu&, u16, unsigned) {}
void reset_state(Cpu& cpu) {
  Segment& cs = cpu.segment[CS];
  cs.base = 0xffff0000;
  cs.selector = 0xf000;
  for (Segment& s : cpu.segment) {
    s.attr = 0x93;
    s.refresh();
  }
  update_mode(cpu);
}
struct Model {};
const Model* find_model(std::string_view) {
  static const Model any;
  return &any;
}

} // namespace transom::soft
