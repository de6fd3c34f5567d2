#include "hypervisor/vcpu/soft/jit/compiler.hpp"

#include <algorithm>
#include <cstring>

#include "hypervisor/vcpu/soft/jit/checker.hpp"
#include "hypervisor/vcpu/soft/jit/layout.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

using namespace asmjit;
using Kind = Effects::Kind;
using Again = FlagState::Again;

BlockCompiler::BlockCompiler(Cpu& cpu, Translator& translator, Translation& translation)
    : cpu_(cpu),
      translator_(translator),
      translation_(translation),
      block_(*translation.block),
      long_((block_.mode & MODE_64) != 0),
      user_((block_.mode & MODE_USER) != 0) {}

bool BlockCompiler::compile() {
  if (!decode_all()) return false;
  if (translator_.checker_ != nullptr) translator_.checker_->prepare(translation_, {d_, count_});
  analyse();
  if (e_[0].kind == Kind::leave) return false;
  code_.init(Environment::host());
  code_.setErrorHandler(&errors_);
  code_.attach(&a);
  code_.newSection(&cold_, "cold", 4);
  use_borrowed(false);
  if (block_.second != ~u64{0}) check_second_page();
  find_borrows();
  if (!borrows_.empty()) borrow();
  bool inside = true;
  for (unsigned k = 0; k < count_ && inside;) {
    if (e_[k].kind == Kind::none) {
      k += call_handlers(k);
      continue;
    }
    prepare(k);
    inside = instruction(k++);
  }
  k_ = count_ - 1;
  if (inside) go_to(translation_.rip + block_.bytes, counted_[count_], false);
  finish_exits();
  finish_slow_paths();
  return place();
}

// From the bytes once more: records do not say everything. They may have changed since the block was made; then the
// block is about to be dropped.
bool BlockCompiler::decode_all() {
  const u8* const page = phys_page(cpu_, block_.gpa).read;
  if (page == nullptr) return false;
  count_ = block_.count;
  unsigned at = 0;
  for (unsigned k = 0; k < count_; ++k) {
    const unsigned in_page = static_cast<unsigned>(block_.gpa % PAGE_SIZE) + at;
    const unsigned available = std::min(static_cast<unsigned>(PAGE_SIZE) - in_page, 16u);
    u8 bytes[32];
    std::memcpy(bytes, page + in_page, available);
    unsigned more = 0;
    if (block_.second != ~u64{0}) { // one instruction on two pages
      const u8* const second = phys_page(cpu_, block_.second).read;
      if (second == nullptr) return false;
      std::memcpy(bytes + available, second, 16);
      more = 16;
    }
    d_[k] = decode(bytes, available + more, block_.mode);
    if (d_[k].status != DecodeStatus::ok) { // what raises #UD is its handler's business
      if (block_.insns()[k].length == 0) return false;
      d_[k] = {};
      d_[k].length = block_.insns()[k].length;
      d_[k].selection.ends = true;
      d_[k].opcode = 0x0b;
      d_[k].map = MAP_0F; // UD2
    }
    if (d_[k].length != block_.insns()[k].length) return false;
    offset_[k] = static_cast<u16>(at);
    at += d_[k].length;
  }
  offset_[count_] = static_cast<u16>(at);
  return at == block_.bytes;
}

void BlockCompiler::analyse() {
  counted_[0] = 0;
  for (unsigned k = 0; k < count_; ++k) {
    e_[k] = effects_of(d_[k]);
    if ((e_[k].kind == Kind::jcc || ((e_[k].kind == Kind::jump || e_[k].kind == Kind::call) && !d_[k].has_modrm)) &&
        long_ && !canonical(translation_.rip + offset_[k] + d_[k].length + d_[k].imm))
      e_[k] = {d_[k].selection.ends ? Kind::leave : Kind::none, false, 0, 0, 0};
    if (e_[k].kind == Kind::sti && k + 1 == count_) e_[k] = {}; // the shadow reaches beyond the block
    if (e_[k].kind == Kind::repeat_string && translator_.checker_ != nullptr) e_[k] = {}; // it notes no ranges
    counted_[k + 1] = static_cast<u8>(counted_[k] + (e_[k].kind != Kind::none));
  }
  find_groups();
  bool need = true, read = false;
  for (unsigned k = count_; k-- > 0;) {
    needed_[k] = need;
    read_[k] = read;
    const Effects& e = e_[k];
    const bool by_itself = e.kind == Kind::none || e.kind == Kind::leave;
    const bool looks = e.memory || by_itself || e.reads != 0 || e.kind == Kind::jump || e.kind == Kind::jcc;
    const bool kills = e.writes == SET_ALL;
    need = looks || (need && !kills);
    read = !by_itself && (e.reads != 0 || (read && !kills));
  }
}

