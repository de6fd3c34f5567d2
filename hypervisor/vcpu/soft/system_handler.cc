// Which opcode is which handler.
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

Choice one_byte(const SystemOpcode& o) {
  const unsigned extension = o.modrm >> 3 & 7;
  switch (o.opcode) {
    case 0x8c: return simple_choice<op::mov_from_sreg>();
    case 0x8e: return ends_choice<op::mov_to_sreg>();
    case 0xca:
    case 0xcb: return ends_choice<op::ret_far>();
    case 0xcc: return ends_choice<op::int3>();
    case 0xcd: return ends_choice<op::int_n>();
    case 0xcf: return ends_choice<op::iret>();
    case 0xf1: return ends_choice<op::int1>();
    case 0xff:
      return extension == 3   ? ends_choice<op::call_far_indirect>()
             : extension == 5 ? ends_choice<op::jmp_far_indirect>()
                              : Choice{};
    default: break;
  }
  if (o.code64) return {}; // the rest does not exist there
  switch (o.opcode) {
    case 0x06:
    case 0x0e:
    case 0x16:
    case 0x1e: return simple_choice<op::push_sreg>();
    case 0x07:
    case 0x17:
    case 0x1f: return ends_choice<op::pop_sreg>();
    case 0x62: return simple_choice<op::bound>();
    case 0x63: return simple_choice<op::arpl>();
    case 0x9a: return ends_choice<op::call_far>();
    case 0xc4:
    case 0xc5: return ends_choice<op::load_far>();
    case 0xce: return ends_choice<op::into>();
    case 0xea: return ends_choice<op::jmp_far>();
    default: return {};
  }
}

// 0F 00
Choice group6(const SystemOpcode& o) {
  switch (o.modrm >> 3 & 7) {
    case 0: return simple_choice<op::sldt>();
    case 1: return simple_choice<op::str>();
    case 2: return ends_choice<op::lldt>();
    case 3: return ends_choice<op::ltr>();
    case 4: return simple_choice<op::verr>();
    case 5: return simple_choice<op::verw>();
    default: return {};
  }
}

// 0F 01. MONITOR, MWAIT, XGETBV, XSETBV, CLAC, STAC, the SVM ones and CLZERO are not shown by CPUID: #UD.
Choice group7(const SystemOpcode& o) {
  const unsigned extension = o.modrm >> 3 & 7;
  if (extension == 4) return simple_choice<op::smsw>();
  if (extension == 6) return ends_choice<op::lmsw>();
  if (o.modrm >= 0xc0) {
    switch (o.modrm) {
      case 0xc1:
      case 0xd9: return ends_choice<op::hypercall>();
      case 0xf8: return ends_choice<op::swapgs>();
      case 0xf9: return simple_choice<op::rdtscp>();
      default: return {};
    }
  }
  switch (extension) {
    case 0: return simple_choice<op::sgdt>();
    case 1: return simple_choice<op::sidt>();
    case 2: return ends_choice<op::lgdt>();
    case 3: return ends_choice<op::lidt>();
    case 7: return ends_choice<op::invlpg>();
    default: return {};
  }
}

Choice two_byte(const SystemOpcode& o) {
  switch (o.opcode) {
    case 0x00: return group6(o);
    case 0x01: return group7(o);
    case 0x02: return simple_choice<op::lar>();
    case 0x03: return simple_choice<op::lsl>();
    case 0x05: return ends_choice<op::syscall>();
    case 0x06: return ends_choice<op::clts>();
    case 0x07: return ends_choice<op::sysret>();
    case 0x08:
    case 0x09: return simple_choice<op::invd>();
    case 0x20: return simple_choice<op::mov_from_cr>();
    case 0x21: return simple_choice<op::mov_from_dr>();
    case 0x22: return ends_choice<op::mov_to_cr>();
    case 0x23: return ends_choice<op::mov_to_dr>();
    case 0x30: return ends_choice<op::wrmsr>();
    case 0x31: return simple_choice<op::rdtsc>();
    case 0x32: return simple_choice<op::rdmsr>();
    case 0x33: return simple_choice<op::rdpmc>();
    case 0x34: return ends_choice<op::sysenter>();
    case 0x35: return ends_choice<op::sysexit>();
    case 0xa0:
    case 0xa8: return simple_choice<op::push_sreg>();
    case 0xa1:
    case 0xa9: return ends_choice<op::pop_sreg>();
    case 0xa2: return simple_choice<op::cpuid>();
    case 0xb2:
    case 0xb4:
    case 0xb5: return ends_choice<op::load_far>();
    default: return {}; // AA RSM outside SMM; C7 RDRAND, RDSEED, RDPID: not shown
  }
}

} // namespace

Choice system_handler(const SystemOpcode& o) { return o.map == 0 ? one_byte(o) : o.map == 1 ? two_byte(o) : Choice{}; }

} // namespace transom::soft
