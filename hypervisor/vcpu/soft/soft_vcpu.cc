#include "hypervisor/vcpu/soft/soft_vcpu.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "hypervisor/vcpu/soft/block_cache.hpp"
#include "hypervisor/vcpu/soft/fpu.hpp"
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/jit/checker.hpp"
#include "hypervisor/vcpu/soft/jit/translator.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom {

using namespace soft;

struct SoftVcpu::Memory {
  alignas(64) u8 stack[64 << 10];
  Cpu cpu;
};

SoftVcpu::SoftVcpu(VcpuPlatform& platform, const CodePages& code_pages, const SoftOptions& options,
                   std::atomic<u32>* exit_flag, u32 number)
    : memory_(new Memory),
      cpu_(&memory_->cpu),
      blocks_(std::make_unique<BlockCache>(VcpuCodePages(code_pages, number))) {
  Cpu& cpu = *cpu_;
  cpu.platform = &platform;
  cpu.blocks = blocks_.get();
  cpu.exit_flag = exit_flag != nullptr ? exit_flag : &own_flag_;
  cpu.model = find_model(options.model);
  if (cpu.model == nullptr)
    throw std::invalid_argument("cpu_model \"" + options.model + "\" is unknown; accepted: base, v2, host");
  if (options.engine != SoftEngine::interpret) {
    translator_ =
        std::make_unique<Translator>(cpu, Translator::Options{options.code_bytes, options.threshold, options.perf_map,
                                                              options.engine == SoftEngine::check, options.sabotage});
    cpu.translator = translator_.get();
  }
  reset();
}

SoftVcpu::~SoftVcpu() = default;

void SoftVcpu::reset() {
  reset_state(*cpu_);
  memory_map_changed();
}

void SoftVcpu::init() {
  init_state(*cpu_);
  memory_map_changed();
}

void SoftVcpu::startup(u8 vector) {
  Cpu& cpu = *cpu_;
  cpu.segment[CS].selector = static_cast<u16>(vector << 8);
  cpu.segment[CS].base = u64{vector} << 12;
  cpu.segment[CS].refresh();
  cpu.rip = 0;
  update_mode(cpu);
}

std::atomic<u32>& SoftVcpu::exit_flag() { return *cpu_->exit_flag; }

void SoftVcpu::memory_map_changed() {
  Cpu& cpu = *cpu_;
  cpu.a20_mask = cpu.platform->a20_mask();
  flush_phys(cpu);
  flush_tlb(cpu);
  blocks_->request_flush(cpu);
}

namespace {

SegmentRegister get(const Segment& s) { return {s.selector, s.attr, s.limit, s.base}; }
void set(Segment& s, const SegmentRegister& r) {
  s.selector = r.selector;
  s.attr = r.attr;
  s.limit = r.limit;
  s.base = r.base;
  s.refresh();
}

} // namespace

VcpuRegisters SoftVcpu::registers() const {
  const Cpu& cpu = *cpu_;
  VcpuRegisters r;
  std::memcpy(r.gpr, cpu.gpr, sizeof r.gpr);
  r.rip = cpu.rip;
  r.rflags = get_flags(cpu);
  r.cr0 = cpu.cr0;
  r.cr2 = cpu.cr2;
  r.cr3 = cpu.cr3;
  r.cr4 = cpu.cr4;
  r.efer = cpu.efer;
  r.es = get(cpu.segment[ES]);
  r.cs = get(cpu.segment[CS]);
  r.ss = get(cpu.segment[SS]);
  r.ds = get(cpu.segment[DS]);
  r.fs = get(cpu.segment[FS]);
  r.gs = get(cpu.segment[GS]);
  r.ldtr = get(cpu.ldtr);
  r.tr = get(cpu.tr);
  r.gdtr = cpu.gdtr;
  r.idtr = cpu.idtr;
  std::memcpy(r.dr, cpu.dr, sizeof r.dr);
  r.kernel_gs_base = cpu.kernel_gs_base;
  return r;
}

void SoftVcpu::set_registers(const VcpuRegisters& r) {
  Cpu& cpu = *cpu_;
  std::memcpy(cpu.gpr, r.gpr, sizeof r.gpr);
  cpu.rip = r.rip;
  set_flags(cpu, r.rflags);
  const bool translations = cpu.cr0 != r.cr0 || cpu.cr3 != r.cr3 || cpu.cr4 != r.cr4 || cpu.efer != r.efer;
  cpu.cr0 = r.cr0;
  cpu.cr2 = r.cr2;
  cpu.cr3 = r.cr3;
  cpu.cr4 = r.cr4;
  cpu.efer = r.efer;
  set(cpu.segment[ES], r.es);
  set(cpu.segment[CS], r.cs);
  set(cpu.segment[SS], r.ss);
  set(cpu.segment[DS], r.ds);
  set(cpu.segment[FS], r.fs);
  set(cpu.segment[GS], r.gs);
  set(cpu.ldtr, r.ldtr);
  set(cpu.tr, r.tr);
  cpu.gdtr = r.gdtr;
  cpu.idtr = r.idtr;
  std::memcpy(cpu.dr, r.dr, sizeof r.dr);
  cpu.kernel_gs_base = r.kernel_gs_base;
  cpu.cpl = !(r.cr0 & CR0_PE) ? 0 : (r.rflags & FLAG_VM) ? 3 : cpu.segment[SS].dpl();
  cpu.current = nullptr;
  cpu.event = cpu.delivering = {};
  cpu.halted = cpu.shutdown = cpu.interrupt_shadow = false;
  if (translations) {
    if ((r.cr0 & CR0_PG) && (r.cr4 & CR4_PAE) && !(r.efer & EFER_LMA)) {
      const PhysPage& page = phys_page(cpu, r.cr3 & 0xffff'ffe0);
      if (page.read != nullptr) std::memcpy(cpu.pdptr, page.read + (r.cr3 & 0xfe0), sizeof cpu.pdptr);
    }
    flush_tlb(cpu);
  }
  update_mode(cpu);
}

void SoftVcpu::fpu_state(u8 (&image)[512]) const {
  const Fx fx = fxsave_image(*cpu_);
  std::memcpy(image, &fx, sizeof image);
}
void SoftVcpu::set_fpu_state(const u8 (&image)[512]) {
  Fx fx;
  std::memcpy(static_cast<void*>(&fx), image, sizeof image);
  set_fxsave_image(*cpu_, fx);
}
std::string SoftVcpu::failure() const { return differs() ? translator_->checker()->difference() : std::string(); }
const VcpuCounters& SoftVcpu::counters() const { return cpu_->counters; }

bool SoftVcpu::differs() const {
  const Checker* const checker = translator_ != nullptr ? translator_->checker() : nullptr;
  return checker != nullptr && !checker->difference().empty();
}

void SoftVcpu::set_debug(const DebugControl& control) {
  std::vector<u64> breakpoints = control.breakpoints;
  std::sort(breakpoints.begin(), breakpoints.end());
  if (breakpoints != debug_.breakpoints) blocks_->set_breakpoints(*cpu_, breakpoints);
  debug_ = {std::move(breakpoints), control.step};
}

std::optional<u64> SoftVcpu::physical(u64 linear) const { return look_up(*cpu_, linear); }

} // namespace transom
