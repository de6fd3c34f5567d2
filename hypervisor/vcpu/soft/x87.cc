// x87 instructions that compute, load or store a value: executed by the host's x87 unit with the guest's whole state,
// for any operands and any control word. Most executions do not need that: x87_direct.cc.
//
// The guest's registers, control, status and tags are loaded with FXRSTOR, the guest's opcode is executed, and FXSAVE
// takes the result; so rounding, TOP, tags, stack faults, C0–C3 and responses to unmasked exceptions are the
// hardware's. FXSAVE and FNINIT do not wait, so an exception that the instruction leaves pending never reaches the
// host.
#include <array>
#include <utility>

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "hypervisor/vcpu/soft/handlers_simd.hpp"
#include "hypervisor/vcpu/soft/x87_state.hpp"

namespace transom::soft {

namespace {

constexpr unsigned X87_BYTES = 160; // the part of the FXSAVE image that is x87's: up to xmm

// Executes one instruction between the image and `operand`. `flags` are arithmetic flags as Cpu::flags has them:
// FCMOVcc reads them, FCOMI writes them.
using Native = void (*)(Fx& image, void* operand, u16& flags);

#define TRANSOM_X87_CLOBBERS                                                                                           \
  "memory", "cc", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", \
      "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

// D8+Opcode with a ModRM byte. Memory forms address [rdi].
template <u8 Opcode, u8 Modrm>
void native(Fx& image, void* operand, u16& flags) {
  u32 ax = flags;
  asm volatile(
      "fxrstor64 (%[image])\n"
      "addb $0x7f, %%al\n" // OF
      "sahf\n"
      ".byte %c[opcode], %c[modrm]\n"
      "lahf\n"
      "seto %%al\n"
      "fxsave64 (%[image])\n"
      "fninit\n"
      : "+a"(ax)
      : [image] "S"(&image), "D"(operand), [opcode] "i"(0xd8 + Opcode), [modrm] "i"(int{Modrm})
      : TRANSOM_X87_CLOBBERS);
  flags = static_cast<u16>(ax);
}

template <std::size_t... N>
constexpr std::array<Native, 512> register_forms(std::index_sequence<N...>) {
  return {native<N / 64, 0xc0 | N % 64>...};
}
template <std::size_t... N>
constexpr std::array<Native, 64> memory_forms(std::index_sequence<N...>) {
  return {native<N / 8, (N % 8) << 3 | 7>...};
}
constexpr auto REGISTER_FORMS = register_forms(std::make_index_sequence<512>());
constexpr auto MEMORY_FORMS = memory_forms(std::make_index_sequence<64>());

// A private image with the guest's x87 state. XMM registers and MXCSR in it are the host's.
struct Scratch {
  explicit Scratch(Cpu& cpu) {
    unload_fp(cpu);
    std::memcpy(static_cast<void*>(&image), &cpu.fx, X87_BYTES);
    for (unsigned n = 0; n < 8; ++n) std::memcpy(image.st[n], st(cpu.fx, n), 16);
    image.mxcsr = _mm_getcsr();
    // Exceptions that IGNNE# suppresses must not stop the host; they come back in commit().
    if (image.fsw & FSW_ES) [[unlikely]] {
      suppressed = image.fsw & (FSW_EXCEPTIONS | FSW_SF);
      image.fsw &= static_cast<u16>(~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B));
    }
  }
  void run(Native f, void* operand = nullptr, u16* flags = nullptr) {
    u16 unused = 0;
    f(image, operand, flags != nullptr ? *flags : unused);
  }
  // The store did not happen: an unmasked exception other than precision stops it (SDM 1 8.5).
  bool store_suppressed() const { return (image.fsw & ~image.fcw & 0x1f) != 0; }

  void commit(Cpu& cpu, const Insn& i, u64 data_pointer, bool memory) {
    image.fsw |= suppressed;
    image.mxcsr = cpu.fx.mxcsr;
    image.mxcsr_mask = cpu.fx.mxcsr_mask;
    image.fop = static_cast<u16>((i.opcode & 7) << 8 | (i.imm & 0xff));
    image.fip = x87_code_pointer(cpu);
    image.fdp = memory ? data_pointer : cpu.fx.fdp;
    std::memcpy(static_cast<void*>(&cpu.fx), &image, X87_BYTES);
    for (unsigned n = 0; n < 8; ++n) std::memcpy(st(cpu.fx, n), image.st[n], 16);
    if (suppressed) update_fsw_summary(cpu.fx);
  }

