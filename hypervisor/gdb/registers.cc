#include "hypervisor/gdb/registers.hpp"

#include <cstring>
#include <fmt/format.h>

namespace transom::gdb {

namespace {

enum System : u8 { CR0, CR2, CR3, CR4, EFER };
enum FpuControl : u8 { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };

constexpr const char *CORE = "org.gnu.gdb.i386.core", *SSE = "org.gnu.gdb.i386.sse",
                     *SEGMENTS = "org.gnu.gdb.i386.segments", *SYSTEM = "org.transom.x86.system";

// SDM 1 figure 3-8; the gaps are bits with a fixed value.
std::string flags_type() {
  constexpr std::pair<const char*, u32> FLAGS[] = {
      {"CF", 0},  {"PF", 2},  {"AF", 4},  {"ZF", 6},  {"SF", 7},  {"TF", 8},   {"IF", 9},   {"DF", 10},
      {"OF", 11}, {"NT", 14}, {"RF", 16}, {"VM", 17}, {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}};
  std::string text = "<flags id=\"x86_eflags\" size=\"4\">\n";
  for (const auto& [name, bit] : FLAGS)
    text += fmt::format("<field name=\"{0}\" start=\"{1}\" end=\"{1}\"/>\n", name, bit);
  return text + "</flags>\n";
}

// A register of 128 bits as whatever it may hold.
std::string vector_type() {
  struct View {
    const char *id, *name, *type;
    u32 count;
  };
  constexpr View VIEWS[] = {{"v4f", "v4_float", "ieee_single", 4}, {"v2d", "v2_double", "ieee_double", 2},
                            {"v16i8", "v16_int8", "int8", 16},     {"v8i16", "v8_int16", "int16", 8},
                            {"v4i32", "v4_int32", "int32", 4},     {"v2i64", "v2_int64", "int64", 2}};
  std::string vectors, fields;
  for (const View& v : VIEWS) {
    vectors += fmt::format("<vector id=\"{}\" type=\"{}\" count=\"{}\"/>\n", v.id, v.type, v.count);
    fields += fmt::format("<field name=\"{}\" type=\"{}\"/>\n", v.name, v.id);
  }
  return vectors + "<union id=\"vec128\">\n" + fields + "<field name=\"uint128\" type=\"uint128\"/>\n</union>\n";
}

// ---------------------------------------------------------------------------------------------------- FXSAVE image

// SDM 1 table 10-2.
enum Fx : u32 { FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_FOP = 6, FX_FIP = 8, FX_FDP = 16, FX_MXCSR = 24, FX_ST = 32 };
constexpr u32 FX_XMM = 160, FX_SLOT = 16;
constexpr u32 MXCSR_DEFINED = 0xffff;

template <class T>
T get(const u8* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void put(u8* to, u64 value) {
  const T narrow = static_cast<T>(value);
  std::memcpy(to, &narrow, sizeof narrow);
}

// The image has one bit a register, gdb wants the two of FSAVE: valid, zero, special, empty (SDM 1 section 8.1.7).
u32 full_tags(const u8* fx) {
  const u32 top = get<u16>(fx + FX_FSW) >> 11 & 7;
  u32 tags = 0;
  for (u32 n = 0; n < 8; ++n) {
    const u8* const st = fx + FX_ST + FX_SLOT * ((n - top) & 7);
    const u64 fraction = get<u64>(st);
    const u32 exponent = get<u16>(st + 8) & 0x7fff;
    u32 tag = 2;
    if (!(fx[FX_FTW] >> n & 1))
      tag = 3;
    else if (exponent == 0 && fraction == 0)
      tag = 1;
    else if (exponent != 0x7fff && fraction >> 63)
      tag = 0;
    tags |= tag << (2 * n);
  }
  return tags;
}

u64 read_fpu_control(const u8* fx, u8 index) {
  switch (index) {
    case FCTRL: return get<u16>(fx + FX_FCW);
    case FSTAT: return get<u16>(fx + FX_FSW);
    case FTAG: return full_tags(fx);
    case FISEG: return get<u32>(fx + FX_FIP + 4);
    case FIOFF: return get<u32>(fx + FX_FIP);
    case FOSEG: return get<u32>(fx + FX_FDP + 4);
    case FOOFF: return get<u32>(fx + FX_FDP);
    default: return get<u16>(fx + FX_FOP);
  }
}

void write_fpu_control(u8* fx, u8 index, u32 value) {
  switch (index) {
    case FCTRL: return put<u16>(fx + FX_FCW, value);
    case FSTAT: return put<u16>(fx + FX_FSW, value);
    case FTAG:
      fx[FX_FTW] = 0;
      for (u32 n = 0; n < 8; ++n)
        if ((value >> (2 * n) & 3) != 3) fx[FX_FTW] = static_cast<u8>(fx[FX_FTW] | 1u << n);
      return;
    case FISEG: return put<u32>(fx + FX_FIP + 4, value);
    case FIOFF: return put<u32>(fx + FX_FIP, value);
    case FOSEG: return put<u32>(fx + FX_FDP + 4, value);
    case FOOFF: return put<u32>(fx + FX_FDP, value);
    default: return put<u16>(fx + FX_FOP, value & 0x7ff);
  }
}

// ---------------------------------------------------------------------------------------------------- registers

constexpr u64 PE = 1, LMA = 1 << 10, VM = 1 << 17;
// CR0, CR4 and EFER: what a debugger may change is what changes no mode.
constexpr u64 CR0_FREE = 0x5'002e, CR4_FREE = 0x79f, EFER_FREE = 0x801;

bool canonical(u64 address) { return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address; }

// Outside of long mode there is no upper half.
u64 width(const VcpuRegisters& r) { return (r.efer & LMA) ? ~u64{0} : 0xffff'ffff; }

const SegmentRegister& selector(const VcpuRegisters& r, u8 index) {
  const SegmentRegister* const all[] = {&r.cs, &r.ss, &r.ds, &r.es, &r.fs, &r.gs};
  return *all[index];
}
SegmentRegister& selector(VcpuRegisters& r, u8 index) {
  return const_cast<SegmentRegister&>(selector(const_cast<const VcpuRegisters&>(r), index));
}
u64& base(VcpuRegisters& r, u8 index) { return index == 0 ? r.fs.base : index == 1 ? r.gs.base : r.kernel_gs_base; }
u64& system(VcpuRegisters& r, u8 index) {
  u64* const all[] = {&r.cr0, &r.cr2, &r.cr3, &r.cr4, &r.efer};
  return *all[index];
}

bool write_selector(VcpuRegisters& r, u8 index, u32 value) {
  SegmentRegister& s = selector(r, index);
  if (value == s.selector) return true;
  const bool real = !(r.cr0 & PE) || (r.rflags & VM);
  if (!real || value > 0xffff) return false; // elsewhere a descriptor belongs to it
  s.selector = static_cast<u16>(value);
  s.base = u64{value} << 4;
  return true;
}

bool write_system(VcpuRegisters& r, u8 index, u64 value) {
  u64& to = system(r, index);
  u64 free = ~u64{0};
  switch (index) {
    case CR0: free = CR0_FREE; break;
    case CR3: free = 0xff'ffff'ffff; break; // addresses have 40 bits
    case CR4: free = CR4_FREE; break;
    case EFER: free = EFER_FREE; break;
    default: break;
  }
  if ((value ^ to) & ~free) return false;
  to = value;
  return true;
}

} // namespace

bool write_pc(VcpuRegisters& r, u64 value) {
  value &= width(r);
  if (!canonical(value)) return false;
  r.rip = value;
  return true;
}

RegisterSet::RegisterSet(Architecture architecture) {
  const bool wide = architecture == Architecture::x86_64;
  add_core(wide);
  add_fpu(wide);
  add_system(wide);
  description_ = describe(wide ? "i386:x86-64" : architecture == Architecture::i386 ? "i386" : "i8086");
}

void RegisterSet::add_core(bool wide) {
  constexpr const char* WIDE[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"};
  constexpr u8 WIDE_NUMBER[] = {0, 3, 1, 2, 6, 7, 5, 4};
  constexpr const char* NARROW[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
  constexpr u8 RSP = 4, RBP = 5;
  const u32 bits = wide ? 64 : 32;
  const char* const integer = wide ? "int64" : "int32";
  for (u8 n = 0; n < 8; ++n) {
    const u8 index = wide ? WIDE_NUMBER[n] : n;
    const char* const type = index == RSP || index == RBP ? "data_ptr" : integer;
    registers_.push_back({CORE, wide ? WIDE[n] : NARROW[n], bits, type, nullptr, Bank::gpr, index});
  }
  for (u8 n = 8; wide && n < 16; ++n)
    registers_.push_back({CORE, fmt::format("r{}", n), bits, integer, nullptr, Bank::gpr, n});
  registers_.push_back({CORE, wide ? "rip" : "eip", bits, "code_ptr", nullptr, Bank::rip, 0});
  registers_.push_back({CORE, "eflags", 32, "x86_eflags", nullptr, Bank::rflags, 0});
  constexpr const char* SELECTORS[] = {"cs", "ss", "ds", "es", "fs", "gs"};
  for (u8 n = 0; n < 6; ++n) registers_.push_back({CORE, SELECTORS[n], 32, "int32", nullptr, Bank::selector, n});
}

void RegisterSet::add_fpu(bool wide) {
  for (u8 n = 0; n < 8; ++n) registers_.push_back({CORE, fmt::format("st{}", n), 80, "i387_ext", nullptr, Bank::st, n});
  constexpr const char* CONTROL[] = {"fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"};
  for (u8 n = 0; n < 8; ++n) registers_.push_back({CORE, CONTROL[n], 32, "int", "float", Bank::fpu_control, n});
  for (u8 n = 0; n < (wide ? 16 : 8); ++n)
    registers_.push_back({SSE, fmt::format("xmm{}", n), 128, "vec128", nullptr, Bank::xmm, n});
  registers_.push_back({SSE, "mxcsr", 32, "int", "vector", Bank::mxcsr, 0});
}

void RegisterSet::add_system(bool wide) {
  const u32 bits = wide ? 64 : 32;
  const char* const segments = wide ? SEGMENTS : SYSTEM; // gdb knows them of amd64 only
  registers_.push_back({segments, "fs_base", bits, "int", nullptr, Bank::base, 0});
  registers_.push_back({segments, "gs_base", bits, "int", nullptr, Bank::base, 1});
  if (wide) registers_.push_back({SYSTEM, "k_gs_base", bits, "int", "system", Bank::base, 2});
  constexpr const char* CONTROL[] = {"cr0", "cr2", "cr3", "cr4", "efer"};
  for (u8 n = 0; n < 5; ++n) registers_.push_back({SYSTEM, CONTROL[n], bits, "int", "system", Bank::system, n});
}

std::string RegisterSet::describe(const char* name) const {
  std::string text = fmt::format(
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
      "<target>\n<architecture>{}</architecture>\n",
      name);
  const char* feature = nullptr;
  for (const Register& r : registers_) {
    if (r.feature != feature) {
      if (feature != nullptr) text += "</feature>\n";
      feature = r.feature;
      text += fmt::format("<feature name=\"{}\">\n", feature);
      if (feature == CORE) text += flags_type();
      if (feature == SSE) text += vector_type();
    }
    text += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\"", r.name, r.bits, r.type);
    if (r.group != nullptr) text += fmt::format(" group=\"{}\"", r.group);
    text += "/>\n";
  }
  return text + "</feature>\n</target>\n";
}

bool RegisterSet::is_fpu(u32 number) const {
  const Bank bank = registers_[number].bank;
  return bank == Bank::st || bank == Bank::fpu_control || bank == Bank::xmm || bank == Bank::mxcsr;
}

void RegisterSet::read(const CpuState& state, u32 number, std::span<u8> to) const {
  const Register& what = registers_[number];
  VcpuRegisters r = state.registers;
  const u8 n = what.index;
  u64 value = 0;
  switch (what.bank) {
    case Bank::st: std::memcpy(to.data(), state.fx + FX_ST + FX_SLOT * n, 10); return;
    case Bank::xmm: std::memcpy(to.data(), state.fx + FX_XMM + FX_SLOT * n, 16); return;
    case Bank::gpr: value = r.gpr[n]; break;
    case Bank::rip: value = r.rip; break;
    case Bank::rflags: value = r.rflags; break;
    case Bank::selector: value = selector(r, n).selector; break;
    case Bank::fpu_control: value = read_fpu_control(state.fx, n); break;
    case Bank::mxcsr: value = get<u32>(state.fx + FX_MXCSR); break;
    case Bank::base: value = base(r, n); break;
    case Bank::system: value = system(r, n); break;
  }
  std::memcpy(to.data(), &value, to.size());
}

bool RegisterSet::write(CpuState& state, u32 number, std::span<const u8> from) const {
  const Register& what = registers_[number];
  VcpuRegisters& r = state.registers;
  const u8 n = what.index;
  u64 value = 0;
  if (from.size() <= sizeof value) std::memcpy(&value, from.data(), from.size());
  const u64 unseen = what.bits == 32 ? ~u64{0xffff'ffff} : 0; // a 32-bit description shows lower halves
  switch (what.bank) {
    case Bank::st: std::memcpy(state.fx + FX_ST + FX_SLOT * n, from.data(), 10); return true;
    case Bank::xmm: std::memcpy(state.fx + FX_XMM + FX_SLOT * n, from.data(), 16); return true;
    case Bank::gpr: r.gpr[n] = ((r.gpr[n] & unseen) | value) & width(r); return true;
    case Bank::rip: return write_pc(r, (r.rip & unseen) | value);
    case Bank::rflags:
      if ((value ^ r.rflags) & VM) return false;
      r.rflags = value;
      return true;
    case Bank::selector: return write_selector(r, n, static_cast<u32>(value));
    case Bank::fpu_control: write_fpu_control(state.fx, n, static_cast<u32>(value)); return true;
    case Bank::mxcsr:
      if (value & ~u64{MXCSR_DEFINED}) return false;
      put<u32>(state.fx + FX_MXCSR, value);
      return true;
    case Bank::base:
      value |= base(r, n) & unseen;
      if (!canonical(value)) return false;
      base(r, n) = value;
      return true;
    case Bank::system: return write_system(r, n, (system(r, n) & unseen) | value);
  }
  return false;
}

} // namespace transom::gdb
