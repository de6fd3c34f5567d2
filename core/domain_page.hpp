// What all processes of a domain share besides guest RAM: clock, event channel words, exit flags, line levels,
// counters, and behind them the code-page map.
#pragma once

#include <atomic>

#include "core/code_pages.hpp"
#include "core/domain_clock.hpp"
#include "core/event_channel.hpp"
#include "core/server_page.hpp"

namespace transom {

inline constexpr u32 LINES = 32;     // GSIs 0–23, then the CPU's own wires
inline constexpr u32 LINE_INTR = 24; // the PIC's output to the processors

// Why a vCPU left guest code. Shown by `transom info`.
enum class ExitCause : u32 {
  pio_read,
  pio_write,
  pio_run,
  mmio_read,
  mmio_write,
  pci_config,
  intack,
  hypercall,
  halt,
  unclaimed_read,
  unclaimed_write,
  count
};
inline constexpr u32 EXIT_CAUSES = static_cast<u32>(ExitCause::count);
inline constexpr const char* EXIT_CAUSE_NAMES[EXIT_CAUSES] = {
    "pio_read", "pio_write", "pio_run", "mmio_read",      "mmio_write",     "pci_config",
    "intack",   "hypercall", "halt",    "unclaimed_read", "unclaimed_write"};

// Bits of a vCPU's exit flag (Vcpu::exit_flag()).
inline constexpr u32 EXIT_LOOK = 1;  // interrupts, written code pages: look around at the next block
inline constexpr u32 EXIT_LEAVE = 2; // the machine wants the thread back

struct alignas(64) VcpuShared {
  std::atomic<u32> exit_flag; // set by anyone, cleared by the vCPU
  alignas(64) EventWord event;
  alignas(64) std::atomic<u64> exits[EXIT_CAUSES];
  std::atomic<u64> instructions, translated, exceptions, interrupts, tlb_misses, blocks_decoded, blocks_invalidated;
};

enum class DomainState : u32 { starting = 0, running, paused, stopped };
// Why the domain ended; decides the exit status of `transom run`.
enum class StopReason : u32 { none = 0, power_off, reset, panic, triple_fault, debug_exit, killed, failed };

struct DomainPage {
  static constexpr u64 MAGIC = 0x3167'5065'6e69'6d44; // "DminePg1"
  u64 magic;
  u32 vcpu_count, server_count;
  std::atomic<DomainState> state;
  std::atomic<StopReason> stop_reason;
  std::atomic<u32> stop_value; // debug_exit: what the guest wrote; panic: pvpanic's event
  char failure[512];           // why `failed`
  ClockPage clock;

  alignas(64) EventWord device_thread;
  struct alignas(64) Doorbell {
    EventWord event;
  } doorbells[MAX_SERVERS];
  alignas(64) std::atomic<u64> lines[LINES]; // one bit a source, wired-OR; written by the hypervisor
  std::atomic<u64> next_request_id;
  VcpuShared vcpus[MAX_VCPUS];

  static constexpr u64 bytes_for(u64 ram_pages, u32 cpus) {
    return ((sizeof(DomainPage) + 4095) & ~u64{4095}) + CodePages::bytes_for(ram_pages, cpus);
  }
  CodePages code_pages(u64 ram_pages, u32 cpus) {
    return CodePages(reinterpret_cast<u8*>(this) + ((sizeof(DomainPage) + 4095) & ~u64{4095}), ram_pages, cpus);
  }
  // Somebody other than the vCPUs wrote guest RAM. After the data landed, before any visible completion.
  void memory_written(CodePages& code, u64 gpa, u64 length) { look(code.wrote(gpa, length)); }
  // These vCPUs (one bit each) are to look around before they go on.
  void look(u32 mask) {
    for (; mask != 0; mask &= mask - 1)
      vcpus[__builtin_ctz(mask) % MAX_VCPUS].exit_flag.fetch_or(EXIT_LOOK, std::memory_order_seq_cst);
  }
};

} // namespace transom
