// What the checker says about a difference. Numbers are hexadecimal and byte lists are C++, for a test of its own.
#include <cstring>
#include <fmt/format.h>
#include <iterator>

#include "hypervisor/vcpu/soft/jit/checker.hpp"
#include "hypervisor/vcpu/soft/paging.hpp"

namespace transom::soft {

namespace {

constexpr const char* NAMES[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                 "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

class Report {
 public:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, static_cast<Args&&>(args)...);
    text_ += '\n';
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string bytes(const u8* from, std::size_t count) {
  std::string text = "{";
  for (std::size_t n = 0; n < count; ++n) text += fmt::format("{}{:#04x}", n == 0 ? "" : ", ", from[n]);
  return text + "}";
}

// Translated code knows where memory is in the host; the TLB knows which page that is.
std::string linear(const Cpu& cpu, bool user, const u8* host) {
  for (u64 n = 0; n < TLB_ENTRIES; ++n) {
    const TlbEntry& e = cpu.tlbs[user].entry[n];
    const u64 offset = reinterpret_cast<u64>(host) - e.host;
    if (offset >= PAGE_SIZE) continue;
    for (const u64 tag : {e.write, e.read})
      if ((tag >> PAGE_SHIFT) % TLB_ENTRIES == n) return fmt::format("{:#x}", (tag & PAGE_MASK) + offset);
  }
  return fmt::format("(host {})", fmt::ptr(host));
}

void code(Report& r, Cpu& cpu, const CheckedRun& run, const Block& copy, const Insn* insns) {
  r.line("  block at rip {:#x}, physical {:#x}, mode {:#x} ({}-bit{}), {} instructions; here [{}, {}) from rip {:#x}",
         run.translation->rip, copy.gpa, copy.mode, copy.mode & MODE_64 ? 64 : 32,
         copy.mode & MODE_USER ? ", user" : "", copy.count, run.first, run.end,
         run.translation->rip + insns[run.first].offset);
  for (unsigned n = run.first; n < run.end; ++n) {
    u8 code[16];
    unsigned length = 0;
    for (u64 at = insns[n].offset; at < insns[n + 1].offset && length < sizeof code; ++at) {
      const u64 offset = copy.gpa % PAGE_SIZE + at;
      const u8* const page = phys_page(cpu, offset < PAGE_SIZE ? copy.gpa : copy.second).read;
      if (page != nullptr) code[length++] = page[offset % PAGE_SIZE];
    }
    r.line("    code {}", bytes(code, length));
  }
}

void before(Report& r, const Cpu& cpu, const CheckedState& s) {
  r.line("  before:");
  for (unsigned n = 0; n < 16; n += 4)
    r.line("    {}={:#x} {}={:#x} {}={:#x} {}={:#x}", NAMES[n], s.gpr[n], NAMES[n + 1], s.gpr[n + 1], NAMES[n + 2],
           s.gpr[n + 2], NAMES[n + 3], s.gpr[n + 3]);
  r.line("    rflags={:#x} fs.base={:#x} gs.base={:#x} mxcsr={:#x} sse={} cr0={:#x} cr4={:#x}", s.rflags,
         cpu.segment[FS].base, cpu.segment[GS].base, s.fx.mxcsr, cpu.sse_allowed, cpu.cr0, cpu.cr4);
  static constexpr u8 ZERO[16] = {};
  for (unsigned n = 0; n < 16; ++n)
    if (std::memcmp(s.fx.xmm[n], ZERO, 16) != 0) r.line("    xmm{} {}", n, bytes(s.fx.xmm[n], 16));
}

void difference(Report& r, const char* what, u64 translated, u64 interpreted) {
  if (translated != interpreted) r.line("    {} {:#x} | {:#x}", what, translated, interpreted);
}

void after(Report& r, const CheckedState& a, const CheckedState& b) {
  r.line("  after: translated | interpreted");
  for (unsigned n = 0; n < 16; ++n) difference(r, NAMES[n], a.gpr[n], b.gpr[n]);
  difference(r, "rip", a.rip, b.rip);
  difference(r, "rflags", a.rflags, b.rflags);
  difference(r, "mxcsr", a.fx.mxcsr, b.fx.mxcsr);
  for (unsigned n = 0; n < 16; ++n)
    if (std::memcmp(a.fx.xmm[n], b.fx.xmm[n], 16) != 0)
      r.line("    xmm{} {} | {}", n, bytes(a.fx.xmm[n], 16), bytes(b.fx.xmm[n], 16));
  for (unsigned n = 0; n < 8; ++n)
    if (std::memcmp(a.fx.st[n], b.fx.st[n], 16) != 0)
      r.line("    x87 register {} {} | {}", n, bytes(a.fx.st[n], 10), bytes(b.fx.st[n], 10));
}

} // namespace

std::string describe(Cpu& cpu, const CheckedRun& run, std::span<const JournalEntry> journal) {
  const Block& copy = *reinterpret_cast<const Block*>(run.translation->records.data());
  const Insn* const insns = const_cast<Block&>(copy).insns();
  const bool user = (copy.mode & MODE_USER) != 0;
  Report r;
  std::string what;
  for (const std::string& c : run.complaints) what += (what.empty() ? "" : ", ") + c;
  r.line("soft:check: translated code and the interpreter differ at rip {:#x}: {}",
         run.translation->rip + insns[run.first].offset, what);
  code(r, cpu, run, copy, insns);
  before(r, cpu, run.before);
  r.line("  memory as translated code found it, in its order:");
  for (const JournalEntry& e : journal)
    r.line("    {} {} {}", e.store() ? "store to" : "load from", linear(cpu, user, e.at), bytes(e.before, e.size()));
  after(r, run.translated, run.interpreted);
  for (const CheckedStore& s : run.stores)
    if (std::memcmp(s.translated, s.interpreted, s.size) != 0)
      r.line("    memory {} {} | {}", linear(cpu, user, s.at), bytes(s.translated, s.size),
             bytes(s.interpreted, s.size));
  return r.take();
}

} // namespace transom::soft
