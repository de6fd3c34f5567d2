// PAE paging without long mode: 4 KiB and 2 MiB pages, the four page-directory pointers.
#include "tests/guests/cpu/paging.hpp"

namespace {

constexpr word WINDOW = 0x40000000;
u64 table(const void* t) { return reinterpret_cast<word>(t) | P | W | U; }

u64 *pointers, *directory_page, *table_page;
void build() {
  pointers = reinterpret_cast<u64*>(new_page()), directory_page = reinterpret_cast<u64*>(new_page());
  table_page = reinterpret_cast<u64*>(new_page());
  u64* low = reinterpret_cast<u64*>(new_page());
  for (u32 n = 0; n < 16; ++n) low[n] = u64{n} << 21 | P | W | U | PS;
  pointers[0] = reinterpret_cast<word>(low) | P;
  pointers[1] = reinterpret_cast<word>(directory_page) | P;
  directory_page[0] = table(table_page);
  set_control<3>(reinterpret_cast<word>(pointers));
  set_control<4>(control<4>() | CR4_PAE);
  write_msr(EFER, read_msr(EFER) | EFER_NXE);
  paging = {2, 8, {directory_page, table_page}, WINDOW, E_FETCH, {new_page(), new_page()}};
  set_control<0>(control<0>() | CR0_PG | CR0_WP);
  paging.reset();
}

void reserved_bits() {
  const u64 frame = paging.frame(0) | P | W | U;
  reserved(0, table(table_page) | u64{1} << 62, "bit 62 of a PDE");
  reserved(1, frame | u64{1} << 62, "bit 62 of a PTE");
  reserved(1, frame | u64{1} << 52, "bit 52 of a PTE");
  if (physical_bits() < 52) reserved(1, frame | u64{1} << 51, "an address bit too many in a PTE");
  reserved(0, 0x1800000 | P | W | U | PS | 0x2000, "bit 13 of a 2 MiB PDE");
  write_msr(EFER, read_msr(EFER) & ~u64{EFER_NXE});
  paging.allowed_fetch = 0;
  reserved(1, frame | NX, "NX with EFER.NXE = 0");
  write_msr(EFER, read_msr(EFER) | EFER_NXE);
  paging.allowed_fetch = E_FETCH;
  paging.reset();
}

void two_megabyte_pages() {
  put32(0x1800000 + 0x1ff000, 0xaaaa);
  directory_page[0] = 0x1800000 | P | W | U | PS;
  flush_tlb();
  check(sees(WINDOW + 0x1ff000, 0xaaaa), "a 2 MiB page");
  access(Kind::write, WINDOW, true);
  check_equal(directory_page[0] & (A | D), A | D, "its PDE has A and D");
  directory_page[0] = 0x1800000 | P | W | U | PS | NX;
  flush_tlb();
  page_faulted(access(Kind::fetch, WINDOW, true), E_P | E_U | E_FETCH, WINDOW, "a 2 MiB page with NX");
  directory_page[0] = table(table_page);
  flush_tlb();
}

CODE(set_cr3, "mov %eax, %cr3");
CODE(set_cr4, "mov %eax, %cr4");
CODE(set_cr0, "mov %eax, %cr0");
void directory_pointers() {
  State s = kernel(set_cr3);
  s.ax = control<3>();
  const word cr3 = s.ax;
  const u64 good = pointers[1];
  static constexpr struct {
    u64 bits;
    const char* what;
  } BAD[] = {{W, "PDPTE bit 1 is reserved: MOV CR3"},
             {U, "PDPTE bit 2 is reserved: MOV CR3"},
             {A, "PDPTE bit 5 is reserved: MOV CR3"},
             {PS, "PDPTE bit 7 is reserved: MOV CR3"},
             {u64{1} << 52, "PDPTE bit 52 is reserved: MOV CR3"},
             {NX, "PDPTE bit 63 is reserved: MOV CR3"}};
  for (const auto& bad : BAD) {
    pointers[1] = good | bad.bits;
    faulted(run(s), GP, 0, bad.what);
  }
  pointers[1] = (good & ~P) | W | U | PS;
  ended(run(s), "an absent PDPTE has no reserved bits");
  page_faulted(access(Kind::read, WINDOW, true), E_U, WINDOW, "an absent PDPTE");
  pointers[1] = good;
  set_control<3>(cr3);
  s = kernel(set_cr4);
  s.ax = control<4>() ^ CR4_PGE;
  pointers[3] = P | W;
  faulted(run(s), GP, 0, "MOV CR4 that changes PGE loads the PDPTEs");
  pointers[3] = 0;
}

void pointers_with_cr0() {
  State s = kernel(set_cr0);
  const word cr4 = control<4>();
  set_control<0>(control<0>() & ~CR0_PG);
  s.ax = control<0>() | CR0_PG;
  pointers[3] = P | W;
  faulted(run(s), GP, 0, "MOV CR0 that sets PG loads the PDPTEs");
  check_equal(control<0>() & CR0_PG, 0, "and paging stays off");
  pointers[3] = 0;
  write_msr(EFER, read_msr(EFER) | EFER_LME);
  set_control<4>(cr4 & ~CR4_PAE);
  faulted(run(s), GP, 0, "EFER.LME and PG without PAE");
  set_control<4>(cr4);
  write_msr(EFER, read_msr(EFER) & ~u64{EFER_LME});
  set_control<0>(control<0>() | CR0_PG);
  check_equal(read_msr(EFER) & EFER_LMA, 0, "EFER.LMA is clear without LME");
}

void protection_off() {
  State s = kernel(set_cr0);
  s.ax = control<0>() & ~CR0_PE;
  faulted(run(s), GP, 0, "PG without PE");
}

// From PAE to two levels and to none.
void change_of_format() {
  u32* directory = reinterpret_cast<u32*>(new_page());
  for (u32 n = 0; n < 8; ++n) directory[n] = n << 22 | static_cast<u32>(P | W | U | PS);
  directory[WINDOW >> 22] = 0x1800000 | static_cast<u32>(P | W | U | PS);
  set_control<0>(control<0>() & ~CR0_PG);
  check_equal(access(Kind::read, 0x1000, false).vector, END, "paging off");
  const u32 efer = static_cast<u32>(read_msr(EFER));
  set_control<4>((control<4>() & ~CR4_PAE) | CR4_PSE);
  set_control<3>(reinterpret_cast<word>(directory));
  set_control<0>(control<0>() | CR0_PG);
  put32(0x1800000, 0x77);
  check(sees(WINDOW, 0x77), "two levels now");
  set_control<0>(control<0>() & ~CR0_PG);
  put32(0x1c00000, 0x88);
  check(sees(0x1c00000, 0x88), "with paging off linear addresses are physical ones");
  check_equal(read_msr(EFER), efer, "EFER is as it was");
}

constexpr Part PARTS[] = {{"accessed", accessed_and_dirty}, {"absent", absent},
                          {"permissions", permissions},     {"spanning", spanning},
                          {"invalidation", invalidation},   {"implicit", implicit},
                          {"reserved", reserved_bits},      {"large", two_megabyte_pages},
                          {"pointers", directory_pointers}, {"pointers-cr0", pointers_with_cr0},
                          {"protection", protection_off},   {"change", change_of_format}};

} // namespace

void guest_main() {
  setup_cpu();
  build();
  run_parts(PARTS);
}
