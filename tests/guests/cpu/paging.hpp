// What holds for every kind of paging (SDM 3A 4.6-4.10): one page in a window of its own, its entries at every level.
#pragma once

#include "tests/guests/lib/cpu.hpp"

inline constexpr u64 P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, NX = u64{1} << 63;
inline constexpr word E_P = 1, E_W = 2, E_U = 4, E_RSVD = 8, E_FETCH = 16; // error code of #PF

// The same bytes in 32- and 64-bit code.
CODE(read_it, ".byte 0x8b, 0x07");   // mov eax, [di]
CODE(write_it, ".byte 0x89, 0x07");  // mov [di], eax
CODE(change_it, ".byte 0xff, 0x07"); // inc dword [di]
CODE(load_selector, "mov %eax, %ds");
CODE(invalidate, ".byte 0x0f, 0x01, 0x3f"); // invlpg [di]

enum class Kind : u8 { read, write, change, fetch };

inline Outcome access(Kind kind, word at, bool as_user) {
  State s = as_user ? user(read_it) : kernel(read_it);
  if (kind == Kind::write) s.ip = address(write_it);
  if (kind == Kind::change) s.ip = address(change_it);
  if (kind == Kind::fetch) s.ip = at;
  s.di = at;
  return run(s);
}

inline u8* new_page() { // zeroed, above everything that the image uses
  static word next = 0x1000000;
  u8* page = reinterpret_cast<u8*>(next);
  next += 4096;
  for (u32 i = 0; i < 4096; ++i) page[i] = 0;
  return page;
}
inline void fill_with_ends(u8* page) { // every fourth byte is one
  for (u32 i = 0; i < 4096; ++i) page[i] = static_cast<u8>(END_MARK >> i % 4 * 8);
}

struct Paging {
  u32 levels, width;  // entries on the path, bytes each; entry 0 is the top
  void* entries[4];   // of the page at `window`; the next page's leaf lies behind the last
  word window;        // two pages
  word allowed_fetch; // E_FETCH if fetches show in error codes
  u8* page[2];

  u64 get(u32 level) const {
    return width == 4 ? *static_cast<volatile u32*>(entries[level]) : *static_cast<volatile u64*>(entries[level]);
  }
  void set(u32 level, u64 v) const {
    if (width == 4)
      *static_cast<volatile u32*>(entries[level]) = static_cast<u32>(v);
    else
      *static_cast<volatile u64*>(entries[level]) = v;
    flush_tlb();
  }
  u32 leaf() const { return levels - 1; }
  void set_second(u64 v) const {
    if (width == 4)
      static_cast<volatile u32*>(entries[leaf()])[1] = static_cast<u32>(v);
    else
      static_cast<volatile u64*>(entries[leaf()])[1] = v;
    flush_tlb();
  }
  void clear(u64 bits) const {
    for (u32 n = 0; n < levels; ++n) set(n, get(n) & ~bits);
  }
  u64 frame(u32 n) const { return reinterpret_cast<word>(page[n]); }
  void reset() const { // everything allowed, programs that end at once in both pages
    fill_with_ends(page[0]), fill_with_ends(page[1]);
    enter();
  }
  void enter() const {
    for (u32 n = 0; n < levels; ++n) set(n, (get(n) & 0xfffff000) | P | W | U);
    set(leaf(), frame(0) | P | W | U);
    set_second(frame(1) | P | W | U);
  }
};
inline Paging paging; // the one under test

