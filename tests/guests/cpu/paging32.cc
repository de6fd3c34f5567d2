// Paging of two levels: 4 KiB and 4 MiB pages.
#include "tests/guests/cpu/paging.hpp"

namespace {

constexpr word WINDOW = 0x40000000;
u64 table(const void* t) { return reinterpret_cast<word>(t) | P | W | U; }

// --- two levels
u32 *directory, *low_table, *window_table;
void two_levels() {
  directory = reinterpret_cast<u32*>(new_page()), window_table = reinterpret_cast<u32*>(new_page());
  for (u32 t = 0; t < 8; ++t) { // 32 MiB one to one
    low_table = reinterpret_cast<u32*>(new_page());
    for (u32 n = 0; n < 1024; ++n) low_table[n] = t << 22 | n << 12 | static_cast<u32>(P | W | U);
    directory[t] = static_cast<u32>(table(low_table));
  }
  directory[WINDOW >> 22] = static_cast<u32>(table(window_table));
  paging = {2, 4, {&directory[WINDOW >> 22], window_table}, WINDOW, 0, {new_page(), new_page()}};
  set_control<3>(reinterpret_cast<word>(directory));
  set_control<0>(control<0>() | CR0_PG | CR0_WP);
  paging.reset();
}

constexpr word AT = 0x3ff000;
void four_megabyte_pages() {
  volatile u32& pde = directory[WINDOW >> 22];
  put32(0x1800000 + AT, 0xaaaa);
  paging.reset();
  put32(paging.frame(0), 0xcccc);
  const auto set = [&](u64 v) {
    pde = static_cast<u32>(v);
    flush_tlb();
  };
  set(table(window_table) | PS);
  check(sees(WINDOW, 0xcccc), "PDE.PS means nothing with CR4.PSE = 0");
  set_control<4>(control<4>() | CR4_PSE);
  set(0x1800000 | P | W | U | PS);
  check(sees(WINDOW + AT, 0xaaaa), "a 4 MiB page");
  check_equal(pde & (A | D), A, "its PDE has A");
  access(Kind::write, WINDOW + 0x1000, true);
  check_equal(pde & (A | D), A | D, "its PDE has D");
  set(0x1800000 | P | U | PS);
  page_faulted(access(Kind::write, WINDOW + 0x345678, true), E_P | E_W | E_U, WINDOW + 0x345678,
               "a read-only 4 MiB page");
  set(0x1800000 | P | W | U | PS | 1 << 21);
  page_faulted(access(Kind::read, WINDOW, false), E_P | E_RSVD, WINDOW, "bit 21 of a 4 MiB PDE");
  set(0x1800000 | P | W | U | PS);
  check(sees(WINDOW + AT, 0xaaaa), "a 4 MiB page again");
  pde = static_cast<u32>(table(window_table));
  invlpg(WINDOW + 0x200000);
  check(sees(WINDOW, 0xcccc), "INVLPG anywhere in a 4 MiB page drops all of it");
  set(table(window_table) | PS);
  set_control<4>(control<4>() & ~CR4_PSE);
  check(sees(WINDOW, 0xcccc), "clearing CR4.PSE drops translations");
  paging.reset();
}

constexpr Part PARTS[] = {
    {"accessed", accessed_and_dirty}, {"absent", absent},     {"permissions", permissions},  {"spanning", spanning},
    {"invalidation", invalidation},   {"implicit", implicit}, {"large", four_megabyte_pages}};

} // namespace

void guest_main() {
  setup_cpu();
  two_levels();
  run_parts(PARTS);
}
