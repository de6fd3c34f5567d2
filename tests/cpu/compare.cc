#include "tests/cpu/compare.hpp"

#include <cstring>

#include "hypervisor/vcpu/soft/fpu.hpp"

namespace transom::cpu_test {

using namespace soft;

// The section "Flags Affected" of each instruction in SDM volume 2A; APM volume 3 appendix F has the same letters U.
// The interpreter executes the host's own instruction for all others that leave flags undefined (shifts by more than
// one, MUL, BSF, the logical ones' AF, SHLD of 16 bits by more than 16 …), so those agree as well and are compared.
u64 undefined_flags(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_DIV:                           // SDM 2A, DIV: CF OF SF ZF AF PF are undefined
    case ZYDIS_MNEMONIC_IDIV: return FLAGS_ARITHMETIC; // SDM 2A, IDIV: likewise
    case ZYDIS_MNEMONIC_AAA:                           // SDM 2A, AAA: OF SF ZF PF
    case ZYDIS_MNEMONIC_AAS: return FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF; // SDM 2A, AAS: likewise
    case ZYDIS_MNEMONIC_AAD:                                               // SDM 2A, AAD: OF AF CF
    case ZYDIS_MNEMONIC_AAM: return FLAG_OF | FLAG_AF | FLAG_CF;           // SDM 2A, AAM: likewise
    case ZYDIS_MNEMONIC_DAA:                                               // SDM 2A, DAA: OF
    case ZYDIS_MNEMONIC_DAS: return FLAG_OF;                               // SDM 2A, DAS: likewise
    default: return 0;
  }
}

