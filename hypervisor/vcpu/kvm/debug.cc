// A debugger's breakpoints and steps, by the processor's debug registers, and a look through the page tables.
#include <algorithm>
#include <cstring>
#include <linux/kvm.h>

#include "hypervisor/vcpu/kvm/kvm_api.hpp"
#include "hypervisor/vcpu/kvm/kvm_vcpu.hpp"

namespace transom {

namespace {
constexpr u32 DB = 1; // vector
constexpr u64 DR6_BS = 1 << 14;
} // namespace

void KvmVcpu::set_debug(const DebugControl& control) {
  debug_ = control;
  if (debug_.breakpoints.size() > DEBUG_REGISTERS) debug_.breakpoints.resize(DEBUG_REGISTERS);
}

u64 KvmVcpu::linear_rip() const {
  kvm_regs r{};
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_REGS, &r), "KVM_GET_REGS");
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  return (s.efer & 0x400) != 0 && s.cs.l != 0 ? r.rip : static_cast<u32>(s.cs.base + r.rip);
}

// Where it stopped before, it goes on with one step: the breakpoint there has done its work.
void KvmVcpu::begin_run() {
  const bool wanted = debug_.step || !debug_.breakpoints.empty();
  if (wanted) step_from_ = linear_rip();
  past_breakpoint_ = wanted && !halted_ && stopped_at_ == step_from_;
  stopped_at_.reset();
  if (wanted || armed_) arm_debug(debug_.step || past_breakpoint_);
}

void KvmVcpu::arm_debug(bool step, bool inject_db) {
  kvm_guest_debug d{};
  const bool wanted = step || !debug_.breakpoints.empty();
  if (wanted) d.control = KVM_GUESTDBG_ENABLE;
  if (step) d.control |= KVM_GUESTDBG_SINGLESTEP;
  if (inject_db) d.control |= KVM_GUESTDBG_INJECT_DB;
  if (!step && !debug_.breakpoints.empty()) {
    d.control |= KVM_GUESTDBG_USE_HW_BP;
    d.arch.debugreg[7] = 0x600; // LE … GE [SDM 3B 17.2.4]: execution, one byte
    for (u32 n = 0; n < debug_.breakpoints.size(); ++n) {
      d.arch.debugreg[n] = debug_.breakpoints[n];
      d.arch.debugreg[7] |= u64{2} << (2 * n);
    }
  }
  must(kvm_call(fd_.get(), KVM_SET_GUEST_DEBUG, &d), "KVM_SET_GUEST_DEBUG");
  armed_ = wanted;
}

std::optional<RunResult> KvmVcpu::handle_debug() {
  const auto& arch = run_->debug.arch;
  const bool stepping = debug_.step || past_breakpoint_;
  const u64 rip = linear_rip();
  const auto& points = debug_.breakpoints;
  const bool at_breakpoint = std::find(points.begin(), points.end(), rip) != points.end();
  const bool own_step = stepping && (arch.dr6 & DR6_BS) != 0;
  const bool own_breakpoint = !stepping && at_breakpoint && (arch.dr6 & 15) != 0;
  if (arch.exception != DB || (!own_step && !own_breakpoint)) { // the guest's own debug exception
    arm_debug(stepping, arch.exception == DB);
    return {};
  }
  return step_done(rip);
}

// Also where a breakpoint stopped it: it goes on only from one that it passed.
std::optional<RunResult> KvmVcpu::step_done(u64 rip) {
  const auto& points = debug_.breakpoints;
  const bool passing = std::exchange(past_breakpoint_, false);
  if (passing && !debug_.step && std::find(points.begin(), points.end(), rip) == points.end()) {
    arm_debug(false);
    return {};
  }
  stopped_at_ = rip;
  return RunResult::debug;
}

// ---------------------------------------------------------------------------------------------------- page tables

u64 KvmVcpu::read_entry(u64 gpa, u32 width) const {
  gpa &= platform_.a20_mask();
  const PhysPage page = platform_.page(gpa & PAGE_MASK);
  u64 value = 0;
  if (page.read != nullptr) std::memcpy(&value, page.read + gpa % PAGE_SIZE, width);
  return value;
}

// As the processor walks them [SDM 3A 4.3–4.5], but without setting accessed bits, as KVM_TRANSLATE would.
std::optional<KvmVcpu::Translation> KvmVcpu::walk(const kvm_sregs& s, u64 linear) const {
  constexpr u64 PRESENT = 1, WRITABLE = 2, USER = 4, LARGE = 0x80, ADDRESS = 0x000f'ffff'ffff'f000;
  constexpr u64 PG = u64{1} << 31, PAE = 1 << 5, PSE = 1 << 4, LMA = 1 << 10;
  const bool four_levels = (s.efer & LMA) != 0, wide = (s.cr4 & PAE) != 0;
  if (!four_levels) linear = static_cast<u32>(linear);
  if (four_levels && static_cast<u64>(static_cast<i64>(linear << 16) >> 16) != linear) return {}; // not canonical
  if ((s.cr0 & PG) == 0) return Translation{linear & platform_.a20_mask(), true, true};
  const u32 width = wide ? 8 : 4, bits = wide ? 9 : 10; // of an entry, of an index
  bool writable = true, user = true;
  u64 table = four_levels ? s.cr3 & ADDRESS : wide ? s.cr3 & 0xffff'ffe0 : s.cr3 & 0xffff'f000;
  for (int level = four_levels ? 3 : wide ? 2 : 1;; --level) {
    const u32 shift = 12 + bits * static_cast<u32>(level);
    const u64 index = linear >> shift & (wide && !four_levels && level == 2 ? 3 : (u64{1} << bits) - 1);
    const u64 entry = read_entry(table + index * width, width);
    if ((entry & PRESENT) == 0) return {};
    const bool pdpte = wide && !four_levels && level == 2; // has neither W nor U/S
    writable &= pdpte || (entry & WRITABLE) != 0;
    user &= pdpte || (entry & USER) != 0;
    const u64 address = entry & (wide ? ADDRESS : 0xffff'f000);
    const bool large = !pdpte && (entry & LARGE) != 0 && (level == 1 || level == 2) && (wide || (s.cr4 & PSE) != 0);
    if (level == 0 || large) {
      const u64 within = (u64{1} << shift) - 1;
      const u64 high = large && !wide ? (entry >> 13 & 0xff) << 32 : 0; // PSE-36
      return Translation{(high | (address & ~within) | (linear & within)) & platform_.a20_mask(), writable, user};
    }
    table = address;
  }
}

std::optional<u64> KvmVcpu::physical(u64 linear) const {
  kvm_sregs s{};
  must(kvm_call(fd_.get(), KVM_GET_SREGS, &s), "KVM_GET_SREGS");
  const auto to = walk(s, linear);
  return to ? std::optional<u64>(to->gpa) : std::nullopt;
}

} // namespace transom