  Fx image;
  u16 suppressed = 0;
};

void compute(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  Scratch scratch(cpu);
  scratch.run(REGISTER_FORMS[(i.opcode & 7u) * 64 + (i.reg & 7u) * 8 + (i.rm & 7u)], nullptr, &cpu.flags);
  scratch.commit(cpu, i, 0, false);
}

template <class T>
void load_form(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  const u64 pointer = x87_data_pointer(cpu, i);
  T operand = load<T>(cpu, i);
  Scratch scratch(cpu);
  scratch.run(MEMORY_FORMS[(i.opcode & 7u) * 8 + (i.reg & 7u)], &operand);
  scratch.commit(cpu, i, pointer, true);
}
template <class T>
void store_form(Cpu& cpu, const Insn& i) {
  check_x87(cpu);
  check_pending_x87(cpu);
  const u64 pointer = x87_data_pointer(cpu, i);
  T operand{};
  Scratch scratch(cpu);
  scratch.run(MEMORY_FORMS[(i.opcode & 7u) * 8 + (i.reg & 7u)], &operand);
  if (scratch.store_suppressed())
    probe(cpu, operand_address(cpu, i, WIDTH<T>, true), WIDTH<T>, Access::write, user_mode(cpu));
  else
    store<T>(cpu, i, operand);
  scratch.commit(cpu, i, pointer, true);
}

template <class T>
constexpr Choice loads = simple_choice<load_form<T>>();
template <class T>
constexpr Choice stores = simple_choice<store_form<T>>();

// SDM 2D tables; D9 and DD have control instructions in between (x87_state.cc).
constexpr Choice MEMORY[8][8] = {
    {loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>}, // D8 m32fp
    {loads<u32>, {}, stores<u32>, stores<u32>, {}, {}, {}, {}},                                       // D9
    {loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>, loads<u32>}, // DA m32int
    {loads<u32>, stores<u32>, stores<u32>, stores<u32>, {}, loads<Bytes10>, {}, stores<Bytes10>},     // DB
    {loads<u64>, loads<u64>, loads<u64>, loads<u64>, loads<u64>, loads<u64>, loads<u64>, loads<u64>}, // DC m64fp
    {loads<u64>, stores<u64>, stores<u64>, stores<u64>, {}, {}, {}, {}},                              // DD
    {loads<u16>, loads<u16>, loads<u16>, loads<u16>, loads<u16>, loads<u16>, loads<u16>, loads<u16>}, // DE m16int
    {loads<u16>, stores<u16>, stores<u16>, stores<u16>, loads<Bytes10>, loads<u64>, stores<Bytes10>, stores<u64>}, // DF
};

// Register forms that exist, one bit for each ModRM byte from C0 up; with the aliases that every x87 since the 387 has:
// FSTP1 D9D8, FCOM2 DCD0, FCOMP3 DCD8, FXCH4 DDC8, FCOMP5 DED0, FFREEP DFC0, FXCH7 DFC8, FSTP8/9 DFD0/DFD8.
constexpr u64 REGISTERS[8] = {
    0xffff'ffff'ffff'ffff,
    0xffff'7f33'ff01'ffff, // D9: FLD FXCH FNOP FSTP1; FCHS FABS FTST FXAM; FLD1…FLDZ; F2XM1…FCOS
    0x0000'0200'ffff'ffff, // DA: FCMOVcc; FUCOMPP
    0x00ff'ff1f'ffff'ffff, // DB: FCMOVcc; FNENI FNDISI FNCLEX FNINIT FNSETPM; FUCOMI; FCOMI
    0xffff'ffff'ffff'ffff,
    0x0000'ffff'ffff'ffff, // DD: FFREE FXCH4 FST FSTP; FUCOM FUCOMP
    0xffff'ffff'02ff'ffff, // DE: FADDP FMULP FCOMP5; FCOMPP; FSUBRP…
    0x00ff'ff01'ffff'ffff, // DF: FFREEP FXCH7 FSTP8 FSTP9; FNSTSW AX; FUCOMIP; FCOMIP
};

} // namespace

Choice x87_whole_handler(u8 opcode, u8 modrm) {
  if (modrm < 0xc0) return MEMORY[opcode & 7][(modrm >> 3) & 7];
  return (REGISTERS[opcode & 7] >> (modrm & 63)) & 1 ? simple_choice<compute>() : Choice{};
}

Choice x87_handler(u8 opcode, u8 modrm) {
  if (const Choice control = x87_control_handler(opcode, modrm); control.handler != nullptr) return control;
  if (opcode < 0xd8 || opcode > 0xdf) return {};
  if (const Choice direct = x87_direct_handler(opcode, modrm); direct.handler != nullptr) return direct;
  return x87_whole_handler(opcode, modrm);
}

} // namespace transom::soft
