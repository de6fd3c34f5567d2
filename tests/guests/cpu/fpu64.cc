// x87 and SSE from the system's side: CR0.TS, EM, MP, NE, CR4.OSFXSR and OSXMMEXCPT, #NM, #MF, #XM, #UD, FXSAVE.
#include "tests/guests/lib/cpu.hpp"

namespace {

CODE(x87, "fld1");
CODE(wait, "fwait");
CODE(mmx, "pxor %mm0, %mm0");
CODE(sse, "xorps %xmm0, %xmm0");
CODE(sse2, "movdqa %xmm0, %xmm1");
CODE(save, "fxsave (%rdi)");
CODE(save64, "fxsave64 (%rdi)");
CODE(restore, "fxrstor (%rdi)");
CODE(get_mxcsr, "stmxcsr (%rdi)");
CODE(set_mxcsr, "ldmxcsr (%rdi)");
CODE(fence, "mfence\nlfence\nsfence");
CODE(no_state, "prefetchnta (%rdi)\nmovnti %eax, (%rdi)\npause");
CODE(aligned_load, "movaps (%rdi), %xmm0");
CODE(x87_fault, "fninit\nfldcw (%rdi)\nfld1\nfldz\nfdivrp %st, %st(1)\n.globl at_wait\nat_wait: fwait");
CODE(x87_clear, "fninit\nfldcw (%rdi)\nfld1\nfldz\nfdivrp %st, %st(1)\nfnclex\nfwait");
CODE(x87_nowait, "fninit\nfldcw (%rdi)\nfld1\nfldz\nfdivrp %st, %st(1)\nfnstsw %ax\nfnclex");
CODE(sse_divide, "divss %xmm1, %xmm0");
extern "C" Program at_wait;
alignas(64) u8 image[1024];
alignas(16) u8 small[64];

void set_cr0_bits(word bits) { set_control<0>((control<0>() & ~(CR0_MP | CR0_EM | CR0_TS | CR0_NE)) | bits); }
Outcome go(Program p, bool as_user = true) {
  State s = as_user ? user(p) : kernel(p);
  s.di = reinterpret_cast<word>(image);
  return run(s);
}

void availability() {
  set_control<4>(control<4>() | CR4_FXSR);
  set_cr0_bits(CR0_NE);
  asm volatile("fninit"); // after a reset no register is empty and no error masked
  ended(go(x87), "x87"), ended(go(mmx), "MMX"), ended(go(sse), "SSE"), ended(go(save), "FXSAVE");
  set_cr0_bits(CR0_NE | CR0_TS);
  faulted(go(x87), NM, 0, "TS: x87");
  faulted(go(mmx), NM, 0, "TS: MMX");
  faulted(go(sse), NM, 0, "TS: SSE");
  faulted(go(sse2), NM, 0, "TS: SSE2");
  faulted(go(save), NM, 0, "TS: FXSAVE");
  faulted(go(restore), NM, 0, "TS: FXRSTOR");
  faulted(go(get_mxcsr), NM, 0, "TS: STMXCSR");
  ended(go(wait), "TS without MP: FWAIT");
  ended(go(fence), "TS: fences");
  ended(go(no_state), "TS: PREFETCH, MOVNTI, PAUSE");
  faulted(go(x87, false), NM, 0, "TS in ring 0");
  set_cr0_bits(CR0_NE | CR0_TS | CR0_MP);
  faulted(go(wait), NM, 0, "TS and MP: FWAIT");
  set_cr0_bits(CR0_NE | CR0_MP);
  ended(go(wait), "MP without TS: FWAIT");
  set_cr0_bits(CR0_NE | CR0_EM);
  faulted(go(x87), NM, 0, "EM: x87");
  faulted(go(mmx), UD, 0, "EM: MMX");
  faulted(go(sse), UD, 0, "EM: SSE");
  faulted(go(sse2), UD, 0, "EM: SSE2");
  faulted(go(get_mxcsr), UD, 0, "EM: STMXCSR");
  faulted(go(save), NM, 0, "EM: FXSAVE");
  ended(go(wait), "EM: FWAIT");
  set_cr0_bits(CR0_NE | CR0_EM | CR0_TS);
  faulted(go(sse), UD, 0, "EM and TS: SSE is #UD");
  faulted(go(mmx), UD, 0, "EM and TS: MMX is #UD");
  set_cr0_bits(CR0_NE);
  set_control<4>(control<4>() & ~CR4_FXSR);
  faulted(go(sse), UD, 0, "OSFXSR = 0: SSE");
  faulted(go(sse2), UD, 0, "OSFXSR = 0: SSE2");
  faulted(go(get_mxcsr), UD, 0, "OSFXSR = 0: STMXCSR");
  ended(go(mmx), "OSFXSR = 0: MMX");
  ended(go(save), "OSFXSR = 0: FXSAVE");
  ended(go(fence), "OSFXSR = 0: fences");
  set_cr0_bits(CR0_NE | CR0_TS);
  faulted(go(sse), UD, 0, "OSFXSR = 0 and TS: SSE is #UD");
  set_cr0_bits(CR0_NE);
  set_control<4>(control<4>() | CR4_FXSR);
}

void x87_errors() {
  set_cr0_bits(CR0_NE | CR0_MP);
  put16(reinterpret_cast<u64>(image), 0x037b); // #Z unmasked
  Outcome o = go(x87_fault);
  faulted(o, MF, 0, "an unmasked x87 error");
  check_equal(o.s.ip, address(at_wait), "comes with the next waiting instruction");
  asm volatile("fnclex");
  ended(go(x87_clear), "FNCLEX takes it away");
  o = go(x87_nowait);
  check(o.vector == END && (o.s.ax & 0x8084) == 0x8084, "FNSTSW does not wait: ZE, ES and B");
  put16(reinterpret_cast<u64>(image), 0x037f);
  ended(go(x87_fault), "a masked one");
  asm volatile("fninit");
  // #NM before #MF.
  put16(reinterpret_cast<u64>(image), 0x037b);
  go(x87_fault);
  set_cr0_bits(CR0_NE | CR0_MP | CR0_TS);
  faulted(go(wait), NM, 0, "#NM comes before a pending #MF");
  set_cr0_bits(CR0_NE | CR0_MP);
  faulted(go(mmx), MF, 0, "MMX meets a pending x87 error");
  ended(go(sse), "SSE does not");
  asm volatile("fninit");
}

void sse_errors() {
  const u64 at_small = reinterpret_cast<u64>(small);
  const auto divide = [&](Program p, u32 mxcsr) {
    put32(at_small, mxcsr);
    asm volatile("ldmxcsr %0" : : "m"(*small));
    put32(at_small, 0x3f800000), put32(at_small + 4, 0);
    asm volatile("movss %0, %%xmm0\nmovss %1, %%xmm1" : : "m"(small[0]), "m"(small[4]));
    const Outcome o = go(p);
    asm volatile("stmxcsr %0" : "=m"(small[8]));
    return o;
  };
  set_control<4>(control<4>() | CR4_XMM);
  Outcome o = divide(sse_divide, 0x1f80);
  ended(o, "a masked SSE error");
  check_equal(at<u32>(at_small + 8), 0x1f84, "sets MXCSR.ZE");
  o = divide(sse_divide, 0x1d80);
  faulted(o, XM, 0, "an unmasked one");
  check_equal(o.s.ip, address(sse_divide), "is a fault");
  check_equal(at<u32>(at_small + 8), 0x1d84, "with its flag in MXCSR");
  set_control<4>(control<4>() & ~CR4_XMM);
  faulted(divide(sse_divide, 0x1d80), UD, 0, "OSXMMEXCPT = 0: #UD");
  ended(divide(sse_divide, 0x1f80), "OSXMMEXCPT = 0: a masked one");
  set_control<4>(control<4>() | CR4_XMM);
  put32(at_small, 0x1f80);
  asm volatile("ldmxcsr %0" : : "m"(*small));
  put32(reinterpret_cast<u64>(image), 0x80000000);
  faulted(go(set_mxcsr), GP, 0, "a reserved bit of MXCSR");
  State s = user(aligned_load);
  s.di = reinterpret_cast<word>(image) + 8;
  faulted(run(s), GP, 0, "MOVAPS that is not aligned");
}

void images() {
  const u64 base = reinterpret_cast<u64>(image);
  for (u32 i = 0; i < sizeof image; ++i) image[i] = 0xaa;
  asm volatile("fninit");
  const u32 word0 = 0x12345678;
  asm volatile("movd %0, %%xmm15\nmovd %0, %%xmm0\nfldpi" : : "r"(word0));
  ended(go(save64), "FXSAVE64");
  check_equal(at<u16>(base), 0x037f, "FCW");
  check_equal(at<u16>(base + 2), 0x3800, "FSW");
  check_equal(at<u8>(base + 4), 0x80, "FTW, abridged");
  check_equal(at<u32>(base + 24), 0x1f80, "MXCSR");
  check_equal(at<u32>(base + 28) & 0xffbf, 0xffbf, "MXCSR_MASK");
  check_equal(at<u64>(base + 32), 0xc90fdaa22168c235, "ST(0)");
  check_equal(at<u16>(base + 40), 0x4000, "its exponent");
  check_equal(at<u64>(base + 160), word0, "XMM0");
  check_equal(at<u64>(base + 160 + 15 * 16), word0, "XMM15");
  check_equal(at<u8>(base + 512), 0xaa, "nothing behind 512 bytes");
  put32(base + 160, 0x87654321);
  ended(go(restore), "FXRSTOR");
  u32 v;
  asm volatile("movd %%xmm0, %0" : "=r"(v));
  check_equal(v, 0x87654321, "loads what is there");
  put32(base + 24, 0x1f80 | 1u << 31);
  faulted(go(restore), GP, 0, "FXRSTOR with a reserved bit of MXCSR");
  State s = user(save);
  s.di = base + 8;
  faulted(run(s), GP, 0, "FXSAVE that is not aligned");
  asm volatile("fninit");
}

constexpr Part PARTS[] = {{"availability", availability}, {"x87", x87_errors}, {"sse", sse_errors}, {"images", images}};

} // namespace

void guest_main() {
  setup_cpu();
  run_parts(PARTS);
}