// Sees to it that the flags of before survive as far as they have to.
void BlockCompiler::prepare(unsigned k) {
  k_ = k;
  const Effects& e = e_[k];
  if (e.kind == Kind::none || e.kind == Kind::leave || e.kind == Kind::call || e.kind == Kind::ret ||
      e.kind == Kind::jump)
    return;
  FlagState& s = flags_;
  const bool kills = e.writes == SET_ALL, after = needed_[k] && !kills;
  bool lost = false;
  for (unsigned n = 0; n < 16; ++n) lost |= (e.registers >> n & 1) && s.uses(n);
  const auto save = [&] {
    save_flags(s);
    s.memory = true;
  };
  if (e.memory) {
    const bool cheap = s.again == Again::compare || s.again == Again::test || s.again == Again::logic;
    const bool used = e.reads != 0 || (read_[k] && !kills);
    const bool keep = s.again != Again::no && !(lost && after) && (cheap || !used);
    if (!s.memory && !keep) save();
    s.host = false;
  } else if (lost && after && !s.host && !s.memory) {
    save();
  }
}

bool BlockCompiler::instruction(unsigned k) {
  const Decoded& d = d_[k];
  const Effects& e = e_[k];
  slow_.reset();
  plain_exit_.reset();
  FlagState before = flags_;
  before.host = false;
  const XmmState xmm_before = xmm_;
  const bool borrowed = borrowed_;
  const FlagState::Again again = flags_.again;
  bool inside = true;
  flags_set_ = false;
  switch (e.kind) {
    case Kind::none: break;
    case Kind::leave: leave_to(k); return false;
    case Kind::nop: break;
    case Kind::mov: mov(d); break;
    case Kind::extend: extend(d); break;
    case Kind::lea: lea(d); break;
    case Kind::alu: alu(d); break;
    case Kind::test: test(d); break;
    case Kind::inc_dec:
    case Kind::neg:
    case Kind::not_: unary(d); break;
    case Kind::shift: shift(d); break;
    case Kind::double_shift: double_shift(d); break;
    case Kind::imul: imul(d); break;
    case Kind::mul: mul(d); break;
    case Kind::bit: bit(d); break;
    case Kind::scan:
    case Kind::popcnt: scan(d); break;
    case Kind::bswap: bswap(d); break;
    case Kind::xchg: xchg(d); break;
    case Kind::cmpxchg: cmpxchg(d); break;
    case Kind::xadd: xadd(d); break;
    case Kind::cmov: cmov(d); break;
    case Kind::setcc: setcc(d); break;
    case Kind::widen:
    case Kind::widen_pair: widen(d); break;
    case Kind::carry: carry(d); break;
    case Kind::cli: cli(d); break;
    case Kind::sti: sti(d); break;
    case Kind::pushf: pushf(d); break;
    case Kind::popf: popf(d); break;
    case Kind::repeat_string: repeat_string(d); break;
    case Kind::push: push(d); break;
    case Kind::pop: pop(d); break;
    case Kind::leave_frame: leave_frame(d); break;
    case Kind::jcc: jcc(d); break;
    case Kind::sse: sse(d); break;
    case Kind::jump:
      jump(d);
      inside = false;
      break;
    case Kind::call:
      call(d);
      inside = false;
      break;
    case Kind::ret:
      ret(d);
      inside = false;
      break;
  }
  if (!flags_set_ && again != Again::no)
    for (unsigned n = 0; n < 16; ++n)
      if ((e.registers >> n & 1) && flags_.uses(n)) flags_.again = Again::no;
  if (slow_) {
    if (!inside) before = slow_flags_; // saved on the way
    const Label back = a.newLabel();
    a.bind(back);
    slow_paths_.push_back(
        {*slow_, back, before, flags_, inside ? xmm_before : XmmState{}, xmm_, k, mxcsr_loaded_, borrowed && inside});
  }
  return inside;
}

u32 BlockCompiler::step_site(unsigned k, bool fp) {
  translator_.steps_.push_back({&translation_, static_cast<u16>(k), counted_[k], d_[k].direct_branch(), fp});
  return static_cast<u32>(translator_.steps_.size() - 1);
}

// Nothing that it does is of interest before the next instruction runs: it neither stores, which may change the code
// behind it, nor leaves the CPU.
static bool keeps_to_registers(const Decoded& d) {
  if (d.map == MAP_ONE) {
    if ((d.opcode & 0xf8) != 0xd8) return false;
    return !d.memory() || !(d.opcode & 1) || (d.modrm >> 3 & 7) == 0; // x87: arithmetic, FLD, FILD
  }
  const bool stack =
      d.opcode == 0xa0 || d.opcode == 0xa1 || d.opcode == 0xa8 || d.opcode == 0xa9; // PUSH, POP of FS, GS
  const bool masked_store = d.opcode == 0xf7;
  return !d.memory() && !(d.map == MAP_0F && (stack || masked_store));
}

