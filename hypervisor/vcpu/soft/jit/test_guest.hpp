// Small guests written with the assembler, for both of two machines. Every vector has a handler that halts.
#pragma once

#include <asmjit/x86.h>
#include <vector>

#include "hypervisor/vcpu/soft/jit/test_twins.hpp"

namespace transom::soft {

template <class F>
std::vector<u8> assemble(u64 at, F&& body, bool long_mode = true) {
  asmjit::CodeHolder code;
  code.init(asmjit::Environment(long_mode ? asmjit::Arch::kX64 : asmjit::Arch::kX86), at);
  asmjit::x86::Assembler a(&code);
  body(a);
  code.flatten();
  code.resolveUnresolvedLinks();
  code.relocateToBase(at);
  std::vector<u8> bytes(code.codeSize());
  code.copyFlattenedData(bytes.data(), bytes.size());
  return bytes;
}

inline constexpr u64 GUEST_GDT = 0x1000, GUEST_IDT = 0x2000, GUEST_HANDLERS = 0x9000;
inline constexpr u64 handler_of(unsigned vector) { return GUEST_HANDLERS + 16 * vector; }

inline void put_code(TestMachine& m, const std::vector<u8>& bytes, u64 at = TestMachine::CODE) {
  std::memcpy(m.at(at), bytes.data(), bytes.size());
  m.code_pages.wrote(at, bytes.size());
}

// 64-bit code at CPL 0 as TestMachine::start_64() has it, with descriptor tables.
inline void start_guest(TestMachine& m, u64 rip = TestMachine::CODE) {
  m.start_64(rip);
  m.put<u64>(GUEST_GDT + 0x10, 0x00af'9b00'0000'ffff);
  m.put<u64>(GUEST_GDT + 0x18, 0x00cf'9300'0000'ffff);
  for (u64 v = 0; v < 256; ++v) {
    m.put<u64>(GUEST_IDT + 16 * v, handler_of(static_cast<unsigned>(v)) | u64{0x10} << 16 | u64{0x8e00} << 32);
    m.put<u64>(GUEST_IDT + 16 * v + 8, 0);
    m.put<u8>(handler_of(static_cast<unsigned>(v)), 0xf4);
  }
  VcpuRegisters r = m.vcpu.registers();
  r.gdtr = {GUEST_GDT, 0xfff};
  r.idtr = {GUEST_IDT, 0xfff};
  r.dr[6] = 0xffff'0ff0;
  r.dr[7] = 0x400;
  m.vcpu.set_registers(r);
}

inline void set_rip(TestMachine& m, u64 rip) {
  VcpuRegisters r = m.vcpu.registers();
  r.rip = rip;
  r.gpr[RSP] = TestMachine::STACK;
  m.vcpu.set_registers(r);
}

inline u64 translated_instructions(TestMachine& m) { return m.vcpu.cpu().translated.instructions; }

} // namespace transom::soft
