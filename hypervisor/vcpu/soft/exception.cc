#include "hypervisor/vcpu/soft/exception.hpp"

namespace transom::soft {

void raise_event(Cpu& cpu, const Event& event) {
  cpu.event = event;
  if (cpu.current != nullptr) retire(cpu, cpu.current);
  _longjmp(cpu.fault_env, 1);
}

namespace {
[[noreturn]] void fault(Cpu& cpu, u8 vector, bool has_error, u32 error) {
  if (cpu.current != nullptr) {
    cpu.rip = insn_rip(cpu);
    cpu.instructions += cpu.current->ordinal - 1u; // the faulting one did not complete
    cpu.current = nullptr;
  }
  raise_event(cpu, {EventKind::fault, vector, has_error, error});
}
} // namespace

void raise(Cpu& cpu, u8 vector) { fault(cpu, vector, false, 0); }
void raise(Cpu& cpu, u8 vector, u32 error) { fault(cpu, vector, true, error); }
void raise_page_fault(Cpu& cpu, u64 linear, u32 error) {
  cpu.cr2 = linear;
  fault(cpu, PF, true, error);
}

} // namespace transom::soft
