// The part of a CPU that translated code reaches by itself. While it runs, the host's stack pointer is &Cpu::gpr[0], so
// every field is one displacement away (layout.hpp).
#pragma once

#include "core/types.hpp"

namespace transom::soft {

// Where a RET is expected to go: a ring that CALLs fill. `code` checks the mapping of its page itself.
struct ReturnSite {
  u64 rip;
  const u8* code;
};
inline constexpr u64 RETURN_SITES = 16; // times sizeof(ReturnSite) is what an 8-bit offset can hold

// Where an indirect branch leads, by linear address and mode. Valid while *slot == tag (CodeTags).
struct JumpEntry {
  u64 key; // JumpEntry::NONE: empty
  const u8* code;
  u64 tag;
  const u64* slot;
  static constexpr u64 NONE = 0x7fff'0000'0000'0000; // no mode makes it
};
inline constexpr u64 JUMP_ENTRIES = 2048;

// Code may be entered at a linear address without a walk if the page's slot holds the tag of (linear page, RAM page).
// Whatever flushes a translation clears its slot; the next one to come that way asks the page walk.
inline constexpr u64 CODE_TAGS = 1024;
struct CodeTags {
  u64 tag[CODE_TAGS];
  u16 local[CODE_TAGS]; // slots filled with non-global translations since the last flush
  u32 locals;
};
inline u64 code_tag(u64 linear, u64 ram_page) { // never 0; RAM has at most 2^28 − 1 pages
  return (linear >> PAGE_SHIFT) << 28 | ((ram_page + 1) & 0xfff'ffff);
}

// A memory access of translated code that is checked (checker.hpp): noted before it happens.
struct JournalEntry {
  u8* at; // in the host
  u64 what;
  u8 before[16];
  static constexpr u64 STORE = 0x100; // the rest of `what` is the size
  bool store() const { return (what & STORE) != 0; }
  u32 size() const { return what & 0xff; }
};
inline constexpr u64 JOURNAL_ENTRIES = 128; // two for each instruction of a block

struct TranslatedState {
  u64 host_rsp = 0;
  // Entry points of the common code (thunks.cc).
  const u8* step = nullptr;
  const u8* run_handlers = nullptr;
  const u8* resolve = nullptr;
  const u8* indirect = nullptr;
  const u8* leave = nullptr;
  u64 instructions = 0; // executed by translated code, as far as counted
  u64 slow = 0;         // of those, the ones that took the slow path
  u64 return_top = 0;   // byte offset into returns, in the low byte
  u64 scratch = 0, second_scratch = 0;
  u64 groups[8] = {}; // host − linear of a block's groups of memory operands (groups.cc)
  ReturnSite returns[RETURN_SITES] = {};
  // Code that is checked.
  const u8* note[5] = {}; // thunks: append to the journal; by size, log2
  u64 note_what = 0;      // its argument
  u64 note_saved[2] = {};
  u64 journal_used = 0; // bytes
  JournalEntry journal[JOURNAL_ENTRIES] = {};
};

} // namespace transom::soft
