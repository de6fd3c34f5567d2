// A device copies new code over code that has just run, 100,000 times, and then a flag; the guest polls the flag
// without interrupts. What runs is always the new code.
#include "tests/guests/lib/mmio_test.hpp"

namespace {

constexpr u64 ROUNDS = 100'000;
// mov eax, N; ret — at the end of a page, the flag at the start of the next.
constexpr u64 SOURCE = 0x600ff0, TARGET = 0x700ff0, FLAG = 16, LENGTH = 24;

u32 call(u64 address) {
  u32 result;
  asm volatile("call *%1" : "=a"(result) : "r"(address) : "memory", "rcx", "rdx", "cc");
  return result;
}

// The same from within what is being replaced, with the jump between old and new code that SDM 3A 8.1.3 asks for:
//   mov [rdi], eax (starts the copy); jmp $+2; mov eax, N; ret
constexpr u64 IN_LINE_SOURCE = 0x800100, IN_LINE_TARGET = 0x900100;
u32 call_in_line(u64 command) {
  u32 result = 0;
  asm volatile("call *%2" : "+a"(result) : "D"(command), "r"(IN_LINE_TARGET) : "memory", "rcx", "rdx", "cc");
  return result;
}

} // namespace

void guest_main() {
  at<u8>(SOURCE) = 0xb8;
  at<u8>(SOURCE + 5) = 0xc3;
  mmio0.reg(TestDevice::DMA_SOURCE) = SOURCE;
  mmio0.reg(TestDevice::DMA_TARGET) = TARGET;
  mmio0.reg(TestDevice::DMA_LENGTH) = LENGTH;
  u64 stale = 0;
  for (u32 round = 1; round <= ROUNDS; ++round) {
    const u32 value = round * 0x9e3779b1u;
    for (u32 i = 0; i < 4; ++i) at<u8>(SOURCE + 1 + i) = static_cast<u8>(value >> 8 * i);
    at<u32>(SOURCE + FLAG) = round;
    mmio0.reg<u32>(TestDevice::DMA_COMMAND) = 1;
    if (!wait_until([&] { return at<u32>(TARGET + FLAG) == round; })) die("the flag does not come");
    if (call(TARGET) != value) ++stale;
  }
  check_equal(stale, 0, "100,000 times the new code runs");
  check_equal(mmio0.reg(TestDevice::DMA_COMMAND), 0, "the last copy succeeded");

  const u8 code[] = {0x89, 0x07, 0xeb, 0x00, 0xb8, 0, 0, 0, 0, 0xc3};
  for (u32 i = 0; i < sizeof code; ++i) {
    at<u8>(IN_LINE_SOURCE + i) = code[i];
    at<u8>(IN_LINE_TARGET + i) = code[i];
  }
  mmio0.reg(TestDevice::DMA_SOURCE) = IN_LINE_SOURCE;
  mmio0.reg(TestDevice::DMA_TARGET) = IN_LINE_TARGET;
  mmio0.reg(TestDevice::DMA_LENGTH) = sizeof code;
  stale = 0;
  for (u32 round = 1; round <= 2000; ++round) {
    for (u32 i = 0; i < 4; ++i) at<u8>(IN_LINE_SOURCE + 5 + i) = static_cast<u8>(round >> 8 * i);
    if (call_in_line(mmio0.base + TestDevice::DMA_COMMAND) != round) ++stale;
  }
  check_equal(stale, 0, "code that starts the copy over itself jumps to the new bytes");
}
