// IN OUT INS OUTS, and the flags and states that decide when interrupts come: CLI STI HLT.
#include <type_traits>

#include "hypervisor/vcpu/soft/dispatch.hpp"
#include "hypervisor/vcpu/soft/handlers_system.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"
#include "hypervisor/vcpu/soft/string_ops.hpp"

namespace transom::soft {

namespace {

// Behind a call of the platform. A port access may have changed the memory map (A20, PAM), asked for a reset (CF9h) or
// raised an interrupt: then the block ends here, and none of its other instructions runs before that is served.
const Insn* after_exit(Cpu& cpu, const Insn* i) {
  cpu.blocks->after_exit(cpu);
  const bool asked = cpu.exit_flag->load(std::memory_order_relaxed) != 0;
  if (!asked && !(cpu.leave & LEAVE_ASKED) && !cpu.blocks->flush_pending()) return next(cpu, i);
  const u64 rip = next_rip(cpu);
  retire(cpu, i);
  return enter_slow(cpu, rip);
}

void watched(Cpu& cpu, u16 port, unsigned width) {
  if (cpu.dr[7] & 0xff) [[unlikely]]
    watch_port(cpu, port, width);
}

template <class T, bool Immediate>
const Insn* in(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u16 port = Immediate ? static_cast<u8>(i->imm) : static_cast<u16>(cpu.gpr[RDX]);
  check_io_permission(cpu, port, sizeof(T));
  watched(cpu, port, sizeof(T));
  set_reg<T>(cpu, RAX, static_cast<T>(cpu.platform->pio_read(port, sizeof(T))));
  return after_exit(cpu, i);
}
template <class T, bool Immediate>
const Insn* out(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u16 port = Immediate ? static_cast<u8>(i->imm) : static_cast<u16>(cpu.gpr[RDX]);
  check_io_permission(cpu, port, sizeof(T));
  watched(cpu, port, sizeof(T));
  cpu.platform->pio_write(port, sizeof(T), reg<T>(cpu, RAX));
  return after_exit(cpu, i);
}

template <class T, bool In>
void one_element(Cpu& cpu, const Insn* i, u16 port) {
  watched(cpu, port, sizeof(T));
  if constexpr (In) {
    const u64 linear = segment_address(cpu, ES, cpu.gpr[RDI] & address_mask(i), sizeof(T), true);
    probe(cpu, linear, sizeof(T), Access::write, user_mode(cpu)); // before the device gives its data away
    const T value = static_cast<T>(cpu.platform->pio_read(port, sizeof(T)));
    cpu.blocks->after_exit(cpu);
    write_linear<T>(cpu, linear, value);
  } else {
    cpu.platform->pio_write(port, sizeof(T), read<T>(cpu, i->segment, cpu.gpr[RSI] & address_mask(i)));
  }
}

// One platform call for what lies in one page of guest RAM. 0: not RAM, or an element crosses.
template <class T, bool In>
u64 run_of_elements(Cpu& cpu, const Insn* i, u16 port, u64 count) {
  const unsigned segment = In ? unsigned{ES} : i->segment;
  const u64 offset = cpu.gpr[In ? RDI : RSI] & address_mask(i);
  const Run run = page_run(cpu, i, segment, offset, sizeof(T), count, In);
  if (run.count == 0) return 0;
  const TlbInfo page = resolve(cpu, run.linear, In ? Access::write : Access::read, user_mode(cpu));
  if (page.ram_page == ~u64{0} || (In ? page.host_write : page.host_read) == nullptr) return 0;
  const unsigned at = run.linear % PAGE_SIZE;
  if constexpr (In) {
    const unsigned bytes = static_cast<unsigned>(run.count * sizeof(T));
    cpu.blocks->wrote(cpu, page.ram_page, backward(cpu) ? at + static_cast<unsigned>(sizeof(T)) - bytes : at, bytes);
  }
  cpu.platform->pio_run({port, sizeof(T), In, backward(cpu), static_cast<u32>(run.count), page.gpa | at});
  return run.count;
}

template <class T, bool In, bool Rep>
const Insn* string_io(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  const u16 port = static_cast<u16>(cpu.gpr[RDX]);
  check_io_permission(cpu, port, sizeof(T));
  constexpr unsigned pointer = In ? RDI : RSI;
  if constexpr (!Rep) {
    one_element<T, In>(cpu, i, port);
    advance(cpu, i, pointer, step(cpu, sizeof(T)));
    return after_exit(cpu, i);
  }
  for (;;) {
    const u64 count = cpu.gpr[RCX] & address_mask(i);
    if (count == 0) return after_exit(cpu, i);
    const bool stepping = (cpu.rflags & FLAG_TF) != 0 || cpu.tlb == cpu.slow_tlb;
    u64 done = stepping ? 0 : run_of_elements<T, In>(cpu, i, port, count);
    if (done == 0) {
      one_element<T, In>(cpu, i, port);
      done = 1;
    }
    advance(cpu, i, pointer, step(cpu, sizeof(T)) * done);
    advance(cpu, i, RCX, ~done + 1);
    if (done == count) return after_exit(cpu, i);
    if (interrupted(cpu)) return resume_later(cpu, i);
  }
}

// SDM volume 2, CLI and STI (without VME and PVI).
bool may_change_if(const Cpu& cpu) { return real_mode(cpu) || (vm86(cpu) ? 3u : cpu.cpl) <= (cpu.rflags >> 12 & 3); }
void cli(Cpu& cpu, const Insn&) {
  if (!may_change_if(cpu)) raise(cpu, GP, 0);
  cpu.rflags &= ~FLAG_IF;
}
// No interrupt comes before the next instruction is done. In the middle of a block nobody looks before that.
const Insn* sti(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  if (!may_change_if(cpu)) raise(cpu, GP, 0);
  if (cpu.rflags & FLAG_IF) return next(cpu, i);
  cpu.rflags |= FLAG_IF;
  const bool middle = i[1].length != 0;
  if (cpu.quiet && middle) return next(cpu, i);
  cpu.interrupt_shadow = true;
  cpu.leave = LEAVE_ASKED;
  const u64 rip = next_rip(cpu);
  retire(cpu, i);
  return enter_slow(cpu, rip);
}
void hlt(Cpu& cpu, const Insn&) {
  if (cpu.cpl != 0) raise(cpu, GP, 0);
  cpu.halted = true;
  cpu.leave = LEAVE_ASKED;
}

Handler pick_port(unsigned size, bool is_in, bool immediate) {
  return by_number<3>(size == 1   ? 0
                      : size == 2 ? 1
                                  : 2,
                      [&]<unsigned N>() -> Handler {
                        using T = std::conditional_t<N == 0, u8, std::conditional_t<N == 1, u16, u32>>;
                        if (is_in) return immediate ? in<T, true> : in<T, false>;
                        return immediate ? out<T, true> : out<T, false>;
                      });
}
Handler pick_string(unsigned size, bool is_in, bool rep) {
  return by_number<3>(size == 1   ? 0
                      : size == 2 ? 1
                                  : 2,
                      [&]<unsigned N>() -> Handler {
                        using T = std::conditional_t<N == 0, u8, std::conditional_t<N == 1, u16, u32>>;
                        if (is_in) return rep ? string_io<T, true, true> : string_io<T, true, false>;
                        return rep ? string_io<T, false, true> : string_io<T, false, false>;
                      });
}

} // namespace

// The turn is given up right here: SeaBIOS frees its lock, pauses and takes it again.
const Insn* spin_hint(Cpu& cpu, const Insn* i) {
  cpu.current = i;
  cpu.platform->pause();
  return after_exit(cpu, i);
}

Selection select_io(const Decoded& d) {
  if (d.lock) return {};
  const unsigned size = d.opcode & 1 ? (d.osz == 2 ? 2 : 4) : 1;
  Selection s;
  if ((d.opcode & 0xf0) == 0x60)
    s.handler = pick_string(size, (d.opcode & 2) == 0, d.rep || d.repne);
  else
    s.handler = pick_port(size, (d.opcode & 2) == 0, (d.opcode & 8) == 0);
  return s;
}

Selection select_control(const Decoded& d) {
  if (d.lock) return {};
  Selection s;
  switch (d.opcode) {
    case 0xf4:
      s.handler = ends<hlt>;
      s.ends = true;
      break;
    case 0xfa: s.handler = simple<cli>; break;
    default: s.handler = sti; break;
  }
  return s;
}

} // namespace transom::soft
