#include "tests/cpu/native_runner.hpp"

#include <asm/ldt.h>
#include <cerrno>
#include <cstring>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

namespace transom::cpu_test {

namespace {

// Selectors of Linux user mode (arch/x86/include/asm/segment.h: __USER_CS, __USER32_CS, __USER_DS).
constexpr u64 USER_CS = 0x33, USER32_CS = 0x23, USER_DS = 0x2b;

const Case* volatile running = nullptr; // null: the next trap starts a case
const Case* volatile starting = nullptr;
Outcome* volatile result = nullptr;
volatile unsigned ticks = 0; // of the timer, since the case began

constexpr unsigned SOFT_TICKS = 200; // 10 s

gregset_t home; // where native_run() goes on
alignas(16) u8 home_fp[512];

// The order of Intel's encoding in the order of the signal frame.
constexpr int GREG[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                          REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

u8* fp_image(ucontext_t* context) { return reinterpret_cast<u8*>(context->uc_mcontext.fpregs); }

void put_fp(ucontext_t* context, const void* image) {
  u8* const frame = fp_image(context);
  // Bytes 464 and up belong to the kernel (magic of the extended area); behind the legacy area comes XSTATE_BV.
  std::memcpy(frame, image, 416);
  u64 bits;
  std::memcpy(&bits, frame + 512, 8);
  bits |= 3;
  std::memcpy(frame + 512, &bits, 8);
}

void start(ucontext_t* context) {
  const Case& c = *starting;
  std::memcpy(home, context->uc_mcontext.gregs, sizeof home);
  std::memcpy(home_fp, fp_image(context), 512);
  greg_t* const g = context->uc_mcontext.gregs;
  for (unsigned n = 0; n < 16; ++n) g[GREG[n]] = static_cast<greg_t>(c.initial.gpr[n]);
  g[REG_RIP] = static_cast<greg_t>(c.initial.rip);
  g[REG_EFL] = static_cast<greg_t>(c.initial.rflags);
  const u64 cs = c.mode == Mode::bits64 ? USER_CS : c.mode == Mode::bits32 ? USER32_CS : LDT_CODE;
  const u64 ss = c.mode == Mode::bits16 ? LDT_DATA : USER_DS;
  g[REG_CSGSFS] = static_cast<greg_t>(cs | ss << 48);
  put_fp(context, &c.initial.fx);
  running = &c;
}

void finish(ucontext_t* context) {
  Outcome& o = *result;
  const greg_t* const g = context->uc_mcontext.gregs;
  for (unsigned n = 0; n < 16; ++n) o.state.gpr[n] = static_cast<u64>(g[GREG[n]]);
  o.state.rip = static_cast<u64>(g[REG_RIP]);
  o.state.rflags = static_cast<u64>(g[REG_EFL]);
  std::memcpy(static_cast<void*>(&o.state.fx), fp_image(context), 512);
  o.vector = static_cast<int>(g[REG_TRAPNO]);
  o.error = static_cast<u32>(g[REG_ERR]);
  o.cr2 = static_cast<u64>(g[REG_CR2]);
  if (o.vector == 3) --o.state.rip; // to the INT3
  std::memcpy(context->uc_mcontext.gregs, home, sizeof home);
  put_fp(context, home_fp);
  running = nullptr;
}

void on_signal(int number, siginfo_t*, void* raw) {
  asm volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" ::: "memory", "cc"); // the case may have set AC
  ucontext_t* const context = static_cast<ucontext_t*>(raw);
  if (number == SIGVTALRM) {
    ticks = ticks + 1;
    if (ticks > SOFT_TICKS) _exit(HANGS); // not `running`: the software CPU
    if (running == nullptr || ticks < 3) return;
    finish(context);
    result->vector = HUNG;
    return;
  }
  if (running != nullptr) return finish(context);
  if (number == SIGTRAP && starting != nullptr) return start(context);
  signal(number, SIG_DFL); // a fault of our own
}

// The same memory at its address and at the one above 4 GiB.
bool map_twice(u64 address, u64 size, int protection, std::string& reason) {
  const int memory = memfd_create("cpu_fuzz", MFD_CLOEXEC);
  bool mapped = memory >= 0 && ftruncate(memory, static_cast<off_t>(size)) == 0;
  for (const u64 at : {address, HIGH + address}) {
    void* const wanted = reinterpret_cast<void*>(at);
    const int flags = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE;
    mapped = mapped && mmap(wanted, size, protection, flags, memory, 0) == wanted;
  }
  if (!mapped) reason = "cannot map the test area at its fixed address: " + std::string(std::strerror(errno));
  if (memory >= 0) close(memory);
  return mapped;
}

void load_data_segments(u64 selector) { // 64-bit code does not care; compatibility mode needs usable ones
  asm volatile("movl %0, %%ds\n\tmovl %0, %%es" ::"r"(static_cast<u32>(selector)));
}

bool set_ldt(u16 selector, u64 base, u64 bytes, bool code) {
  user_desc d{};
  d.entry_number = selector >> 3;
  d.base_addr = static_cast<unsigned>(base);
  d.limit = static_cast<unsigned>(bytes - 1);
  d.seg_32bit = !code;
  d.contents = code ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA;
  return syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0;
}

} // namespace

bool native_setup(std::string& reason) {
  if (!map_twice(CODE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, reason)) return false;
  if (!map_twice(DATA, DATA_SIZE, PROT_READ | PROT_WRITE, reason)) return false;
  static u8 signal_stack[256 * 1024];
  stack_t stack{};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof signal_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int number : {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGVTALRM}) sigaction(number, &action, nullptr);
  // A case that never ends is stopped by the third tick.
  const itimerval tick{{0, 50'000}, {0, 50'000}};
  setitimer(ITIMER_VIRTUAL, &tick, nullptr);
  std::memset(reinterpret_cast<void*>(CODE), 0xcc, CODE_SIZE);
  std::memcpy(reinterpret_cast<void*>(DATA), arena_pattern().data(), DATA_SIZE);
  for (const u64 at : {DATA, HIGH + DATA})
    mprotect(reinterpret_cast<void*>(at + DATA_WRITABLE), DATA_SIZE - DATA_WRITABLE, PROT_READ);
  load_data_segments(USER_DS);
  return true;
}

void native_run(const Case& c, Outcome& outcome) {
  u8* const code = reinterpret_cast<u8*>(c.start);
  u8* const data = reinterpret_cast<u8*>(DATA);
  std::memcpy(code, c.code.data(), c.code_size);
  fill_arena(c, data);
  ticks = 0;
  // NT and ID are not the signal frame's to change: they stay as the last case left them.
  asm volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandl $~0x204000, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::
                   : "memory", "cc");
  if (c.mode == Mode::bits16) load_data_segments(LDT_DATA);
  starting = &c;
  result = &outcome;
  asm volatile("int3" ::: "memory");
  starting = nullptr;
  if (c.mode == Mode::bits16) load_data_segments(USER_DS);
  outcome.wrote_code = std::memcmp(code, c.code.data(), c.code_size) != 0;
  std::memset(reinterpret_cast<u8*>(CODE), 0xcc, CODE_SIZE);
  outcome.data.assign(data, data + DATA_WRITABLE);
}

bool native_occupies(u64 address) {
  const u64 low = address & ~HIGH;
  if (low >= DATA && low < CODE + CODE_SIZE) return false;
  std::FILE* const maps = std::fopen("/proc/self/maps", "r");
  if (maps == nullptr) return false;
  char line[512];
  bool found = false;
  while (!found && std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long long first = 0, end = 0;
    if (std::sscanf(line, "%llx-%llx", &first, &end) == 2) found = address >= first && address < end;
  }
  std::fclose(maps);
  return found;
}

bool native_has_bits16() {
  return set_ldt(LDT_CODE, CODE, CODE_SIZE, true) && set_ldt(LDT_DATA, DATA, DATA_SIZE, false);
}

bool native_has_bits32() {
  Case c;
  c.mode = Mode::bits32;
  c.initial.rip = c.start;
  c.code[0] = 0x40; // INC EAX: a REX prefix in 64-bit mode
  c.code_size = 1;
  Outcome o;
  native_run(c, o);
  return o.vector == 3 && o.state.gpr[0] == 1;
}

} // namespace transom::cpu_test
