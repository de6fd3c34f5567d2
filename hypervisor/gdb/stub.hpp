// gdb's side of the domain: what arrives from a client goes in, what it is answered comes out. vCPU n is thread n + 1.
//
// All-stop: as long as the client talks, every vCPU stands. Pure: no socket, no thread, no clock.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hypervisor/gdb/registers.hpp"
#include "hypervisor/gdb/remote_protocol.hpp"
#include "hypervisor/gdb/target.hpp"

namespace transom::gdb {

class Stub {
 public:
  static constexpr size_t MAX_BREAKPOINTS = 1024;

  // A client has come: everything stands from here on.
  explicit Stub(Target& target, Architecture architecture = Architecture::x86_64);

  void receive(std::string_view bytes);
  // Target::take_stop() has something to say.
  void stopped();
  // The domain has ended by itself; there is nothing left to debug.
  void domain_ended();

  std::string take_output() { return std::exchange(output_, {}); }
  // The client is done with, or cannot be understood: hang up. Guest code runs on unless it was killed.
  bool ended() const { return ended_; }
  // The connection is gone without a word: as if it had said D.
  void detach();

 private:
  enum BreakpointKind : u8 { SOFTWARE = 1, HARDWARE = 2 };

  void packet_received(std::string_view data);
  void reply(std::string_view data);
  void ok() { reply("OK"); }
  void refuse(u32 error); // errno
  void interrupt();

  void answer(char command, Scanner packet);
  void query(Scanner packet);
  void set(Scanner packet);
  void multi_letter(Scanner packet); // v…
  void features(Scanner packet);
  void thread_info(Scanner packet);
  void monitor(std::string_view command);
  std::string list_registers(u32 vcpu);

  void read_registers();
  void write_registers(std::string_view values);
  void read_one(Scanner packet);
  void write_one(Scanner packet);
  CpuState state();
  void put_state(const CpuState& changed);

  void read_memory(Scanner packet);
  void write_memory(Scanner packet, bool binary);
  std::optional<u64> address_of(u64 linear);
  void breakpoint(Scanner packet, bool insert);

  void select_thread(Scanner packet);
  std::optional<u32> thread(std::string_view text) const; // vCPU
  void go_on(Scanner packet, Action action, bool with_signal);
  void continue_as(Scanner actions);
  void resume(std::vector<Action> actions);
  void report(u32 vcpu);
  bool at_breakpoint(u32 vcpu, u8* kinds = nullptr);

  Target& target_;
  const RegisterSet set_;
  PacketReader reader_;
  std::string output_, last_, stop_reply_;
  std::map<u64, u8> breakpoints_; // BreakpointKind bits by linear address
  std::vector<Action> actions_;   // of the last resume
  std::set<u32> untold_;          // vCPUs that stopped by themselves when another one did
  u32 general_ = 0;               // vCPU that registers and memory are read through (Hg)
  u32 continue_ = 0;              // that c and s are about (Hc); ALL
  bool running_ = false, ended_ = false;
  bool gone_ = false; // nothing more is asked of the target
  bool acknowledges_ = true, tells_breakpoints_ = false, physical_ = false;

  static constexpr u32 ALL = ~0u;
};

} // namespace transom::gdb
