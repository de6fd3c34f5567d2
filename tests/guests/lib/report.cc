#include "tests/guests/lib/report.hpp"

u32 boot_magic, boot_info;

namespace {
u32 checks, failures;
const char* part_name;

// The Multiboot command line holds the word "KEY=VALUE"; any value if there is none given.
bool chosen(const char* key, const char* value) {
  if (boot_magic != 0x2badb002 || !(at<u32>(boot_info) & 4)) return false;
  const char* text = reinterpret_cast<const char*>(static_cast<word>(at<u32>(boot_info + 16)));
  for (; *text != 0; ++text) {
    const char* t = text;
    const char* k = key;
    while (*k != 0 && *t == *k) ++t, ++k;
    if (*k != 0) continue;
    const char* v = value;
    while (*v != 0 && *t == *v) ++t, ++v;
    if (*v == 0 && (*value == 0 || *t == 0 || *t == ' ')) return true;
  }
  return false;
}

void print_failure(const char* what) {
  ++failures;
  print("FAILED: ");
  if (part_name != nullptr) print(part_name), print(": ");
  print(what);
}
} // namespace

bool asked_for(const char* what) { return chosen(what, ""); }

void print(const char* text) {
  const char* end = text;
  while (*end != 0) ++end;
  word count = static_cast<word>(end - text);
  asm volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(0xe9) : "memory");
}

void print_number(u64 value, u32 base) {
  char digits[72];
  char* at = digits + sizeof digits - 1;
  *at = 0;
  if (base == 16) {
    do *--at = "0123456789abcdef"[value & 15];
    while ((value >>= 4) != 0);
    *--at = 'x', *--at = '0';
  } else {
    word small = static_cast<word>(value);
    do *--at = static_cast<char>('0' + small % 10);
    while ((small /= 10) != 0);
  }
  print(at);
}

bool check(bool holds, const char* what) {
  ++checks;
  if (holds) return true;
  print_failure(what), print("\n");
  return false;
}

bool check_equal(u64 got, u64 expected, const char* what) {
  ++checks;
  if (got == expected) return true;
  print_failure(what), print(": got "), print_number(got, 16), print(", expected ");
  print_number(expected, 16), print("\n");
  return false;
}

void expect(const char* counter, u64 value) {
  print("expect "), print(counter), print(" "), print_number(value), print("\n");
}

void finish() {
  print_number(checks), print(" checks, "), print_number(failures), print(" failures\n");
  out32(0xf4, failures == 0 && checks != 0 ? PASSED : FAILED);
  for (;;) asm volatile("cli; hlt");
}

void die(const char* why) {
  print_failure(why), print("\nthe guest gives up\n");
  finish();
}

void run_part(const Part& part) {
  if (chosen("skip=", part.name) || (chosen("only=", "") && !chosen("only=", part.name))) return;
  part_name = part.name;
  print("part "), print(part.name), print("\n");
  part.run();
  part_name = nullptr;
}

// What compilers call on their own.
extern "C" void* memset(void* to, int value, word bytes) {
  void* start = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
  return start;
}
extern "C" void* memcpy(void* to, const void* from, word bytes) {
  void* start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
  return start;
}