namespace {

constexpr u64 CANONICAL_END = u64{1} << 47;
constexpr u64 KERNEL_HALF = CANONICAL_END - PAGE_SIZE; // Linux: TASK_SIZE_MAX

bool memory_fault(int vector) { return vector == PF || vector == GP || vector == SS_FAULT; }

// --- accepted differences, each with its reason

// An access that crosses the end of the address space (4 GiB, or the canonical hole) may fault for either half first;
// SDM 3A 5.3 leaves accesses beyond FFFFFFFFh to the implementation.
bool crosses_the_end(const Outcome& native, const Outcome& soft) {
  const bool we_check_first = native.vector == PF && (soft.vector == GP || soft.vector == SS_FAULT);
  if (we_check_first && (native.cr2 & ~u64{511}) == 0xffff'fe00) return true; // BOUND: two reads for the host
  const bool host_checks_first = native.vector == GP || native.vector == SS_FAULT;
  const u64 end = soft.cr2 & ~u64{511};
  const bool at_end = end == 0xffff'fe00 || end == CANONICAL_END - 512 || soft.cr2 < 512;
  const bool both_page_faults = native.vector == PF && (native.cr2 < 512 || native.cr2 >= 0xffff'fe00);
  return soft.vector == PF && at_end && (host_checks_first || both_page_faults);
}
// CALL with a bad stack and a bad target: the order of the two faults is the vendor's.
bool call_faults_twice(const Outcome& native, const Outcome& soft, ZydisMnemonic m) {
  return m == ZYDIS_MNEMONIC_CALL && soft.vector == GP && (native.vector == PF || native.vector == SS_FAULT);
}
// CMPS whose operands both fault: neither manual gives an order. We read [SI] first. So does this host (AMD family 19h
// model 11h) in REPE CMPSB, and in every other form it reads [DI] first. Segments begin at a page.
bool cmps_faults_twice(const Outcome& native, const Outcome& soft, ZydisMnemonic m) {
  const bool cmps =
      m == ZYDIS_MNEMONIC_CMPSB || m == ZYDIS_MNEMONIC_CMPSW || m == ZYDIS_MNEMONIC_CMPSD || m == ZYDIS_MNEMONIC_CMPSQ;
  const auto at = [](const Outcome& o, GprIndex pointer) {
    return memory_fault(o.vector) && (o.vector != PF || (o.cr2 - o.state.gpr[pointer]) % PAGE_SIZE < 8);
  };
  const bool differ = native.vector != soft.vector || native.cr2 != soft.cr2;
  return cmps && differ && at(native, RDI) && at(soft, RSI);
}
// MXCSR bit 17 (misaligned SSE mode) exists on AMD hosts and in none of our models.
bool loads_misaligned_mode(const Outcome& native, const Outcome& soft) {
  return soft.vector == GP && (native.state.fx.mxcsr & ~MXCSR_DEFINED) != 0;
}
// Where in the operand a page fault is reported: images and masked stores are accessed in the microcode's order, we
// name the first byte that faults.
u64 fault_address_slack(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return 512;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE: return 108;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU: return 16;
    default: return 0;
  }
}
// An operand of several pieces with two reasons to fault (a page, the segment limit, misalignment): pieces go in the
// microcode's order, we look at all of it for each reason.
bool operand_faults_twice(const Outcome& native, const Outcome& soft, ZydisMnemonic m) {
  const bool pieces = fault_address_slack(m) >= 108 || m == ZYDIS_MNEMONIC_FBSTP || m == ZYDIS_MNEMONIC_FSTP;
  return pieces && native.vector != soft.vector && memory_fault(native.vector) && memory_fault(soft.vector);
}
// MXCSR flags beside an unmasked exception: PE of a trapped overflow or underflow (see arithmetic_unmasked() in
// native.hpp); all of them in a dot product, which stops at its first trapping step.
u32 compared_mxcsr(const Outcome& native, ZydisMnemonic m) {
  if (native.vector != XM) return ~0u;
  if (m == ZYDIS_MNEMONIC_DPPS || m == ZYDIS_MNEMONIC_DPPD) return ~MXCSR_FLAGS;
  const u32 trapped = native.state.fx.mxcsr & ~(native.state.fx.mxcsr >> 7);
  return trapped & (MXCSR_OE | MXCSR_UE) ? ~MXCSR_PE : ~0u;
}

class Report {
 public:
  void check(const char* what, u64 native, u64 soft) {
    if (native == soft) return;
    char line[160];
    std::snprintf(line, sizeof line, "  %-10s host %016llx  soft %016llx\n", what,
                  static_cast<unsigned long long>(native), static_cast<unsigned long long>(soft));
    text += line;
  }
  template <class... Args>
  void check_named(u64 native, u64 soft, const char* format, Args... args) {
    if (native == soft) return;
    char name[32];
    std::snprintf(name, sizeof name, format, args...);
    check(name, native, soft);
  }
  std::string text;
};

void compare_fx(Report& report, const Case& c, u32 mxcsr_mask, const Fx& native, const Fx& soft) {
  report.check("fcw", native.fcw, soft.fcw);
  report.check("fsw", native.fsw, soft.fsw);
  report.check("ftw", native.ftw, soft.ftw);
  report.check("mxcsr", native.mxcsr & mxcsr_mask, soft.mxcsr & mxcsr_mask);
  // The host keeps the pointers only while an exception is pending (AMD APM 2 11.4.4).
  if (native.fsw & FSW_ES) {
    report.check("fop", native.fop, soft.fop);
    const u64 canonical_bits = CANONICAL_END - 1; // FXRSTOR64 of other pointers: sign-extended by the host
    report.check("fip", native.fip & canonical_bits, soft.fip & canonical_bits);
    report.check("fdp", native.fdp & canonical_bits, soft.fdp & canonical_bits);
  }
  for (unsigned n = 0; n < 8; ++n) {
    u64 a[2] = {}, b[2] = {};
    std::memcpy(a, native.st[n], 10);
    std::memcpy(b, soft.st[n], 10);
    report.check_named(a[0], b[0], "st%u", n);
    report.check_named(a[1], b[1], "st%u exp", n);
  }
  for (unsigned n = 0; n < (c.mode == Mode::bits64 ? 16u : 8u); ++n) {
    u64 a[2], b[2];
    std::memcpy(a, native.xmm[n], 16);
    std::memcpy(b, soft.xmm[n], 16);
    report.check_named(a[0], b[0], "xmm%u low", n);
    report.check_named(a[1], b[1], "xmm%u high", n);
  }
}

} // namespace

std::string difference(const Case& c, const Outcome& native, const Outcome& soft, u64 undefined,
                       ZydisMnemonic mnemonic) {
  if (crosses_the_end(native, soft) || call_faults_twice(native, soft, mnemonic)) return {};
  if (operand_faults_twice(native, soft, mnemonic)) return {};
  if (loads_misaligned_mode(native, soft)) return {};
  Report report;
  const bool other_operand = cmps_faults_twice(native, soft, mnemonic); // everything but the fault is compared
  if (!other_operand) report.check("vector", static_cast<u64>(native.vector), static_cast<u64>(soft.vector));
  if (native.vector == soft.vector && !other_operand) {
    u64 error_mask = ~u64{0};
    if (native.vector == PF) {
      const u64 slack = fault_address_slack(mnemonic);
      if (slack != 0) error_mask &= ~u64{1}; // the other page may be present
      // An image may lie across the end of the address space.
      const u64 apart = native.cr2 - soft.cr2;
      if (apart + slack > 2 * slack) report.check("cr2", native.cr2, soft.cr2);
      // Linux shows every fault on a kernel address as a protection violation (sanitize_error_code).
      if (native.cr2 >= KERNEL_HALF) error_mask = ~u64{1};
    }
    const bool has_error =
        native.vector == PF || native.vector == GP || native.vector == SS_FAULT || native.vector == AC;
    if (has_error) report.check("error", native.error & error_mask, soft.error & error_mask);
  }
  const bool wide = c.mode == Mode::bits64;
  const u64 mask = wide ? ~u64{0} : 0xffff'ffff;
  if (native.vector != OF) // INTO is a trap, and where it stops in soft_runner.cc is not where it ends
    report.check("rip", native.state.rip & mask, soft.state.rip & mask);
  static const char* const NAME[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  for (unsigned n = 0; n < (wide ? 16u : 8u); ++n)
    report.check(NAME[n], native.state.gpr[n] & mask, soft.state.gpr[n] & mask);
  const u64 flags = (FLAGS_ARITHMETIC | FLAG_DF | FLAG_TF | FLAG_NT | FLAG_AC | FLAG_ID) & ~undefined;
  report.check("rflags", native.state.rflags & flags, soft.state.rflags & flags);
  compare_fx(report, c, compared_mxcsr(native, mnemonic), native.state.fx, soft.state.fx);
  if (std::memcmp(native.data.data(), soft.data.data(), DATA_WRITABLE) == 0) return report.text;
  for (u64 at = 0; at < DATA_WRITABLE; at += 8) {
    u64 a, b;
    std::memcpy(&a, &native.data[at], 8);
    std::memcpy(&b, &soft.data[at], 8);
    // MXCSR_MASK in an FXSAVE image: AMD's misaligned-SSE bit is not in our models.
    if (a - b == u64{0x2'0000} << 32 && (b >> 32) == 0xffff) continue;
    report.check_named(a, b, "[%llx]", static_cast<unsigned long long>(DATA + at));
  }
  return report.text;
}

} // namespace transom::cpu_test
