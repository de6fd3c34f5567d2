// Bytes to instruction: prefixes, opcode maps, ModRM, SIB, displacement, immediate; then the handler.
#pragma once

#include "hypervisor/vcpu/soft/cpu.hpp"
#include "hypervisor/vcpu/soft/insn.hpp"

namespace transom::soft {

enum class DecodeStatus : u8 {
  ok,
  truncated, // more bytes than `available` are needed
  invalid,   // #UD
  too_long,  // more than 15 bytes: #GP(0)
};

enum OpcodeMap : u8 { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A };

// The arithmetic flags as a set, for liveness within a block.
enum FlagSet : u8 { SET_CF = 1, SET_PF = 2, SET_AF = 4, SET_ZF = 8, SET_SF = 16, SET_OF = 32, SET_ALL = 63 };

// What the tables say about one instruction beyond its fields.
struct Selection {
  Handler handler = nullptr;  // null: #UD
  Handler no_flags = nullptr; // the same without computing arithmetic flags
  Handler linked = nullptr;   // direct branch whose target is in the same page
  u8 reads = SET_ALL;         // flags that must be right before: all of them for whatever may fault
  u8 writes = 0;              // flags that it always sets
  bool ends = false;          // last of its block
};

struct Decoded {
  DecodeStatus status = DecodeStatus::invalid;
  u8 length = 0;
  u8 map = MAP_ONE;
  u8 opcode = 0;
  u8 modrm = 0;
  bool has_modrm = false;
  u8 prefix = 0; // mandatory-prefix view: 0, 66, F3, F2
  u8 rex = 0;
  u8 mod = 0, reg = 0, rm = 0; // numbers with REX; rm is a register if mod == 3
  u8 base = REG_ZERO, index = REG_ZERO, scale = 0;
  u8 segment = DS;
  bool segment_override = false;
  u8 osz = 4; // bytes
  u8 asz = 4; // bytes
  bool lock = false, rep = false, repne = false;
  bool rip_relative = false;
  i32 disp = 0;
  u64 imm = 0;
  u16 mode = 0;
  Selection selection;

  bool code64() const { return (mode & MODE_64) != 0; }
  bool memory() const { return has_modrm && mod != 3; }
  Form form() const;
  bool direct_branch() const { return selection.linked != nullptr; } // imm is the displacement
  u8 byte_reg(u8 n) const {
    return rex == 0 && n >= 4 && n < 8 ? static_cast<u8>((n - 4) * 8 + 1) : static_cast<u8>(n * 8);
  }
};

// `available` bytes at `bytes`; never reads beyond 15. `mode` is ModeBits. On ok, length and selection.handler are set.
Decoded decode(const u8* bytes, unsigned available, u16 mode);

// The record for it; offset and ordinal are the block builder's.
Insn make_insn(const Decoded& d);

// select.cc, select_0f.cc: handler for a decoded instruction. May adjust reg and rm (byte registers) and refuses what
// LOCK may not precede.
Selection select(Decoded& d);
Selection select_one(Decoded& d);
Selection select_0f(Decoded& d);

} // namespace transom::soft
