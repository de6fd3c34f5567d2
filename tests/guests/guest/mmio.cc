// Memory-mapped registers of every width, straddling accesses, and posted writes.
#include "tests/guests/lib/mmio_test.hpp"

namespace {

constexpr u64 PATTERN = 0x8877665544332211;

template <class T>
void width_by_width(const char* what) {
  const u64 mask = sizeof(T) == 8 ? ~u64{0} : (u64{1} << sizeof(T) * 8 % 64) - 1;
  for (u64 offset = 0; offset < 16; ++offset) { // aligned, unaligned, over the border of a register
    mmio0.reg(0) = PATTERN;
    mmio0.reg(8) = ~PATTERN;
    u8 shadow[24] = {};
    for (u32 i = 0; i < 8; ++i) {
      shadow[i] = static_cast<u8>(PATTERN >> 8 * i), shadow[8 + i] = static_cast<u8>(~PATTERN >> 8 * i);
    }
    mmio0.reg(16) = 0;
    u64 expected = 0;
    for (u32 i = 0; i < sizeof(T); ++i) expected |= u64{shadow[offset + i]} << 8 * i;
    check_equal(mmio0.reg<T>(offset), expected, what);
    const u64 value = 0xf1e2d3c4b5a69788 + offset;
    mmio0.reg<T>(offset) = static_cast<T>(value);
    for (u32 i = 0; i < sizeof(T); ++i) shadow[offset + i] = static_cast<u8>(value >> 8 * i);
    for (u32 r = 0; r < 24; r += 8) {
      u64 whole = 0;
      for (u32 i = 0; i < 8; ++i) whole |= u64{shadow[r + i]} << 8 * i;
      check_equal(mmio0.reg(r), whole, what);
    }
    check_equal(mmio0.reg<T>(offset), value & mask, what);
  }
}

void the_edges() {
  check_equal(mmio0.reg(TestDevice::ID), 0x545345544f494d4d, "the device is there");
  mmio0.reg(TestDevice::ID) = 0;
  check_equal(mmio0.reg(TestDevice::ID), 0x545345544f494d4d, "a read-only register stays");
  check_equal(at<u32>(0xd0100000), 0xffffffff, "an unclaimed read is all ones");
  at<u32>(0xd0100000) = 5;
  check_equal(at<u32>(mmio0.base + 0xffe), 0xffff0000, "a read over the region's end has ones beyond it");
  check_equal(at<u16>(mmio0.base - 1), 0x11ff, "a read that begins before the region has ones there");
}

// Instructions that read and write in one go, and string moves.
void instructions() {
  volatile u32& r = mmio0.reg<u32>(0x20);
  r = 7;
  asm volatile("addl $5, %0" : "+m"(r));
  check_equal(r, 12, "add to memory");
  u32 x = 99;
  asm volatile("xchgl %0, %1" : "+r"(x), "+m"(r));
  check(x == 12 && r == 99, "xchg with memory");
  asm volatile("lock; incl %0" : "+m"(r));
  check_equal(r, 100, "a locked increment");
  asm volatile("btsl $3, %0" : "+m"(r));
  check_equal(r, 100 | 8, "bit test and set");
  u64 buffer[4] = {1, 2, 3, 4};
  const void* from = buffer;
  u64 to = mmio0.base + 0x40, count = 4;
  asm volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
  check(mmio0.reg(0x40) == 1 && mmio0.reg(0x58) == 4, "rep movsq into the device");
  u64 back[4] = {};
  u64 source = mmio0.base + 0x40;
  void* target = back;
  count = 4;
  asm volatile("rep movsq" : "+S"(source), "+D"(target), "+c"(count) : : "memory");
  check(back[0] == 1 && back[1] == 2 && back[2] == 3 && back[3] == 4, "rep movsq out of the device");
}

void posted_writes() {
  const u64 writes = mmio0.reg(TestDevice::WRITES), rings = mmio0.reg(TestDevice::RINGS);
  u64 posted = 0;
  for (u64 round = 0; round < 100; ++round) { // far more records than the ring holds
    for (u64 word = 0; word < 8; ++word, ++posted) mmio0.reg(TestDevice::POSTED + 8 * word) = round << 8 | word;
    if (round % 10 != 0) continue;
    mmio0.reg(TestDevice::DOORBELL) = round;
    ++posted;
    for (u64 word = 0; word < 8; ++word)
      check_equal(mmio0.reg(TestDevice::POSTED + 8 * word), round << 8 | word,
                  "a posted write is there at the next read");
  }
  for (u64 i = 0; i < 1000; ++i, ++posted) mmio0.reg(TestDevice::POSTED) = i;
  check_equal(mmio0.reg(TestDevice::POSTED), 999, "posted writes arrive in order: the last one counts");
  check_equal(mmio0.reg(TestDevice::WRITES), writes + posted, "no posted write is lost or done twice");
  check_equal(mmio0.reg(TestDevice::RINGS), rings + 10, "each doorbell rang once");
  mmio0.reg<u8>(TestDevice::POSTED + 1) = 0xab, ++posted;
  check_equal(mmio0.reg(TestDevice::POSTED), 0xabe7, "a narrow posted write takes its part");
  // A synchronous write comes after what was posted before it.
  mmio0.reg(TestDevice::POSTED + 8) = 1, ++posted;
  mmio0.reg(0) = 42;
  check_equal(mmio0.reg(0), 42, "a synchronous write behind a posted one");
  expect("mmio0.posted", posted);
}

} // namespace

void guest_main() {
  width_by_width<u8>("8-bit accesses");
  width_by_width<u16>("16-bit accesses");
  width_by_width<u32>("32-bit accesses");
  width_by_width<u64>("64-bit accesses");
  mmio0.reg(0) = 0x11;
  the_edges();
  instructions();
  posted_writes();
}
