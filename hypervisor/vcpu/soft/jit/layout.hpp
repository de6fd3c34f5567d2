// Displacements from the stack pointer of translated code, which is &Cpu::gpr[0].
#pragma once

#include <cstddef>

#include "hypervisor/vcpu/soft/cpu.hpp"

namespace transom::soft::at {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof" // conditionally supported: both compilers do
inline constexpr i32 CPU = static_cast<i32>(offsetof(Cpu, gpr));
#define TRANSOM_AT(field) (static_cast<i32>(offsetof(Cpu, field)) - CPU)
inline constexpr i32 FLAGS = TRANSOM_AT(flags);
inline constexpr i32 RFLAGS = TRANSOM_AT(rflags);
inline constexpr i32 CPL = TRANSOM_AT(cpl);
inline constexpr i32 QUIET = TRANSOM_AT(quiet);
inline constexpr i32 MODE = TRANSOM_AT(mode);
inline constexpr i32 FP_LOADED = TRANSOM_AT(fp_loaded);
inline constexpr i32 SSE_ALLOWED = TRANSOM_AT(sse_allowed);
inline constexpr i32 EXIT_FLAG = TRANSOM_AT(exit_flag);
inline constexpr i32 HOST_RSP = TRANSOM_AT(translated.host_rsp);
inline constexpr i32 STEP = TRANSOM_AT(translated.step);
inline constexpr i32 RUN_HANDLERS = TRANSOM_AT(translated.run_handlers);
inline constexpr i32 RESOLVE = TRANSOM_AT(translated.resolve);
inline constexpr i32 INDIRECT = TRANSOM_AT(translated.indirect);
inline constexpr i32 LEAVE = TRANSOM_AT(translated.leave);
inline constexpr i32 INSTRUCTIONS = TRANSOM_AT(translated.instructions);
inline constexpr i32 INTERPRETED = TRANSOM_AT(instructions);
inline constexpr i32 RETURN_TOP = TRANSOM_AT(translated.return_top);
inline constexpr i32 RETURNS = TRANSOM_AT(translated.returns);
inline constexpr i32 GROUPS = TRANSOM_AT(translated.groups);
inline constexpr i32 SECOND_SCRATCH = TRANSOM_AT(translated.second_scratch);
inline constexpr i32 SCRATCH = TRANSOM_AT(translated.scratch);
inline constexpr i32 NOTE = TRANSOM_AT(translated.note);
inline constexpr i32 NOTE_WHAT = TRANSOM_AT(translated.note_what);
inline constexpr i32 NOTE_SAVED = TRANSOM_AT(translated.note_saved);
inline constexpr i32 JOURNAL_USED = TRANSOM_AT(translated.journal_used);
inline constexpr i32 JOURNAL = TRANSOM_AT(translated.journal);
inline constexpr i32 JUMPS = TRANSOM_AT(jumps);
inline constexpr i32 XMM = TRANSOM_AT(fx) + static_cast<i32>(offsetof(Fx, xmm));

inline i32 gpr(unsigned n) { return static_cast<i32>(8 * n); }
inline i32 segment_base(unsigned n) {
  return TRANSOM_AT(segment) + static_cast<i32>(n * sizeof(Segment) + offsetof(Segment, base));
}
inline i32 tlb(bool user) {
  return TRANSOM_AT(tlbs) + static_cast<i32>(user ? sizeof(Tlb) : 0) + static_cast<i32>(offsetof(Tlb, entry));
}
inline i32 code_tag_slot(bool user, u64 linear) {
  return TRANSOM_AT(code_tags) + static_cast<i32>(user ? sizeof(CodeTags) : 0) +
         static_cast<i32>((linear >> PAGE_SHIFT) % CODE_TAGS * 8);
}
#undef TRANSOM_AT
#pragma GCC diagnostic pop

} // namespace transom::soft::at
