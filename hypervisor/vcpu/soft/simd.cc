// Finds the handler of an MMX or SSE opcode.
#include <array>

#include "hypervisor/vcpu/soft/handlers_simd.hpp"
#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

void raise_simd_exception(Cpu& cpu) { raise(cpu, cpu.cr4 & CR4_OSXMMEXCPT ? XM : UD); }

namespace {

// Entries by map, mandatory prefix and opcode; those that the host cannot execute are left out.
class Index {
 public:
  Index() {
    for (const SimdTable& table : {simd_computations(), simd_moves(), simd_shuffles(), simd_conversions()})
      for (std::size_t n = 0; n < table.count; ++n)
        if (host_has(table.entry[n].isa)) slot_[slot(table.entry[n].op)] = &table.entry[n];
  }
  const SimdEntry* find(const Op& op) const { return slot_[slot(op)]; }

 private:
  static unsigned slot(const Op& op) {
    const unsigned prefix = op.prefix == 0 ? 0 : op.prefix == 0x66 ? 1 : op.prefix == 0xf3 ? 2 : 3;
    return ((op.map & 3u) * 4 + prefix) * 256 + op.opcode;
  }
  std::array<const SimdEntry*, 4 * 4 * 256> slot_{};
};

} // namespace

Choice simd_handler(const SimdOpcode& o) {
  static const Index index;
  const Op op{o.map, o.prefix, o.opcode};
  if (o.map == 1 && o.opcode == 0xae) return simd_state_group(o.prefix, o.modrm);
  if (o.map == 1 && o.opcode >= 0x71 && o.opcode <= 0x73) return simd_shift_group(op, o.modrm);
  const SimdEntry* const entry = index.find(op);
  if (entry == nullptr) return {};
  return o.modrm >= 0xc0 || (o.map == 1 && o.opcode == 0x77) ? entry->reg : entry->mem;
}

} // namespace transom::soft
