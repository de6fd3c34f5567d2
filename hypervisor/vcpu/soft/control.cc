// Control and debug registers, descriptor table registers, INVLPG (SDM 3A 2.5, 17.2; APM 2 3.1).
#include "hypervisor/vcpu/soft/system.hpp"

namespace transom::soft {

namespace {
// One page-directory-pointer-table entry; the table is aligned to 32 bytes, so none crosses a page.
u64 read_pdpte(Cpu& cpu, u64 gpa) {
  gpa &= cpu.a20_mask;
  const PhysPage page = cpu.platform->page(gpa & PAGE_MASK);
  if (page.read == nullptr) return cpu.platform->mmio_read(gpa, 8);
  u64 value;
  std::memcpy(&value, page.read + gpa % PAGE_SIZE, sizeof value);
  return value;
}
} // namespace

// SDM 3A 4.4.1: four entries at CR3 bits 31:5; loaded with CR3 and whenever PAE paging comes into force.
void load_pdptrs(Cpu& cpu, u64 cr3) {
  u64 entries[4];
  const u64 reserved = 0x1e6 | ~((u64{1} << PHYSICAL_BITS) - 1);
  for (unsigned n = 0; n < 4; ++n) {
    entries[n] = read_pdpte(cpu, (cr3 & 0xffff'ffe0) + 8 * n);
    if ((entries[n] & 1) && (entries[n] & reserved)) raise(cpu, GP, 0);
  }
  for (unsigned n = 0; n < 4; ++n) cpu.pdptr[n] = entries[n];
}

namespace {

bool pae_paging(u64 cr0, u64 cr4, u64 efer) { return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LME); }

void set_cr3(Cpu& cpu, u64 value) {
  if (long_mode(cpu)) {
    if (value >> PHYSICAL_BITS) raise(cpu, GP, 0);
  } else {
    value = static_cast<u32>(value);
    if (pae_paging(cpu.cr0, cpu.cr4, cpu.efer)) load_pdptrs(cpu, value);
  }
  cpu.cr3 = value;
  flush_tlb_local(cpu);
}

void set_cr4(Cpu& cpu, u64 value) {
  if (value & ~cr4_mask(cpu)) raise(cpu, GP, 0);
  if (long_mode(cpu) && !(value & CR4_PAE)) raise(cpu, GP, 0);
  const u64 changed = cpu.cr4 ^ value;
  constexpr u64 PAGING = CR4_PSE | CR4_PAE | CR4_PGE;
  if ((changed & PAGING) && pae_paging(cpu.cr0, value, cpu.efer)) load_pdptrs(cpu, cpu.cr3);
  cpu.cr4 = value;
  if (changed & PAGING) flush_tlb(cpu);
  update_mode(cpu);
}

// AMD's LOCK MOV CR0 is CR8, for code that has no REX (APM 3, MOV CRn; CPUID AltMovCr8).
unsigned control_register(Cpu& cpu, const Insn& i) {
  const bool lock = i.flags & INSN_LOCK;
  const unsigned n = lock ? 8 : i.reg;
  if ((lock && i.reg != 0) || (n != 0 && n != 2 && n != 3 && n != 4 && n != 8)) raise(cpu, UD);
  require_cpl0(cpu);
  return n;
}

} // namespace

void set_cr0(Cpu& cpu, u64 value) {
  if (value >> 32) raise(cpu, GP, 0);
  constexpr u64 WRITABLE = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
  value = (value & WRITABLE) | CR0_ET;
  if ((value & CR0_PG) && !(value & CR0_PE)) raise(cpu, GP, 0);
  if ((value & CR0_NW) && !(value & CR0_CD)) raise(cpu, GP, 0);
  const u64 changed = cpu.cr0 ^ value;
  u64 efer = cpu.efer;
  if ((changed & value & CR0_PG) && (efer & EFER_LME)) { // SDM 3A 9.8.5
    if (!(cpu.cr4 & CR4_PAE) || (cpu.segment[CS].attr & ATTR_L)) raise(cpu, GP, 0);
    efer |= EFER_LMA;
  }
  if ((changed & ~value & CR0_PG) && (efer & EFER_LMA)) {
    if (code64(cpu)) raise(cpu, GP, 0);
    efer &= ~EFER_LMA;
  }
  if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && pae_paging(value, cpu.cr4, efer)) load_pdptrs(cpu, cpu.cr3);
  cpu.cr0 = value;
  cpu.efer = efer;
  if (changed & (CR0_PG | CR0_PE | CR0_WP)) flush_tlb(cpu);
  update_mode(cpu);
}

namespace op {

void mov_from_cr(Cpu& cpu, const Insn& i) {
  u64 value = 0;
  switch (control_register(cpu, i)) {
    case 0: value = cpu.cr0; break;
    case 2: value = cpu.cr2; break;
    case 3: value = cpu.cr3; break;
    case 4: value = cpu.cr4; break;
    default: value = cpu.platform->cr8_read() & 15; break;
  }
  set_reg<u64>(cpu, i.rm, code64(cpu) ? value : static_cast<u32>(value));
}

void mov_to_cr(Cpu& cpu, const Insn& i) {
  const u64 value = code64(cpu) ? cpu.gpr[i.rm] : static_cast<u32>(cpu.gpr[i.rm]);
  switch (control_register(cpu, i)) {
    case 0: return set_cr0(cpu, value);
    case 2: cpu.cr2 = value; return;
    case 3: return set_cr3(cpu, value);
    case 4: return set_cr4(cpu, value);
    default:
      if (value > 15) raise(cpu, GP, 0);
      cpu.platform->cr8_write(static_cast<u8>(value));
      cpu.leave = LEAVE_ASKED; // a lower priority may let an interrupt through
  }
}

// --- debug registers (SDM 3B 17.2)

static unsigned debug_register(Cpu& cpu, const Insn& i) {
  unsigned n = i.reg;
  if (n >= 8) raise(cpu, UD);
  if (n == 4 || n == 5) {
    if (cpu.cr4 & CR4_DE) raise(cpu, UD);
    n += 2;
  }
  require_cpl0(cpu);
  if (cpu.dr[7] & 0x2000) {      // GD
    cpu.pending_debug |= 0x2000; // BD
    raise(cpu, DB);
  }
  return n;
}

void mov_from_dr(Cpu& cpu, const Insn& i) {
  const u64 value = cpu.dr[debug_register(cpu, i)];
  set_reg<u64>(cpu, i.rm, code64(cpu) ? value : static_cast<u32>(value));
}

void mov_to_dr(Cpu& cpu, const Insn& i) {
  const unsigned n = debug_register(cpu, i);
  u64 value = code64(cpu) ? cpu.gpr[i.rm] : static_cast<u32>(cpu.gpr[i.rm]);
  if (n >= 6 && value >> 32) raise(cpu, GP, 0);
  if (n == 6) value = (value & 0xe00f) | 0xffff'0ff0;
  if (n == 7) value = (value & 0xffff'23ff) | 0x400;
  cpu.dr[n] = value;
  update_mode(cpu);
}

// --- machine status word

void smsw(Cpu& cpu, const Insn& i) {
  if (i.form != Form::reg) return store<u16>(cpu, i, static_cast<u16>(cpu.cr0));
  if (i.osz == 2)
    set_reg<u16>(cpu, i.rm, static_cast<u16>(cpu.cr0));
  else
    set_reg<u64>(cpu, i.rm, i.osz == 4 ? static_cast<u32>(cpu.cr0) : cpu.cr0);
}

// PE MP EM TS only; PE can be set, not cleared.
void lmsw(Cpu& cpu, const Insn& i) {
  require_cpl0(cpu);
  const u16 value = i.form == Form::reg ? reg<u16>(cpu, i.rm) : load<u16>(cpu, i);
  set_cr0(cpu, (cpu.cr0 & ~u64{0xe}) | (value & 0xfu));
}

void clts(Cpu& cpu, const Insn&) {
  require_cpl0(cpu);
  cpu.cr0 &= ~CR0_TS;
  update_mode(cpu);
}

// --- descriptor table registers: limit, then base (4 bytes; 8 in 64-bit mode)

static void store_table(Cpu& cpu, const Insn& i, const DescriptorTable& table) {
  const unsigned size = code64(cpu) ? 10 : 6;
  const u64 at = operand_address(cpu, i, size, true);
  probe(cpu, at, size, Access::write, user_mode(cpu));
  write_linear<u16>(cpu, at, table.limit);
  if (size == 10)
    write_linear<u64>(cpu, at + 2, table.base);
  else
    write_linear<u32>(cpu, static_cast<u32>(at + 2), static_cast<u32>(table.base));
}

static void load_table(Cpu& cpu, const Insn& i, DescriptorTable& table) {
  require_cpl0(cpu);
  const bool wide = code64(cpu);
  const u64 at = operand_address(cpu, i, wide ? 10 : 6, false);
  const u16 limit = read_linear<u16>(cpu, at);
  u64 base = wide ? read_linear<u64>(cpu, at + 2) : read_linear<u32>(cpu, static_cast<u32>(at + 2));
  if (!wide && i.osz == 2) base &= 0xff'ffff;
  if (!canonical(base)) raise(cpu, GP, 0);
  table = {base, limit};
}

void sgdt(Cpu& cpu, const Insn& i) { store_table(cpu, i, cpu.gdtr); }
void sidt(Cpu& cpu, const Insn& i) { store_table(cpu, i, cpu.idtr); }
void lgdt(Cpu& cpu, const Insn& i) { load_table(cpu, i, cpu.gdtr); }
void lidt(Cpu& cpu, const Insn& i) { load_table(cpu, i, cpu.idtr); }

// --- caches

// The address is neither checked against the segment nor accessed (SDM 2, INVLPG).
void invlpg(Cpu& cpu, const Insn& i) {
  require_cpl0(cpu);
  u64 linear = effective_offset(cpu, i);
  if (!code64(cpu))
    linear = static_cast<u32>(linear + cpu.segment[i.segment].base);
  else if (i.segment >= FS)
    linear += cpu.segment[i.segment].base;
  if (canonical(linear)) flush_tlb_page(cpu, linear);
}

void invd(Cpu& cpu, const Insn&) { require_cpl0(cpu); } // INVD, WBINVD: there is no cache

} // namespace op

} // namespace transom::soft
