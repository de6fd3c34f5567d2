// 4-level paging: 4 KiB, 2 MiB and 1 GiB pages, their faults, and the transitions of control registers that fault.
#include "tests/guests/cpu/paging.hpp"

extern "C" u64 pml4[512];

namespace {

constexpr word WINDOW = word{1} << 39; // the second entry of the PML4 table
u64 *l3, *l2, *l1;

u64 table(const u64* t) { return reinterpret_cast<word>(t) | P | W | U; }
void build() {
  l3 = reinterpret_cast<u64*>(new_page()), l2 = reinterpret_cast<u64*>(new_page());
  l1 = reinterpret_cast<u64*>(new_page());
  pml4[1] = table(l3), l3[0] = table(l2), l2[0] = table(l1);
  paging = {4, 8, {&pml4[1], l3, l2, l1}, WINDOW, E_FETCH, {new_page(), new_page()}};
  write_msr(EFER, read_msr(EFER) | EFER_NXE);
  paging.reset();
}

void reserved_bits() {
  const u64 frame = paging.frame(0) | P | W | U;
  const u32 bits = physical_bits();
  reserved(0, table(l3) | PS, "PML4E.PS");
  if (bits < 52) {
    reserved(0, table(l3) | u64{1} << bits, "an address bit too many in a PML4E");
    reserved(1, table(l2) | u64{1} << 51, "an address bit too many in a PDPTE");
    reserved(2, table(l1) | u64{1} << bits, "an address bit too many in a PDE");
    reserved(3, frame | u64{1} << 51, "an address bit too many in a PTE");
    reserved(2, 0x200000 | P | W | U | PS | u64{1} << bits, "an address bit too many in a 2 MiB PDE");
  }
  reserved(2, 0x200000 | P | W | U | PS | 0x2000, "bit 13 of a 2 MiB PDE");
  reserved(2, 0x200000 | P | W | U | PS | 0x100000, "bit 20 of a 2 MiB PDE");
  if (has_extended(26)) {
    reserved(1, P | W | U | PS | 0x2000, "bit 13 of a 1 GiB PDPTE");
    reserved(1, P | W | U | PS | 0x20000000, "bit 29 of a 1 GiB PDPTE");
  } else {
    reserved(1, P | W | U | PS, "PDPTE.PS without 1 GiB pages");
  }
}

void no_execute_disabled() { // NX is a reserved bit then, and fetches do not show
  write_msr(EFER, read_msr(EFER) & ~u64{EFER_NXE});
  paging.allowed_fetch = 0;
  reserved(0, table(l3) | NX, "NX in a PML4E with EFER.NXE = 0");
  reserved(2, table(l1) | NX, "NX in a PDE with EFER.NXE = 0");
  reserved(3, paging.frame(0) | P | W | U | NX, "NX in a PTE with EFER.NXE = 0");
  paging.reset();
  paging.set(3, 0);
  page_faulted(access(Kind::fetch, WINDOW, true), E_U, WINDOW, "a fetch looks like a read with EFER.NXE = 0");
  write_msr(EFER, read_msr(EFER) | EFER_NXE);
  paging.allowed_fetch = E_FETCH;
  paging.reset();
  paging.set(3, paging.get(3) | NX);
  page_faulted(access(Kind::fetch, WINDOW, true), E_P | E_U | E_FETCH, WINDOW, "EFER.NXE = 1 again");
  paging.reset();
}

constexpr word AT = 0x1ff000; // a place in the 2 MiB at 16 MiB and up that nothing else uses
void large_pages() {
  put32(0x1800000 + AT, 0xaaaa), put32(0x1a00000 + AT, 0xbbbb);
  l2[0] = 0x1800000 | P | W | U | PS;
  flush_tlb();
  check(sees(WINDOW + AT, 0xaaaa), "a 2 MiB page");
  check_equal(l2[0] & (A | D), A, "its PDE has A");
  access(Kind::write, WINDOW + 0x1000, true);
  check_equal(l2[0] & (A | D), A | D, "its PDE has D");
  l2[0] = 0x1a00000 | P | W | U | PS | 0x1000; // PAT
  invlpg(WINDOW + 0x100000);
  check(sees(WINDOW + AT, 0xbbbb), "INVLPG anywhere in a 2 MiB page drops all of it; PAT is no address");
  l2[0] = 0x1800000 | P | PS;
  flush_tlb();
  page_faulted(access(Kind::write, WINDOW + 0x1ffffe, false), E_P | E_W, WINDOW + 0x1ffffe, "a read-only 2 MiB page");
  page_faulted(access(Kind::read, WINDOW + 0x1ffffc, true), E_P | E_U, WINDOW + 0x1ffffc, "a supervisor's 2 MiB page");
  l2[0] = 0x1800000 | P | W | U | PS | NX;
  flush_tlb();
  page_faulted(access(Kind::fetch, WINDOW + 0x4000, true), E_P | E_U | E_FETCH, WINDOW + 0x4000,
               "a 2 MiB page with NX");
  l2[0] = table(l1); // small pages again
  invlpg(WINDOW);
  put32(paging.frame(0), 0xcccc);
  check(sees(WINDOW, 0xcccc), "a large page gives way to small ones");
  if (!has_extended(26)) return;
  l3[0] = P | W | U | PS;
  flush_tlb();
  check(sees(WINDOW + 0x1800000 + AT, 0xaaaa), "a 1 GiB page");
  check_equal(l3[0] & (A | D), A, "its PDPTE has A");
  access(Kind::write, WINDOW + 0x1c00000, true);
  check_equal(l3[0] & (A | D), A | D, "its PDPTE has D");
  l3[0] = table(l2);
  invlpg(WINDOW + 0x1c00000);
  check(sees(WINDOW, 0xcccc), "a 1 GiB page gives way to small ones");
}

CODE(read8, "mov (%rdi), %rax");
CODE(push8, "push %rax");
CODE(jump, "jmp *%rdi");
CODE(read_stack, "mov (%rbp), %rax");
void non_canonical() {
  constexpr word HOLE = word{1} << 47;
  State s = kernel(read8);
  s.di = HOLE;
  faulted(run(s), GP, 0, "a read at the first non-canonical address");
  u64* const last[] = {reinterpret_cast<u64*>(new_page()), reinterpret_cast<u64*>(new_page()),
                       reinterpret_cast<u64*>(new_page())};
  pml4[255] = table(last[0]), last[0][511] = table(last[1]), last[1][511] = table(last[2]);
  last[2][511] = paging.frame(0) | P | W | U;
  s.di = HOLE - 4;
  faulted(run(s), GP, 0, "a read into the hole");
  s.di = 0xffff7fffffffffff;
  faulted(run(s), GP, 0, "a read at the last non-canonical address");
  s.di = 0xffff800000000000;
  page_faulted(run(s), 0, 0xffff800000000000, "the first address of the upper half");
  s.di = HOLE - 8;
  ended(run(s), "the last eight bytes of the lower half");
  s = user(push8);
  s.sp = HOLE + 8;
  faulted(run(s), SS, 0, "a push onto a non-canonical stack");
  s = user(read_stack);
  s.bp = HOLE;
  faulted(run(s), SS, 0, "a read by RBP");
  s = user(jump);
  s.di = HOLE;
  const Outcome o = run(s);
  faulted(o, GP, 0, "a jump to a non-canonical address");
  check_equal(o.s.ip, address(jump), "faults at the jump");
  s = user(read8);
  s.ip = HOLE;
  Outcome i = run(s);
  faulted(i, GP, 0, "IRETQ to a non-canonical address");
}

CODE(set_cr0, "mov %rax, %cr0");
CODE(set_cr3, "mov %rax, %cr3");
CODE(set_cr4, "mov %rax, %cr4");
CODE(set_cr8, "mov %rax, %cr8");
CODE(get_cr0, "mov %cr0, %rax");
CODE(get_cr1, ".byte 0x0f, 0x20, 0xc8");
CODE(get_cr5, ".byte 0x0f, 0x20, 0xe8");
CODE(set_msr, "wrmsr");
CODE(lmsw, "lmsw %ax");
CODE(clts, "clts");
CODE(smsw, "smsw %eax");
Outcome with(Program p, word ax) {
  State s = kernel(p);
  s.ax = ax;
  return run(s);
}
void paging_off() {
  const word cr0 = control<0>();
  faulted(with(set_cr0, cr0 & ~CR0_PG), GP, 0, "CR0.PG cleared in 64-bit code");
  faulted(with(set_cr0, cr0 & ~CR0_PE), GP, 0, "CR0.PG without PE");
}
void wide_cr0() {
  const word cr0 = control<0>();
  faulted(with(set_cr0, cr0 | word{1} << 32), GP, 0, "CR0 bit 32");
  check_equal(control<0>(), cr0, "CR0 is as it was");
}
void wide_cr3() {
  const word cr3 = control<3>();
  if (physical_bits() < 52)
    faulted(with(set_cr3, cr3 | word{1} << physical_bits()), GP, 0, "an address too wide in CR3");
  faulted(with(set_cr3, cr3 | word{1} << 62), GP, 0, "CR3 bit 62");
}
void pae_off() {
  const word cr4 = control<4>();
  faulted(with(set_cr4, cr4 & ~CR4_PAE), GP, 0, "CR4.PAE cleared in long mode");
  check_equal(control<4>(), cr4, "CR4 is as it was");
}
void reserved_cr4() {
  const word cr4 = control<4>();
  faulted(with(set_cr4, cr4 | word{1} << 15), GP, 0, "CR4 bit 15");
  faulted(with(set_cr4, cr4 | word{1} << 31), GP, 0, "CR4 bit 31");
  faulted(with(set_cr4, cr4 | word{1} << 63), GP, 0, "CR4 bit 63");
  check_equal(control<4>(), cr4, "CR4 is as it was");
}
void control_registers() {
  const word cr0 = control<0>();
  faulted(with(set_cr0, (cr0 & ~CR0_CD) | CR0_NW), GP, 0, "CR0.NW without CD");
  check_equal(control<0>(), cr0, "CR0 is as it was");
  set_control<0>(cr0);
  ended(with(set_cr0, cr0 & ~word{0x10}), "CR0.ET cleared");
  check_equal(control<0>(), cr0, "CR0.ET is fixed");
  ended(with(set_cr0, cr0 | 1 << 28), "a reserved bit of CR0");
  check_equal(control<0>(), cr0, "reserved bits of CR0 are ignored");
  set_control<0>(cr0);
  faulted(with(set_cr8, 16), GP, 0, "CR8 above 15");
  ended(with(set_cr8, 15), "CR8 = 15");
  word cr8;
  asm volatile("mov %%cr8, %0" : "=r"(cr8));
  check_equal(cr8, 15, "CR8 reads back");
  ended(with(set_cr8, 0), "CR8 = 0");
  faulted(with(get_cr1, 0), UD, 0, "MOV from CR1");
  faulted(with(get_cr5, 0), UD, 0, "MOV from CR5");
  State s = kernel(set_msr);
  const u64 efer = read_msr(EFER);
  s.cx = EFER, s.ax = efer & ~u64{EFER_LME}, s.dx = 0;
  faulted(run(s), GP, 0, "EFER.LME cleared with paging on");
  s.ax = efer | 2;
  faulted(run(s), GP, 0, "EFER bit 1");
  s.ax = efer, s.dx = 1;
  faulted(run(s), GP, 0, "EFER bit 32");
  check_equal(read_msr(EFER), efer, "EFER is as it was");
  s.cx = LSTAR, s.ax = 0, s.dx = 0x8000;
  faulted(run(s), GP, 0, "a non-canonical LSTAR");
  s.cx = FS_BASE;
  faulted(run(s), GP, 0, "a non-canonical FS base");
  s.cx = 0x12345678;
  faulted(run(s), GP, 0, "an MSR that does not exist");
  ended(with(lmsw, cr0 & ~word{1}), "LMSW with PE = 0");
  check_equal(control<0>(), cr0, "LMSW does not clear PE");
  ended(with(lmsw, cr0 | CR0_TS), "LMSW with TS");
  check_equal(control<0>(), cr0 | CR0_TS, "LMSW sets TS");
  check_equal(with(smsw, 0).s.ax & 0xffffffff, cr0 | CR0_TS, "SMSW of 32 bits");
  ended(with(clts, 0), "CLTS");
  check_equal(control<0>(), cr0, "CLTS clears TS");
  static constexpr struct {
    const u8* program;
    const char* what;
  } PRIVILEGED[] = {{set_cr0, "CPL 3: MOV to CR0"},
                    {set_cr3, "CPL 3: MOV to CR3"},
                    {set_cr4, "CPL 3: MOV to CR4"},
                    {set_cr8, "CPL 3: MOV to CR8"},
                    {get_cr0, "CPL 3: MOV from CR0"},
                    {set_msr, "CPL 3: WRMSR"},
                    {lmsw, "CPL 3: LMSW"},
                    {clts, "CPL 3: CLTS"}};
  for (const auto& p : PRIVILEGED) faulted(run(user(p.program)), GP, 0, p.what);
  ended(run(user(smsw)), "CPL 3: SMSW is allowed");
}

constexpr Part PARTS[] = {{"accessed", accessed_and_dirty}, {"absent", absent},
                          {"permissions", permissions},     {"reserved", reserved_bits},
                          {"nxe", no_execute_disabled},     {"large", large_pages},
                          {"spanning", spanning},           {"invalidation", invalidation},
                          {"implicit", implicit},           {"canonical", non_canonical},
                          {"control", control_registers},   {"paging-off", paging_off},
                          {"wide-cr0", wide_cr0},           {"reserved-cr4", reserved_cr4},
                          {"wide-cr3", wide_cr3},           {"pae-off", pae_off}};

} // namespace

void guest_main() {
  setup_cpu();
  build();
  run_parts(PARTS);
}
