#include "hypervisor/vcpu/soft/x87_state.hpp"

namespace transom::soft {

void set_fcw(Fx& fx, u16 value) {
  constexpr u16 writable = 0x1f3f, fixed = 0x0040; // bit 6 reads as one, bits 7 and 15:13 as zero
  fx.fcw = static_cast<u16>((value & writable) | fixed);
  update_fsw_summary(fx);
}

namespace {

constexpr u16 FCW_INIT = 0x037f;

void initialise(Cpu& cpu) {
  unload_fp(cpu);
  Fx& fx = cpu.fx;
  set_top(fx, 0);
  fx.fcw = FCW_INIT;
  fx.fsw = 0;
  fx.ftw = 0;
  fx.fop = 0;
  fx.fip = fx.fdp = 0;
}

// --- tag word: two bits a physical register (SDM 1 figure 8-7), which FXSAVE abridges to one
enum Tag : u16 { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

Tag tag_of(const u8* value) {
  u64 significand;
  u16 exponent;
  std::memcpy(&significand, value, 8);
  std::memcpy(&exponent, value + 8, 2);
  exponent &= 0x7fff;
  if (exponent == 0) return significand == 0 ? TAG_ZERO : TAG_SPECIAL;
  if (exponent == 0x7fff) return TAG_SPECIAL;
  return significand >> 63 ? TAG_VALID : TAG_SPECIAL; // unnormal
}
u16 full_tags(const Fx& fx) {
  u32 tags = 0;
  for (unsigned n = 0; n < 8; ++n) {
    const bool used = (fx.ftw >> n) & 1;
    tags |= u32{used ? tag_of(fx.st[n]) : TAG_EMPTY} << (2 * n);
  }
  return static_cast<u16>(tags);
}
u8 abridged_tags(u16 tags) {
  unsigned abridged = 0;
  for (unsigned n = 0; n < 8; ++n) abridged |= u32{((tags >> (2 * n)) & 3) != TAG_EMPTY} << n;
  return static_cast<u8>(abridged);
}

// --- environment, SDM 1 figures 8-9 to 8-12: seven fields of the operand size; unused upper halves read as ones
struct Environment {
  static constexpr unsigned FIELDS = 7, MAX_BYTES = 28;
  u32 field[FIELDS] = {}; // control, status, tags, IP, CS and opcode, DP, DS
};
unsigned environment_bytes(const Insn& i) { return Environment::FIELDS * (i.osz == 2 ? 2u : 4u); }

Environment environment(const Cpu& cpu, bool wide) {
  const Fx& fx = cpu.fx;
  Environment e;
  const u32 unused = 0xffff'0000, fop = fx.fop & 0x7ffu;
  const u32 ip = static_cast<u32>(fx.fip), dp = static_cast<u32>(fx.fdp);
  e.field[0] = fx.fcw | unused;
  e.field[1] = fx.fsw | unused;
  e.field[2] = full_tags(fx) | unused;
  if (real_pointers(cpu)) {
    e.field[3] = (ip & 0xffff) | unused;
    e.field[4] = (ip >> 16 & 0xffff) << 12 | fop;
    e.field[5] = (dp & 0xffff) | unused;
    e.field[6] = (dp >> 16 & 0xffff) << 12;
  } else {
    e.field[3] = ip;
    e.field[4] = wide ? fop << 16 : 0;
    e.field[5] = dp;
    e.field[6] = unused;
  }
  return e;
}
void set_environment(Cpu& cpu, const Environment& e, bool wide) {
  unload_fp(cpu);
  Fx& fx = cpu.fx;
  set_top(fx, e.field[1] >> 11 & 7);
  fx.fsw = static_cast<u16>(e.field[1]);
  fx.ftw = abridged_tags(static_cast<u16>(e.field[2]));
  if (real_pointers(cpu)) {
    fx.fip = (e.field[3] & 0xffff) | (e.field[4] >> 12 & 0xffff) << 16;
    fx.fop = e.field[4] & 0x7ff;
    fx.fdp = (e.field[5] & 0xffff) | (e.field[6] >> 12 & 0xffff) << 16;
  } else {
    fx.fip = e.field[3];
    fx.fop = wide ? e.field[4] >> 16 & 0x7ff : 0;
    fx.fdp = e.field[5];
  }
  set_fcw(fx, static_cast<u16>(e.field[0]));
}

unsigned pack(const Environment& e, bool wide, u8* image) {
  unsigned at = 0;
  for (const u32 field : e.field) {
    std::memcpy(image + at, &field, wide ? 4 : 2); // little-endian: the low half
    at += wide ? 4 : 2;
  }
  return at;
}
Environment unpack(const u8* image, bool wide) {
  Environment e;
  for (unsigned n = 0; n < Environment::FIELDS; ++n) std::memcpy(&e.field[n], image + n * (wide ? 4 : 2), wide ? 4 : 2);
  return e;
}

// --- the instructions
void fwait(Cpu& cpu, const Insn&) {
  if ((cpu.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) raise(cpu, NM);
  check_pending_x87(cpu);
}
// FNENI, FNDISI (8087) and FNSETPM (287) do nothing since the 387, and never wait.
void fn_ignored(Cpu& cpu, const Insn&) { check_x87(cpu); }

void fninit(Cpu& cpu, const Insn&) {
  check_x87(cpu);
  initialise(cpu);
}
void fnclex(Cpu& cpu, const Insn&) {
  check_x87(cpu);
  unload_fp(cpu);
  cpu.fx.fsw &= static_cast<u16>(~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B));
}
void fldcw(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  const u16 value = load<u16>(cpu, i);
  const bool reload = (cpu.fp_loaded & LOADED_FCW) && (value & FCW_MASKS) == FCW_MASKS;
  if (!reload) unload_fp(cpu);
  set_fcw(cpu.fx, value);
  if (reload) asm volatile("fldcw %0" : : "m"(cpu.fx.fcw));
}
void fnstcw(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  store<u16>(cpu, i, cpu.fx.fcw);
}
void fnstsw(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  store<u16>(cpu, i, cpu.fx.fsw);
}
void fnstsw_ax(Cpu& cpu, const Insn&) {
  check_x87(cpu);
  set_reg<u16>(cpu, RAX, cpu.fx.fsw);
}
void fldenv(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  u8 image[Environment::MAX_BYTES];
  const unsigned bytes = environment_bytes(i);
  read_image(cpu, operand_address(cpu, i, bytes, false), image, bytes);
  set_environment(cpu, unpack(image, i.osz != 2), i.osz != 2);
}
void fnstenv(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  u8 image[Environment::MAX_BYTES];
  const unsigned bytes = pack(environment(cpu, i.osz != 2), i.osz != 2, image);
  write_image(cpu, operand_address(cpu, i, bytes, true), image, bytes);
  unload_fp(cpu);
  set_fcw(cpu.fx, cpu.fx.fcw | FCW_MASKS);
}
void frstor(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  u8 image[Environment::MAX_BYTES + 80];
  const unsigned header = environment_bytes(i);
  read_image(cpu, operand_address(cpu, i, header + 80, false), image, header + 80);
  set_environment(cpu, unpack(image, i.osz != 2), i.osz != 2);
  for (unsigned n = 0; n < 8; ++n) std::memcpy(st(cpu.fx, n), image + header + n * 10, 10);
}
void fnsave(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  u8 image[Environment::MAX_BYTES + 80];
  const unsigned header = pack(environment(cpu, i.osz != 2), i.osz != 2, image);
  for (unsigned n = 0; n < 8; ++n) std::memcpy(image + header + n * 10, st(cpu.fx, n), 10);
  write_image(cpu, operand_address(cpu, i, header + 80, true), image, header + 80);
  initialise(cpu);
}

} // namespace

Choice x87_control_handler(u8 opcode, u8 modrm) {
  if (opcode == 0x9b) return simple_choice<fwait>();
  if (modrm >= 0xc0) switch (opcode << 8 | modrm) {
      case 0xdbe0:
      case 0xdbe1:
      case 0xdbe4: return simple_choice<fn_ignored>();
      case 0xdbe2: return simple_choice<fnclex>();
      case 0xdbe3: return simple_choice<fninit>();
      case 0xdfe0: return simple_choice<fnstsw_ax>();
      default: return {};
    }
  switch (opcode << 4 | ((modrm >> 3) & 7)) {
    case 0xd94: return simple_choice<fldenv>();
    case 0xd95: return simple_choice<fldcw>();
    case 0xd96: return simple_choice<fnstenv>();
    case 0xd97: return simple_choice<fnstcw>();
    case 0xdd4: return simple_choice<frstor>();
    case 0xdd6: return simple_choice<fnsave>();
    case 0xdd7: return simple_choice<fnstsw>();
    default: return {};
  }
}

} // namespace transom::soft