inline void accessed_and_dirty() {
  const Paging& t = paging;
  t.reset();
  put32(t.frame(0), 0x12345678);
  t.clear(A | D);
  Outcome o = access(Kind::read, t.window, false);
  check(ended(o, "a mapped page is read") && static_cast<u32>(o.s.ax) == 0x12345678, "it reads what is there");
  bool all = true;
  for (u32 n = 0; n < t.levels; ++n) all &= (t.get(n) & A) != 0;
  check(all, "a read sets A on every level");
  check_equal(t.get(t.leaf()) & D, 0, "a read leaves D alone");
  access(Kind::write, t.window, false);
  check_equal(t.get(t.leaf()) & D, D, "a write sets D");
  bool upper = true;
  for (u32 n = 0; n + 1 < t.levels; ++n) upper &= (t.get(n) & D) == 0;
  check(upper, "D of tables is left alone");
  t.clear(A | D);
  access(Kind::change, t.window, false);
  check_equal(t.get(t.leaf()) & (A | D), A | D, "a read-modify-write sets A and D");
  t.clear(A | D);
  access(Kind::fetch, t.window, false);
  check_equal(t.get(t.leaf()) & (A | D), A, "a fetch sets A only");
  // The address is translated, but not accessed.
  t.clear(A | D);
  t.set(t.leaf(), t.get(t.leaf()) & ~W);
  set_control<0>(control<0>() | CR0_WP);
  o = access(Kind::write, t.window, false);
  page_faulted(o, E_P | E_W, t.window, "a write to a read-only page faults");
  check_equal(t.get(t.leaf()) & D, 0, "a write that faults leaves D alone");
}

inline void absent() {
  const Paging& t = paging;
  static constexpr const char* NAMES[4][6] = {
      {"top absent: read", "top absent: write", "top absent: fetch", "top absent: user read", "top absent: user write",
       "top absent: user fetch"},
      {"level 2 absent: read", "level 2 absent: write", "level 2 absent: fetch", "level 2 absent: user read",
       "level 2 absent: user write", "level 2 absent: user fetch"},
      {"level 3 absent: read", "level 3 absent: write", "level 3 absent: fetch", "level 3 absent: user read",
       "level 3 absent: user write", "level 3 absent: user fetch"},
      {"level 4 absent: read", "level 4 absent: write", "level 4 absent: fetch", "level 4 absent: user read",
       "level 4 absent: user write", "level 4 absent: user fetch"}};
  for (u32 n = 0; n < t.levels; ++n) {
    t.reset();
    const u64 old = t.get(n);
    t.set(n, ~u64{0} & ~P); // nothing else is looked at, reserved bits neither
    for (u32 as_user = 0; as_user < 2; ++as_user) {
      const word u = as_user ? E_U : 0;
      const char* const* names = NAMES[n] + 3 * as_user;
      page_faulted(access(Kind::read, t.window + 0x123, as_user), u, t.window + 0x123, names[0]);
      page_faulted(access(Kind::write, t.window + 0xff0, as_user), u | E_W, t.window + 0xff0, names[1]);
      page_faulted(access(Kind::fetch, t.window + 0x454, as_user), u | t.allowed_fetch, t.window + 0x454, names[2]);
    }
    t.set(n, old);
  }
}

// Every place where a right can be missing, for every access.
inline void permissions() {
  const Paging& t = paging;
  static constexpr const char* NAMES[12] = {"WP=0: supervisor read", "WP=0: supervisor write", "WP=0: supervisor fetch",
                                            "WP=0: user read",       "WP=0: user write",       "WP=0: user fetch",
                                            "WP=1: supervisor read", "WP=1: supervisor write", "WP=1: supervisor fetch",
                                            "WP=1: user read",       "WP=1: user write",       "WP=1: user fetch"};
  const bool nx_there = t.allowed_fetch != 0;
  t.reset();
  for (u32 wp = 0; wp < 2; ++wp) {
    set_control<0>((control<0>() & ~CR0_WP) | (wp ? CR0_WP : 0));
    for (u32 as_user = 0; as_user < 2; ++as_user)
      for (u32 kind = 0; kind < 3; ++kind) {
        u32 wrong = 0;
        for (u32 no_w = 0; no_w <= t.levels; ++no_w)
          for (u32 no_u = 0; no_u <= t.levels; ++no_u)
            for (u32 no_x = 0; no_x <= (nx_there ? t.levels : 0); ++no_x) {
              t.enter();
              if (no_w < t.levels) t.set(no_w, t.get(no_w) & ~W);
              if (no_u < t.levels) t.set(no_u, t.get(no_u) & ~U);
              if (nx_there && no_x < t.levels) t.set(no_x, t.get(no_x) | NX);
              const bool writable = no_w == t.levels || (!as_user && !wp);
              const bool reachable = !as_user || no_u == t.levels;
              const bool executable = !nx_there || no_x == t.levels;
              const bool fine = reachable && (kind != 1 || writable) && (kind != 2 || executable);
              const Kind k = kind == 0 ? Kind::read : kind == 1 ? Kind::write : Kind::fetch;
              const Outcome o = access(k, t.window, as_user);
              const word error = E_P | (kind == 1 ? E_W : 0) | (as_user ? E_U : 0) | (kind == 2 ? t.allowed_fetch : 0);
              const bool right = fine ? o.vector == END : o.vector == PF && o.error == error && o.cr2 == t.window;
              if (!right && wrong++ == 0) {
                print("  without W at level "), print_number(no_w), print(", U at "), print_number(no_u);
                print(", executable at "), print_number(no_x), print(": vector "), print_number(o.vector, 16);
                print(" error "), print_number(o.error, 16), print("\n");
              }
            }
        check_equal(wrong, 0, NAMES[wp * 6 + as_user * 3 + kind]);
      }
  }
  set_control<0>(control<0>() | CR0_WP);
  t.reset();
}

