// Instructions per second of the software CPU on three loops in 64-bit mode with 4 KiB pages.
#include <cstdio>
#include <time.h>

#include "hypervisor/vcpu/soft/test_machine.hpp"

using namespace transom;
using namespace transom::soft;

namespace {

// Time this thread spent on a processor: other load on the machine does not count.
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void measure(const char* engine, const char* name, u64 iterations, std::initializer_list<int> loop) {
  SoftOptions options;
  if (engine == std::string("jit")) options.engine = SoftEngine::translate;
  TestMachine m(options);
  m.code(loop);
  m.start_64();
  m.set_gpr(RCX, iterations);
  m.set_gpr(RSI, TestMachine::DATA);
  m.set_gpr(RDI, TestMachine::DATA + 0x8000);
  const u64 before = instructions_executed(m.vcpu.cpu());
  const double start = cpu_seconds();
  const bool halted = m.run();
  const double seconds = cpu_seconds() - start;
  const double executed = static_cast<double>(instructions_executed(m.vcpu.cpu()) - before);
  std::printf("%-6s %-36s %8.1f MIPS  (%.0f instructions, %.3f s%s)\n", engine, name, executed / seconds / 1e6,
              executed, seconds, halted ? "" : ", did not halt");
}

} // namespace

int main() {
  for (const char* engine : {"interp", "jit"}) {
    // dec rcx; jnz
    measure(engine, "tight dec/jnz", 100'000'000, {0x48, 0xff, 0xc9, 0x75, 0xfb, 0xf4});
    // add rax,rbx; xor rdx,rax; shl rbx,1; lea r8,[rax+rdx]; sub r9,r8; and rax,r9; or rbx,1; mov r10,rax; imul
    // r11,r10; dec rcx; jnz
    measure(
        engine, "integer ALU, 11 instructions", 10'000'000,
        {0x48, 0x01, 0xd8, 0x48, 0x31, 0xc2, 0x48, 0xd1, 0xe3, 0x4c, 0x8d, 0x04, 0x10, 0x4d, 0x29, 0xc1, 0x4c, 0x21,
         0xc8, 0x48, 0x83, 0xcb, 0x01, 0x49, 0x89, 0xc2, 0x4d, 0x0f, 0xaf, 0xda, 0x48, 0xff, 0xc9, 0x75, 0xdd, 0xf4});
    // mov rax,[rsi]; mov [rdi],rax; mov rdx,[rsi+8]; mov [rdi+8],rdx; dec rcx; jnz
    measure(engine, "copy loop mov/mov", 20'000'000, {0x48, 0x8b, 0x06, 0x48, 0x89, 0x07, 0x48, 0x8b, 0x56, 0x08,
                                                      0x48, 0x89, 0x57, 0x08, 0x48, 0xff, 0xc9, 0x75, 0xed, 0xf4});
    // loop: call f; add [rdi],rax; cmp rax,5; je next; next: dec rcx; jnz loop; hlt;  f: push rbx; mov rbx,[rsi]; inc
    // rbx; pop rbx; ret
    measure(engine, "mixed call/ret/push/jcc/RMW", 10'000'000,
            {0xe8, 0x0f, 0x00, 0x00, 0x00, 0x48, 0x01, 0x07, 0x48, 0x83, 0xf8, 0x05, 0x74, 0x00, 0x48,
             0xff, 0xc9, 0x75, 0xed, 0xf4, 0x53, 0x48, 0x8b, 0x1e, 0x48, 0xff, 0xc3, 0x5b, 0xc3});
  }
  return 0;
}
