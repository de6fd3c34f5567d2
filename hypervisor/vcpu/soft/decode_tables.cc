#include "hypervisor/vcpu/soft/decode_tables.hpp"

namespace transom::soft {

namespace {

constexpr OpcodeTable one_byte() {
  OpcodeTable t{};
  const auto set = [&t](unsigned first, unsigned last, unsigned bits) {
    for (unsigned n = first; n <= last; ++n) t.bits[n] = static_cast<u8>(bits);
  };
  for (unsigned op = 0; op < 0x40; op += 8) { // ADD OR ADC SBB AND SUB XOR CMP
    set(op, op + 3, MODRM);
    set(op + 4, op + 4, IMM_B);
    set(op + 5, op + 5, IMM_Z);
    set(op + 6, op + 7, BAD64); // PUSH/POP seg; prefixes and DAA… are decided elsewhere
  }
  set(0x60, 0x61, BAD64);
  set(0x62, 0x62, MODRM | BAD64);
  set(0x63, 0x63, MODRM);
  set(0x68, 0x68, IMM_Z);
  set(0x69, 0x69, MODRM | IMM_Z);
  set(0x6a, 0x6a, IMM_B);
  set(0x6b, 0x6b, MODRM | IMM_B);
  set(0x70, 0x7f, IMM_B);
  set(0x80, 0x80, MODRM | IMM_B);
  set(0x81, 0x81, MODRM | IMM_Z);
  set(0x82, 0x82, MODRM | IMM_B | BAD64);
  set(0x83, 0x83, MODRM | IMM_B);
  set(0x84, 0x8f, MODRM);
  set(0x9a, 0x9a, POINTER | BAD64);
  set(0xa0, 0xa3, MOFFS);
  set(0xa8, 0xa8, IMM_B);
  set(0xa9, 0xa9, IMM_Z);
  set(0xb0, 0xb7, IMM_B);
  set(0xb8, 0xbf, IMM_V);
  set(0xc0, 0xc1, MODRM | IMM_B);
  set(0xc2, 0xc2, IMM_W);
  set(0xc4, 0xc5, MODRM | BAD64);
  set(0xc6, 0xc6, MODRM | IMM_B);
  set(0xc7, 0xc7, MODRM | IMM_Z);
  set(0xc8, 0xc8, IMM_W | IMM_B);
  set(0xca, 0xca, IMM_W);
  set(0xcd, 0xcd, IMM_B);
  set(0xce, 0xce, BAD64);
  set(0xd0, 0xd3, MODRM);
  set(0xd4, 0xd5, IMM_B | BAD64);
  set(0xd6, 0xd6, BAD64);
  set(0xd8, 0xdf, MODRM);
  set(0xe0, 0xe7, IMM_B);
  set(0xe8, 0xe9, IMM_Z);
  set(0xea, 0xea, POINTER | BAD64);
  set(0xeb, 0xeb, IMM_B);
  set(0xf6, 0xf7, MODRM); // TEST has an immediate too: decode() knows
  set(0xfe, 0xff, MODRM);
  return t;
}

constexpr OpcodeTable two_byte() {
  OpcodeTable t{};
  const auto set = [&t](unsigned first, unsigned last, unsigned bits) {
    for (unsigned n = first; n <= last; ++n) t.bits[n] = static_cast<u8>(bits);
  };
  set(0x00, 0x03, MODRM);
  set(0x0d, 0x0d, MODRM);
  set(0x0f, 0x0f, MODRM | IMM_B); // 3DNow!
  set(0x10, 0x2f, MODRM);
  set(0x40, 0x76, MODRM);
  set(0x70, 0x73, MODRM | IMM_B);
  set(0x78, 0x7f, MODRM);
  set(0x80, 0x8f, IMM_Z);
  set(0x90, 0x9f, MODRM);
  set(0xa3, 0xa3, MODRM);
  set(0xa4, 0xa4, MODRM | IMM_B);
  set(0xa5, 0xa5, MODRM);
  set(0xab, 0xab, MODRM);
  set(0xac, 0xac, MODRM | IMM_B);
  set(0xad, 0xaf, MODRM);
  set(0xb0, 0xb9, MODRM);
  set(0xba, 0xba, MODRM | IMM_B);
  set(0xbb, 0xc1, MODRM);
  set(0xc2, 0xc2, MODRM | IMM_B);
  set(0xc3, 0xc3, MODRM);
  set(0xc4, 0xc6, MODRM | IMM_B);
  set(0xc7, 0xc7, MODRM);
  set(0xd0, 0xff, MODRM);
  return t;
}

} // namespace

const OpcodeTable ONE_BYTE = one_byte();
const OpcodeTable TWO_BYTE = two_byte();

} // namespace transom::soft