inline void reserved(u32 level, u64 entry, const char* what) {
  const Paging& t = paging;
  t.reset();
  const u64 old = t.get(level);
  t.set(level, entry);
  const bool fine = page_faulted(access(Kind::read, t.window, false), E_P | E_RSVD, t.window, what) &&
                    access(Kind::write, t.window, true).error == (E_P | E_RSVD | E_U | E_W) &&
                    access(Kind::fetch, t.window, true).error == (E_P | E_RSVD | E_U | t.allowed_fetch);
  check(fine, what);
  t.set(level, old);
}

// Accesses over the border of the two pages.
inline void spanning() {
  const Paging& t = paging;
  const word edge = t.window + 0x1000;
  t.reset();
  put32(t.frame(0) + 0xffc, 0x11111111), put32(t.frame(1), 0x22222222);
  const Outcome o = access(Kind::read, edge - 2, false);
  check(o.vector == END && static_cast<u32>(o.s.ax) == 0x22221111, "a read over the border");
  t.set_second(0);
  page_faulted(access(Kind::read, edge - 2, false), 0, edge, "second page absent: CR2 is its first byte");
  page_faulted(access(Kind::write, edge - 1, true), E_W | E_U, edge, "second page absent: write");
  check_equal(at<u32>(t.frame(0) + 0xffc), 0x11111111, "and nothing was written to the first");
  t.set_second(t.frame(1) | P | U);
  page_faulted(access(Kind::write, edge - 2, true), E_P | E_W | E_U, edge, "second page read-only: write");
  check_equal(at<u32>(t.frame(0) + 0xffc), 0x11111111, "and nothing was written to the first page");
  t.set(t.leaf(), 0);
  page_faulted(access(Kind::read, edge - 3, false), 0, edge - 3, "first page absent: CR2 is the address");
  // An instruction over the border: B8 imm32 (MOV EAX).
  t.reset();
  put16(t.frame(0) + 0xffe, 0x11b8), put16(t.frame(1), 0x3322), put8(t.frame(1) + 2, 0x44);
  put32(t.frame(1) + 3, END_MARK);
  Outcome f = access(Kind::fetch, edge - 2, true);
  check(f.vector == END && static_cast<u32>(f.s.ax) == 0x44332211, "an instruction over the border");
  t.set_second(0);
  f = access(Kind::fetch, edge - 2, true);
  page_faulted(f, E_U | t.allowed_fetch, edge, "an instruction's second page absent");
  check_equal(f.s.ip, edge - 2, "it faults at the instruction's first byte");
  t.enter();
  f = access(Kind::fetch, edge - 2, true);
  check(f.vector == END && static_cast<u32>(f.s.ax) == 0x44332211, "and runs when the page is there");
  t.set_second(t.frame(0) | P | W | U); // other code under the second half
  put16(t.frame(0), 0x7766), put8(t.frame(0) + 2, 0x88), put32(t.frame(0) + 3, END_MARK);
  f = access(Kind::fetch, edge - 2, true);
  check(f.vector == END && static_cast<u32>(f.s.ax) == 0x88776611, "another second page is another instruction");
  t.reset();
}

