// Model-specific registers, the time-stamp counter and performance counters (SDM 4, APM 2 appendix A).
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {
namespace {

enum Msr : u32 {
  TSC = 0x10,
  APIC_BASE = 0x1b,
  MICROCODE_UPDATE = 0x79,
  MICROCODE_LEVEL = 0x8b,
  MTRR_CAP = 0xfe,
  SYSENTER_CS = 0x174,
  SYSENTER_ESP = 0x175,
  SYSENTER_EIP = 0x176,
  DEBUG_CTL = 0x1d9,
  MTRR_VARIABLE = 0x200,
  MTRR_VARIABLE_LAST = 0x20f,
  PAT = 0x277,
  MTRR_DEF_TYPE = 0x2ff,
  TSC_DEADLINE = 0x6e0,
  X2APIC = 0x800,
  X2APIC_LAST = 0x8ff,
  HYPERVISOR = 0x4000'0000,
  HYPERVISOR_LAST = 0x4000'02ff,
  EFER = 0xc000'0080,
  STAR = 0xc000'0081,
  LSTAR = 0xc000'0082,
  CSTAR = 0xc000'0083,
  SFMASK = 0xc000'0084,
  FS_BASE = 0xc000'0100,
  GS_BASE = 0xc000'0101,
  KERNEL_GS_BASE = 0xc000'0102,
  TSC_AUX = 0xc000'0103,
  SYSCFG = 0xc001'0010,
  HWCR = 0xc001'0015,
  TOP_MEM = 0xc001'001a,
  TOP_MEM2 = 0xc001'001d,
  NB_CFG = 0xc001'001f,
  PATCH_LOADER = 0xc001'0020,
  INT_PENDING = 0xc001'0055,
  DE_CFG = 0xc001'1029,
};

// The eleven fixed-range MTRRs in Cpu::mtrr_fixed (SDM 3A 11.11.2.2); -1 for any other MSR.
int fixed_mtrr(u32 msr) {
  if (msr == 0x250) return 0;
  if (msr == 0x258 || msr == 0x259) return static_cast<int>(msr - 0x257);
  if (msr >= 0x268 && msr <= 0x26f) return static_cast<int>(msr - 0x265);
  return -1;
}

bool mtrr_type(u64 type) { return type <= 6 && type != 2 && type != 3; }
bool pat_type(u64 type) { return type <= 7 && type != 2 && type != 3; }

template <bool (*Valid)(u64)>
bool all_bytes(u64 value) {
  for (unsigned n = 0; n < 8; ++n)
    if (!Valid(value >> (8 * n) & 0xff)) return false;
  return true;
}

// PHYSBASEn (even) and PHYSMASKn (odd).
bool valid_variable_mtrr(u32 msr, u64 value) {
  if (value >> PHYSICAL_BITS) return false;
  return msr & 1 ? (value & 0x7ff) == 0 : (value & 0xf00) == 0 && mtrr_type(value & 0xff);
}

bool write_efer(Cpu& cpu, u64 value) {
  if (value & ~efer_mask(cpu)) return false;
  const u64 before = cpu.efer;
  value = (value & ~EFER_LMA) | (before & EFER_LMA);
  if (((value ^ before) & EFER_LME) && (cpu.cr0 & CR0_PG)) return false;
  cpu.efer = value;
  if ((value ^ before) & EFER_NXE) flush_tlb(cpu);
  update_mode(cpu);
  return true;
}

bool write_mtrr(Cpu& cpu, u32 msr, u64 value) {
  if (msr == MTRR_DEF_TYPE) {
    if ((value & ~u64{0xcff}) || !mtrr_type(value & 0xff)) return false;
    cpu.mtrr_def_type = value;
    return true;
  }
  if (msr >= MTRR_VARIABLE && msr <= MTRR_VARIABLE_LAST) {
    if (!valid_variable_mtrr(msr, value)) return false;
    cpu.mtrr_variable[msr - MTRR_VARIABLE] = value;
    return true;
  }
  const int fixed = fixed_mtrr(msr);
  if (fixed < 0 || !all_bytes<mtrr_type>(value)) return false;
  cpu.mtrr_fixed[fixed] = value;
  return true;
}

bool set_if(u64& target, u64 value, bool valid) {
  if (valid) target = value;
  return valid;
}

bool set_base(Cpu& cpu, unsigned index, u64 value) {
  if (!canonical(value)) return false;
  cpu.segment[index].base = value;
  cpu.segment[index].refresh();
  return true;
}

} // namespace

bool read_msr(Cpu& cpu, u32 msr, u64& value) {
  value = 0;
  switch (msr) {
    case TSC: value = cpu.platform.tsc(); return true;
    case APIC_BASE: value = cpu.platform->apic_base_read(); return true;
    case MTRR_CAP: value = 0x508; return true; // eight variable ranges, fixed ranges, write combining
    case SYSENTER_CS: value = cpu.sysenter_cs; return true;
    case SYSENTER_ESP: value = cpu.sysenter_esp; return true;
    case SYSENTER_EIP: value = cpu.sysenter_eip; return true;
    case PAT: value = cpu.pat; return true;
    case MTRR_DEF_TYPE: value = cpu.mtrr_def_type; return true;
    case EFER: value = cpu.efer; return true;
    case STAR: value = cpu.star; return true;
    case LSTAR: value = cpu.lstar; return true;
    case CSTAR: value = cpu.cstar; return true;
    case SFMASK: value = cpu.sfmask; return true;
    case FS_BASE: value = cpu.segment[FS].base; return true;
    case GS_BASE: value = cpu.segment[GS].base; return true;
    case KERNEL_GS_BASE: value = cpu.kernel_gs_base; return true;
    case TSC_AUX: value = cpu.tsc_aux; return true;
    case DE_CFG:
      value = 2;
      return true; // LFENCE waits for all instructions before it
    // There, and zero: no microcode loaded, no last-branch records, no K8 north bridge.
    case MICROCODE_LEVEL:
    case DEBUG_CTL:
    case SYSCFG:
    case HWCR:
    case TOP_MEM:
    case TOP_MEM2:
    case NB_CFG:
    case INT_PENDING: return true;
    default: break;
  }
  if (msr >= MTRR_VARIABLE && msr <= MTRR_VARIABLE_LAST) {
    value = cpu.mtrr_variable[msr - MTRR_VARIABLE];
    return true;
  }
  if (const int fixed = fixed_mtrr(msr); fixed >= 0) {
    value = cpu.mtrr_fixed[fixed];
    return true;
  }
  if ((msr >= X2APIC && msr <= X2APIC_LAST) || msr == TSC_DEADLINE) return cpu.platform->x2apic_read(msr, value);
  return false;
}

bool write_msr(Cpu& cpu, u32 msr, u64 value) {
  switch (msr) {
    case TSC: return cpu.platform->tsc_write(value);
    case APIC_BASE: return cpu.platform->apic_base_write(value);
    case SYSENTER_CS: return set_if(cpu.sysenter_cs, value, true);
    case SYSENTER_ESP: return set_if(cpu.sysenter_esp, value, canonical(value));
    case SYSENTER_EIP: return set_if(cpu.sysenter_eip, value, canonical(value));
    case PAT: return set_if(cpu.pat, value, all_bytes<pat_type>(value));
    case EFER: return write_efer(cpu, value);
    case STAR: return set_if(cpu.star, value, true);
    case LSTAR: return set_if(cpu.lstar, value, canonical(value));
    case CSTAR: return set_if(cpu.cstar, value, canonical(value));
    case SFMASK: return set_if(cpu.sfmask, static_cast<u32>(value), true);
    case FS_BASE: return set_base(cpu, FS, value);
    case GS_BASE: return set_base(cpu, GS, value);
    case KERNEL_GS_BASE: return set_if(cpu.kernel_gs_base, value, canonical(value));
    case TSC_AUX: return set_if(cpu.tsc_aux, value, value >> 32 == 0);
    // A microcode update is acknowledged and has no effect: there is no microcode.
    case MICROCODE_UPDATE:
    case MICROCODE_LEVEL:
    case PATCH_LOADER:
    case DEBUG_CTL:
    case SYSCFG:
    case HWCR:
    case TOP_MEM:
    case TOP_MEM2:
    case NB_CFG:
    case INT_PENDING:
    case DE_CFG: return true;
    default: break;
  }
  if ((msr >= X2APIC && msr <= X2APIC_LAST) || msr == TSC_DEADLINE) {
    cpu.leave = LEAVE_ASKED; // the task priority, an EOI or a self-IPI may let an interrupt through
    return cpu.platform->x2apic_write(msr, value);
  }
  if (msr >= HYPERVISOR && msr <= HYPERVISOR_LAST) return cpu.platform->hypervisor_msr_write(msr, value);
  return write_mtrr(cpu, msr, value);
}

namespace op {

void rdmsr(Cpu& cpu, const Insn&) {
  require_cpl0(cpu);
  u64 value;
  if (!read_msr(cpu, static_cast<u32>(cpu.gpr[RCX]), value)) raise(cpu, GP, 0);
  cpu.gpr[RAX] = static_cast<u32>(value);
  cpu.gpr[RDX] = value >> 32;
}

void wrmsr(Cpu& cpu, const Insn&) {
  require_cpl0(cpu);
  const u64 value = cpu.gpr[RDX] << 32 | static_cast<u32>(cpu.gpr[RAX]);
  if (!write_msr(cpu, static_cast<u32>(cpu.gpr[RCX]), value)) raise(cpu, GP, 0);
}

void rdtsc(Cpu& cpu, const Insn&) {
  if ((cpu.cr4 & CR4_TSD) && cpu.cpl != 0) raise(cpu, GP, 0);
  const u64 tsc = cpu.platform.tsc();
  cpu.gpr[RAX] = static_cast<u32>(tsc);
  cpu.gpr[RDX] = tsc >> 32;
}

void rdtscp(Cpu& cpu, const Insn& i) {
  rdtsc(cpu, i);
  cpu.gpr[RCX] = static_cast<u32>(cpu.tsc_aux);
}

void rdpmc(Cpu& cpu, const Insn&) { raise(cpu, GP, 0); } // no counters: every number is out of range

} // namespace op

} // namespace transom::soft
