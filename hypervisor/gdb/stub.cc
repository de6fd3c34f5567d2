#include "hypervisor/gdb/stub.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>

namespace transom::gdb {

namespace {

constexpr u32 SIGNAL_INT = 2, SIGNAL_TRAP = 5; // as gdb numbers them

} // namespace

Stub::Stub(Target& target, Architecture architecture)
    : target_(target), set_(architecture), actions_(target.vcpus(), Action::go_on) {
  target_.stand();
  stop_reply_ = fmt::format("T{:02x}thread:1;", SIGNAL_TRAP);
}

void Stub::receive(std::string_view bytes) {
  for (const char c : bytes) {
    if (ended_) return;
    switch (reader_.put(static_cast<u8>(c))) {
      case PacketReader::Event::none:
      case PacketReader::Event::acknowledged: break;
      case PacketReader::Event::packet:
        if (acknowledges_) output_ += '+';
        packet_received(reader_.data());
        break;
      case PacketReader::Event::bad_checksum:
        if (acknowledges_)
          output_ += '-';
        else
          ended_ = true; // there is no way to ask for it again
        break;
      case PacketReader::Event::too_long: ended_ = true; break;
      case PacketReader::Event::interrupt: interrupt(); break;
      case PacketReader::Event::refused:
        if (acknowledges_) output_ += last_;
        break;
    }
  }
  if (ended_) detach();
}

void Stub::detach() {
  if (gone_) return;
  ended_ = gone_ = true;
  target_.stand();
  target_.resume(std::vector<Action>(target_.vcpus(), Action::go_on), {});
}

void Stub::domain_ended() {
  if (running_ && !ended_) reply("W00");
  ended_ = gone_ = true;
}

void Stub::reply(std::string_view data) {
  last_ = packet(data);
  output_ += last_;
}

void Stub::refuse(u32 error) { reply(fmt::format("E{:02x}", error)); }

void Stub::packet_received(std::string_view data) {
  if (running_ || data.empty()) return; // all-stop: there is nothing to say to a running domain but Ctrl-C
  Scanner packet(data.substr(1));
  answer(data[0], packet);
}

void Stub::answer(char command, Scanner packet) {
  switch (command) {
    case '?': return reply(stop_reply_);
    case 'g': return read_registers();
    case 'G': return write_registers(packet.rest());
    case 'p': return read_one(packet);
    case 'P': return write_one(packet);
    case 'm': return read_memory(packet);
    case 'M': return write_memory(packet, false);
    case 'X': return write_memory(packet, true);
    case 'Z': return breakpoint(packet, true);
    case 'z': return breakpoint(packet, false);
    case 'c': return go_on(packet, Action::go_on, false);
    case 's': return go_on(packet, Action::step, false);
    case 'C': return go_on(packet, Action::go_on, true);
    case 'S': return go_on(packet, Action::step, true);
    case 'H': return select_thread(packet);
    case 'T': return thread(packet.rest()) ? ok() : refuse(ESRCH);
    case 'q': return query(packet);
    case 'Q': return set(packet);
    case 'v': return multi_letter(packet);
    case 'D': ok(); return detach();
    case 'k':
      target_.kill();
      ended_ = gone_ = true;
      return;
    default: return reply(""); // gdb's word for "not supported"
  }
}

// ---------------------------------------------------------------------------------------------------- queries

void Stub::query(Scanner packet) {
  if (packet.skip("Supported")) {
    tells_breakpoints_ = packet.rest().find("swbreak+") != std::string_view::npos;
    return reply(fmt::format("PacketSize={:x};qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
                             MAX_PACKET));
  }
  if (packet.skip("Xfer:features:read:")) return features(packet);
  if (packet.rest() == "C") return reply(fmt::format("QC{:x}", general_ + 1));
  if (packet.rest() == "Attached") return reply("1");
  if (packet.skip("Symbol:")) return ok();
  if (packet.rest() == "fThreadInfo") {
    std::string all;
    for (u32 v = 0; v < target_.vcpus(); ++v) all += fmt::format("{}{:x}", v == 0 ? "m" : ",", v + 1);
    return reply(all);
  }
  if (packet.rest() == "sThreadInfo") return reply("l");
  if (packet.skip("ThreadExtraInfo,")) return thread_info(packet);
  if (packet.skip("Rcmd,")) {
    const auto command = unhex(packet.rest());
    return command ? monitor(*command) : refuse(EINVAL);
  }
  if (packet.rest() == "qemu.PhyMemMode") return reply(physical_ ? "1" : "0");
  reply("");
}

void Stub::set(Scanner packet) {
  if (packet.rest() == "StartNoAckMode") {
    acknowledges_ = false;
    return ok();
  }
  if (packet.skip("qemu.PhyMemMode:")) {
    physical_ = packet.rest() == "1";
    return physical_ || packet.rest() == "0" ? ok() : refuse(EINVAL);
  }
  reply("");
}

// v…
void Stub::multi_letter(Scanner packet) {
  if (packet.rest() == "Cont?") return reply("vCont;c;C;s;S");
  if (packet.skip("Cont;")) return continue_as(packet);
  if (packet.skip("Kill;")) {
    ok();
    target_.kill();
    ended_ = gone_ = true;
    return;
  }
  reply("");
}

void Stub::features(Scanner packet) {
  if (packet.until(':') != "target.xml") return refuse(ENOENT);
  const auto offset = packet.number();
  if (!offset || !packet.skip(",")) return refuse(EINVAL);
  const auto length = packet.number();
  if (!length) return refuse(EINVAL);
  const std::string& text = set_.description();
  if (*offset >= text.size()) return reply("l");
  const std::string part = text.substr(*offset, std::min<u64>(*length, MAX_PACKET / 2));
  reply((*offset + part.size() < text.size() ? "m" : "l") + part);
}

void Stub::thread_info(Scanner packet) {
  const auto vcpu = thread(packet.rest());
  if (!vcpu) return refuse(ESRCH);
  reply(hex(fmt::format("vCPU {}: {}", *vcpu, target_.state(*vcpu))));
}

// `monitor …` in gdb.
void Stub::monitor(std::string_view command) {
  Scanner words(command);
  if (words.skip("info registers")) return reply(hex(list_registers(general_)));
  if (words.skip("translate ")) {
    words.skip("0x");
    const auto linear = words.number();
    if (!linear || !words.done()) return reply(hex(std::string_view("translate ADDRESS: a hexadecimal number\n")));
    const auto to = target_.physical(general_, *linear);
    return reply(hex(to ? fmt::format("{:#x} is at physical {:#x}\n", *linear, *to)
                        : fmt::format("{:#x} is not mapped\n", *linear)));
  }
  reply(
      hex(std::string_view("help                this\n"
                           "info registers      segments, tables and system registers of this vCPU\n"
                           "translate ADDRESS   where the page tables of this vCPU lead\n")));
}

std::string Stub::list_registers(u32 vcpu) {
  const VcpuRegisters r = target_.registers(vcpu);
  std::string text = fmt::format("vCPU {}: {}\nrip {:016x} rflags {:x}\n", vcpu, target_.state(vcpu), r.rip, r.rflags);
  const std::pair<const char*, const SegmentRegister*> segments[] = {{"es", &r.es},     {"cs", &r.cs}, {"ss", &r.ss},
                                                                     {"ds", &r.ds},     {"fs", &r.fs}, {"gs", &r.gs},
                                                                     {"ldtr", &r.ldtr}, {"tr", &r.tr}};
  for (const auto& [name, s] : segments)
    text += fmt::format("{:4} {:04x} base {:016x} limit {:08x} attributes {:04x}\n", name, s->selector, s->base,
                        s->limit, s->attr);
  text += fmt::format("gdtr {:016x} limit {:04x}\nidtr {:016x} limit {:04x}\n", r.gdtr.base, r.gdtr.limit, r.idtr.base,
                      r.idtr.limit);
  text += fmt::format("cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x}\n", r.cr0, r.cr2, r.cr3, r.cr4, r.efer);
  return text + fmt::format("dr0 {:x} dr1 {:x} dr2 {:x} dr3 {:x} dr6 {:x} dr7 {:x}\n", r.dr[0], r.dr[1], r.dr[2],
                            r.dr[3], r.dr[6], r.dr[7]);
}

// ---------------------------------------------------------------------------------------------------- threads

// A thread id: 0 is any, -1 all.
std::optional<u32> Stub::thread(std::string_view text) const {
  Scanner id(text);
  const auto number = id.number();
  if (!number || !id.done() || *number > target_.vcpus()) return {};
  return *number == 0 ? 0 : static_cast<u32>(*number - 1);
}

void Stub::select_thread(Scanner packet) {
  const bool general = packet.skip("g");
  if (!general && !packet.skip("c")) return reply("");
  if (packet.rest() == "-1") {
    if (!general) continue_ = ALL;
    return ok();
  }
  const auto vcpu = thread(packet.rest());
  if (!vcpu) return refuse(ESRCH);
  if (general)
    general_ = *vcpu;
  else
    continue_ = packet.rest() == "0" ? ALL : *vcpu;
  ok();
}

// ---------------------------------------------------------------------------------------------------- registers

CpuState Stub::state() {
  CpuState now;
  now.registers = target_.registers(general_);
  target_.fpu_state(general_, now.fx);
  return now;
}

// Only what changed: setting registers ends a halt.
void Stub::put_state(const CpuState& changed) {
  const CpuState now = state();
  bool registers = false, fpu = false;
  u8 a[16], b[16];
  for (u32 n = 0; n < set_.count(); ++n) {
    const u32 bytes = set_.bytes(n);
    set_.read(now, n, {a, bytes});
    set_.read(changed, n, {b, bytes});
    (set_.is_fpu(n) ? fpu : registers) |= !std::equal(a, a + bytes, b);
  }
  if (registers) target_.set_registers(general_, changed.registers);
  if (fpu) target_.set_fpu_state(general_, changed.fx);
}

void Stub::read_registers() {
  const CpuState now = state();
  std::string text;
  u8 value[16];
  for (u32 n = 0; n < set_.count(); ++n) {
    set_.read(now, n, {value, set_.bytes(n)});
    append_hex(text, {value, set_.bytes(n)});
  }
  reply(text);
}

void Stub::write_registers(std::string_view values) {
  const auto bytes = unhex(values);
  if (!bytes) return refuse(EINVAL);
  CpuState changed = state();
  size_t at = 0;
  for (u32 n = 0; n < set_.count(); ++n) {
    const u32 width = set_.bytes(n);
    if (bytes->size() - at < width) break; // a shorter packet leaves the rest alone
    if (!set_.write(changed, n, {reinterpret_cast<const u8*>(bytes->data()) + at, width})) return refuse(EINVAL);
    at += width;
  }
  put_state(changed);
  ok();
}

void Stub::read_one(Scanner packet) {
  const auto number = packet.number();
  if (!number || *number >= set_.count()) return refuse(EINVAL);
  u8 value[16];
  const u32 n = static_cast<u32>(*number);
  set_.read(state(), n, {value, set_.bytes(n)});
  reply(hex({value, set_.bytes(n)}));
}

void Stub::write_one(Scanner packet) {
  const auto number = packet.number();
  if (!number || *number >= set_.count() || !packet.skip("=")) return refuse(EINVAL);
  const u32 n = static_cast<u32>(*number);
  const auto value = unhex(packet.rest());
  if (!value || value->size() != set_.bytes(n)) return refuse(EINVAL);
  CpuState changed = state();
  if (!set_.write(changed, n, {reinterpret_cast<const u8*>(value->data()), value->size()})) return refuse(EPERM);
  put_state(changed);
  ok();
}

// ---------------------------------------------------------------------------------------------------- memory

std::optional<u64> Stub::address_of(u64 linear) {
  return physical_ ? std::optional(linear) : target_.physical(general_, linear);
}

void Stub::read_memory(Scanner packet) {
  const auto address = packet.number();
  if (!address || !packet.skip(",")) return refuse(EINVAL);
  const auto length = packet.number();
  if (!length) return refuse(EINVAL);
  const u64 wanted = std::min<u64>(*length, MAX_PACKET / 2);
  std::string text;
  u8 page[PAGE_SIZE];
  for (u64 done = 0; done < wanted;) {
    const u64 at = *address + done;
    const u64 bytes = std::min(wanted - done, PAGE_SIZE - at % PAGE_SIZE);
    const auto gpa = address_of(at);
    if (!gpa || !target_.read_memory(*gpa, {page, bytes})) break; // what there is in front of the hole
    append_hex(text, {page, bytes});
    done += bytes;
  }
  if (text.empty() && wanted != 0) return refuse(EFAULT);
  reply(text);
}

void Stub::write_memory(Scanner packet, bool binary) {
  const auto address = packet.number();
  if (!address || !packet.skip(",")) return refuse(EINVAL);
  const auto length = packet.number();
  if (!length || !packet.skip(":")) return refuse(EINVAL);
  const auto data = binary ? std::optional(std::string(packet.rest())) : unhex(packet.rest());
  if (!data || data->size() != *length) return refuse(EINVAL);
  for (u64 done = 0; done < data->size();) {
    const u64 at = *address + done;
    const u64 bytes = std::min(data->size() - done, PAGE_SIZE - at % PAGE_SIZE);
    const auto gpa = address_of(at);
    if (!gpa || !target_.write_memory(*gpa, {reinterpret_cast<const u8*>(data->data()) + done, bytes}))
      return refuse(EFAULT);
    done += bytes;
  }
  ok();
}

// Z0 and Z1 are one and the same: neither writes to the guest's memory. Watchpoints are not there.
void Stub::breakpoint(Scanner packet, bool insert) {
  const u8 kind = packet.skip("0,") ? SOFTWARE : packet.skip("1,") ? HARDWARE : 0;
  if (kind == 0) return reply("");
  const auto address = packet.number();
  if (!address || !packet.skip(",")) return refuse(EINVAL);
  if (insert) {
    const size_t most = std::min<size_t>(MAX_BREAKPOINTS, target_.breakpoint_limit());
    if (breakpoints_.size() >= most && breakpoints_.count(*address) == 0) return refuse(ENOSPC);
    breakpoints_[*address] |= kind;
  } else if (const auto at = breakpoints_.find(*address); at != breakpoints_.end()) {
    at->second = static_cast<u8>(at->second & ~kind);
    if (at->second == 0) breakpoints_.erase(at);
  }
  ok();
}

// ---------------------------------------------------------------------------------------------------- going on

// c s C S: "[signal;][address]". Signals mean nothing to a processor.
void Stub::go_on(Scanner packet, Action action, bool with_signal) {
  if (with_signal) packet.until(';');
  // Stepping one vCPU leaves the others where they are; continuing one alone is what Hc asks for.
  const u32 chosen = continue_ == ALL ? general_ : continue_;
  if (!packet.done()) {
    const auto address = packet.number();
    VcpuRegisters r = target_.registers(chosen);
    if (!address || !write_pc(r, *address)) return refuse(EINVAL);
    target_.set_registers(chosen, r);
  }
  const bool all = action == Action::go_on && continue_ == ALL;
  std::vector<Action> actions(target_.vcpus(), all ? action : Action::stand);
  actions[chosen] = action;
  resume(std::move(actions));
}

// vCont;ACTION[:THREAD];…: for each vCPU the first action that names it, or names nobody.
void Stub::continue_as(Scanner packet) {
  std::vector<Action> actions(target_.vcpus(), Action::stand);
  std::vector<bool> chosen(target_.vcpus(), false);
  while (!packet.done()) {
    Scanner one(packet.until(';'));
    const std::string_view verb = one.until(':');
    const char letter = verb.empty() ? 0 : verb[0];
    if (letter != 'c' && letter != 'C' && letter != 's' && letter != 'S') return refuse(EINVAL);
    const Action action = letter == 'c' || letter == 'C' ? Action::go_on : Action::step;
    const bool all = one.done() || one.rest() == "-1";
    const auto vcpu = all ? std::optional<u32>(0) : thread(one.rest());
    if (!vcpu) return refuse(ESRCH);
    for (u32 v = all ? 0 : *vcpu; v < (all ? target_.vcpus() : *vcpu + 1); ++v)
      if (!chosen[v]) {
        actions[v] = action;
        chosen[v] = true;
      }
  }
  if (std::all_of(actions.begin(), actions.end(), [](Action a) { return a == Action::stand; })) return refuse(EINVAL);
  resume(std::move(actions));
}

void Stub::resume(std::vector<Action> actions) {
  actions_ = std::move(actions);
  // Several may have stopped at once, and the client has heard of one: the others' turn.
  while (const auto vcpu = target_.take_stop()) untold_.insert(*vcpu);
  for (auto at = untold_.begin(); at != untold_.end();) {
    const u32 vcpu = *at;
    at = actions_[vcpu] == Action::stand ? std::next(at) : untold_.erase(at);
    if (actions_[vcpu] == Action::go_on && at_breakpoint(vcpu)) return report(vcpu);
  }
  std::vector<u64> addresses;
  for (const auto& [address, kinds] : breakpoints_) addresses.push_back(address);
  running_ = true;
  target_.resume(actions_, addresses);
}

void Stub::stopped() {
  if (!running_ || ended_) return;
  target_.stand();
  if (const auto vcpu = target_.take_stop()) return report(*vcpu);
  running_ = false; // nobody had stopped after all
  resume(actions_);
}

void Stub::interrupt() {
  if (!running_) return;
  target_.stand();
  running_ = false;
  if (const auto vcpu = target_.take_stop()) return report(*vcpu); // it came first
  stop_reply_ = fmt::format("T{:02x}thread:{:x};", SIGNAL_INT, general_ + 1);
  reply(stop_reply_);
}

bool Stub::at_breakpoint(u32 vcpu, u8* kinds) {
  const auto at = breakpoints_.find(linear_pc(target_.registers(vcpu)));
  if (at == breakpoints_.end()) return false;
  if (kinds != nullptr) *kinds = at->second;
  return true;
}

void Stub::report(u32 vcpu) {
  running_ = false;
  general_ = vcpu;
  u8 kinds = 0;
  const bool hit = actions_[vcpu] == Action::go_on && at_breakpoint(vcpu, &kinds);
  // Behind a segment base gdb would look for the breakpoint at RIP, find none, and go on without a word.
  const VcpuRegisters r = target_.registers(vcpu);
  const char* why = !hit || !tells_breakpoints_ || r.rip != linear_pc(r) ? ""
                    : kinds & SOFTWARE                                   ? "swbreak:;"
                                                                         : "hwbreak:;";
  stop_reply_ = fmt::format("T{:02x}{}thread:{:x};", SIGNAL_TRAP, why, vcpu + 1);
  reply(stop_reply_);
}

} // namespace transom::gdb