inline bool sees(word at, u32 value) {
  const Outcome o = access(Kind::read, at, false);
  return o.vector == END && static_cast<u32>(o.s.ax) == value;
}
inline void invalidation() {
  const Paging& t = paging;
  t.reset();
  put32(t.frame(0), 1), put32(t.frame(1), 2);
  const auto point_at = [&](u32 n, u64 bits) { // without any flush
    if (t.width == 4)
      *static_cast<volatile u32*>(t.entries[t.leaf()]) = static_cast<u32>(t.frame(n) | P | W | U | bits);
    else
      *static_cast<volatile u64*>(t.entries[t.leaf()]) = t.frame(n) | P | W | U | bits;
  };
  check(sees(t.window, 1), "before");
  point_at(1, 0);
  invlpg(t.window + 0xabc);
  check(sees(t.window, 2), "INVLPG with any address in the page");
  point_at(0, 0);
  flush_tlb();
  check(sees(t.window, 1), "MOV CR3 drops pages that are not global");
  set_control<4>(control<4>() | CR4_PGE);
  point_at(0, G);
  flush_tlb();
  check(sees(t.window, 1), "a global page");
  point_at(1, G);
  invlpg(t.window);
  check(sees(t.window, 2), "INVLPG drops a global page");
  point_at(0, G);
  set_control<4>(control<4>() & ~CR4_PGE);
  check(sees(t.window, 1), "clearing CR4.PGE drops global pages");
  point_at(1, G);
  set_control<4>(control<4>() | CR4_PGE);
  check(sees(t.window, 2), "setting CR4.PGE drops everything");
  point_at(0, 0); // global before, not now
  set_control<4>(control<4>() & ~CR4_PGE);
  check(sees(t.window, 1), "a page that is global no more");
  // Not present is never remembered.
  t.set(t.leaf(), 0);
  page_faulted(access(Kind::read, t.window, false), 0, t.window, "an absent page");
  point_at(1, 0);
  check(sees(t.window, 2), "is there as soon as its entry says so");
  // More rights: at the latest the second try has them.
  t.set(t.leaf(), t.frame(0) | P);
  sees(t.window, 1);
  point_at(0, 0);
  if (access(Kind::write, t.window, true).vector != END)
    ended(access(Kind::write, t.window, true), "rights added without INVLPG are there at the second try");
  t.clear(A | D);
  access(Kind::write, t.window, false);
  check_equal(t.get(t.leaf()) & (A | D), A | D, "A and D come back after they were cleared and flushed");
  State s = user(invalidate);
  s.di = t.window;
  faulted(run(s), GP, 0, "INVLPG at CPL 3");
  t.reset();
}

// Accesses that the processor makes on its own are supervisor ones, whatever the CPL.
inline void implicit() {
  const Paging& t = paging;
  t.reset();
  const auto load = [](word base, u16 limit) {
    struct [[gnu::packed]] {
      u16 size;
      word at;
    } table{limit, base};
    asm volatile("lgdt %0" : : "m"(table));
  };
  for (u32 i = 0; i < 64; ++i) put64(t.frame(0) + 8 * i, gdt[i]);
  put64(t.frame(1), descriptor(0, 0xfffff, (PRESENT | DPL3 | DATA) & ~1u, PAGES32)); // 1000h
  t.set(t.leaf(), t.frame(0) | P | W);
  t.set_second(t.frame(1) | P | W);
  load(t.window, 0x1fff);
  State s = user(load_selector);
  s.ax = 0x1003;
  ended(run(s), "a user's segment load reads a supervisor's GDT");
  check_equal(at<u64>(t.frame(1)) >> 40 & 1, 1, "and sets the accessed bit there");
  put64(t.frame(1), at<u64>(t.frame(1)) & ~(u64{1} << 40));
  t.set_second(t.frame(1) | P);
  const Outcome o = run(s); // which of the descriptor's bytes CR2 names is the processor's choice
  check(o.vector == PF && o.error == (E_P | E_W) && (o.cr2 & ~word{7}) == t.window + 0x1000,
        "a read-only GDT: the accessed bit cannot be set");
  put64(t.frame(1), at<u64>(t.frame(1)) | u64{1} << 40);
  ended(run(s), "a read-only GDT with the accessed bit set");
  t.set_second(0);
  page_faulted(run(s), 0, t.window + 0x1000, "an absent GDT page is a supervisor's fault at CPL 3");
  load_gdt();
  t.reset();
}
