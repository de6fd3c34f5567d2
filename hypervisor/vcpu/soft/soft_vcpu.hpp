// The software CPU as a Vcpu.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "hypervisor/vcpu/vcpu.hpp"

namespace transom::soft {
struct Cpu;
struct Fx;
class BlockCache;
class Translator;
struct Decoded;
} // namespace transom::soft

namespace transom {

enum class SoftEngine : u8 {
  interpret,
  translate, // code that runs often becomes code of the host
  check,     // ditto, and the interpreter repeats what that does: a difference is a failure
};

struct SoftOptions {
  std::string model = "base"; // a CPUID model name
  SoftEngine engine = SoftEngine::interpret;
  u32 threshold = 40;                           // how often that is, for a block
  u64 code_bytes = u64{48} << 20;               // for translated code; full: all of it goes, and what is hot comes back
  std::string perf_map;                         // path of a map of translated code for perf; empty: none
  std::function<void(soft::Decoded&)> sabotage; // tests of `check`: alters what is translated
};

class SoftVcpu final : public Vcpu {
 public:
  // `exit_flag` may live in shared memory; null: the vCPU has its own. `platform` and the memory of `code_pages`
  // outlive it. An unknown model throws std::invalid_argument. `number`: its bit in `code_pages`.
  SoftVcpu(VcpuPlatform& platform, const CodePages& code_pages, const SoftOptions& options = {},
           std::atomic<u32>* exit_flag = nullptr, u32 number = 0);
  ~SoftVcpu() override;

  RunResult run() override;
  void reset() override;
  void init() override;
  void startup(u8 vector) override;
  VcpuRegisters registers() const override;
  void set_registers(const VcpuRegisters& r) override;
  void memory_map_changed() override;
  std::atomic<u32>& exit_flag() override;

  // Tests and debuggers: executes up to `count` instructions one by one (a repeated string instruction counts as one),
  // delivering exceptions but looking at no interrupts. Stops early on halt, shutdown or, when `stop_at_exceptions`,
  // before an exception is delivered; then last_event() tells which.
  RunResult run_instructions(u64 count, bool stop_at_exceptions = false);
  // As run(), but stops before an exception is delivered.
  RunResult run_to_exception();
  struct LastEvent {
    bool raised = false;
    u8 vector = 0;
    bool has_error = false;
    u32 error = 0;
  };
  LastEvent last_event() const { return last_event_; }

  void fpu_state(u8 (&image)[512]) const override;
  void set_fpu_state(const u8 (&image)[512]) override;
  const VcpuCounters& counters() const override;
  std::string failure() const override;
  void set_debug(const DebugControl& control) override;
  std::optional<u64> physical(u64 linear) const override;

  soft::Cpu& cpu() { return *cpu_; }

 private:
  bool take_events();   // false: leave run()
  bool stops_here();    // a debugger's breakpoint
  bool differs() const; // SoftEngine::check has found something
  RunResult dispatch_loop();

  struct Memory; // the CPU, and below it the stack that signals find while translated code runs
  std::unique_ptr<Memory> memory_;
  soft::Cpu* cpu_;
  std::unique_ptr<soft::BlockCache> blocks_;
  std::unique_ptr<soft::Translator> translator_;
  std::atomic<u32> own_flag_{0};
  LastEvent last_event_;
  DebugControl debug_;            // breakpoints in ascending order
  std::optional<u64> stopped_at_; // where run() said RunResult::debug last; going on from there is no hit
  bool past_breakpoint_ = false;  // the next instruction is the one at stopped_at_
  bool stepped_ = false;          // the debugger's step is done
  RunResult result_ = RunResult::exited;
  u64 steps_left_ = 0;
  bool stepping_ = false;
  bool stop_at_exceptions_ = false;
};

} // namespace transom
