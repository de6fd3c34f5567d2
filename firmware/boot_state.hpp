// Where a directly booted kernel starts: register values in no vCPU backend's terms; the hypervisor translates them.
#pragma once

#include "core/types.hpp"

namespace transom::firmware {

struct BootSegment {
  u16 selector = 0;
  u16 attr = 0; // descriptor bytes 5–6: access byte | (G D/B L AVL) << 12
  u32 limit = 0xffff;
  u64 base = 0;
};

struct BootTable {
  u64 base = 0;
  u16 limit = 0;
};

enum BootRegister : u32 { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

struct BootState {
  u64 gpr[16] = {}; // rax rcx rdx rbx rsp rbp rsi rdi r8…r15
  u64 rip = 0;
  u64 rflags = 2;
  u64 cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  BootSegment es, cs, ss, ds, fs, gs, ldtr, tr;
  BootTable gdtr, idtr;
};

} // namespace transom::firmware
