// Stand-ins until the system handlers are there: every opcode of theirs is #UD and nothing is delivered.
#include "hypervisor/vcpu/soft/handlers_system.hpp"

namespace transom::soft {

Choice system_handler(const SystemOpcode&) { return {}; }
void deliver(Cpu& cpu) {
  cpu.event = {};
  cpu.shutdown = true;
}
void check_io_permission(Cpu&, u16, unsigned) {}
void reset_state(Cpu&) {}
const Model* find_model(std::string_view) { return nullptr; }

} // namespace transom::soft