// Of this instruction and of those behind it that have no template either.
unsigned BlockCompiler::call_handlers(unsigned k) {
  unsigned count = 1;
  while (k + count < count_ && e_[k + count].kind == Kind::none && keeps_to_registers(d_[k + count - 1])) ++count;
  save_flags(flags_);
  flags_ = {};
  xmm_write_back(xmm_);
  xmm_ = {};
  mxcsr_loaded_ = false;
  if (borrowed_) give_back();
  a.mov(x86::rax, reinterpret_cast<u64>(translator_.add_run(translation_, k, count, counted_[k])));
  a.call(x86::ptr(x86::rsp, at::RUN_HANDLERS, 8));
  if (borrowed_) borrow_again();
  return count;
}

// Whoever jumps here has looked at the first page alone.
void BlockCompiler::check_second_page() {
  const u64 linear = (translation_.rip & PAGE_MASK) + PAGE_SIZE;
  const Label again = a.newLabel();
  a.long_().mov(x86::rax, code_tag(linear, block_.ram[1]));
  a.cmp(x86::ptr(x86::rsp, at::code_tag_slot(user_, linear), 8), x86::rax);
  a.jne(again);
  a.section(cold_);
  a.bind(again);
  translator_.exits_.push_back({translation_.rip, nullptr, nullptr, false});
  a.mov(x86::eax, static_cast<u32>(translator_.exits_.size() - 1));
  a.jmp(x86::ptr(x86::rsp, at::RESOLVE, 8));
  a.section(code_.textSection());
}

// The interpreter counts a block's instructions when it leaves it, all of them.
void BlockCompiler::leave_to(unsigned k) {
  save_flags(flags_);
  xmm_write_back(xmm_);
  if (borrowed_) give_back();
  count(counted_[k]);
  a.sub(x86::qword_ptr(x86::rsp, at::INTERPRETED), k);
  immediate64(x86::rax, translation_.rip);
  a.mov(slot(REG_RIP), x86::rax);
  a.mov(x86::rax, reinterpret_cast<u64>(block_.insns() + k));
  a.jmp(x86::ptr(x86::rsp, at::LEAVE, 8));
}

void BlockCompiler::finish_slow_paths() {
  a.section(cold_);
  for (const SlowPath& s : slow_paths_) {
    use_borrowed(s.borrowed);
    a.bind(s.entry);
    save_flags(s.before);
    xmm_write_back(s.xmm_before);
    if (borrowed_) give_back();
    a.mov(x86::eax, step_site(s.index, s.fp));
    a.call(x86::ptr(x86::rsp, at::STEP, 8));
    if (borrowed_) borrow_again();
    xmm_reload(s.xmm_after);
    if (s.after.host) make_flags(FlagState{});
    a.jmp(s.back);
  }
}

// Writes the code to its place and tells the translator where it can be patched.
bool BlockCompiler::place() {
  // The exit to its own address, for whoever comes when the block is no more.
  const std::size_t dead = a.offset();
  translator_.exits_.push_back({translation_.rip, nullptr, nullptr, false});
  const std::size_t dead_site = translator_.exits_.size() - 1;
  a.mov(x86::eax, static_cast<u32>(dead_site));
  a.jmp(x86::ptr(x86::rsp, at::RESOLVE, 8));

  CodeArena& arena = translator_.arena_;
  arena.hot.used = (arena.hot.used + 15) / 16 * 16;
  const u8* const hot = arena.next(arena.hot);
  const u8* const cold = arena.next(arena.cold);
  cold_->setOffset(static_cast<u64>(cold - hot));
  const u64 hot_bytes = code_.textSection()->bufferSize(), cold_bytes = cold_->bufferSize();
  if (errors_.failed || code_.resolveUnresolvedLinks() != kErrorOk || hot_bytes > arena.left(arena.hot) ||
      cold_bytes > arena.left(arena.cold))
    return false;
  std::memcpy(arena.writable(hot), code_.textSection()->data(), hot_bytes);
  std::memcpy(arena.writable(cold), cold_->data(), cold_bytes);
  arena.hot.used += hot_bytes;
  arena.cold.used += cold_bytes;
  translation_.entry = hot;
  translation_.dead = cold + dead;
  translation_.bytes = static_cast<u32>(hot_bytes);
  for (const Patch& p : patches_) {
    u8* const at = arena.writable(hot + p.at);
    (p.tag ? translator_.exits_[p.exit].tag : translator_.exits_[p.exit].jump) = at;
  }
  translator_.exits_[dead_site].jump = arena.writable(hot) + 1; // once drop() has put a jump there
  return true;
}

} // namespace transom::soft
