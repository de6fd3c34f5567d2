// Templates of SSE instructions on XMM registers: the same instruction on the host's registers of the same numbers,
// which are filled when a block first reads them.
#include <cstring>

#include "hypervisor/vcpu/soft/fpu.hpp"
#include "hypervisor/vcpu/soft/jit/compiler.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"
#include "hypervisor/vcpu/soft/native.hpp"

namespace transom::soft {

using namespace asmjit;
using Shape = SseForm::Shape;

namespace {

SseForm move_form(const Decoded& d) {
  const auto load = [&](u8 width, bool aligned) {
    return SseForm{Shape::load, width, aligned, false, false, !d.memory() && width < 16};
  };
  const auto store = [](u8 width, bool aligned) { return SseForm{Shape::store, width, aligned, false, false, true}; };
  switch (d.opcode) {
    case 0x10: return d.prefix == 0xf3 ? load(4, false) : d.prefix == 0xf2 ? load(8, false) : load(16, false);
    case 0x11: return d.prefix == 0xf3 ? store(4, false) : d.prefix == 0xf2 ? store(8, false) : store(16, false);
    case 0x12: // MOVLPS MOVLPD MOVHLPS
    case 0x16:
      if (d.prefix != 0 && d.prefix != 0x66) return {};
      return d.memory() || d.prefix == 0 ? SseForm{Shape::load, 8, false, false, false, true} : SseForm{};
    case 0x13:
    case 0x17: return d.memory() && (d.prefix == 0 || d.prefix == 0x66) ? store(8, false) : SseForm{};
    case 0x28: return d.prefix == 0 || d.prefix == 0x66 ? load(16, true) : SseForm{};
    case 0x29: return d.prefix == 0 || d.prefix == 0x66 ? store(16, true) : SseForm{};
    case 0x6f: return d.prefix == 0x66 ? load(16, true) : d.prefix == 0xf3 ? load(16, false) : SseForm{};
    case 0x7f: return d.prefix == 0x66 ? store(16, true) : d.prefix == 0xf3 ? store(16, false) : SseForm{};
    case 0x7e:
      if (d.prefix == 0xf3) return SseForm{Shape::load, 8, false, false, false, false};
      return d.prefix == 0x66
                 ? SseForm{Shape::to_general, static_cast<u8>(d.rex & 8 ? 8 : 4), false, false, false, true}
                 : SseForm{};
    case 0x6e:
      return d.prefix == 0x66
                 ? SseForm{Shape::from_general, static_cast<u8>(d.rex & 8 ? 8 : 4), false, false, false, false}
                 : SseForm{};
    case 0xd6: return d.prefix == 0x66 ? store(8, false) : SseForm{};
    case 0xd7: return d.prefix == 0x66 && !d.memory() ? SseForm{Shape::mask, 16, false, false, false, true} : SseForm{};
    case 0x50:
      return (d.prefix == 0 || d.prefix == 0x66) && !d.memory() ? SseForm{Shape::mask, 16, false, false, false, true}
                                                                : SseForm{};
    default: return {};
  }
}

// xmm = op(xmm, xmm/m [, imm8]) where every memory operand of 16 bytes is aligned.
SseForm compute_form(const Decoded& d) {
  const auto whole = [](bool imm = false) { return SseForm{Shape::compute, 16, true, false, imm, true}; };
  const auto floating = [&](bool imm = false) {
    const u8 width = d.prefix == 0xf3 ? 4 : d.prefix == 0xf2 ? 8 : 16;
    return SseForm{Shape::compute, width, width == 16, true, imm, true};
  };
  const bool packed = d.prefix == 0 || d.prefix == 0x66;
  const u8 op = d.opcode;
  switch (op) {
    case 0x51:
    case 0x58:
    case 0x59:
    case 0x5c:
    case 0x5d:
    case 0x5e:
    case 0x5f: return floating();
    case 0xc2: return floating(true);
    case 0x14:
    case 0x15:
    case 0x54:
    case 0x55:
    case 0x56:
    case 0x57: return packed ? whole() : SseForm{};
    case 0xc6: return packed ? whole(true) : SseForm{};
    case 0x70: return d.prefix != 0 ? whole(true) : SseForm{}; // PSHUFD PSHUFHW PSHUFLW
    case 0x5a: {                                               // between formats
      const u8 width = d.prefix == 0 ? 8 : d.prefix == 0x66 ? 16 : d.prefix == 0xf3 ? 4 : 8;
      return SseForm{Shape::compute, width, width == 16, true, false, true};
    }
    case 0x5b: return d.prefix != 0xf2 ? SseForm{Shape::compute, 16, true, true, false, true} : SseForm{};
    default: break;
  }
  if (d.prefix != 0x66) return {};
  if ((op >= 0x60 && op <= 0x6d) || (op >= 0x74 && op <= 0x76)) return whole();
  if ((op >= 0xd1 && op <= 0xd5) || (op >= 0xd8 && op <= 0xe5) || (op >= 0xe8 && op <= 0xef)) return whole();
  if ((op >= 0xf1 && op <= 0xf6) || (op >= 0xf8 && op <= 0xfe)) return whole();
  return {};
}

} // namespace

SseForm sse_form(const Decoded& d) {
  if (d.lock) return {};
  if (d.map == MAP_0F38) { // PSHUFB and its neighbours; the decoder knows what this host has
    if (d.prefix == 0x66 && d.opcode == 0x17) return {Shape::compare, 16, true, false, false, true}; // PTEST
    const bool plain = d.prefix == 0x66 && d.opcode <= 0x0b;
    return plain ? SseForm{Shape::compute, 16, true, false, false, true} : SseForm{};
  }
  if (d.map == MAP_0F3A && d.prefix == 0x66 && d.opcode == 0x63)
    return {Shape::index, 16, false, false, true, true}; // PCMPISTRI
  if (d.map == MAP_0F3A)
    return d.prefix == 0x66 && d.opcode == 0x0f ? SseForm{Shape::compute, 16, true, false, true, true} : SseForm{};
  if (d.map != MAP_0F) return {};
  if (d.opcode >= 0x71 && d.opcode <= 0x73)
    return d.prefix == 0x66 && !d.memory() ? SseForm{Shape::shift_group, 16, false, false, true, true} : SseForm{};
  const SseForm form = move_form(d);
  return form.shape != Shape::none ? form : compute_form(d);
}

// --- registers

void BlockCompiler::xmm_load(unsigned n) {
  if (xmm_.valid >> n & 1) return;
  a.movaps(x86::xmm(n), x86::ptr(x86::rsp, at::XMM + static_cast<i32>(16 * n), 16));
  xmm_.valid |= static_cast<u16>(1u << n);
}
void BlockCompiler::xmm_write_back(const XmmState& s) {
  for (unsigned n = 0; n < 16; ++n)
    if (s.dirty >> n & 1) a.movaps(x86::ptr(x86::rsp, at::XMM + static_cast<i32>(16 * n), 16), x86::xmm(n));
}
void BlockCompiler::xmm_reload(const XmmState& s) {
  for (unsigned n = 0; n < 16; ++n)
    if (s.valid >> n & 1) a.movaps(x86::xmm(n), x86::ptr(x86::rsp, at::XMM + static_cast<i32>(16 * n), 16));
}

// May the guest use the unit, and does the host's MXCSR hold the guest's? The handler sees to both, or faults.
void BlockCompiler::sse_check(bool floating) {
  if (!sse_checked_) {
    a.cmp(x86::byte_ptr(x86::rsp, at::SSE_ALLOWED), 0);
    a.je(slow());
    sse_checked_ = true;
  }
  if (!floating) return;
  if (!mxcsr_loaded_) {
    a.test(x86::byte_ptr(x86::rsp, at::FP_LOADED), static_cast<int>(LOADED_MXCSR));
    a.jz(slow());
    mxcsr_loaded_ = true;
  }
}

// [prefix] [REX] 0F [38|3A] opcode ModRM [imm8], with rcx as the base of a memory operand.
void BlockCompiler::emit_sse(const Decoded& d, unsigned reg, std::optional<Mem> memory, unsigned rm, bool imm) {
  u8 bytes[16];
  unsigned n = 0;
  if (d.prefix != 0) bytes[n++] = d.prefix;
  const u8 rex = static_cast<u8>(0x40 | (d.rex & 8) | (reg & 8) >> 1 | (memory ? 0 : (rm & 8) >> 3));
  if (rex != 0x40) bytes[n++] = rex;
  bytes[n++] = 0x0f;
  if (d.map != MAP_0F) bytes[n++] = d.map == MAP_0F38 ? 0x38 : 0x3a;
  bytes[n++] = d.opcode;
  if (memory) {
    bytes[n++] = static_cast<u8>(0x80 | (reg & 7) << 3 | 1); // [rcx + disp32]
    const i32 offset = static_cast<i32>(memory->offset());
    std::memcpy(bytes + n, &offset, 4);
    n += 4;
  } else {
    bytes[n++] = static_cast<u8>(0xc0 | (reg & 7) << 3 | (rm & 7));
  }
  if (imm) bytes[n++] = static_cast<u8>(d.imm);
  a.embed(bytes, n);
}

void BlockCompiler::sse(const Decoded& d) {
  const SseForm form = sse_form(d);
  sse_check(form.floating);
  std::optional<Mem> m;
  const bool writes_memory = d.memory() && (form.shape == Shape::store || form.shape == Shape::to_general);
  if (d.memory()) m = address(d, form.width, writes_memory, form.aligned); // no group: rcx and a displacement
  const auto written = [&](unsigned n) {
    xmm_.valid |= static_cast<u16>(1u << n);
    xmm_.dirty |= static_cast<u16>(1u << n);
  };
  switch (form.shape) {
    case Shape::compute:
    case Shape::load:
      if (form.merges) xmm_load(d.reg);
      if (!m) xmm_load(d.rm);
      emit_sse(d, d.reg, m, d.rm, form.imm);
      return written(d.reg);
    case Shape::store:
      xmm_load(d.reg);
      if (!m && form.width < 16 && d.opcode == 0x11) xmm_load(d.rm);
      emit_sse(d, d.reg, m, d.rm, false);
      if (!m) written(d.rm);
      return;
    case Shape::from_general:
      if (m)
        emit_sse(d, d.reg, m, 0, false);
      else
        emit_sse(d, d.reg, {}, source(d.rm, form.width, x86::rax).id(), false);
      return written(d.reg);
    case Shape::to_general:
      xmm_load(d.reg);
      if (m) return emit_sse(d, d.reg, m, 0, false);
      emit_sse(d, d.reg, {}, pinned(d.rm) ? host_[d.rm] : 0u, false);
      if (!pinned(d.rm)) store64(d.rm, x86::rax);
      return;
    case Shape::mask:
      xmm_load(d.rm);
      emit_sse(d, pinned(d.reg) ? host_[d.reg] : 0u, {}, d.rm, false);
      if (!pinned(d.reg)) store64(d.reg, x86::rax);
      return;
    case Shape::shift_group:
      xmm_load(d.rm);
      emit_sse(d, d.modrm >> 3 & 7, {}, d.rm, true);
      return written(d.rm);
    case Shape::compare:
    case Shape::index:
      xmm_load(d.reg);
      if (!m) xmm_load(d.rm);
      emit_sse(d, d.reg, m, d.rm, form.imm);
      if (form.shape == Shape::index) store64(RCX, x86::rcx);
      return set_flags();
    case Shape::none: return;
  }
}

} // namespace transom::soft
